"""A whole build, timed once."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from ls3dw.building.bench.material import repeat_videos
from ls3dw.building.bench.stages import Row
from ls3dw.building.options import SAMPLE, BuildOptions
from ls3dw.building.pipeline import Build
from ls3dw.building.prepare import Chunk
from ls3dw.sources import LS3DW

BUILD_SECONDS: Final = 8.0
"""How long the build may take, about, on a CPU: it takes as many faces of the sample as fit."""

CPU_FACES: Final = (1, 48)
"""Of each source, at least and at most: no source of the sample has more that matter."""

GPU_VIDEOS: Final = 64
"""Copies of the sample's videos, 48 frames each, that a GPU builds from: enough to see more than its start."""

STEADY: Final = "build, from its first to its last faces"
BUILD: Final = "build, with its start and its end"


def time_build(options: BuildOptions, face_seconds: float | None) -> tuple[list[Row], int]:
    """Build from the embedded sample, its videos many times over for a GPU, and count faces.

    options: all but the source, which lies beside `out` if it has to be made; face_seconds: what the networks take for
    a face on the CPU; None: on a GPU.
    """
    if face_seconds is None:
        root = options.out.with_name("videos")
        root.mkdir()
        repeat_videos(root, GPU_VIDEOS)
        asked = replace(options, sources=("300vw",), root=root)
    else:
        asked = replace(options, sources=(SAMPLE,), limit=sample_limit(face_seconds))
    run = Build(asked)
    start = time.perf_counter()
    done: list[tuple[float, int]] = []

    def count(chunk: Chunk) -> None:
        done.append((time.perf_counter() - start, len(chunk.faces)))

    run.run(lambda plan: None, count)
    return build_rows(done, time.perf_counter() - start), sum(faces for _, faces in done)


def sample_limit(face_seconds: float) -> int:
    """Choose how many faces of each source the build takes."""
    least, most = CPU_FACES
    return min(most, max(least, round(BUILD_SECONDS / face_seconds / len(LS3DW))))


def build_rows(done: Sequence[tuple[float, int]], whole: float) -> list[Row]:
    """Give a build's rates. done: when each chunk was annotated, in seconds from the start, and its faces."""
    total = sum(faces for _, faces in done)
    rows = [_once(BUILD, whole / total)]
    (first, begun), (last, _) = min(done), max(done)
    if total > begun:
        rows.insert(0, _once(STEADY, (last - first) / (total - begun)))
    return rows


def _once(name: str, seconds: float) -> Row:
    return Row(name, 1 / seconds, 1e3 * seconds, 1e3 * seconds, 1)

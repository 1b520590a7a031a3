"""Takes faces by rank, one after the other, as long as none comes too near to one that was taken."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Stage:
    """What two frames of one video must keep. gap: frames between them; alike: they may be near-duplicates."""

    gap: int
    alike: bool


@dataclass(frozen=True)
class Faces:
    """All faces of an index as plain lists. rank: (N,) the order; medium: number of the video or picture that a face is
    of; moving: by medium, whether it is a video; node and near: see `Duplicates`."""

    ids: list[str]
    rank: NDArray[np.uint64]
    medium: list[int]
    moving: list[bool]
    frame: list[int]
    hash: list[int]
    node: list[int]
    near: Mapping[int, list[int]]


@dataclass
class Round:
    """One draw. taken: rows by bin, by rank; gap: by row, that of its stage, 0 for a still; relaxed: rows that may be
    near-duplicates within their video; skipped: row -> why it can never be drawn beside those."""

    taken: dict[str, list[int]] = field(default_factory=dict)
    gap: dict[int, int] = field(default_factory=dict)
    relaxed: set[int] = field(default_factory=set)
    skipped: dict[int, str] = field(default_factory=dict)


@dataclass
class _Taken:
    """What was taken of one medium: rows and their hashes as they came, frames in order."""

    rows: list[int] = field(default_factory=list)
    frames: list[int] = field(default_factory=list)
    hashes: list[int] = field(default_factory=list)


class _Draw:
    def __init__(self, faces: Faces, share: int, limit: int) -> None:
        self.faces = faces
        self.share = share
        self.limit = limit
        self.result = Round()
        self.by_medium: dict[int, _Taken] = {}
        self.by_node: dict[int, int] = {}

    def fill(self, rows: Iterable[int], target: int, stage: Stage, taken: list[int]) -> list[int]:
        """Take faces until there are `target`; return those that a later stage may still take."""
        waiting = []
        for row in rows:
            if len(taken) == target:
                break
            if reason := self._never(row):
                self.result.skipped[row] = reason
            elif self._too_near(row, stage):
                waiting.append(row)
            else:
                taken.append(row)
                self._take(row, stage)
        return waiting

    def _never(self, row: int) -> str:
        """Say why a face cannot be taken at any stage: its picture was, or its video has its share."""
        faces, medium, node = self.faces, self.faces.medium[row], self.faces.node[row]
        for place in (node, *faces.near.get(node, ())):
            other = self.by_node.get(place)
            if other is not None and faces.medium[other] != medium:
                return f"same picture as {faces.ids[other]}"
        own = self.by_medium.get(medium)
        if own and not faces.moving[medium]:
            return f"same picture as {faces.ids[own.rows[0]]}"
        return "its video has its share" if own and len(own.frames) >= self.share else ""

    def _too_near(self, row: int, stage: Stage) -> bool:
        own = self.by_medium.get(self.faces.medium[row])
        if own is None:
            return False
        frame, code = self.faces.frame[row], self.faces.hash[row]
        at = bisect_left(own.frames, frame)
        if any(abs(other - frame) < stage.gap for other in own.frames[max(at - 1, 0) : at + 1]):
            return True
        return not stage.alike and any((code ^ other).bit_count() <= self.limit for other in own.hashes)

    def _take(self, row: int, stage: Stage) -> None:
        medium = self.faces.medium[row]
        own = self.by_medium.setdefault(medium, _Taken())
        insort(own.frames, self.faces.frame[row])
        own.rows.append(row)
        own.hashes.append(self.faces.hash[row])
        self.by_node.setdefault(self.faces.node[row], row)
        moving = self.faces.moving[medium]
        self.result.gap[row] = stage.gap if moving else 0
        if moving and stage.alike:
            self.result.relaxed.add(row)


def draw_round(
    faces: Faces,
    bins: Mapping[str, NDArray[np.intp]],
    target: int,
    share: int,
    stages: list[Stage],
    limit: int,
) -> Round:
    """Take up to `target` faces of each bin by rank, at most `share` of one video; bins come in their order.

    A stage is left only when none of a bin's faces fits it any more, so that no near frame is taken while others
    remain. limit: bits in which near-duplicates differ at most.
    """
    draw = _Draw(faces, share, limit)
    for name, rows in bins.items():
        taken = draw.result.taken.setdefault(name, [])
        waiting = rows[np.argsort(faces.rank[rows], kind="stable")].tolist()
        for stage in stages:
            waiting = draw.fill(waiting, target, stage, taken)
            if len(taken) == target:
                break
    return draw.result

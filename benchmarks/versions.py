"""Measures an index and a diff of the full size: 114 videos and the stills, in two versions without pictures.

    python benchmarks/versions.py --faces 230000 --out DIR

Writes 1.2 GB at full size to DIR, which must not exist, and leaves it there. Memory is the peak of a process of its
own for each measurement, less what the imports take.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ls3dw.building.selection import select
from ls3dw.core.files import dump_json
from ls3dw.core.geometry import crop_affine, tight_box
from ls3dw.core.metrics import nme
from ls3dw.core.pose import mean_head
from ls3dw.dataset.index import row_groups, write_drops
from ls3dw.dataset.open import open_dataset
from ls3dw.dataset.shards import ANNOTATION_COLUMNS, encode_shard
from ls3dw.dataset.store import Store
from ls3dw.evaluation.moves import changes, compare, most_changed

SHARD = 256
STILLS = {"300w": 600, "menpo": 8979, "aflw2000": 2000}
VIDEOS = 114


@dataclass(frozen=True)
class Piece:
    """One shard. first: number of its first face in its part."""

    source: str
    subset: str
    part: str
    number: int
    faces: int

    @property
    def name(self) -> str:
        return f"{self.part}-{self.number:04d}"


def pieces(faces: int) -> Iterator[Piece]:
    """Cut the stills and long videos that fill up `faces` into shards."""
    for source, count in STILLS.items():
        yield from _cut(source, "all", "all", count)
    frames = np.full(VIDEOS, (faces - sum(STILLS.values())) // VIDEOS)
    for video, count in enumerate(frames.tolist(), start=1):
        yield from _cut("300vw", "ABC"[video % 3], f"{video:03d}", count)


def _cut(source: str, subset: str, part: str, count: int) -> Iterator[Piece]:
    for number, start in enumerate(range(0, count, SHARD)):
        yield Piece(source, subset, part, number, min(SHARD, count - start))


def write_version(store: Store, version: str, listed: list[Piece]) -> None:
    """Write annotation shards of random faces, their index and a manifest; the same faces in every version."""
    tables = [_write_shard(store, version, piece) for piece in listed]
    write_index(store, version, tables)
    write_drops(store, version, [])
    manifest: dict[str, Any]
    counts = {piece.source: {"read": 0, "written": 0, "dropped": {}} for piece in listed}
    configuration = {"data": "sources", "models": {"2d": None, "3d": None, "depth": None}, "subsets": []}
    manifest = {"version": version, "parent": None, "counts": counts, "configuration": configuration}
    manifest["files"] = []
    store.manifest_file(version).write_bytes(dump_json(manifest))


def _write_shard(store: Store, version: str, piece: Piece) -> dict[str, Any]:
    seed = [*piece.name.encode(), *piece.source.encode()]
    truth = np.random.default_rng(seed)
    noise = np.random.default_rng([*seed, *version.encode()])
    count = piece.faces
    yaw = np.clip(truth.normal(0, 30, count), -90, 90).astype(np.float32)
    points = mean_head()[:, :2] * (1, -1) * 1.0
    points = 200 + points / np.ptp(points) * truth.uniform(80, 300, (count, 1, 1))
    spread = truth.lognormal(1, 1, (count, 1, 1))
    three = np.concatenate((points, np.zeros((count, 68, 1))), axis=2)
    rows: dict[str, Any] = {
        "id": np.array([f"{piece.source}/{piece.part}/{piece.number * SHARD + n:06d}" for n in range(count)]),
        "landmarks_2d": (points + noise.normal(0, 1, points.shape) * spread).astype(np.float32),
        "landmarks_3d": (three + noise.normal(0, 2, three.shape)).astype(np.float32),
        "confidence_2d": noise.uniform(0, 1, (count, 68)).astype(np.float32),
        "confidence_3d": noise.uniform(0, 1, (count, 68)).astype(np.float32),
        "annotation": points.astype(np.float32),
        "box": tight_box(points),
        "crop": crop_affine(tight_box(points)),
        "pose": np.stack((yaw, 0 * yaw, 0 * yaw), axis=1),
        "guided": np.zeros(count, dtype=bool),
        "made_by": np.full(count, version),
    }
    rows["nme"] = nme(rows["landmarks_2d"], rows["annotation"]).astype(np.float32)
    path = store.annotations(version, piece.source, piece.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_shard(ANNOTATION_COLUMNS, rows, {}, {}))
    return {
        "id": rows["id"],
        "source": np.full(count, piece.source),
        "subset": np.full(count, piece.subset),
        "media": np.full(count, f"{piece.part}/vid.avi"),
        "frame": np.arange(count) + piece.number * SHARD + 1,
        "width": np.full(count, 640),
        "height": np.full(count, 480),
        "shard": np.full(count, piece.name),
        "row": np.arange(count),
        "yaw": yaw,
        "pitch": 0 * yaw,
        "roll": 0 * yaw,
        "nme": rows["nme"],
        "confidence": rows["confidence_3d"].mean(axis=1),
        "broken": np.zeros(count, dtype=bool),
        "made_by": rows["made_by"],
    }


def write_index(store: Store, version: str, tables: list[dict[str, Any]]) -> None:
    """Write the index as a build does: a row group a shard."""
    first = pa.table(tables[0])
    with pq.ParquetWriter(store.index_file(version), first.schema) as writer:
        for group in row_groups(pa.table(table).cast(first.schema) for table in tables):
            writer.write_table(group)


def measurements(root: Path) -> dict[str, Callable[[], Any]]:
    """What is measured: all from opening the data set on, and without opening a picture."""
    yaw = "abs(yaw) > 60 and confidence > 0.3 and not broken"

    def index() -> pd.DataFrame:
        return open_dataset(root).index

    return {
        "nothing but the imports": lambda: None,
        "open_dataset": lambda: open_dataset(root).version,
        "ds.index": index,
        "ds.index, one yaw filter": lambda: len(index().query(yaw)),
        "ds.index, counts by source and subset": lambda: index().groupby(["source", "subset"]).size(),
        "ds.index, a video's frames": lambda: len(index().query("media == '057/vid.avi'")),
        "--only failures and a subset": lambda: select(
            index(), ["failures:v1", "subset:300vw/b"], lambda version: open_dataset(root, version).index
        ).sum(),
        "diff": lambda: _diff(root),
    }


def _diff(root: Path) -> int:
    moves = compare(open_dataset(root, "v1"), open_dataset(root, "v2"))
    changes(moves)
    most_changed(moves, 12)
    return len(moves)


def measure(root: Path, name: str) -> tuple[float, float]:
    """Return seconds and MB of the peak."""
    run = measurements(root)[name]
    start = time.perf_counter()
    run()
    return time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faces", type=int, default=230_000)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    store = Store(options.out)
    options.out.mkdir(parents=True)
    listed = list(pieces(options.faces))
    for version in ("v1", "v2"):
        write_version(store, version, listed)
    store.dataset_file.write_bytes(dump_json({"format": 1, "newest": "v2", "versions": ["v1", "v2"]}))
    print(f"{sum(piece.faces for piece in listed)} faces in {len(listed)} shards, two versions")
    base = 0.0
    for name in measurements(options.out):
        # A fresh process each: memory that Python has had once it keeps.
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            seconds, peak = pool.apply(measure, (options.out, name))
        base = base or peak
        print(f"{name:<40} {seconds:>7.2f} s {peak - base:>7.0f} MB")


if __name__ == "__main__":
    main()

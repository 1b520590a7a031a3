"""Finds the origin of each picture of the published balanced set among the other pictures of a data set.

The release does not name the origins. Three tests find them, the surest first: the same bytes, the same pixels, and a
perceptual hash of the face that is nearly the same.
"""

from __future__ import annotations

import io
from collections import Counter
from dataclasses import dataclass, fields
from typing import Any, Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ls3dw.core.geometry import tight_box
from ls3dw.core.metrics import box_size
from ls3dw.core.phash import distances, nearest
from ls3dw.dataset.index import write_subset_files
from ls3dw.dataset.open import Dataset
from ls3dw.dataset.shards import Shard
from ls3dw.dataset.store import FileRecord
from ls3dw.sources.release import BALANCED, Release, is_balanced

How = Literal["bytes", "pixels", "phash", "none"]
Matches: TypeAlias = dict[int, tuple[How, NDArray[Any]]]
"""Row of the index -> how its picture was found, and the rows (M,) that are the same or the nearest."""

FARTHEST: Final = 8
"""Bits in which the hashes of one face may differ; measured in docs/reports/2026-11-22/release.md."""

SLACK: Final = 2
"""Bits that encoding again may change: among hashes this close to the nearest one, the points decide."""

DIGESTS: Final[dict[How, str]] = {"bytes": "file_sha256", "pixels": "pixels_sha256"}
"""How a picture was found -> the column with the digest that was the same, the surest first."""


@dataclass(frozen=True)
class Origin:
    """Where a picture came from.

    origin: an id, empty if none is near enough; distance: bits in which the hashes differ, -1 without candidates;
    nme: between the points of both, each in units of its box; candidates: number of pictures that were the same or
    about as near, of which the one with the nearest points was taken.
    """

    origin: str
    how: How
    distance: int
    nme: float
    candidates: int


def write_origins(dataset: Dataset) -> tuple[list[FileRecord], dict[str, int]]:
    """Write subsets/<version>/published-balanced.parquet if the published balanced set is a source; count by `How`.

    Columns: id, bin (of |yaw|, as published), and those of `Origin`.
    """
    index = dataset.index
    subsets = zip(index["source"], index["subset"], strict=True)
    balanced = np.array([source == Release.name and is_balanced(subset) for source, subset in subsets], dtype=bool)
    if not balanced.any():
        return [], {}
    chosen = index[balanced]
    origins = find_origins(dataset, np.flatnonzero(balanced), np.flatnonzero(~balanced))
    columns = {field.name: [getattr(origin, field.name) for origin in origins] for field in fields(Origin)}
    names = {"id": chosen["id"].tolist(), "bin": [subset.removeprefix(f"{BALANCED}-") for subset in chosen["subset"]]}
    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(pa.table(names | columns), buffer)
    name = f"published-{BALANCED}"
    files = write_subset_files(dataset.store, dataset.version, name, {f"{name}.parquet": buffer.getvalue()})
    return files, dict(sorted(Counter(origin.how for origin in origins).items()))


def find_origins(dataset: Dataset, rows: NDArray[np.intp], others: NDArray[np.intp]) -> list[Origin]:
    """Find the origins of the faces in `rows` among `others`, both rows of the index (N,), (M,)."""
    ids = dataset.index["id"].to_numpy()
    hashes = dataset.index["phash"].to_numpy(dtype=np.uint64)
    shapes = _in_own_box(dataset.column("annotation"))
    matches = _same_pictures(dataset, rows, others)
    matches |= _near_faces(hashes, np.array([row for row in rows if row not in matches], dtype=int), others)
    origins = []
    for row in rows:
        how, candidates = matches[int(row)]
        if not len(candidates):
            origins.append(Origin("", "none", -1, float("nan"), 0))
            continue
        errors = np.linalg.norm(shapes[candidates] - shapes[row], axis=2).mean(axis=1)
        # Candidates without points come last.
        best = int(np.where(np.isnan(errors), np.inf, errors).argmin())
        distance = int(distances(hashes[[row]], hashes[candidates[[best]]])[0, 0])
        if how == "phash" and distance > FARTHEST:
            how = "none"
        origin = "" if how == "none" else str(ids[candidates[best]])
        origins.append(Origin(origin, how, distance, float(errors[best]), len(candidates)))
    return origins


def _same_pictures(dataset: Dataset, rows: NDArray[Any], others: NDArray[Any]) -> Matches:
    """Match each row with other rows that have the same bytes or pixels."""
    found: Matches = {}
    for how, name in DIGESTS.items():
        known = _digests(dataset, name)
        places: dict[bytes, list[int]] = {}
        for other in others:
            if other in known:
                places.setdefault(known[other], []).append(int(other))
        for row in map(int, rows):
            if row not in found and known.get(row) in places:
                found[row] = how, np.array(places[known[row]])
    return found


def _digests(dataset: Dataset, name: str) -> dict[int, bytes]:
    """Read a digest of the pictures by row of the index; not every source has it."""
    found: dict[int, bytes] = {}
    for (source, shard), part in dataset.index.groupby(["source", "shard"], sort=False):
        with Shard(dataset.store.faces(str(source), str(shard)), dataset.store.root) as faces:
            if name in faces.extras:
                values = faces.take(f"extra/{name}", part["row"].to_numpy())
                found |= {int(row): value.tobytes() for row, value in zip(part.index, values, strict=True)}
    return found


def _near_faces(hashes: NDArray[np.uint64], rows: NDArray[Any], others: NDArray[Any]) -> Matches:
    """Match each row with the others whose hashes are nearest, however far."""
    if not len(others):
        return {int(row): ("phash", np.empty(0, dtype=int)) for row in rows}
    # Many frames of a video share a hash: compare each hash once.
    kinds, kind_of, counts = np.unique(hashes[others], return_inverse=True, return_counts=True)
    members = np.split(others[np.argsort(kind_of, kind="stable")], np.cumsum(counts)[:-1])
    return {
        int(row): ("phash", np.sort(np.concatenate([members[kind] for kind in closest])))
        for row, closest in zip(rows, nearest(hashes[rows], kinds, SLACK), strict=True)
    }


def _in_own_box(points: NDArray[Any]) -> NDArray[np.float64]:
    """Return points (N, 68, 2) relative to their box: independent of the picture's scale."""
    boxes = tight_box(points.astype(np.float64))
    shapes: NDArray[np.float64] = (points - boxes[:, None, :2]) / box_size(boxes)[:, None, None]
    return shapes

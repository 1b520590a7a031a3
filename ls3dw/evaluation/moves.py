"""Compares two versions of a data set: how far faces moved, and whether toward the sources' own points."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from ls3dw.core.markup import GROUPS
from ls3dw.core.metrics import FAILURE, box_size, point_errors
from ls3dw.core.sample import Floats
from ls3dw.dataset.open import Dataset
from ls3dw.dataset.shards import Shard
from ls3dw.errors import DatasetError
from ls3dw.evaluation.scores import groups

if TYPE_CHECKING:
    import pandas as pd

MOVED: Final = 0.25
"""A face counts as moved if its points moved by more than this on average, in pixels of the 256-pixel crop."""


@dataclass(frozen=True)
class Moves:
    """How far the faces that two versions share moved: N rows in the order of the first version's index.

    index: of the first version; nme_before, nme_after: NaN if the source has no points; moved_2d, moved_3d, moved_z:
    mean distance of the 68 points in pixels of the crop, z NaN without depth in both; share: mean of 2D and 3D points
    as a fraction of sqrt(w h) of the box; parts: by landmark group; only_before, only_after: number of faces that the
    other version does not have.
    """

    before: str
    after: str
    index: pd.DataFrame
    nme_before: Floats
    nme_after: Floats
    moved_2d: Floats
    moved_3d: Floats
    moved_z: Floats
    share: Floats
    parts: list[PartMove]
    only_before: int
    only_after: int

    def __len__(self) -> int:
        return len(self.index)

    @property
    def moved(self) -> Floats:
        """The mean distance of a face's 2D and 3D points (N,), pixels of the crop."""
        return ((self.moved_2d + self.moved_3d) / 2).astype(np.float32)


@dataclass(frozen=True)
class PartMove:
    """How far one landmark group moved on average. moved: faces; the rest: crop pixels, and fractions of the box."""

    name: str
    moved: int
    mean_2d: float
    mean_3d: float
    nme_before: float | None
    nme_after: float | None


@dataclass(frozen=True)
class Change:
    """A row of the table. Distances in pixels of the crop, share and NME as fractions, the rest counts faces.

    better, worse: by NME against the source's own points; failures: NME above 7 %.
    """

    group: str
    name: str
    faces: int
    moved: int
    mean: float
    median: float
    highest: float
    mean_2d: float
    mean_3d: float
    share: float
    compared: int
    nme_before: float | None
    nme_after: float | None
    better: int
    worse: int
    failures_before: int
    failures_after: int


def compare(before: Dataset, after: Dataset, threshold: float = MOVED) -> Moves:
    """Compare two versions of one data set, shard by shard: only a few numbers per face stay in memory."""
    shards, other = _shards(before), _shards(after)
    keys = [key for key in shards if key in other]
    if not keys:
        raise DatasetError(f"{before.store.root}: versions {before.version} and {after.version} share no face")
    rows = np.concatenate([shards[key] for key in keys])
    totals, columns = _PartTotals(threshold), []
    for source, shard in keys:
        pair = _read_pair(before, after, source, shard)
        columns.append(_moves(pair))
        totals.add(pair)
    joined = {name: np.concatenate([part[name] for part in columns]).astype(np.float32) for name in columns[0]}
    return Moves(
        before=before.version,
        after=after.version,
        index=before.index.iloc[rows].reset_index(drop=True),
        parts=totals.parts(),
        only_before=len(before.index) - len(rows),
        only_after=len(after.index) - len(rows),
        **joined,
    )


def _shards(dataset: Dataset) -> dict[tuple[str, str], NDArray[np.int64]]:
    """Return the rows of the index in each shard, by source and shard."""
    found: Any = dataset.index.groupby(["source", "shard"], sort=False).indices
    return {(str(source), str(shard)): rows for (source, shard), rows in found.items()}


@dataclass(frozen=True)
class _Pair:
    """One shard of both versions. zoom: (N,) crop pixels per image pixel; kind: of the source's points, 2d or 3d."""

    before: dict[str, NDArray[Any]]
    after: dict[str, NDArray[Any]]
    zoom: NDArray[np.float64]
    kind: str

    def distances(self, name: str) -> NDArray[np.float64]:
        """Return how far each point moved: (N, 68), pixels of the image."""
        return point_errors(self.before[name][..., :2], self.after[name][..., :2])

    def errors(self, side: dict[str, NDArray[Any]]) -> NDArray[np.float64]:
        """Return the distance of each point to the source's own (N, 68), as a fraction of the box; NaN without."""
        predicted = side["landmarks_2d"] if self.kind == "2d" else side["landmarks_3d"][..., :2]
        size = box_size(side["box"])  # the tight box of the source's points, as for the NME of a face
        return np.asarray(point_errors(predicted, side["annotation"]) / size[:, None])


_COLUMNS: Final = ("id", "landmarks_2d", "landmarks_3d", "annotation", "box", "crop", "nme")


def _read_pair(before: Dataset, after: Dataset, source: str, shard: str) -> _Pair:
    sides = []
    for dataset in (before, after):
        with Shard(dataset.store.annotations(dataset.version, source, shard), dataset.store.root) as file:
            sides.append({name: file.column(name) for name in _COLUMNS})
    first, second = sides
    if not np.array_equal(first["id"], second["id"]):
        raise DatasetError(f"{source}/{shard}: the versions have other faces in it; run ls3dw verify on both")
    zoom = np.sqrt(np.abs(np.linalg.det(first["crop"][..., :2])))
    return _Pair(first, second, zoom, before.annotation_kind(source) or "2d")


def _moves(pair: _Pair) -> dict[str, NDArray[Any]]:
    points_2d, points_3d = (pair.distances(name).mean(axis=1) for name in ("landmarks_2d", "landmarks_3d"))
    depth = np.abs(pair.before["landmarks_3d"][..., 2] - pair.after["landmarks_3d"][..., 2]).mean(axis=1)
    return {
        "nme_before": pair.before["nme"],
        "nme_after": pair.after["nme"],
        "moved_2d": points_2d * pair.zoom,
        "moved_3d": points_3d * pair.zoom,
        "moved_z": depth * pair.zoom,
        "share": (points_2d + points_3d) / 2 / box_size(pair.before["box"]),
    }


class _PartTotals:
    """Sums over the faces of all shards, by landmark group."""

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold
        self._faces = self._compared = 0
        self._moved = np.zeros(len(GROUPS), dtype=np.int64)
        self._sums = np.zeros((4, len(GROUPS)))

    def add(self, pair: _Pair) -> None:
        points_2d, points_3d = (
            _by_part(pair.distances(name)) * pair.zoom[:, None] for name in ("landmarks_2d", "landmarks_3d")
        )
        errors = [_by_part(pair.errors(side)) for side in (pair.before, pair.after)]
        whole = np.isfinite(errors[0]).all(axis=1)
        self._faces += len(points_2d)
        self._compared += int(whole.sum())
        self._moved += ((points_2d + points_3d) / 2 > self._threshold).sum(axis=0)
        self._sums += [points_2d.sum(axis=0), points_3d.sum(axis=0), *(error[whole].sum(axis=0) for error in errors)]

    def parts(self) -> list[PartMove]:
        points_2d, points_3d = self._sums[:2] / self._faces
        errors = self._sums[2:] / self._compared if self._compared else None
        return [
            PartMove(
                name=name,
                moved=int(self._moved[number]),
                mean_2d=float(points_2d[number]),
                mean_3d=float(points_3d[number]),
                nme_before=None if errors is None else float(errors[0, number]),
                nme_after=None if errors is None else float(errors[1, number]),
            )
            for number, name in enumerate(GROUPS)
        ]


def _by_part(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Average points (N, 68) over each landmark group: (N, 9)."""
    return np.stack([values[:, list(members)].mean(axis=1) for members in GROUPS.values()], axis=1)


def changes(moves: Moves, threshold: float = MOVED) -> list[Change]:
    """Make the table: all faces, by source, by subset, and by the first version's yaw."""
    return [
        _change(group, name, moves, chosen, threshold) for group, name, chosen in groups(moves.index) if chosen.any()
    ]


def _change(group: str, name: str, moves: Moves, chosen: NDArray[np.bool_], threshold: float) -> Change:
    moved = moves.moved[chosen].astype(np.float64)
    before, after = (values[chosen].astype(np.float64) for values in (moves.nme_before, moves.nme_after))
    both = np.isfinite(before) & np.isfinite(after)
    before, after = before[both], after[both]
    return Change(
        group=group,
        name=name,
        faces=len(moved),
        moved=int((moved > threshold).sum()),
        mean=float(moved.mean()),
        median=float(np.median(moved)),
        highest=float(moved.max()),
        mean_2d=float(moves.moved_2d[chosen].mean(dtype=np.float64)),
        mean_3d=float(moves.moved_3d[chosen].mean(dtype=np.float64)),
        share=float(moves.share[chosen].mean(dtype=np.float64)),
        compared=len(before),
        nme_before=float(before.mean()) if len(before) else None,
        nme_after=float(after.mean()) if len(after) else None,
        better=int((after < before).sum()),
        worse=int((after > before).sum()),
        failures_before=int((before > FAILURE).sum()),
        failures_after=int((after > FAILURE).sum()),
    )


def most_changed(moves: Moves, count: int) -> dict[str, NDArray[np.int64]]:
    """Return rows of `moves` by kind of change: nearer to the source's points, farther from them, moved most.

    The largest changes come first; faces that did not change are left out; ties keep their order.
    """
    gain = moves.nme_before.astype(np.float64) - moves.nme_after
    return {
        "better": _largest(gain, count),
        "worse": _largest(-gain, count),
        "moved": _largest(moves.moved.astype(np.float64), count),
    }


def _largest(values: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    order = np.argsort(-np.nan_to_num(values, nan=-np.inf), kind="stable")[:count]
    return order[values[order] > 0]

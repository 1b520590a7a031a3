"""LS3D-W Balanced: as many faces with |yaw| in [0, 30] as in (30, 60] and (60, 90], each picture once.

Faces are taken in order of a rank that depends only on the seed and the id: the same data set gives the same faces, and
another source replaces no more than its share of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from ls3dw.core.metrics import FAILURE
from ls3dw.core.pose import UNLIKELY, YAW_BINS, yaw_bins
from ls3dw.dataset.subsets.draw import Candidates, Drawn, Spacing, draw_round
from ls3dw.dataset.subsets.duplicates import FARTHEST, NEAR, Duplicates, near_duplicates
from ls3dw.dataset.subsets.lists import need_columns
from ls3dw.dataset.subsets.origins import is_mirrored, is_video, numbered, origins
from ls3dw.dataset.subsets.ranks import ranks
from ls3dw.errors import ConfigurationError, DatasetError

if TYPE_CHECKING:
    import pandas as pd

PUBLISHED_SIZE: Final = 7200

ORIGIN_COLUMNS: Final = ("source", "subset", "media", "frame", "shard", "row", "x0", "y0", "x1", "y1", "yaw", "nme")
"""Columns of the index that are copied for drawn faces."""


@dataclass(frozen=True)
class BalancedOptions:
    """Options of the draw.

    total: number of faces, a third in each bin; seed: of the ranks; video_share: largest share of the faces from one
    video; failure, residual: largest NME and residual of the pose fit; near: largest number of bits in which
    near-duplicates differ; gap: frames between two of a video, halved while a bin runs short.
    """

    total: int = PUBLISHED_SIZE
    seed: int = 0
    video_share: float = 0.05
    failure: float = FAILURE
    residual: float = UNLIKELY
    near: int = NEAR
    gap: int = 64

    def __post_init__(self) -> None:
        faults = []
        if self.total < len(YAW_BINS) or self.total % len(YAW_BINS):
            faults.append(f"total {self.total}: expected a multiple of {len(YAW_BINS)}")
        if not 0 < self.video_share <= 1:
            faults.append(f"video share {self.video_share}: expected above 0 and at most 1")
        if not (self.failure > 0 and self.residual > 0):
            faults.append(f"failure {self.failure}, residual {self.residual}: expected above 0")
        if self.gap < 1 or not 0 <= self.near <= FARTHEST:
            faults.append(f"gap {self.gap}, near {self.near}: expected from 1, and from 0 to {FARTHEST}")
        if faults:
            raise ConfigurationError("; ".join(faults))

    def spacings(self) -> list[Spacing]:
        """The spacings to try while a bin runs short, from strict to loose: smaller gaps, then near-duplicates."""
        gaps = [self.gap]
        while gaps[-1] > 1:
            gaps.append(gaps[-1] // 2)
        return [Spacing(gap, alike) for alike in (False, True) for gap in gaps]


@dataclass(frozen=True)
class BalancedDraw:
    """Result of `draw_balanced`.

    rows: (M,) of the index, by bin and rank; bin: (M,) names; gap: (M,) required frames from others of its video, 0 for
    stills; excluded: row -> why; report: counts.
    """

    rows: NDArray[np.intp]
    bin: list[str]
    gap: NDArray[np.intp]
    excluded: dict[int, str]
    report: dict[str, Any]


def draw_balanced(index: pd.DataFrame, options: BalancedOptions) -> BalancedDraw:
    """Draw the balanced split. `DatasetError` if a bin has no face."""
    need_columns(index, "phash", "pose_residual", *ORIGIN_COLUMNS)
    excluded = _unfit(index, options)
    bins = _bins(index, set(excluded))
    empty = [name for name, rows in bins.items() if not len(rows)]
    if empty:
        raise DatasetError(f"no usable face with |yaw| in {' or '.join(empty)}: nothing can be drawn equally")
    medium, names = numbered(origins(index))
    alike = near_duplicates(index["phash"].to_numpy(dtype=np.uint64), medium, options.near)
    faces = _faces(index, options.seed, medium, names, alike)
    drawn, rounds = _equal_rounds(faces, bins, options)
    excluded |= drawn.skipped
    report = _report(index, options, bins, drawn, excluded, rounds)
    report["near-duplicates"] = _alike_report(index, alike)
    return BalancedDraw(
        rows=np.array([row for rows in drawn.taken.values() for row in rows], dtype=np.intp),
        bin=[name for name, rows in drawn.taken.items() for _ in rows],
        gap=np.array([drawn.gap[row] for rows in drawn.taken.values() for row in rows], dtype=np.intp),
        excluded=excluded,
        report=report,
    )


def _unfit(index: pd.DataFrame, options: BalancedOptions) -> dict[int, str]:
    """Return why faces cannot be drawn, by row; the first reason counts. Faces without an NME stay."""
    yaw, nme, residual = (index[name].to_numpy(dtype=np.float64) for name in ("yaw", "nme", "pose_residual"))
    reasons = (
        ("mirrored copy", np.array([is_mirrored(face) for face in index["id"]], dtype=bool)),
        ("broken frame", index["broken"].to_numpy(dtype=bool)),
        ("failure", nme > options.failure),
        ("no pose within 90 degrees", ~(np.abs(yaw) <= 90)),
        ("unlikely pose", ~(residual <= options.residual)),
    )
    unfit: dict[int, str] = {}
    for reason, faces in reasons:
        for row in np.flatnonzero(faces).tolist():
            unfit.setdefault(row, reason)
    return unfit


def _bins(index: pd.DataFrame, unfit: set[int]) -> dict[str, NDArray[np.intp]]:
    """Return the usable rows of each bin, largest yaw first: the rarest are drawn first."""
    bins = yaw_bins(index["yaw"].to_numpy(dtype=np.float64))
    usable = np.ones(len(index), dtype=bool)
    usable[list(unfit)] = False
    return {name: np.flatnonzero(usable & bins[name]) for name in reversed(YAW_BINS)}


def _faces(
    index: pd.DataFrame, seed: int, medium: NDArray[np.int64], names: list[str], alike: Duplicates
) -> Candidates:
    """Collect what the draw needs."""
    return Candidates(
        ids=index["id"].tolist(),
        rank=ranks(index["id"], seed),
        medium=medium.tolist(),
        moving=[is_video(name) for name in names],
        frame=index["frame"].tolist(),
        hash=index["phash"].to_numpy(dtype=np.uint64).tolist(),
        node=alike.node.tolist(),
        near=alike.neighbours(),
    )


def _equal_rounds(
    faces: Candidates, bins: Mapping[str, NDArray[np.intp]], options: BalancedOptions
) -> tuple[Drawn, int]:
    """Draw until all bins have the same number: a smaller total also lowers the share of a video."""
    target = min(options.total // len(bins), *map(len, bins.values()))
    rounds = 0
    while True:
        rounds += 1
        share = max(1, int(options.video_share * target * len(bins)))
        drawn = draw_round(faces, bins, target, share, options.spacings(), options.near)
        least = min(map(len, drawn.taken.values()))
        if least == target:
            return drawn, rounds
        if least == 0:
            raise DatasetError(
                "every usable face of a bin is the picture of one in another: nothing can be drawn equally"
            )
        target = least


def _report(
    index: pd.DataFrame,
    options: BalancedOptions,
    bins: Mapping[str, NDArray[np.intp]],
    drawn: Drawn,
    excluded: Mapping[int, str],
    rounds: int,
) -> dict[str, Any]:
    source = index["source"].to_numpy()
    chosen = [row for rows in drawn.taken.values() for row in rows]
    videos = Counter(f"{source[row]}/{media}" for row, media in zip(chosen, index["media"].iloc[chosen], strict=True))
    per_bin = len(chosen) // len(bins)
    return {
        "kind": "balanced",
        "options": asdict(options),
        "edges": {name: list(YAW_BINS[name]) for name in YAW_BINS},
        "drawn": len(chosen),
        "per bin": per_bin,
        "complete": len(chosen) == options.total,
        "usable": {name: len(bins[name]) for name in YAW_BINS},
        "without nme": int(np.isnan(index["nme"].to_numpy(dtype=np.float64)[chosen]).sum()),
        "sources": {name: dict(sorted(Counter(source[rows].tolist()).items())) for name, rows in drawn.taken.items()},
        "excluded": dict(sorted(Counter(reason.split(" as ")[0] for reason in excluded.values()).items())),
        "gaps": dict(sorted(Counter(str(drawn.gap[row]) for row in chosen).items())),
        "alike frames": len(drawn.relaxed),
        "largest medium": [*videos.most_common(1)[0]],
        "rounds": rounds,
    }


def _alike_report(index: pd.DataFrame, alike: Duplicates) -> dict[str, Any]:
    """Count near-duplicates by pair of sources."""
    source = index["source"].to_numpy()
    first = np.full(int(alike.node.max()) + 1, -1)
    first[alike.node[::-1]] = np.arange(len(index))[::-1]
    pairs = Counter("+".join(sorted(source[first[list(pair)]].tolist())) for pair in alike.pairs.tolist())
    return {"pairs of hashes": dict(sorted(pairs.items())), "distinct hashes": len(first), "faces": len(index)}

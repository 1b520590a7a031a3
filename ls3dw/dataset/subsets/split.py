"""Splits a data set for training: no video, picture or near-duplicate is on both sides."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from ls3dw.dataset.subsets.duplicates import FARTHEST, NEAR, near_duplicates
from ls3dw.dataset.subsets.lists import need_columns
from ls3dw.dataset.subsets.origins import numbered, origins
from ls3dw.dataset.subsets.ranks import ranks
from ls3dw.errors import ConfigurationError, DatasetError

if TYPE_CHECKING:
    import pandas as pd

OFFICIAL: Final = "300vw"
OFFICIAL_TRAINING: Final = "train"


@dataclass(frozen=True)
class SplitOptions:
    """Options of the split.

    share: of each source's faces to hold out; seed: of the choice; near: largest number of bits in which
    near-duplicates differ; official_300vw: hold out the videos of categories A, B and C instead of a share of 300-VW.
    """

    share: float = 0.1
    seed: int = 0
    near: int = NEAR
    official_300vw: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.share < 1 or not 0 <= self.near <= FARTHEST:
            raise ConfigurationError(
                f"share {self.share}, near {self.near}: expected above 0 and below 1, and from 0 to {FARTHEST}"
            )


@dataclass(frozen=True)
class Split:
    """held_out: (N,) which faces are; group: (N,) number of each face's group, never split; report: counts."""

    held_out: NDArray[np.bool_]
    group: NDArray[np.int64]
    report: dict[str, Any]


def split(index: pd.DataFrame, options: SplitOptions, same: Sequence[tuple[str, str]] = ()) -> Split:
    """Split an index by groups. same: pairs of ids of one picture; ids not in the index are ignored."""
    need_columns(index, "phash")
    if not len(index):
        raise DatasetError("no faces to split")
    group = _groups(index, options.near, same)
    order = ranks(index["id"], options.seed)
    source = index["source"].to_numpy()
    fixed = _official(index, group) if options.official_300vw else np.zeros(len(index), dtype=np.int8)
    held_out = _hold_out(group, order, source, fixed, options.share)
    sizes = np.bincount(group)
    report = {
        "kind": "split",
        "options": asdict(options),
        "faces": {"train": int((~held_out).sum()), "held-out": int(held_out.sum())},
        "held out by source": dict(sorted(Counter(source[held_out].tolist()).items())),
        "faces by source": dict(sorted(Counter(source.tolist()).items())),
        "groups": len(sizes),
        "groups of several faces": int((sizes > 1).sum()),
        "largest group": int(sizes.max()),
    }
    return Split(held_out, group, report)


def _groups(index: pd.DataFrame, near: int, same: Sequence[tuple[str, str]]) -> NDArray[np.int64]:
    """Number the groups: faces of one origin, with near hashes, or listed as the same picture."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    origin, names = numbered(origins(index))
    alike = near_duplicates(index["phash"].to_numpy(dtype=np.uint64), origin, near)
    row_of = {face: row for row, face in enumerate(index["id"])}
    listed = [(row_of[one], row_of[other]) for one, other in same if one in row_of and other in row_of]
    # One graph of faces, origins and hashes, numbered one after the other.
    faces, first_node = len(index), len(index) + len(names)
    rows = np.arange(faces)
    links = np.concatenate(
        (
            np.stack((rows, faces + origin), axis=1),
            np.stack((rows, first_node + alike.node), axis=1),
            first_node + alike.pairs,
            np.array(listed, dtype=np.int64).reshape(-1, 2),
        )
    )
    size = first_node + int(alike.node.max()) + 1
    graph = coo_matrix((np.ones(len(links), dtype=np.int8), links.T), shape=(size, size))
    _, label = connected_components(graph, directed=False)
    return np.asarray(np.unique(label[:faces], return_inverse=True)[1], dtype=np.int64)


def _official(index: pd.DataFrame, group: NDArray[np.int64]) -> NDArray[np.int8]:
    """Return for each face its side in the official split of 300-VW: 1 held out, -1 train, 0 neither.

    Everything in a group with a test video is held out, even a training video: the test set stays whole.
    """
    ours = (index["source"] == OFFICIAL).to_numpy()
    testing = ours & (index["subset"] != OFFICIAL_TRAINING).to_numpy()
    tested = np.isin(group, group[testing])
    trained = np.isin(group, group[ours]) & ~tested
    return np.asarray(tested.astype(np.int8) - trained.astype(np.int8))


def _hold_out(
    group: NDArray[np.int64],
    order: NDArray[np.uint64],
    source: NDArray[Any],
    fixed: NDArray[np.int8],
    share: float,
) -> NDArray[np.bool_]:
    """Hold out whole groups by rank while they fit into the share of their first face's source."""
    sequence = np.argsort(order, kind="stable")
    _, first = np.unique(group[sequence], return_index=True)
    sizes = np.bincount(group)
    held = np.zeros(len(sizes), dtype=bool)
    held[group[fixed > 0]] = True
    left = {name: share * count for name, count in Counter(source[fixed == 0].tolist()).items()}
    for place in np.sort(first).tolist():
        row = sequence[place]
        size = int(sizes[group[row]])
        if fixed[row] == 0 and size <= left[source[row]]:
            held[group[row]] = True
            left[source[row]] -= size
    return np.asarray(held[group])

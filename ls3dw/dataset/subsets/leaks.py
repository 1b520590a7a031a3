"""Finds what two lists of faces share: faces, videos, pictures or near-duplicates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
from numpy.typing import NDArray

from ls3dw.dataset.subsets.duplicates import NEAR, near_duplicates
from ls3dw.dataset.subsets.lists import need_columns
from ls3dw.dataset.subsets.origins import is_video, origin_of, origins

if TYPE_CHECKING:
    import pandas as pd

Kind = Literal["same face", "same video", "same picture", "near-duplicate", "listed"]

SHOWN: Final = 20


@dataclass(frozen=True)
class Leak:
    """Something on both sides.

    first, second: a face of each side, the first by id; in_first, in_second: number of faces on each side.
    """

    kind: Kind
    first: str
    second: str
    in_first: int
    in_second: int


@dataclass(frozen=True)
class Leaks:
    """found: all leaks; unhashed: number of faces without a hash, which could not be compared."""

    found: list[Leak]
    unhashed: int

    @property
    def counts(self) -> dict[str, int]:
        return dict(sorted(Counter(leak.kind for leak in self.found).items()))


def find_leaks(
    first: Sequence[str],
    second: Sequence[str],
    index: pd.DataFrame | None = None,
    near: int = NEAR,
    same: Sequence[tuple[str, str]] = (),
) -> Leaks:
    """Compare two lists of ids.

    index: of a data set with these faces: also finds videos of any source and near-duplicates; None: only what the ids
    show. same: pairs of ids of one picture.
    """
    sides = (sorted(set(first)), sorted(set(second)))
    known: dict[str, str] = {} if index is None else dict(zip(index["id"], origins(index), strict=True))
    by_origin = tuple(_by_origin(side, known) for side in sides)
    found = [
        Leak(_kind(origin, ours, theirs), ours[0], theirs[0], len(ours), len(theirs))
        for origin, ours in by_origin[0].items()
        if (theirs := by_origin[1].get(origin))
    ]
    pairs = [(one, other) for pair in same for one, other in (pair, pair[::-1])]
    members = tuple(map(set, sides))
    found += [Leak("listed", one, other, 1, 1) for one, other in pairs if one in members[0] and other in members[1]]
    if index is None:
        return Leaks(found, len(members[0] | members[1]))
    need_columns(index, "phash")
    hashes = dict(zip(index["id"], index["phash"].to_numpy(dtype=np.uint64), strict=True))
    found += _near(sides, hashes, known, near)
    return Leaks(found, sum(face not in hashes for face in members[0] | members[1]))


def _by_origin(ids: Iterable[str], known: dict[str, str]) -> dict[str, list[str]]:
    faces: dict[str, list[str]] = {}
    for face in ids:
        faces.setdefault(known.get(face) or origin_of(face), []).append(face)
    return faces


def _kind(origin: str, ours: list[str], theirs: list[str]) -> Kind:
    if is_video(origin):
        return "same video"
    return "same face" if set(ours) & set(theirs) else "same picture"


def _near(
    sides: tuple[list[str], list[str]], hashes: dict[str, np.uint64], known: dict[str, str], near: int
) -> list[Leak]:
    """Find near-duplicates across the sides, except of one origin, which are leaks already."""
    ids = [[face for face in side if face in hashes] for side in sides]
    both = ids[0] + ids[1]
    if not ids[0] or not ids[1]:
        return []
    side = np.repeat([0, 1], [len(ids[0]), len(ids[1])])
    alike = near_duplicates(np.array([hashes[face] for face in both], dtype=np.uint64), side, near)
    members = [_by_node(ids[0], alike.node, known), _by_node(ids[1], alike.node[len(ids[0]) :], known)]
    equal = np.array([(node, node) for node in members[0].keys() & members[1].keys()], dtype=np.int64)
    linked = np.concatenate((alike.pairs, alike.pairs[:, ::-1], equal.reshape(-1, 2)))
    examples: dict[tuple[str, str], tuple[str, str]] = {}
    for one, other in sorted(map(tuple, linked.tolist())):
        for ours, face in members[0].get(one, {}).items():
            for theirs, twin in members[1].get(other, {}).items():
                if ours != theirs:
                    examples.setdefault((ours, theirs), (face, twin))
    return [Leak("near-duplicate", *examples[key], 1, 1) for key in sorted(examples)]


def _by_node(ids: list[str], node: NDArray[np.int64], known: dict[str, str]) -> dict[int, dict[str, str]]:
    """Return for each hash the origins that have it, with one face of each."""
    members: dict[int, dict[str, str]] = {}
    for face, number in zip(ids, node.tolist(), strict=False):
        members.setdefault(number, {}).setdefault(known[face], face)
    return members


def render_leaks(leaks: Leaks) -> str:
    """Return the leaks as text, a line each for the first ones."""
    lines = [f"{leak.kind:<16} {leak.first}  {leak.second}  {_many(leak)}".rstrip() for leak in leaks.found[:SHOWN]]
    if len(leaks.found) > SHOWN:
        lines.append(f"... and {len(leaks.found) - SHOWN} more (--json has all)")
    if leaks.unhashed:
        lines.append(f"{leaks.unhashed} faces without a hash: near-duplicates of theirs were not looked for")
    counts = ", ".join(f"{count} {kind}" for kind, count in leaks.counts.items())
    return "\n".join([*lines, f"{len(leaks.found)} leaks" + (f": {counts}" if counts else "")])


def _many(leak: Leak) -> str:
    return f"({leak.in_first} and {leak.in_second} faces)" if leak.in_first + leak.in_second > 2 else ""

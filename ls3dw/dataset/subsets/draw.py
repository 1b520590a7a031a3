"""Draws faces by rank, leaving out those that are too similar to a drawn one."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Spacing:
    """How different two drawn frames of one video must be.

    gap: least number of frames between them; alike: whether they may be near-duplicates.
    """

    gap: int
    alike: bool


@dataclass(frozen=True)
class Candidates:
    """The faces of an index as plain lists, which a loop in Python reads several times faster than arrays.

    rank: (N,) order of drawing; medium: number of each face's video or picture; moving: by medium, whether it is a
    video; node, near: see `Duplicates`.
    """

    ids: list[str]
    rank: NDArray[np.uint64]
    medium: list[int]
    moving: list[bool]
    frame: list[int]
    hash: list[int]
    node: list[int]
    near: Mapping[int, list[int]]


@dataclass
class Drawn:
    """Result of a draw.

    taken: bin -> rows in order of rank; gap: row -> gap of its spacing, 0 for a still; relaxed: rows that may be
    near-duplicates within their video; skipped: row -> why it cannot be drawn together with the taken ones.
    """

    taken: dict[str, list[int]] = field(default_factory=dict)
    gap: dict[int, int] = field(default_factory=dict)
    relaxed: set[int] = field(default_factory=set)
    skipped: dict[int, str] = field(default_factory=dict)


@dataclass
class _Taken:
    """What was taken from one medium: rows and hashes in order of drawing, frames in ascending order."""

    rows: list[int] = field(default_factory=list)
    frames: list[int] = field(default_factory=list)
    hashes: list[int] = field(default_factory=list)


class _Draw:
    def __init__(self, faces: Candidates, share: int, limit: int) -> None:
        self.faces = faces
        self.share = share
        self.limit = limit
        self.result = Drawn()
        self.by_medium: dict[int, _Taken] = {}
        self.by_node: dict[int, int] = {}

    def fill(self, rows: Iterable[int], target: int, spacing: Spacing, taken: list[int]) -> list[int]:
        """Take faces until there are `target`; return those that a looser spacing may still take."""
        waiting = []
        for row in rows:
            if len(taken) == target:
                break
            if reason := self._never(row):
                self.result.skipped[row] = reason
            elif self._too_near(row, spacing):
                waiting.append(row)
            else:
                taken.append(row)
                self._take(row, spacing)
        return waiting

    def _never(self, row: int) -> str:
        """Return why a face cannot be taken at all: its picture was taken, or its video has its share."""
        faces, medium, node = self.faces, self.faces.medium[row], self.faces.node[row]
        for place in (node, *faces.near.get(node, ())):
            other = self.by_node.get(place)
            if other is not None and faces.medium[other] != medium:
                return f"same picture as {faces.ids[other]}"
        own = self.by_medium.get(medium)
        if own and not faces.moving[medium]:
            return f"same picture as {faces.ids[own.rows[0]]}"
        return "its video has its share" if own and len(own.frames) >= self.share else ""

    def _too_near(self, row: int, spacing: Spacing) -> bool:
        own = self.by_medium.get(self.faces.medium[row])
        if own is None:
            return False
        frame, code = self.faces.frame[row], self.faces.hash[row]
        at = bisect_left(own.frames, frame)
        if any(abs(other - frame) < spacing.gap for other in own.frames[max(at - 1, 0) : at + 1]):
            return True
        return not spacing.alike and any((code ^ other).bit_count() <= self.limit for other in own.hashes)

    def _take(self, row: int, spacing: Spacing) -> None:
        medium = self.faces.medium[row]
        own = self.by_medium.setdefault(medium, _Taken())
        insort(own.frames, self.faces.frame[row])
        own.rows.append(row)
        own.hashes.append(self.faces.hash[row])
        self.by_node.setdefault(self.faces.node[row], row)
        moving = self.faces.moving[medium]
        self.result.gap[row] = spacing.gap if moving else 0
        if moving and spacing.alike:
            self.result.relaxed.add(row)


def draw_round(
    faces: Candidates,
    bins: Mapping[str, NDArray[np.intp]],
    target: int,
    share: int,
    spacings: list[Spacing],
    limit: int,
) -> Drawn:
    """Take up to `target` faces of each bin by rank, at most `share` from one video; bins in their order.

    A looser spacing is used only when none of a bin's faces fits the stricter one any more. limit: largest number of
    bits in which near-duplicates differ.
    """
    draw = _Draw(faces, share, limit)
    for name, rows in bins.items():
        taken = draw.result.taken.setdefault(name, [])
        waiting = rows[np.argsort(faces.rank[rows], kind="stable")].tolist()
        for spacing in spacings:
            waiting = draw.fill(waiting, target, spacing, taken)
            if len(taken) == target:
                break
    return draw.result

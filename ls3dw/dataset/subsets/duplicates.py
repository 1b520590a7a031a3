"""Finds near-duplicates: perceptual hashes that differ in few bits, without comparing all pairs.

A hash of 64 bits is cut into three bands. Two hashes that differ in at most T bits have a band that differs in at most
T / 3 bits: only pairs with such a band are compared.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ls3dw.errors import ConfigurationError

NEAR: Final = 8
"""Bits in which two hashes of one picture may differ; measured in docs/reports/2026-11-22/release.md."""

FARTHEST: Final = 11
"""Largest limit: different faces differ in 14 bits or more, and the search takes far longer."""

_BANDS: Final = ((0, 22), (22, 21), (43, 21))
"""First bit and number of bits."""

_EMPTY: Final = -2
_MANY: Final = -1
_PAIRS_AT_ONCE: Final = 1 << 22

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Duplicates:
    """Near-duplicates among N faces.

    node: (N,) number of each face's hash, the same for equal hashes; pairs: (M, 2) nodes with near hashes that are not
    both of one medium.
    """

    node: Integers
    pairs: Integers

    def neighbours(self) -> dict[int, list[int]]:
        """Return the near nodes of each node that has some."""
        near: dict[int, list[int]] = {}
        for first, second in self.pairs.tolist():
            near.setdefault(first, []).append(second)
            near.setdefault(second, []).append(first)
        return near


def near_duplicates(hashes: NDArray[np.uint64], media: NDArray[Any], limit: int = NEAR) -> Duplicates:
    """Find near-duplicates across media.

    hashes: (N,); media: (N,) integers from 0, the same for the frames of a video, which are not compared with each
    other; limit: largest number of bits in which near-duplicates differ.
    """
    if not 0 <= limit <= FARTHEST:
        raise ConfigurationError(f"near-duplicates within {limit} bits: expected 0 to {FARTHEST}")
    unique, first, node = np.unique(hashes, return_index=True, return_inverse=True)
    owner = media[first].astype(np.int64)
    shared = np.bincount(node, weights=media != owner[node], minlength=len(unique)) > 0
    # A hash of several media is compared with all.
    owner[shared] = media.max(initial=0) + 1 + np.flatnonzero(shared)
    found = [pair for band in _BANDS for pair in _pairs_by_band(unique, owner, band, limit)]
    pairs = np.concatenate(found) if found else np.empty((0, 2), dtype=np.int64)
    return Duplicates(node.astype(np.int64), np.unique(pairs, axis=0))


def _pairs_by_band(
    hashes: NDArray[np.uint64], owner: Integers, band: tuple[int, int], limit: int
) -> Iterator[Integers]:
    """Yield the near pairs whose band differs in at most a third of the limit."""
    start, bits = band
    keys = ((hashes >> np.uint64(start)) & np.uint64((1 << bits) - 1)).astype(np.int64)
    order = np.argsort(keys, kind="stable")
    begins = np.concatenate(([0], np.cumsum(np.bincount(keys, minlength=1 << bits))))
    only = _only_owner(keys, owner, 1 << bits)
    clear = [np.flatnonzero(keys >> bit & 1 == 0) for bit in range(bits)]
    for mask, low in _masks(bits, limit // len(_BANDS)):
        # Of two keys that differ by the mask, only one has its lowest bit clear: each pair comes once.
        queries = np.arange(len(keys)) if low is None else clear[low]
        wanted = keys[queries] ^ mask
        there = only[wanted]
        worth = (there != _EMPTY) & (there != owner[queries])
        for one, other in _expand(queries[worth], wanted[worth], begins, order):
            near = (_bits(hashes[one] ^ hashes[other]) <= limit) & (owner[one] != owner[other])
            if near.any():
                yield np.sort(np.stack((one[near], other[near]), axis=1), axis=1)


def _masks(bits: int, flips: int) -> Iterator[tuple[int, int | None]]:
    """Yield all masks of at most `flips` of the bits, each with its lowest bit."""
    yield 0, None
    for count in range(1, flips + 1):
        for chosen in combinations(range(bits), count):
            yield sum(1 << bit for bit in chosen), chosen[0]


def _only_owner(keys: Integers, owner: Integers, size: int) -> NDArray[np.int64]:
    """Return for each possible key the owner of its hashes, `_MANY` or `_EMPTY`."""
    only = np.full(size, _EMPTY, dtype=np.int64)
    only[keys] = owner
    only[keys[only[keys] != owner]] = _MANY
    return only


def _expand(
    queries: Integers, wanted: Integers, begins: Integers, order: Integers
) -> Iterator[tuple[Integers, Integers]]:
    """Yield (query, candidate) pairs with equal keys, some millions at a time."""
    counts = begins[wanted + 1] - begins[wanted]
    ends = np.cumsum(counts)
    at = 0
    while at < len(queries):
        done = ends[at - 1] if at else 0
        until = max(at + 1, int(np.searchsorted(ends, done + _PAIRS_AT_ONCE, side="right")))
        number = counts[at:until]
        place = np.arange(number.sum()) - np.repeat(np.cumsum(number) - number, number)
        yield np.repeat(queries[at:until], number), order[np.repeat(begins[wanted[at:until]], number) + place]
        at = until


def _bits(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Count the set bits of 64-bit integers."""
    values = values - ((values >> np.uint64(1)) & np.uint64(0x5555555555555555))
    values = (values & np.uint64(0x3333333333333333)) + ((values >> np.uint64(2)) & np.uint64(0x3333333333333333))
    values = (values + (values >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.asarray((values * np.uint64(0x0101010101010101)) >> np.uint64(56))

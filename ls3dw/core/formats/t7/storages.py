"""Finds the storages behind numpy arrays: Torch7 writes memory once, and tensors as views of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ls3dw.core.formats.t7.values import ELEMENTS
from ls3dw.errors import T7Error

KNOWN: Final = frozenset(ELEMENTS.values())


@dataclass(frozen=True)
class View:
    """An array as Torch7 sees it. key: the same for views of one storage; strides and offset (0-based): elements."""

    key: int
    storage: NDArray[Any]
    strides: tuple[int, ...]
    offset: int


@dataclass(frozen=True)
class _Stretch:
    """An array and the addresses from its first byte to the one behind its last."""

    array: NDArray[Any]
    low: int
    high: int

    @classmethod
    def of(cls, array: NDArray[Any]) -> _Stretch:
        reach = sum((size - 1) * stride for size, stride in zip(array.shape, array.strides, strict=True))
        low = array.ctypes.data
        return cls(array, low, low + reach + array.itemsize)

    @property
    def place(self) -> tuple[str, int, int]:
        """Arrays that can share a storage differ only in the last."""
        return self.array.dtype.str, self.low % self.array.itemsize, self.low


def plan_storages(arrays: Sequence[NDArray[Any]]) -> Mapping[int, View]:
    """Decide what storage each array, known by its `id`, is a view of. The arrays must outlive the result.

    Arrays of one type that overlap in memory share a storage, as far as they reach together. An array that shares with
    none is written as it lies (transposed, say) if it fills its stretch of memory, and in C order otherwise; so are
    those that no Torch7 view can describe: strides that are negative or no whole elements, and other byte orders.
    """
    views: dict[int, View] = {}
    for array in arrays:
        _check(array)
    for group in _overlapping(_Stretch.of(array) for array in arrays if _can_be_view(array)):
        views |= _shared(group)
    return views | {id(array): _copied(array) for array in arrays if id(array) not in views}


def _check(array: NDArray[Any]) -> None:
    if array.dtype.newbyteorder("=") not in KNOWN:
        names = ", ".join(str(dtype) for dtype in ELEMENTS.values())
        raise T7Error(f"an array of {array.dtype} cannot be a Torch7 tensor; expected one of {names}: convert it first")
    if array.ndim == 0 or (array.size == 0 and array.ndim > 1):
        raise T7Error(f"an array of shape {array.shape} cannot be a Torch7 tensor, which has sizes of at least 1")


def _can_be_view(array: NDArray[Any]) -> bool:
    whole = all(stride >= 0 and stride % array.itemsize == 0 for stride in array.strides)
    return whole and array.size > 0 and array.dtype.isnative


def _overlapping(stretches: Iterable[_Stretch]) -> Iterator[list[_Stretch]]:
    """Yield groups whose memory overlaps, each from its lowest address on."""
    group: list[_Stretch] = []
    end = 0
    for stretch in sorted(stretches, key=lambda stretch: stretch.place):
        if group and (stretch.place[:2] != group[0].place[:2] or stretch.low >= end):
            yield group
            group = []
        end = max(end, stretch.high) if group else stretch.high
        group.append(stretch)
    if group:
        yield group


def _shared(group: Sequence[_Stretch]) -> dict[int, View]:
    """Return the views of a group; none for an array alone that leaves holes in its stretch."""
    first = group[0].array
    item, low, high = first.itemsize, group[0].low, max(stretch.high for stretch in group)
    if len(group) == 1 and first.nbytes < high - low:
        return {}
    storage = np.lib.stride_tricks.as_strided(first, ((high - low) // item,), (item,), writeable=False)
    return {
        id(stretch.array): View(
            key=id(first),
            storage=storage,
            strides=tuple(stride // item for stride in stretch.array.strides),
            offset=(stretch.low - low) // item,
        )
        for stretch in group
    }


def _copied(array: NDArray[Any]) -> View:
    whole = np.ascontiguousarray(array, array.dtype.newbyteorder("="))
    strides = tuple(stride // whole.itemsize for stride in whole.strides) if array.size else ()
    return View(id(array), whole.reshape(-1), strides, 0)

"""Writes Torch7 files in the layout of common machines; decides which arrays share a storage."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ls3dw.core.files import write_atomic
from ls3dw.core.formats.t7.values import (
    BOOLEAN,
    ELEMENTS,
    NIL,
    NUMBER,
    OBJECT,
    STRING,
    TABLE,
    TEXT,
    Key,
    T7Object,
    Value,
)
from ls3dw.errors import T7Error

NAME_OF: Final[Mapping[np.dtype[Any], str]] = {dtype: name for name, dtype in ELEMENTS.items()}

MOST: Final = 2**31 - 1
"""The largest int: bytes of a string, entries of a table."""


def save(path: str | Path, value: Value) -> None:
    """Write `value` as a Torch7 file, atomically. See `dumps`."""
    write_atomic(Path(path), dumps(value))


def dumps(value: Value) -> bytes:
    """Return `value` as the bytes of a Torch7 file, deterministically.

    Takes what `load` gives except functions, and ints, numpy scalars, and lists and tuples (tables from 1 on).
    One dict, list, array or object in several places is written once; arrays that overlap in memory share a storage
    (see `plan_storages`). Raises `T7Error` for anything else.
    """
    views = plan_storages(_arrays(value))
    return b"".join(_Writer(views).write(value))


def _arrays(root: Value) -> list[np.ndarray[Any, Any]]:
    """Return every array in `root` once, in the order of writing."""
    seen: set[int] = set()
    found: list[np.ndarray[Any, Any]] = []
    waiting = [iter((root,))]
    while waiting:
        value = next(waiting[-1], waiting)
        if value is waiting:
            waiting.pop()
        elif isinstance(value, np.ndarray | T7Object | dict | list | tuple) and id(value) not in seen:
            seen.add(id(value))
            waiting.append(_children(value))
            if isinstance(value, np.ndarray):
                found.append(value)
    return found


def _children(value: Value) -> Iterator[Value]:
    """Yield the objects in the body of `value`."""
    if isinstance(value, T7Object):
        yield value.fields
    elif isinstance(value, dict):
        for key, entry in value.items():
            yield key.value if isinstance(key, Key) else key
            yield entry
    elif isinstance(value, list | tuple):
        for number, entry in enumerate(value, 1):
            yield number
            yield entry


class _Writer:
    """Numbers tables, objects, tensors and storages in the order of their first writing."""

    def __init__(self, views: Mapping[int, View]) -> None:
        self._views = views
        self._indices: dict[tuple[str, int], int] = {}

    def write(self, root: Value) -> Iterator[bytes]:
        """Yield the pieces of the file. Unfinished values wait on a list, so nesting may be of any depth."""
        waiting = [iter((root,))]
        while waiting:
            value = next(waiting[-1], waiting)
            if value is waiting:
                waiting.pop()
            elif isinstance(value, T7Object | dict | list | tuple):
                known, head = self._reference(TABLE if not isinstance(value, T7Object) else OBJECT, "value", id(value))
                yield head
                if not known:
                    yield _head(value)
                    waiting.append(_children(value))
            elif isinstance(value, np.ndarray):
                yield from self._tensor(value)
            else:
                yield _plain(value)

    def _reference(self, kind: int, space: str, key: int) -> tuple[bool, bytes]:
        """Return whether a value was written before, and its type and index."""
        known = (space, key) in self._indices
        index = self._indices.setdefault((space, key), len(self._indices) + 1)
        return known, struct.pack("<ii", kind, index)

    def _tensor(self, array: np.ndarray[Any, Any]) -> Iterator[bytes]:
        known, head = self._reference(OBJECT, "value", id(array))
        yield head
        if known:
            return
        view = self._views[id(array)]
        name = NAME_OF[view.storage.dtype]
        yield _class(f"torch.{name}Tensor", 1)
        shape = array.shape if array.size else ()
        longs = (*shape, *view.strides, view.offset + 1)
        yield struct.pack(f"<i{len(longs)}q", len(shape), *longs)
        if not shape:  # an empty tensor has no storage
            yield struct.pack("<i", NIL)
            return
        known, head = self._reference(OBJECT, "storage", view.key)
        yield head
        if not known:
            yield _class(f"torch.{name}Storage", 1)
            yield struct.pack("<q", view.storage.size)
            yield view.storage.astype(view.storage.dtype.newbyteorder("<"), copy=False).tobytes()


def _head(value: T7Object | dict[Any, Value] | list[Value] | tuple[Value, ...]) -> bytes:
    """Return the bytes between the index of a table or object and its body."""
    if isinstance(value, T7Object):
        return _class(value.class_name, value.version)
    if isinstance(value, dict) and any(key is None or key != key for key in value):
        raise T7Error("a table's key is None or NaN, which Torch7 does not allow; give it another key")
    return _count(len(value), "entries of a table")


def _class(name: str, version: int) -> bytes:
    return _string(f"V {version}") + _string(name)


def _plain(value: Value) -> bytes:
    """Return nil, a boolean, a number or a string."""
    if value is None:
        return struct.pack("<i", NIL)
    if isinstance(value, bool | np.bool_):
        return struct.pack("<ii", BOOLEAN, value)
    if isinstance(value, int | float | np.integer | np.floating):
        return struct.pack("<id", NUMBER, _number(value))
    if isinstance(value, str):
        return struct.pack("<i", STRING) + _string(value)
    raise T7Error(
        f"a {type(value).__name__} cannot be written to a Torch7 file; expected None, bool, a number, str, dict, list,"
        " a numpy array or a T7Object"
    )


def _number(value: Any) -> float:
    """Return a number as a double, Lua's only type of number."""
    try:
        number = float(value)
    except OverflowError:
        number = float("nan")
    if isinstance(value, int | np.integer) and number != value:
        raise T7Error(f"the number {value} has no double of its own, and Lua has only doubles; write it as a string")
    return number


def _string(text: str) -> bytes:
    try:
        data = text.encode(*TEXT)
    except UnicodeEncodeError as error:
        raise T7Error(f"a string cannot be encoded ({error}); expected text, or bytes as surrogate escapes") from error
    return _count(len(data), "bytes of a string") + data


def _count(number: int, what: str) -> bytes:
    if number > MOST:
        raise T7Error(f"{number} {what}; a Torch7 file holds at most {MOST}")
    return struct.pack("<i", number)


@dataclass(frozen=True)
class View:
    """A Torch7 view of a storage. key: equal for views of one storage; strides and offset (0-based) in elements."""

    key: int
    storage: NDArray[Any]
    strides: tuple[int, ...]
    offset: int


@dataclass(frozen=True)
class _Range:
    """An array and its address range; `high` is exclusive."""

    array: NDArray[Any]
    low: int
    high: int

    @classmethod
    def of(cls, array: NDArray[Any]) -> _Range:
        reach = sum((size - 1) * stride for size, stride in zip(array.shape, array.strides, strict=True))
        low = array.ctypes.data
        return cls(array, low, low + reach + array.itemsize)

    @property
    def place(self) -> tuple[str, int, int]:
        """Sort key; arrays that can share a storage differ only in its last value."""
        return self.array.dtype.str, self.low % self.array.itemsize, self.low


def plan_storages(arrays: Sequence[NDArray[Any]]) -> Mapping[int, View]:
    """Choose the storage of each array, by its `id`. The arrays must outlive the result.

    Arrays of one type that overlap in memory share a storage over their joint range. A single array keeps its memory
    order (transposed, for example) if it fills its range. All others are copied in C order: arrays with gaps, with
    strides that are negative or no whole elements, or of another byte order.
    """
    views: dict[int, View] = {}
    for array in arrays:
        _check(array)
    for group in _overlapping(_Range.of(array) for array in arrays if _can_be_view(array)):
        views |= _shared(group)
    return views | {id(array): _copied(array) for array in arrays if id(array) not in views}


def _check(array: NDArray[Any]) -> None:
    if array.dtype.newbyteorder("=") not in NAME_OF:
        names = ", ".join(str(dtype) for dtype in ELEMENTS.values())
        raise T7Error(f"an array of {array.dtype} cannot be a Torch7 tensor; expected one of {names}: convert it first")
    if array.ndim == 0 or (array.size == 0 and array.ndim > 1):
        raise T7Error(f"an array of shape {array.shape} cannot be a Torch7 tensor, which has sizes of at least 1")


def _can_be_view(array: NDArray[Any]) -> bool:
    whole = all(stride >= 0 and stride % array.itemsize == 0 for stride in array.strides)
    return whole and array.size > 0 and array.dtype.isnative


def _overlapping(ranges: Iterable[_Range]) -> Iterator[list[_Range]]:
    """Yield groups of arrays that overlap in memory, each by ascending address."""
    group: list[_Range] = []
    end = 0
    for span in sorted(ranges, key=lambda span: span.place):
        if group and (span.place[:2] != group[0].place[:2] or span.low >= end):
            yield group
            group = []
        end = max(end, span.high) if group else span.high
        group.append(span)
    if group:
        yield group


def _shared(group: Sequence[_Range]) -> dict[int, View]:
    """Return the views of a group; none for a single array with gaps."""
    first = group[0].array
    item, low, high = first.itemsize, group[0].low, max(span.high for span in group)
    if len(group) == 1 and first.nbytes < high - low:
        return {}
    storage = np.lib.stride_tricks.as_strided(first, ((high - low) // item,), (item,), writeable=False)
    return {
        id(span.array): View(
            key=id(first),
            storage=storage,
            strides=tuple(stride // item for stride in span.array.strides),
            offset=(span.low - low) // item,
        )
        for span in group
    }


def _copied(array: NDArray[Any]) -> View:
    whole = np.ascontiguousarray(array, array.dtype.newbyteorder("="))
    strides = tuple(stride // whole.itemsize for stride in whole.strides) if array.size else ()
    return View(id(array), whole.reshape(-1), strides, 0)

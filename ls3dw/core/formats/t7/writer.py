"""Writes Torch7 files: tensors, tables, plain values and objects, in the layout of Torch7 on common machines."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from ls3dw.core.files import write_atomic
from ls3dw.core.formats.t7.storages import View, plan_storages
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
    """Write `value` as a Torch7 file, whole or not at all. See `dumps`."""
    write_atomic(Path(path), dumps(value))


def dumps(value: Value) -> bytes:
    """Return `value` as the bytes of a Torch7 file; the same value gives the same bytes.

    Takes what `load` gives except functions, and ints, numpy scalars, and lists and tuples (tables from 1 on).
    One dict, list, array or object in several places is written once; arrays that overlap in memory share a storage
    (see `ls3dw.core.formats.t7.storages`). Raises `T7Error` for anything else.
    """
    views = plan_storages(_arrays(value))
    return b"".join(_Writer(views).write(value))


def _arrays(root: Value) -> list[np.ndarray[Any, Any]]:
    """Return every array in `root` once, in the order in which they are written."""
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
    """Yield what follows in the file where `value` is first written."""
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
    """Gives every table, object, tensor and storage its index, in the order in which they are first written."""

    def __init__(self, views: Mapping[int, View]) -> None:
        self._views = views
        self._indices: dict[tuple[str, int], int] = {}

    def write(self, root: Value) -> Iterator[bytes]:
        """Yield the file piece by piece. What is unfinished waits on a list, so depth costs nothing."""
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
        """Return whether a thing was written before, and the start of its spelling."""
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
    """Return what stands between the index of a table or object and its children."""
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
    """Return a number as a double; Lua has no others."""
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

"""Reads Torch7 files: finds out how they spell their numbers, then reads object by object.

Unfinished objects wait on a list and no reader calls itself, so nesting may be of any depth.
"""

from __future__ import annotations

import contextlib
import re
import stat
from mmap import ACCESS_COPY, mmap
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from ls3dw.core.formats.t7.source import BinarySource, Buffer, Source, TextSource
from ls3dw.core.formats.t7.values import (
    ARRAYS,
    BOOLEAN,
    EXACT,
    FUNCTION,
    FUNCTION_5_1,
    NIL,
    NUMBER,
    OBJECT,
    OLD_FUNCTION,
    STRING,
    TABLE,
    TEXT,
    ArrayClass,
    Key,
    Layout,
    T7Function,
    T7Object,
    Value,
)
from ls3dw.errors import T7Error

TEXT_START: Final = re.compile(rb"[0-8]\n")
NOT_ZERO: Final = re.compile(rb"[^\0]")

MAPPED: Final = 1 << 20
"""Least size of a file that is mapped instead of read, bytes."""

MOST_DIMENSIONS: Final = 32
VERSION: Final = re.compile(rb"V (\d{1,9})")


def load(path: str | Path, layout: Layout | None = None) -> Value:
    """Read the first object of a Torch7 file without running code; `values` lists the types.

    Arrays are writable views of the bytes read; writing to them does not change the file. layout: None detects it.
    Raises T7Error.
    """
    return _read(*_bytes_of(Path(path)), layout, every=False)[0]


def load_all(path: str | Path, layout: Layout | None = None) -> list[Value]:
    """Read all consecutive objects of a Torch7 file, like `load`. Shared parts stay shared."""
    return _read(*_bytes_of(Path(path)), layout, every=True)


def loads(data: bytes, layout: Layout | None = None, name: str = "bytes") -> Value:
    """Read the first object from bytes, like `load`. name: for errors."""
    return _read(bytearray(data), name, layout, every=False)[0]


def _bytes_of(path: Path) -> tuple[Buffer, str]:
    """Return a file's bytes. Large files are mapped, so only the parts used take memory."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # reading a named pipe would block
            raise T7Error(f"{path}: not a file; expected a Torch7 file")
        with path.open("rb") as file:
            if status.st_size >= MAPPED:
                return mmap(file.fileno(), 0, access=ACCESS_COPY), str(path)
            return bytearray(file.read()), str(path)
    except OSError as error:
        raise T7Error(f"{path}: cannot be read ({error.strerror}); expected a Torch7 file") from error


def _read(data: Buffer, name: str, layout: Layout | None, every: bool) -> list[Value]:
    first, *others = [layout] if layout else _guess(data)
    try:
        return _roots(data, name, first, every)
    except T7Error as error:
        # Without its traceback, which would keep the first attempt's values alive.
        failure = error.with_traceback(None)
    for other in others:
        with contextlib.suppress(T7Error):
            roots = _roots(data, name, other, every=True)
            return roots if every else roots[:1]
    raise failure


def _guess(data: Buffer) -> list[Layout]:
    """Return the layouts that a file may have, the likelier first.

    Every file starts with a type, an int of 0 to 8: its spelling tells ASCII and the order of bytes. Longs of 4 bytes
    are believed only where those of 8 fail and those of 4 fit up to the last byte.
    """
    if TEXT_START.match(data):
        return [Layout(text=True)]
    written = NOT_ZERO.search(data, 0, 1 << 10)
    big_endian = written is not None and written.start() % 4 == 3
    return [Layout(big_endian=big_endian, long_size=size) for size in (8, 4)]


def _roots(data: Buffer, name: str, layout: Layout, every: bool) -> list[Value]:
    source: Source = TextSource(data, name) if layout.text else BinarySource(data, name, layout)
    reader = Reader(source)
    roots = [reader.read()]
    while every and source.left:
        roots.append(reader.read())
    return roots


class _Parent(Protocol):
    """An object whose body is being read."""

    value: Value

    def take(self, child: Value, source: Source) -> bool:
        """Take the next object of the body; return whether the body is complete."""


class _TableBody:
    def __init__(self, table: dict[Any, Value], count: int) -> None:
        self.value: Value = table
        self._left = count
        self._key: Value = None

    def take(self, child: Value, source: Source) -> bool:
        if self._key is None:
            self._key = _key(child, source)
            return False
        self.value[self._key] = child
        self._key = None
        self._left -= 1
        return self._left == 0


def _key(value: Value, source: Source) -> Value:
    """Convert a table's key to a dict's."""
    if isinstance(value, float):
        if value != value:
            raise source.error("a table's key is not a number (NaN)")
        return int(value) if value.is_integer() and abs(value) < EXACT else value
    if value is None:
        raise source.error("a table's key is nil")
    return Key(value) if isinstance(value, bool | dict | np.ndarray) else value


class _ObjectBody:
    def __init__(self, thing: T7Object) -> None:
        self.value: Value = thing

    def take(self, child: Value, source: Source) -> bool:
        if not isinstance(child, dict):
            raise source.error(
                f"the body of a {self.value.class_name!r} is no table", "its class has a form of its own: not readable"
            )
        self.value.fields = child
        return True


class _FunctionBody:
    def __init__(self, function: T7Function) -> None:
        self.value: Value = function

    def take(self, child: Value, source: Source) -> bool:
        self.value.upvalues = child
        return True


_UNFINISHED: Final = object()
"""Marks a value whose body follows, and a tensor whose storage is being read."""


class Reader:
    """Reads the root objects of one file in turn."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._seen: dict[int, Value] = {}
        self._storages: dict[int, str] = {}
        self._parents: list[_Parent] = []

    def read(self) -> Value:
        """Read the next root object whole."""
        while True:
            value = self._begin()
            if value is _UNFINISHED:
                continue
            while self._parents and self._parents[-1].take(value, self._source):
                value = self._parents.pop().value
            if not self._parents:
                return value

    def _begin(self) -> Value:
        """Read a whole value, or the head of one, whose parent then waits for its body."""
        kind = self._source.integer()
        if kind == NUMBER:
            return self._source.double()
        if kind == STRING:
            return self._source.raw(self._source.integer()).decode(*TEXT)
        if kind == NIL:
            return None
        if kind == BOOLEAN:
            return self._source.integer() != 0
        if kind == OLD_FUNCTION:
            return self._function()
        if kind in (TABLE, OBJECT, FUNCTION_5_1, FUNCTION):
            return self._indexed(kind)
        raise self._source.error(f"type {kind} of an object; known are 0 to 8")

    def _indexed(self, kind: int) -> Value:
        index = self._source.integer()
        if index in self._seen:
            value = self._seen[index]
            if value is _UNFINISHED:
                raise self._source.error(f"object {index} is part of its own head")
            return value
        if kind == TABLE:
            return self._table(index)
        if kind == OBJECT:
            return self._object(index)
        return self._function(index)

    def _table(self, index: int) -> Value:
        count = self._source.integer()
        if not 0 <= count <= self._source.left // self._source.smallest_entry:
            raise self._source.error(f"a table of {count} entries, {self._source.left} bytes left in the file")
        table: dict[Any, Value] = {}
        self._seen[index] = table
        if count == 0:
            return table
        self._parents.append(_TableBody(table, count))
        return _UNFINISHED

    def _function(self, index: int | None = None) -> Value:
        size = self._source.integer()
        self._source.raw(size)
        function = T7Function(size)
        if index is not None:
            self._seen[index] = function
        self._parents.append(_FunctionBody(function))
        return _UNFINISHED

    def _object(self, index: int) -> Value:
        name, version = self._class()
        array = ARRAYS.get(name)
        if array is not None and array.storage is None:
            return self._storage(index, name, array.dtype)
        if array is not None:
            self._seen[index] = _UNFINISHED
            self._seen[index] = tensor = self._tensor(array)
            return tensor
        self._seen[index] = thing = T7Object(name, version)
        self._parents.append(_ObjectBody(thing))
        return _UNFINISHED

    def _class(self) -> tuple[str, int]:
        """Read the class and its version; old files have the class alone."""
        first = self._source.raw(self._source.integer())
        version = VERSION.fullmatch(first)
        if version is None:
            return first.decode(*TEXT), 0
        return self._source.raw(self._source.integer()).decode(*TEXT), int(version.group(1))

    def _storage(self, index: int, name: str, dtype: np.dtype[Any]) -> NDArray[Any]:
        (count,) = self._source.longs(1)
        storage = self._source.elements(count, dtype)
        self._seen[index] = storage
        self._storages[index] = name
        return storage

    def _tensor(self, array: ArrayClass) -> NDArray[Any]:
        dimensions = self._source.integer()
        if not 0 <= dimensions <= MOST_DIMENSIONS:
            raise self._source.error(f"a tensor of {dimensions} dimensions; at most {MOST_DIMENSIONS} can be read")
        sizes, strides = self._source.longs(dimensions), self._source.longs(dimensions)
        (offset,) = self._source.longs(1)
        storage = self._storage_of(array)
        if dimensions == 0:
            return np.empty(0, array.dtype)
        try:
            return view(storage, sizes, strides, offset - 1)
        except ValueError as error:
            raise self._source.error(str(error)) from error

    def _storage_of(self, array: ArrayClass) -> NDArray[Any]:
        """Read the storage of a tensor: a reference, an object of the class that belongs to the tensor's, or nil."""
        kind = self._source.integer()
        if kind == NIL:
            return np.empty(0, array.dtype)
        if kind != OBJECT:
            raise self._source.error(f"a tensor's storage has type {kind}; expected {OBJECT} or {NIL}")
        index = self._source.integer()
        if index not in self._seen:
            name, _ = self._class()
            if name == array.storage:
                return self._storage(index, name, array.dtype)
        else:
            name = self._storages.get(index, "an object that is no storage")
        if name != array.storage:
            raise self._source.error(f"a tensor's storage is {name}; expected {array.storage}")
        storage: NDArray[Any] = self._seen[index]
        return storage


def view(storage: NDArray[Any], sizes: tuple[int, ...], strides: tuple[int, ...], offset: int) -> NDArray[Any]:
    """Return a tensor as a view of its storage (N,). strides and offset (0-based) count elements.

    Strides of 0 make any number of elements of a few bytes: the view is cheap, a copy may not be.
    Raises ValueError if an element lies outside the storage.
    """
    reach = [(size - 1) * stride for size, stride in zip(sizes, strides, strict=True)]
    first, last = offset + sum(step for step in reach if step < 0), offset + sum(step for step in reach if step > 0)
    empty = min(sizes) == 0
    if min(sizes) < 0 or (not empty and (first < 0 or last >= len(storage))):
        raise ValueError(
            f"a tensor of sizes {sizes} and strides {strides} from element {offset + 1} on does not fit its storage of"
            f" {len(storage)}"
        )
    if empty:
        return np.empty(sizes, storage.dtype)
    item = storage.itemsize
    return np.ndarray(sizes, storage.dtype, storage, offset * item, [stride * item for stride in strides])

"""The bytes of a Torch7 file, read in order. Every length is checked against the bytes left before it is used."""

from __future__ import annotations

import re
import struct
from mmap import mmap
from typing import Any, Final, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from ls3dw.core.formats.t7.values import ELEMENTS, Layout
from ls3dw.errors import T7Error

Buffer = bytes | bytearray | mmap

DAMAGED: Final = "the file is damaged or no Torch7 file: get it again"
LONGEST_NUMBER: Final = 64
"""Characters of a number in an ASCII file; Torch7 writes at most 25."""

TOKEN: Final = re.compile(rb"\S+")
NEWLINE: Final = ord("\n")
RAW: Final = (ELEMENTS["Byte"], ELEMENTS["Char"])
"""Elements that are raw bytes even in ASCII files."""


class Source(Protocol):
    """Typed reads from a file of any layout."""

    smallest_entry: int
    """Least bytes of a key with its value."""

    @property
    def left(self) -> int:
        """Bytes left."""

    def integer(self) -> int: ...
    def double(self) -> float: ...
    def longs(self, count: int) -> tuple[int, ...]: ...
    def raw(self, size: int) -> bytes: ...
    def elements(self, count: int, dtype: np.dtype[Any]) -> NDArray[Any]: ...
    def error(self, found: str, advice: str = DAMAGED) -> T7Error: ...


class _Bytes:
    """A position in a buffer, and errors that name it."""

    def __init__(self, data: Buffer, name: str) -> None:
        self._data = data
        self._size = len(data)
        self._name = name
        self._at = 0

    @property
    def left(self) -> int:
        return self._size - self._at

    def error(self, found: str, advice: str = DAMAGED) -> T7Error:
        return T7Error(f"{self._name}: byte {self._at}: {found}; {advice}")

    def raw(self, size: int) -> bytes:
        return bytes(self._data[self._take(size, 1) : self._at])

    def _take(self, count: int, size: int) -> int:
        """Advance by `count` items of `size` bytes and return their start."""
        if not 0 <= count <= (self._size - self._at) // size:
            raise self.error(f"{count} times {size} bytes announced, {self.left} left in the file")
        start = self._at
        self._at += count * size
        return start


class BinarySource(_Bytes):
    """Binary files. Arrays are views of the buffer, unless byte order or width differ."""

    smallest_entry = 8

    def __init__(self, data: Buffer, name: str, layout: Layout) -> None:
        super().__init__(data, name)
        self._order: Literal["<", ">"] = ">" if layout.big_endian else "<"
        self._long_size = layout.long_size
        self._long = "q" if layout.long_size == 8 else "i"
        self._read_int = struct.Struct(f"{self._order}i").unpack_from
        self._read_double = struct.Struct(f"{self._order}d").unpack_from

    def integer(self) -> int:
        value: int = self._read_int(self._data, self._take(1, 4))[0]
        return value

    def double(self) -> float:
        value: float = self._read_double(self._data, self._take(1, 8))[0]
        return value

    def longs(self, count: int) -> tuple[int, ...]:
        start = self._take(count, self._long_size)
        return struct.unpack_from(f"{self._order}{count}{self._long}", self._data, start)

    def elements(self, count: int, dtype: np.dtype[Any]) -> NDArray[Any]:
        stored = dtype.newbyteorder(self._order)
        if dtype == ELEMENTS["Long"] and self._long_size == 4:
            stored = np.dtype(f"{self._order}i4")
        start = self._take(count, stored.itemsize)
        return (
            np.frombuffer(self._data, stored, count, start).astype(dtype, copy=False) if count else np.empty(0, dtype)
        )


class TextSource(_Bytes):
    """ASCII files: a line for every write, numbers separated by blanks; strings and bytes as they are."""

    smallest_entry = 4

    def integer(self) -> int:
        return self.longs(1)[0]

    def double(self) -> float:
        return float(self.elements(1, ELEMENTS["Double"])[0])

    def longs(self, count: int) -> tuple[int, ...]:
        return tuple(self.elements(count, ELEMENTS["Long"]).tolist())

    def raw(self, size: int) -> bytes:
        data = super().raw(size)
        if size and self.left and self._data[self._at] == NEWLINE:
            self._at += 1
        return data

    def elements(self, count: int, dtype: np.dtype[Any]) -> NDArray[Any]:
        if dtype in RAW:
            return np.frombuffer(bytearray(self.raw(count)), dtype)
        if not 0 <= count <= (self.left + 1) // 2:
            raise self.error(f"{count} numbers announced, {self.left} bytes left in the file")
        if count == 0:  # Torch7 ends no line after writing nothing
            return np.empty(0, dtype)
        line = self._line(count * LONGEST_NUMBER)
        kind = float if dtype.kind == "f" else int
        tokens = TOKEN.finditer(line)
        try:
            with np.errstate(over="ignore"):  # a FloatTensor holds inf where the text has more than a float can
                values = np.fromiter((kind(token.group()) for token in tokens), dtype, count)
        except (ValueError, OverflowError) as error:
            raise self.error(f"expected {count} numbers of type {dtype} on a line ({error})") from error
        if next(tokens, None) is not None:
            raise self.error(f"more than {count} numbers of type {dtype} on a line")
        self._at = min(self._at + len(line) + 1, self._size)
        return values

    def _line(self, longest: int) -> bytes:
        """Return the bytes up to the next newline or the end of the file, without advancing."""
        stop = min(self._at + longest, self._size)
        end = self._data.find(b"\n", self._at, stop)
        if end < 0 and stop < self._size:
            raise self.error(f"no line of at most {longest} characters")
        return bytes(self._data[self._at : end if end >= 0 else stop])

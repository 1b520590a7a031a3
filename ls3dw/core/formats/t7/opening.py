"""Opens Torch7 files, and finds out how they spell their numbers."""

from __future__ import annotations

import contextlib
import re
import stat
from mmap import ACCESS_COPY, mmap
from pathlib import Path
from typing import Final

from ls3dw.core.formats.t7.reader import Reader
from ls3dw.core.formats.t7.source import BinarySource, Buffer, Source, TextSource
from ls3dw.core.formats.t7.values import Layout, Value
from ls3dw.errors import T7Error

TEXT_START: Final = re.compile(rb"[0-8]\n")
NOT_ZERO: Final = re.compile(rb"[^\0]")

MAPPED: Final = 1 << 20
"""Bytes from which on a file is mapped instead of read."""


def load(path: str | Path, layout: Layout | None = None) -> Value:
    """Read the first object of a Torch7 file; no code is run, whatever the file holds. See `values`.

    Arrays are writable views of the file's bytes; writing to one changes no file. layout: None finds it out.
    Raises `T7Error`.
    """
    return _read(*_bytes_of(Path(path)), layout, every=False)[0]


def load_all(path: str | Path, layout: Layout | None = None) -> list[Value]:
    """Read all objects that follow each other in a Torch7 file; what they share is shared. As `load` otherwise."""
    return _read(*_bytes_of(Path(path)), layout, every=True)


def loads(data: bytes, layout: Layout | None = None, name: str = "bytes") -> Value:
    """Read the first object from bytes; name: what errors call them. As `load` otherwise."""
    return _read(bytearray(data), name, layout, every=False)[0]


def _bytes_of(path: Path) -> tuple[Buffer, str]:
    """Return a file's bytes, a large one mapped: then only what is used of it takes memory."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # a named pipe would be waited for
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
        # Without its traceback: that would keep the first attempt's values alive through the others.
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

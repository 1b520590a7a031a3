"""Reads the numeric arrays of a Matlab 5 file (`save -v5`, `-v6`, `-v7`) without native code.

`scipy.io.loadmat` can crash the process on a damaged file.
Layout: a header of 128 bytes, then elements: kind and size (4 bytes each), content, padding to 8 bytes. A content of
at most 4 bytes may be packed in the tag. A matrix is an element of elements: flags, dimensions, name, values.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Collection, Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

HEADER: Final = 128
MATRIX: Final = 14
COMPRESSED: Final = 15
LARGEST: Final = 1 << 26
"""Largest size of an unpacked element, bytes; a face's has a few thousand."""

VALUES: Final = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
"""Kind of element -> type of its values."""

NUMERIC: Final = range(6, 16)
"""Matrix classes of numbers (double, single, integers); others are text, cells, structures, ..."""

COMPLEX: Final = 0x800


def read_arrays(data: bytes, names: Collection[str]) -> dict[str, NDArray[np.float64]]:
    """Return the named arrays that the file has and that are real numbers. Raises ValueError if it cannot be read."""
    if data.startswith((b"MATLAB 7.3", b"\x89HDF")) or data.startswith(b"\x89HDF", 512):
        raise ValueError("a Matlab 7.3 file, which is HDF5; save it again with save(..., '-v7')")
    order = {b"IM": "<", b"MI": ">"}.get(data[HEADER - 2 : HEADER])
    if order is None:
        raise ValueError("not a Matlab 5 file; save it with save(..., '-v7')")
    arrays: dict[str, NDArray[np.float64]] = {}
    try:
        for kind, content in _elements(data[HEADER:], order):
            if kind == COMPRESSED:
                kind, content = next(_elements(_unpack(content), order))
            if kind == MATRIX:
                arrays |= _matrix(content, order, names)
    except (struct.error, zlib.error, StopIteration) as error:
        raise ValueError("damaged Matlab file") from error
    return arrays


def _elements(data: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    position = 0
    while position < len(data):
        kind, size = struct.unpack_from(f"{order}II", data, position)
        start, following = position + 8, position + 8 + size
        if kind >> 16:  # packed: size and kind in the first 4 bytes, content in the last 4
            kind, size = kind & 0xFFFF, kind >> 16
            start, following = position + 4, position + 8
        elif kind != COMPRESSED:
            following += -size % 8
        if start + size > min(following, len(data)):
            raise ValueError("an element is larger than its container")
        yield kind, data[start : start + size]
        position = following


def _unpack(content: bytes) -> bytes:
    stream = zlib.decompressobj()
    data = stream.decompress(content, LARGEST)
    if not stream.eof:
        raise ValueError("a compressed element is cut off or far too large")
    return data


def _matrix(content: bytes, order: str, names: Collection[str]) -> dict[str, NDArray[np.float64]]:
    elements = _elements(content, order)
    (_, flags), (_, sizes), (_, label) = next(elements), next(elements), next(elements)
    name = label.decode("latin-1")
    head = struct.unpack_from(f"{order}I", flags)[0]
    if name not in names or head & 0xFF not in NUMERIC or head & COMPLEX:
        return {}
    kind, raw = next(elements)
    shape = np.frombuffer(sizes, f"{order}i4").tolist()
    if kind not in VALUES or min(shape, default=0) < 0:
        raise ValueError(f"{name}: values of unknown kind or shape")
    with np.errstate(invalid="ignore"):  # damaged files may hold signalling NaNs; multiplying makes them quiet
        values = np.multiply(np.frombuffer(raw, order + VALUES[kind]), 1.0, dtype=np.float64)
    if values.size != math.prod(shape):
        raise ValueError(f"{name}: {values.size} values for shape {shape}")
    return {name: values.reshape(shape, order="F")}

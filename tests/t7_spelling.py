"""Spells values as Torch7 does in each layout: a second, plain account of the format to hold the reader against."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from ls3dw.core.formats.t7 import Layout

NAMES = {"uint8": "Byte", "int8": "Char", "int16": "Short", "int32": "Int", "int64": "Long"}
NAMES |= {"float16": "Half", "float32": "Float", "float64": "Double"}


class Spelling:
    """Collects the bytes of a file. Every table and array is written anew: nothing is shared."""

    def __init__(self, layout: Layout, prefix: str = "") -> None:
        self.layout = layout
        self.prefix = prefix
        self.data = b""
        self._indices = 0

    def numbers(self, values: Any, code: str) -> None:
        if self.layout.text:
            form = "%.17g" if code in "dfe" else "%d"
            self.data += b" ".join((form % value).encode() for value in values) + (b"\n" if len(values) else b"")
        else:
            code = "i" if code == "q" and self.layout.long_size == 4 else code
            order = ">" if self.layout.big_endian else "<"
            self.data += struct.pack(f"{order}{len(values)}{code}", *values)

    def ints(self, *values: int) -> None:
        for value in values:
            self.numbers([value], "i")

    def raw(self, data: bytes) -> None:
        self.data += data + (b"\n" if self.layout.text and data else b"")

    def string(self, text: str) -> None:
        data = text.encode("utf-8", "surrogateescape")
        self.ints(len(data))
        self.raw(data)

    def head(self, name: str) -> None:
        """Start an object of a class."""
        self._indices += 1
        self.ints(4, self._indices)
        self.string("V 1")
        self.string(name)

    def value(self, value: Any) -> None:
        if value is None:
            self.ints(0)
        elif isinstance(value, bool):
            self.ints(5, value)
        elif isinstance(value, int | float):
            self.ints(1)
            self.numbers([value], "d")
        elif isinstance(value, str):
            self.ints(2)
            self.string(value)
        elif isinstance(value, np.ndarray):
            self.array(value)
        else:
            self._indices += 1
            self.ints(3, self._indices, len(value))
            for key, entry in value.items():
                self.value(key)
                self.value(entry)

    def array(self, array: np.ndarray) -> None:
        name = self.prefix + NAMES[array.dtype.name]
        self.head(f"torch.{name.replace('CudaFloat', 'Cuda')}Tensor")
        shape = array.shape if array.size else ()
        self.ints(len(shape))
        self.numbers(shape, "q")
        self.numbers([int(np.prod(shape[axis + 1 :])) for axis in range(len(shape))], "q")
        self.numbers([1], "q")
        if array.size:
            self.storage(name, array.reshape(-1))
        else:
            self.ints(0)

    def storage(self, name: str, values: np.ndarray) -> None:
        self.head(f"torch.{name.replace('CudaFloat', 'Cuda')}Storage")
        self.numbers([len(values)], "q")
        if values.itemsize == 1:
            self.raw(values.tobytes())
        else:
            self.numbers(values.tolist(), values.dtype.char if values.dtype != np.int64 else "q")


def spell(value: Any, layout: Layout, prefix: str = "") -> bytes:
    spelling = Spelling(layout, prefix)
    spelling.value(value)
    return spelling.data

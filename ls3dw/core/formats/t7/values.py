"""The Python values of a Torch7 file: plain data only.

| Torch7 | here |
| --- | --- |
| nil, boolean, number | `None`, `bool`, `float` (Lua has doubles only) |
| string | `str`; bytes that are not UTF-8 as surrogate escapes, so every string can be written back |
| table | `dict`: a key that is a whole number is an `int`, so that entry 1 is `table[1]`; see `as_list` and `Key` |
| tensor, storage | numpy array; views of one storage share their memory. CUDA tensors are read as plain ones |
| any other object | `T7Object`; a function: `T7Function`, without its code |

Objects that are shared in the file are shared here, cycles included.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from ls3dw.errors import T7Error

Value = Any
"""None, bool, float, str, dict, numpy array, T7Object or T7Function."""

NIL, NUMBER, STRING, TABLE, OBJECT, BOOLEAN, OLD_FUNCTION, FUNCTION_5_1, FUNCTION = range(9)
"""Type codes, which precede every object in a file."""

EXACT: Final = 2.0**53
"""Integers below it are exact as doubles."""

TEXT: Final = ("utf-8", "surrogateescape")

ELEMENTS: Final[Mapping[str, np.dtype[Any]]] = {
    "Byte": np.dtype(np.uint8),
    "Char": np.dtype(np.int8),
    "Short": np.dtype(np.int16),
    "Int": np.dtype(np.int32),
    "Long": np.dtype(np.int64),
    "Half": np.dtype(np.float16),
    "Float": np.dtype(np.float32),
    "Double": np.dtype(np.float64),
}
"""Torch7's name of an element type -> dtype."""


@dataclass(frozen=True)
class ArrayClass:
    """Element type of a class of tensors or storages. storage: the storage class of a tensor; None for a storage."""

    dtype: np.dtype[Any]
    storage: str | None


def _array_classes() -> Mapping[str, ArrayClass]:
    classes: dict[str, ArrayClass] = {}
    spellings = [(name, name) for name in ELEMENTS] + [(f"Cuda{name}", name) for name in ELEMENTS if name != "Float"]
    for name, element in [*spellings, ("Cuda", "Float")]:
        storage = f"torch.{name}Storage"
        classes[storage] = ArrayClass(ELEMENTS[element], None)
        classes[f"torch.{name}Tensor"] = ArrayClass(ELEMENTS[element], storage)
    return classes


ARRAYS: Final = _array_classes()
"""Classes of tensors and storages; `torch.CudaTensor` holds floats."""


@dataclass(frozen=True)
class Layout:
    """How a file encodes its numbers, which it does not state. The default is Torch7's on common machines.

    text: an ASCII file; big_endian: highest byte first; long_size: bytes of a `long`, 8 or 4.
    """

    text: bool = False
    big_endian: bool = False
    long_size: int = 8

    def __post_init__(self) -> None:
        if self.long_size not in (4, 8):
            raise ValueError(f"long_size={self.long_size}; expected 4 or 8")


@dataclass(eq=False, slots=True)
class T7Object:
    """An object of a Torch class as stored. Compared by identity."""

    class_name: str
    version: int = 1
    fields: dict[Any, Value] = field(default_factory=dict, repr=False)


@dataclass(eq=False, slots=True)
class T7Function:
    """A function without its byte code. upvalues: the values of its closure."""

    size: int
    upvalues: Value = field(default=None, repr=False)


@dataclass(frozen=True, eq=False, slots=True)
class Key:
    """A table's key that a dict cannot hold as it is: a table, a tensor, or a boolean (`True` would be `1`).

    Equal if they hold the same object (`is`).
    """

    value: Value = field(repr=False)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Key) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)


def as_list(table: Mapping[Any, Value]) -> list[Value]:
    """Return the entries 1..n of a table in order; `T7Error` if it has any other key."""
    entries = [table[number] for number in range(1, len(table) + 1) if number in table]
    if len(entries) != len(table):
        other = next(key for key in table if not (isinstance(key, int) and 1 <= key <= len(table)))
        name = repr(other) if isinstance(other, str | float | int) else f"a {type(other).__name__}"
        raise T7Error(f"a table of {len(table)} entries is no list of 1 to {len(table)}: one of its keys is {name}")
    return entries

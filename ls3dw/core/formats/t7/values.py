"""What a Torch7 file becomes in Python. Plain data only: nothing here has behaviour, nothing was ever run.

| Torch7 | here |
| --- | --- |
| nil, boolean, number | `None`, `bool`, `float` (Lua has doubles only) |
| string | `str`; bytes that are not UTF-8 as surrogate escapes, so every string can be written back |
| table | `dict`: a key that is a whole number is an `int`, so that entry 1 is `table[1]`; see `as_list` and `Key` |
| tensor, storage | numpy array; views of one storage share their memory. CUDA tensors are read as plain ones |
| any other object | `T7Object`; a function: `T7Function`, without its code |

What is one thing in the file is one thing here: shared and cyclic tables are the same Python object.
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
"""The type that stands before every object in a file."""

EXACT: Final = 2.0**53
"""Whole numbers below it have one double each."""

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
"""Torch7's name of an element type -> that type."""


@dataclass(frozen=True)
class ArrayClass:
    """What a class of tensors or storages holds. storage: the class that belongs to a tensor; None: a storage."""

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
    """How a file spells its numbers, which nothing in it says. The default is what Torch7 writes on common machines.

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
    """An object of a Torch class, as it was stored. Two are equal only if they are the same one."""

    class_name: str
    version: int = 1
    fields: dict[Any, Value] = field(default_factory=dict, repr=False)


@dataclass(eq=False, slots=True)
class T7Function:
    """Stands where a function was. Its byte code was skipped; upvalues: the values that it had caught."""

    size: int
    upvalues: Value = field(default=None, repr=False)


@dataclass(frozen=True, eq=False, slots=True)
class Key:
    """A table's key that cannot be a Python key as it is: a table, a tensor, or a boolean (`True` would be `1`).

    Two are equal if they hold the same thing (`is`).
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

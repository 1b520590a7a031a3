"""The classes of tensors and storages, and tensors as views of storages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ls3dw.core.formats.t7.values import ELEMENTS


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


def view(storage: NDArray[Any], sizes: tuple[int, ...], strides: tuple[int, ...], offset: int) -> NDArray[Any]:
    """Return a tensor as a view of its storage (N,). strides and offset (0-based) count elements.

    Strides of 0 let a few bytes stand for any number of elements: the view costs nothing, a copy may.
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

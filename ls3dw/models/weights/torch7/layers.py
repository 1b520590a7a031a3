"""Torch7 modules as operations. Their fields come from a file, so all are checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from ls3dw.core.formats.t7 import T7Object
from ls3dw.errors import ModelError
from ls3dw.models.weights.torch7 import graph as ops
from ls3dw.models.weights.torch7.graph import Op, Pair

LARGEST: Final = 1 << 16
"""Limit of channels, kernel sides and the like."""

Table = Op | list[Any]
"""Value passed between modules: a tensor, or a table of values."""


def number(module: T7Object, name: str, default: float | None = None) -> float:
    value = module.fields.get(name, default)
    if not isinstance(value, float | int):
        raise ModelError(f"{module.class_name}: field {name} is a {type(value).__name__}; expected a number")
    return value


def whole(module: T7Object, name: str, default: int | None = None) -> int:
    """Return a field that is a whole number."""
    value = number(module, name, default)
    if not 0 <= value <= LARGEST or value != int(value):
        raise ModelError(f"{module.class_name}: field {name} is {value}; expected a whole number")
    return int(value)


def array(module: T7Object, name: str) -> NDArray[Any] | None:
    """Return a tensor field; None where it is absent or empty."""
    value = module.fields.get(name)
    if value is None or (isinstance(value, np.ndarray) and value.size == 0):
        return None
    if not isinstance(value, np.ndarray):
        raise ModelError(f"{module.class_name}: field {name} is {type(value).__name__}; expected a tensor")
    if any(stride == 0 and size > 1 for stride, size in zip(value.strides, value.shape, strict=True)):
        raise ModelError(f"{module.class_name}: {name} of shape {value.shape} repeats its elements; expected weights")
    return value


def required(module: T7Object, name: str) -> NDArray[Any]:
    value = array(module, name)
    if value is None:
        raise ModelError(f"{module.class_name}: no {name}; the file was saved without its weights")
    return value


def _pair(module: T7Object, vertical: str, horizontal: str, default: int | None = None) -> Pair:
    return whole(module, vertical, default), whole(module, horizontal, default)


def _conv(module: T7Object, x: Op) -> Op:
    if whole(module, "groups", 1) != 1 or _pair(module, "dilationH", "dilationW", 1) != (1, 1):
        raise ModelError(f"{module.class_name}: in groups or dilated; no network here has such convolutions")
    shape = (*_pair(module, "nOutputPlane", "nInputPlane"), *_pair(module, "kH", "kW"))
    size = required(module, "weight").size
    if size != np.prod(shape, dtype=object):
        raise ModelError(f"{module.class_name}: {size} weights; expected {shape}")
    square = whole(module, "padding", 0)  # old files have one padding for both directions
    return ops.conv(x, module, shape, _pair(module, "dH", "dW", 1), _pair(module, "padH", "padW", square))


def _norm(module: T7Object, x: Op) -> Op:
    return ops.norm(x, module, required(module, "running_mean").size)


def _pool(kind: Literal["max", "avg"]) -> Callable[[T7Object, Op], Op]:
    def layer(module: T7Object, x: Op) -> Op:
        kernel, stride = _pair(module, "kH", "kW"), _pair(module, "dH", "dW")
        # With kernel = stride both roundings agree: networks here halve even sizes.
        if module.fields.get("ceil_mode") is True and kernel != stride:
            raise ModelError(f"{module.class_name}: rounds sizes up, which no network here does")
        if module.fields.get("divide") is False:
            raise ModelError(f"{module.class_name}: sums without dividing, which no network here does")
        return ops.pool(x, kind, kernel, stride, _pair(module, "padH", "padW", 0))

    return layer


def _relu(module: T7Object, x: Op) -> Op:
    if (number(module, "threshold", 0), number(module, "val", 0)) != (0, 0):
        raise ModelError(f"{module.class_name}: a threshold other than 0, which no network here has")
    return Op("relu", (x,))


def _dropout(module: T7Object, x: Op) -> Op:
    if module.fields.get("v2") is not True and number(module, "p") != 0:
        raise ModelError(f"{module.class_name}: of the old form that scales in use, which no network here does")
    return x


def _same(module: T7Object, x: Op) -> Op:
    return x


_LAYERS: Final[Mapping[str, Callable[[T7Object, Op], Op]]] = {
    "SpatialConvolution": _conv,
    "SpatialConvolutionMM": _conv,
    "SpatialDilatedConvolution": _conv,
    "SpatialBatchNormalization": _norm,
    "SpatialMaxPooling": _pool("max"),
    "SpatialAveragePooling": _pool("avg"),
    "SpatialUpSamplingNearest": lambda module, x: ops.upsample(x, whole(module, "scale_factor")),
    "Linear": lambda module, x: ops.linear(x, module, required(module, "weight").shape),
    "ReLU": _relu,
    "Threshold": _relu,
    "View": lambda module, x: Op("flatten", (x,)),
    "Reshape": lambda module, x: Op("flatten", (x,)),
    "Dropout": _dropout,
    "SpatialDropout": _dropout,
    "Contiguous": _same,
    "Copy": _same,
}

LAYERS: Final = {f"{library}.{name}": layer for library in ("nn", "cudnn") for name, layer in _LAYERS.items()}
"""Classes from one tensor to another; cudnn's have the fields of their namesakes."""


def add(module: T7Object, parts: list[Op]) -> Op:
    return Op("add", tuple(parts))


def join(module: T7Object, parts: list[Op]) -> Op:
    """Concatenate channels: the second dimension of a batch, or the first of a sample (nInputDims = 3)."""
    dimension, of_sample = whole(module, "dimension"), number(module, "nInputDims", -1) == 3
    if dimension != (1 if of_sample else 2):
        raise ModelError(f"{module.class_name}: joins dimension {dimension}; expected the channels")
    return Op("cat", tuple(parts))


JOINTS: Final = {"nn.CAddTable": add, "nn.JoinTable": join}
"""Classes from a table of tensors to one tensor."""

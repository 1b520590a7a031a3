"""Turns the weights of Torch7 modules into a state dict of ours."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ls3dw.core.formats.t7 import T7Object
from ls3dw.errors import ModelError
from ls3dw.models.weights.torch7.graph import Op
from ls3dw.models.weights.torch7.layers import array, number, required

EPS: Final = 1e-5
"""Addition to the variance in all our batch norms; not part of a state dict."""


class StateReader:
    """Collects a state dict module by module, and counts old forms in the file (`forms`).

    shapes: of our state dict; norm_after: name of a convolution -> of the batch norm that alone uses its result.
    """

    def __init__(self, shapes: Mapping[str, torch.Size], norm_after: Mapping[str, str]) -> None:
        self._shapes = shapes
        self._norm_after = norm_after
        self._biases: dict[str, NDArray[Any]] = {}
        self.state: dict[str, Tensor] = {}
        self.forms: Counter[str] = Counter()

    def add(self, op: Op, module: T7Object) -> None:
        """Read the weights of an operation of our network from its module in the file."""
        READERS[op.kind](self, str(op.origin), module)
        if module.class_name.startswith("cudnn."):
            self.forms["cudnn classes"] += 1
        if module.fields.get("train") is True:
            self.forms["modules saved in training mode"] += 1

    def _conv(self, name: str, module: T7Object) -> None:
        weight = required(module, "weight")
        if weight.ndim != len(self._shapes[f"{name}.weight"]):
            self.forms["convolutions stored as matrices"] += 1
        self._put(f"{name}.weight", module, weight)
        self._bias(name, module)

    def _bias(self, name: str, module: T7Object) -> None:
        bias, key = array(module, "bias"), f"{name}.bias"
        if key in self._shapes:
            if bias is None:
                self.forms["biases absent, taken as 0"] += 1
            self._put(key, module, bias if bias is not None else np.zeros(self._shapes[key]))
        elif bias is not None and np.any(bias):
            if name not in self._norm_after:
                raise ModelError(f"{name}: a bias that is not 0; our network has none there")
            self._biases[name] = bias

    def _norm(self, name: str, module: T7Object) -> None:
        mean = required(module, "running_mean")
        scale, shift = array(module, "weight"), array(module, "bias")
        if scale is None:
            self.forms["batch norms without scale and shift"] += 1
        self._put(f"{name}.running_mean", module, mean)
        self._put(f"{name}.running_var", module, self._variance(name, module))
        self._put(f"{name}.weight", module, scale if scale is not None else np.ones(mean.shape))
        self._put(f"{name}.bias", module, shift if shift is not None else np.zeros(mean.shape))
        self.state[f"{name}.num_batches_tracked"] = torch.zeros((), dtype=torch.int64)

    def _variance(self, name: str, module: T7Object) -> NDArray[Any]:
        """Return the variance that with our `EPS` is equivalent to the module's with its own eps."""
        eps = number(module, "eps", EPS)
        if not 0 <= eps < 1:
            raise ModelError(f"{name}: eps of the batch norm is {eps}; expected a small number")
        variance = array(module, "running_var")
        if variance is None:
            self.forms["batch norms of version 1 (running_std)"] += 1
            inverse = required(module, "running_std").astype(np.float64)
            if np.any(inverse == 0):
                raise ModelError(f"{name}: running_std is 0; expected 1 / sqrt(variance + eps)")
            return 1 / inverse**2 - EPS
        if eps != EPS:
            self.forms[f"batch norms with eps {eps:g}, moved into the variance"] += 1
            return variance.astype(np.float64) + (eps - EPS)
        return variance

    def move_biases(self) -> None:
        """Subtract biases that our network does not have from the mean of the batch norm after them."""
        for name, bias in self._biases.items():
            mean = self.state[f"{self._norm_after[name]}.running_mean"]
            if bias.shape != mean.shape:
                raise ModelError(f"{name}: bias of {bias.shape}; expected {tuple(mean.shape)}")
            mean -= torch.from_numpy(bias.astype(np.float32))
            if not torch.isfinite(mean).all():
                raise ModelError(f"{name}: its bias holds numbers that are not finite")
            self.forms["biases moved into the batch norm after them"] += 1

    def _linear(self, name: str, module: T7Object) -> None:
        self._put(f"{name}.weight", module, required(module, "weight"))
        self._bias(name, module)

    def _put(self, key: str, module: T7Object, values: NDArray[Any]) -> None:
        shape = self._shapes[key]
        if values.size != shape.numel():
            raise ModelError(f"{key}: {module.class_name} has {values.shape}; expected {tuple(shape)}")
        if values.dtype == np.float16:
            self.forms["tensors of half precision"] += 1
        with np.errstate(over="ignore"):  # overflows are refused below
            weights = np.array(values, np.float32, order="C").reshape(shape)
        if not np.isfinite(weights).all():
            raise ModelError(f"{key}: holds numbers that are not finite")
        self.state[key] = torch.from_numpy(weights)


READERS: Final[Mapping[str, Callable[[StateReader, str, T7Object], None]]] = {
    "conv": StateReader._conv,
    "norm": StateReader._norm,
    "linear": StateReader._linear,
}
"""Readers of the kinds of operations with weights."""


def check_storages(modules: list[T7Object]) -> bool:
    """Return whether weights share storages; `ModelError` if they have more numbers than the file.

    Otherwise a small damaged file could ask for any amount of memory, each weight a view of the same numbers.
    """
    weights = [required(module, "weight") for module in modules if array(module, "weight") is not None]
    bases = [weight.base if isinstance(weight.base, np.ndarray) else weight for weight in weights]
    numbers = sum({id(base): base.size for base in bases}.values())
    if sum(weight.size for weight in weights) > numbers:
        raise ModelError(f"weights overlap: {sum(weight.size for weight in weights)} are views of {numbers} numbers")
    return len({id(base) for base in bases}) < len(bases)

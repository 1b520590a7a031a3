"""The graph of operations of one of our own networks, traced from its `forward`: its structure stands nowhere twice."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import fx, nn

from ls3dw.models.weights.torch7 import ops
from ls3dw.models.weights.torch7.ops import Graph, Op


def trace(network: nn.Module) -> Graph:
    """Return the graph of a network that takes one tensor and gives one or a list. Origins are names of modules."""
    made: dict[fx.Node, Op] = {}
    for node in fx.symbolic_trace(network).graph.nodes:
        if node.op == "output":
            outputs = node.args[0] if isinstance(node.args[0], list | tuple) else [node.args[0]]
            return Graph([made[output] for output in outputs])
        if node.op == "placeholder":
            made[node] = Op("input")
        elif node.op == "call_module":
            made[node] = _module(network.get_submodule(node.target), node.target, made[node.args[0]])
        else:
            made[node] = FUNCTIONS[node.target](made, *node.args, **node.kwargs)
    raise AssertionError("a traced graph ends with its output")


def _module(module: nn.Module, name: str, x: Op) -> Op:
    if isinstance(module, nn.Conv2d):
        assert isinstance(module.padding, tuple)
        return ops.conv(x, name, module.weight.shape, module.stride, module.padding)
    if isinstance(module, nn.BatchNorm2d):
        return ops.norm(x, name, module.num_features)
    if isinstance(module, nn.Linear):
        return ops.linear(x, name, module.weight.shape)
    if isinstance(module, nn.ReLU):
        return Op("relu", (x,))
    if isinstance(module, nn.Identity):
        return x
    raise TypeError(f"{name}: a {type(module).__name__} is not known here; add it to {__name__}")


Made = Mapping[Any, Op]

# The tracer adds every option of a function; `others` are those that our networks leave as they are.


def _max(made: Made, x: Any, kernel: int, stride: int | None = None, padding: int = 0, **others: Any) -> Op:
    return ops.pool(made[x], "max", (kernel, kernel), (stride or kernel,) * 2, (padding, padding))


def _avg(made: Made, x: Any, kernel: int) -> Op:
    return ops.pool(made[x], "avg", (kernel, kernel), (kernel, kernel), (0, 0))


def _upsample(made: Made, x: Any, *, scale_factor: float, mode: str, **others: Any) -> Op:
    assert mode == "nearest"
    return ops.upsample(made[x], int(scale_factor))


def _cat(made: Made, parts: Any, dim: int) -> Op:
    assert dim == 1
    return Op("cat", tuple(made[part] for part in parts))


FUNCTIONS: Final[Mapping[Callable[..., Any], Callable[..., Op]]] = {
    F.relu: lambda made, x, **others: Op("relu", (made[x],)),
    F.max_pool2d: _max,
    F.avg_pool2d: _avg,
    F.interpolate: _upsample,
    torch.cat: _cat,
    torch.flatten: lambda made, x, start_dim: Op("flatten", (made[x],)),
    operator.add: lambda made, x, y: Op("add", (made[x], made[y])),
}

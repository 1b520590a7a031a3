"""Our own networks: guesses which one a graph is, and traces its graph from its `forward`."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import fx, nn

from ls3dw.core.markup import POINTS
from ls3dw.errors import ModelError
from ls3dw.models.weights.torch7 import graph as ops
from ls3dw.models.weights.torch7.graph import Graph, Op

MOST_STACKS: Final = 16
MOST_CHANNELS: Final = 4096
STAGES: Final = 4
"""Stages of a depth network; each has twice the planes of the one before."""


def guess(graph: Graph) -> dict[str, Any]:
    """Return the class of a network and its arguments; `ModelError` if it is neither a FAN nor a depth network.

    Only a few operations are looked at; the match checks the rest.
    """
    convs = [op for op in graph.ops if op.kind == "conv"]
    first = next((op for op in convs if op.inputs[0].kind == "input"), None)
    if first is None:
        raise ModelError("no convolution sees the input; expected a FAN or a depth network")
    kinds = {output.kind for output in graph.outputs}
    if kinds == {"conv"}:
        return _fan(graph, _weight(first))
    if kinds == {"linear"}:
        return _depth(convs, _weight(first))
    raise ModelError(f"gives the results of {', '.join(sorted(kinds))}; expected heatmaps of a FAN, or depths")


def _weight(op: Op) -> tuple[int, ...]:
    weight: tuple[int, ...] = dict(op.settings)["weight"]
    return weight


def _fan(graph: Graph, first: tuple[int, ...]) -> dict[str, Any]:
    stacks, (points, features) = len(graph.outputs), _weight(graph.outputs[0])[:2]
    poolings = sorted({op.kind for op in graph.ops if op.kind in ("avg", "max")})
    stem, in_channels = first[:2]
    if points != POINTS or len(poolings) != 1:
        raise ModelError(
            f"{points} heatmaps, pooling {' and '.join(poolings) or 'none'}; expected {POINTS}, avg or max"
        )
    if stacks > MOST_STACKS or max(features, stem, in_channels) > MOST_CHANNELS:
        raise ModelError(f"{stacks} stacks of {features} features; expected at most {MOST_STACKS} of {MOST_CHANNELS}")
    arguments = {"stacks": stacks, "features": features, "in_channels": in_channels, "pooling": poolings[0]}
    return {"class": "FAN", **arguments} | ({"stem": stem} if stem != features // 4 else {})


def _depth(convs: list[Op], first: tuple[int, ...]) -> dict[str, Any]:
    width = first[0]
    if width > MOST_CHANNELS // 2 ** (STAGES - 1):
        raise ModelError(f"{width} planes in the first stage of a depth network; that is too many")
    # Each bottleneck has one 3x3 convolution, as wide as its stage.
    layers = [
        sum(_weight(op) == (planes, planes, 3, 3) for op in convs)
        for planes in (width * 2**stage for stage in range(STAGES))
    ]
    if min(layers) < 1:
        raise ModelError(f"bottlenecks of four stages {layers}; expected at least one each")
    return {"class": "DepthNet", "layers": layers, "width": width}


def trace_network(network: nn.Module) -> Graph:
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

# The tracer passes every option of a function; `others` are at their defaults in our networks.


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

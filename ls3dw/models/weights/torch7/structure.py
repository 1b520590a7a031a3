"""Reads off a graph which of our networks it must be, and with what arguments."""

from __future__ import annotations

from typing import Any, Final

from ls3dw.core.markup import POINTS
from ls3dw.errors import ModelError
from ls3dw.models.weights.torch7.ops import Graph, Op

MOST_STACKS: Final = 16
MOST_CHANNELS: Final = 4096
STAGES: Final = 4
"""Stages of a depth network; each has twice the planes of the one before."""


def guess(graph: Graph) -> dict[str, Any]:
    """Return the class of a network and its arguments; `ModelError` if it is neither a FAN nor a depth network.

    They are taken from a few places only: whether the whole network is that one is for the match to say.
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

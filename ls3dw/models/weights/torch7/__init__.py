"""Reads networks from Torch7 files: FANs (the 2D-to-3D one exists in no other form) and depth networks.

The network in the file and our own are both followed from input to outputs as graphs of operations. If the graphs are
equal, each operation of ours takes the weights of its match. Names and orders in the file do not matter. No code of the
file is run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ls3dw.core.formats.t7 import T7Object, load
from ls3dw.errors import ModelError, T7Error
from ls3dw.models.weights.contract import NETWORKS
from ls3dw.models.weights.torch7.graph import Graph, Matcher, Op
from ls3dw.models.weights.torch7.own import guess, trace_network
from ls3dw.models.weights.torch7.walk import CONTAINERS, walk
from ls3dw.models.weights.torch7.weights import READERS, StateReader, check_storages

__all__ = ["Torch7Network", "convert", "read"]


@dataclass(frozen=True)
class Torch7Network:
    """A converted network.

    network: class and arguments, as in a `Contract`; state: float32 state dict; findings: notes on the file.
    """

    network: Mapping[str, Any]
    state: Mapping[str, Tensor]
    findings: tuple[str, ...]

    def build(self) -> nn.Module:
        """Return the network in eval mode."""
        network = _build(self.network)
        network.load_state_dict(self.state, strict=True)
        return network.eval().requires_grad_(False)


def read(path: str | Path) -> Torch7Network:
    """Read a network from a Torch7 file; `T7Error` or `ModelError` where it is not as expected."""
    return convert(load(path), str(path))


def convert(value: Any, where: str) -> Torch7Network:
    """Convert a value of `t7.load`: a network, or a table that holds one. where: for errors."""
    try:
        return _convert(_find(value))
    except (ModelError, T7Error) as error:  # T7Error: a table that should be a list
        raise ModelError(f"{where}: {error}") from error


def _find(value: Any) -> T7Object:
    """Return the network; checkpoints are tables that hold it under some name."""
    if isinstance(value, T7Object):
        return value
    entries = value if isinstance(value, dict) else {}
    networks = {
        key: entry for key, entry in entries.items() if isinstance(entry, T7Object) and entry.class_name in CONTAINERS
    }
    if len(networks) != 1:
        found = (
            f"a table with networks under {[str(key) for key in networks]}" if entries else f"a {type(value).__name__}"
        )
        raise ModelError(f"holds {found}; expected one network")
    return next(iter(networks.values()))


def _convert(module: T7Object) -> Torch7Network:
    found = walk(module)
    network = guess(found)
    ours = _build(network, device="meta")
    expected = trace_network(ours)
    matched = {wanted: op for wanted, op in Matcher(expected, found).match().items() if wanted.kind in READERS}
    shares = check_storages([op.origin for op in matched.values()])
    weights = StateReader({key: value.shape for key, value in ours.state_dict().items()}, _norm_after(expected))
    for wanted, op in matched.items():
        weights.add(wanted, op.origin)
    weights.move_biases()
    findings = [f"{what}: {count}" for what, count in sorted(weights.forms.items())]
    if shares:
        findings.append("weights are views of a shared storage")
    return Torch7Network(network, weights.state, tuple(findings))


def _norm_after(graph: Graph) -> dict[str, str]:
    """Return the batch norm after each convolution, where nothing else uses its result."""
    users: dict[Op, list[Op]] = {}
    for op in graph.ops:
        for x in graph.operands(op):
            users.setdefault(x, []).append(op)
    return {
        x.origin: found[0].origin
        for x, found in users.items()
        if x.kind == "conv" and len(found) == 1 and found[0].kind == "norm"
    }


def _build(network: Mapping[str, Any], device: str = "cpu") -> nn.Module:
    arguments = {key: value for key, value in network.items() if key != "class"}
    try:
        with torch.device(device):
            return NETWORKS[network["class"]](**arguments)
    except ValueError as error:
        raise ModelError(f"no such network can be made ({error})") from error

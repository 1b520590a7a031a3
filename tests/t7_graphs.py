"""Stores our networks as Torch7 would have, in the forms of its years: nngraph and containers, as plain data.

Made from the traced graph of a network, so that what an import must give back is known to the last weight.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from ls3dw.core.formats.t7 import Key, T7Object
from ls3dw.models.networks.depth import Bottleneck, DepthNet
from ls3dw.models.weights.torch7.graph import Op
from ls3dw.models.weights.torch7.own import trace_network

EPS = 1e-5


@dataclass(frozen=True)
class Form:
    """One way of storing a network. seed: shuffles `modules` and `forwardnodes`, and the inputs of sums; None: not.

    flat: all parameters are views of one storage; old_norm: batch norm of version 1; matrices: convolution weights as
    out x in*kH*kW; prefix: "nn" or "cudnn"; train: saved in training mode; keep_zero_bias: False leaves biases of
    zeros out; wrapped: in a DataParallelTable; dtype: of all tensors; eps: of the batch norms, the same function.
    """

    seed: int | None = None
    flat: bool = False
    old_norm: bool = False
    matrices: bool = False
    prefix: str = "nn"
    train: bool = False
    keep_zero_bias: bool = True
    wrapped: bool = False
    dtype: str = "float32"
    eps: float = EPS


def graph_of(network: nn.Module, form: Form) -> T7Object:
    """Return `network` as an nngraph gModule, one node an operation."""
    tensors = Tensors(network, form)
    traced = trace_network(network)
    order = list(traced.ops)
    rng = np.random.default_rng(form.seed)
    nodes: dict[Op, T7Object] = {}
    for op in order:
        inputs = [nodes[x] for x in traced.operands(op)]
        if op.kind == "add" and form.seed is not None:
            inputs = [inputs[place] for place in rng.permutation(len(inputs))]
        nodes[op] = _node(inputs, None if op.kind == "input" else module_of(op, tensors))
    end = _node([nodes[op] for op in traced.outputs], None)
    forward = [*nodes.values(), end]
    modules = [node.fields["data"]["module"] for node in forward if "module" in node.fields["data"]]
    if form.seed is not None:
        rng.shuffle(modules)  # type: ignore[arg-type]
        rng.shuffle(forward)  # type: ignore[arg-type]
    tensors.flatten()
    graph = _object("nn.gModule", form, modules=modules, forwardnodes=forward, outnode=end, nInputs=1)
    graph.fields["innode"] = next(node for op, node in nodes.items() if op.kind == "input")
    return _object("nn.DataParallelTable", form, modules=[graph]) if form.wrapped else graph


def _node(inputs: list[T7Object], module: T7Object | None) -> T7Object:
    """A node knows its inputs by number and by their data; these know it as a child, so graphs are full of circles."""
    index: dict[Any, Any] = {}
    for number, parent in enumerate(inputs, 1):
        index[number] = parent.fields["data"]
        index[Key(parent.fields["data"])] = number
    data: dict[str, Any] = {"mapindex": index, "annotations": {}}
    if module is not None:
        data["module"] = module
    node = T7Object("nngraph.Node", 1, {"data": data, "children": []})
    for parent in inputs:
        parent.fields["children"].append(node)
    return node


def _object(name: str, form: Form, **fields: Any) -> T7Object:
    return T7Object(name, 1, {**fields, "train": form.train, "_type": "torch.FloatTensor"})


class Tensors:
    """The tensors of a network as Torch7 modules keep them."""

    def __init__(self, network: nn.Module, form: Form) -> None:
        self.form = form
        self._state = {key: value.double().numpy() for key, value in network.state_dict().items()}
        self._owners: list[tuple[dict[Any, Any], str]] = []

    def __getitem__(self, key: str) -> np.ndarray:
        return self._state[key].astype(self.form.dtype)

    def put(self, fields: dict[Any, Any], name: str, values: np.ndarray) -> None:
        """Add a parameter, which may move to the flat storage."""
        fields[name] = values
        self._owners.append((fields, name))

    def get(self, key: str) -> np.ndarray | None:
        return self[key] if key in self._state else None

    def flatten(self) -> None:
        """Do what `getParameters` does, with something before and between the parameters."""
        if not self.form.flat:
            return
        sizes = [fields[name].size + 3 for fields, name in self._owners]
        flat = np.zeros(sum(sizes) + 5, self.form.dtype)
        at = 5
        for (fields, name), size in zip(self._owners, sizes, strict=True):
            view = flat[at : at + size - 3].reshape(fields[name].shape)
            view[...] = fields[name]
            fields[name] = view
            at += size
        # The flat tensor itself stands in the file too, so that the views overlap with it.
        self._owners[0][0]["gradInput"] = flat


def module_of(op: Op, tensors: Tensors) -> T7Object:
    """Return the Torch7 module that does what `op` does."""
    form, settings = tensors.form, dict(op.settings)
    name, fields = MODULES[op.kind](settings)
    prefix = form.prefix if (name.startswith("Spatial") and "UpSampling" not in name) or name == "ReLU" else "nn"
    module = _object(f"{prefix}.{name}", form, **fields)
    if op.kind in ("conv", "linear"):
        _put_weights(module, op, tensors)
    elif op.kind == "norm":
        _put_norm(module, op, tensors)
    return module


def _put_weights(module: T7Object, op: Op, tensors: Tensors) -> None:
    weight, bias = tensors[f"{op.origin}.weight"], tensors.get(f"{op.origin}.bias")
    if tensors.form.matrices:
        weight = weight.reshape(len(weight), -1)
    tensors.put(module.fields, "weight", weight)
    if bias is not None and (tensors.form.keep_zero_bias or bias.any()):
        tensors.put(module.fields, "bias", bias)


def _put_norm(module: T7Object, op: Op, tensors: Tensors) -> None:
    form = tensors.form
    tensors.put(module.fields, "weight", tensors[f"{op.origin}.weight"])
    tensors.put(module.fields, "bias", tensors[f"{op.origin}.bias"])
    module.fields["running_mean"] = tensors[f"{op.origin}.running_mean"]
    variance = tensors[f"{op.origin}.running_var"].astype(np.float64) + EPS - form.eps
    module.fields["eps"] = form.eps
    module.version = 1 if form.old_norm else 2
    if form.old_norm:
        module.fields["running_std"] = (1 / np.sqrt(variance + form.eps)).astype(form.dtype)
    else:
        module.fields["running_var"] = variance.astype(form.dtype)


def _conv(settings: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    (out, channels, height, width), (dy, dx), (py, px) = settings["weight"], settings["stride"], settings["padding"]
    sizes = {"nOutputPlane": out, "nInputPlane": channels, "kH": height, "kW": width}
    return "SpatialConvolution", {**sizes, "dH": dy, "dW": dx, "padH": py, "padW": px}


def _pool(name: str) -> Callable[[Mapping[str, Any]], tuple[str, dict[str, Any]]]:
    def fields(settings: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        (height, width), (dy, dx), (py, px) = settings["kernel"], settings["stride"], settings["padding"]
        return name, {"kH": height, "kW": width, "dH": dy, "dW": dx, "padH": py, "padW": px, "ceil_mode": False}

    return fields


MODULES: Mapping[str, Callable[[Mapping[str, Any]], tuple[str, dict[str, Any]]]] = {
    "conv": _conv,
    "norm": lambda settings: ("SpatialBatchNormalization", {"affine": True, "momentum": 0.1}),
    "relu": lambda settings: ("ReLU", {"threshold": 0, "val": 0, "inplace": True}),
    "max": _pool("SpatialMaxPooling"),
    "avg": _pool("SpatialAveragePooling"),
    "upsample": lambda settings: ("SpatialUpSamplingNearest", {"scale_factor": settings["scale"]}),
    "add": lambda settings: ("CAddTable", {"inplace": True}),
    "cat": lambda settings: ("JoinTable", {"dimension": 2}),
    "flatten": lambda settings: ("View", {}),
    "linear": lambda settings: ("Linear", {}),
}


def containers_of(network: DepthNet, form: Form) -> T7Object:
    """Return a depth network as plain containers, each bottleneck a ConcatTable with its sum and ReLU."""
    tensors = Tensors(network, form)
    ops = {op.origin: op for op in trace_network(network).ops}
    other = {op.kind: op for op in trace_network(network).ops}

    def named(*names: str) -> list[T7Object]:
        """Modules by name; "relu" and the like stand for any of their kind."""
        return [module_of(ops.get(name) or other[name], tensors) for name in names]

    def bottleneck(name: str, block: nn.Module) -> T7Object:
        path = [f"{name}.{layer}" for layer in ("conv1", "bn1", "relu", "conv2", "bn2", "relu", "conv3", "bn3")]
        main = named(*(step.split(".")[-1] if step.endswith("relu") else step for step in path))
        skip = [_object("nn.Identity", form)]
        if not isinstance(block.downsample, nn.Identity):
            skip = named(f"{name}.downsample.0", f"{name}.downsample.1")
        branches = [_object("nn.Sequential", form, modules=branch) for branch in (main, skip)]
        steps = [_object("nn.ConcatTable", form, modules=branches), *named("add", "relu")]
        return _object("nn.Sequential", form, modules=steps)

    blocks = [bottleneck(name, block) for name, block in network.named_modules() if isinstance(block, Bottleneck)]
    modules = [*named("conv1", "bn1", "relu", "max"), *blocks, *named("avg", "flatten", "fc")]
    tensors.flatten()
    return _object("nn.Sequential", form, modules=modules)

"""Follows a tensor through the containers and graphs of a Torch7 network, without running it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from graphlib import CycleError, TopologicalSorter
from typing import Any, Final

from ls3dw.core.formats.t7 import T7Object, as_list
from ls3dw.errors import ModelError
from ls3dw.models.weights.torch7.graph import Graph, Op
from ls3dw.models.weights.torch7.layers import JOINTS, LAYERS, Table, whole

DEEPEST: Final = 64
"""Levels of containers; a FAN has about ten."""

MOST: Final = 20_000
"""Modules and joined parts on the tensor's way; the largest FAN has about 4,000."""


def walk(network: T7Object) -> Graph:
    """Return the graph of a network, whose origins are Torch7 objects; `ModelError` where it is not understood."""
    result = _Walk().through(network, Op("input"), 0)
    outputs = result if isinstance(result, list) else [result]
    if not outputs or not all(isinstance(output, Op) for output in outputs):
        raise ModelError(f"{network.class_name}: its output is a table of tables, or empty; expected heatmaps")
    return Graph(outputs)


class _Walk:
    def __init__(self) -> None:
        self._passed = 0

    def through(self, module: Any, x: Table, depth: int) -> Table:
        """Return a module's result for `x`."""
        if not isinstance(module, T7Object):
            raise ModelError(f"a {type(module).__name__} stands where a module is expected")
        self._passed += 1
        if depth > DEEPEST or self._passed > MOST:
            raise ModelError(
                f"{module.class_name}: more than {DEEPEST} levels or {MOST} modules; no network is so large"
            )
        name = module.class_name
        if name in CONTAINERS:
            return CONTAINERS[name](self, module, x, depth + 1)
        if name in JOINTS:
            parts = _tensors(module, x)
            self._passed += len(parts)
            return JOINTS[name](module, parts)
        if name in LAYERS:
            return LAYERS[name](module, _tensor(module, x))
        raise ModelError(f"{name}: this class is not understood; FAN and depth networks have none of it")

    def sequential(self, module: T7Object, x: Table, depth: int) -> Table:
        for child in _modules(module):
            x = self.through(child, x, depth)
        return x

    def concat_table(self, module: T7Object, x: Table, depth: int) -> Table:
        return [self.through(child, x, depth) for child in _modules(module)]

    def concat(self, module: T7Object, x: Table, depth: int) -> Table:
        return JOINTS["nn.JoinTable"](module, _tensors(module, self.concat_table(module, x, depth)))

    def parallel_table(self, module: T7Object, x: Table, depth: int) -> Table:
        children, parts = _modules(module), _table(module, x)
        if len(children) != len(parts):
            raise ModelError(f"{module.class_name}: {len(children)} modules for a table of {len(parts)}")
        return [self.through(child, part, depth) for child, part in zip(children, parts, strict=True)]

    def first(self, module: T7Object, x: Table, depth: int) -> Table:
        """Follow the first copy of a network that was spread over GPUs."""
        return self.through(next(iter(_modules(module)), None), x, depth)

    def identity(self, module: T7Object, x: Table, depth: int) -> Table:
        return x

    def select(self, module: T7Object, x: Table, depth: int) -> Table:
        return _entry(module, x, whole(module, "index"))

    def graph(self, module: T7Object, x: Table, depth: int) -> Table:
        """Sort a graph from its output back along `mapindex`, then follow it forward."""
        start, end = _data(module, "innode"), _data(module, "outnode")
        nodes, inputs = _behind(module, end)
        results: dict[int, Table] = {}
        for key in _order(module, inputs):
            data, parts = nodes[key], [results[parent] for parent in inputs[key]]
            if data is start:
                results[key] = x
                continue
            if not parts:
                raise ModelError(f"{module.class_name}: a node without inputs that is not the graph's input")
            part = parts if len(parts) > 1 else parts[0]
            if data is end:
                return part
            results[key] = self._node(module, data, part, depth)
        raise ModelError(f"{module.class_name}: the output is not reached")

    def _node(self, module: T7Object, data: dict[Any, Any], x: Table, depth: int) -> Table:
        if data.get("selectindex") is not None:
            return _entry(module, x, whole(T7Object("nngraph.Node", 1, data), "selectindex"))
        return x if data.get("module") is None else self.through(data["module"], x, depth)


CONTAINERS: Final[Mapping[str, Callable[[_Walk, T7Object, Table, int], Table]]] = {
    "nn.Sequential": _Walk.sequential,
    "nn.ConcatTable": _Walk.concat_table,
    "nn.Concat": _Walk.concat,
    "nn.ParallelTable": _Walk.parallel_table,
    "nn.DataParallelTable": _Walk.first,
    "nn.gModule": _Walk.graph,
    "nn.Identity": _Walk.identity,
    "nn.SelectTable": _Walk.select,
}
"""Classes that pass tensors and tables on to others."""


def _modules(module: T7Object) -> list[Any]:
    modules = module.fields.get("modules")
    if not isinstance(modules, dict):
        raise ModelError(f"{module.class_name}: no table of modules")
    return as_list(modules)


def _data(module: T7Object, name: str) -> dict[Any, Any]:
    """Return the data of a graph's first or last node."""
    node = module.fields.get(name)
    data = node.fields.get("data") if isinstance(node, T7Object) else None
    if not isinstance(data, dict):
        raise ModelError(f"{module.class_name}: no node {name}")
    return data


def _behind(module: T7Object, end: dict[Any, Any]) -> tuple[dict[int, dict[Any, Any]], dict[int, list[int]]]:
    """Return the data of all nodes that lead to `end`, and their inputs in order, both by `id`."""
    nodes: dict[int, dict[Any, Any]] = {}
    inputs: dict[int, list[int]] = {}
    waiting = [end]
    while waiting:
        data = waiting.pop()
        if id(data) in nodes:
            continue
        nodes[id(data)] = data
        # `mapindex` maps both ways: numbers to the inputs' data, and these to their numbers.
        index = data.get("mapindex")
        numbered = (
            {key: value for key, value in index.items() if isinstance(key, int)} if isinstance(index, dict) else {}
        )
        parents = as_list(numbered)
        if not all(isinstance(parent, dict) for parent in parents):
            raise ModelError(f"{module.class_name}: a node's input is no node")
        inputs[id(data)] = [id(parent) for parent in parents]
        waiting.extend(parents)
    return nodes, inputs


def _order(module: T7Object, inputs: Mapping[int, list[int]]) -> list[int]:
    try:
        return list(TopologicalSorter(inputs).static_order())
    except CycleError as error:
        raise ModelError(f"{module.class_name}: its graph runs in a circle") from error


def _table(module: T7Object, x: Table) -> list[Any]:
    if isinstance(x, Op):
        raise ModelError(f"{module.class_name}: a tensor comes in; expected a table")
    return x


def _tensors(module: T7Object, x: Table) -> list[Op]:
    return [_tensor(module, part) for part in _table(module, x)]


def _tensor(module: T7Object, x: Any) -> Op:
    if not isinstance(x, Op):
        raise ModelError(f"{module.class_name}: a table comes in; expected a tensor")
    return x


def _entry(module: T7Object, x: Table, number: int) -> Table:
    parts = _table(module, x)
    if not 1 <= number <= len(parts):
        raise ModelError(f"{module.class_name}: entry {number} of a table of {len(parts)}")
    entry: Table = parts[number - 1]
    return entry

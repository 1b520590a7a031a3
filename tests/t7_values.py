"""Values that a Torch7 file can hold: random ones, and whether two are the same."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st
from t7_spelling import NAMES

from ls3dw.core.formats.t7 import Key, T7Object, as_list

CONTAINERS = (dict, list, np.ndarray, T7Object)


def assert_same(wanted: Any, found: Any) -> None:
    """Check that two values are alike and shared alike, without recursion. Lists come back as tables from 1 on."""
    partner: dict[int, int] = {}
    waiting = [(wanted, found)]
    while waiting:
        a, b = waiting.pop()
        if not isinstance(a, CONTAINERS):
            assert a == b or (a != a and b != b), (a, b)
            assert kind(a) == kind(b), (a, b)
        elif id(a) in partner:
            assert partner[id(a)] == id(b), "two things where there was one"
        else:
            partner[id(a)] = id(b)
            waiting.extend(parts(a, b))
    assert len(set(partner.values())) == len(partner), "one thing where there were two"


def parts(a: Any, b: Any) -> list[tuple[Any, Any]]:
    """Check two containers by themselves and return what of them must be alike."""
    if isinstance(a, np.ndarray):
        native = a.astype(a.dtype.newbyteorder("="))
        assert (native.dtype, a.shape, native.tobytes()) == (b.dtype, b.shape, b.tobytes())
        return []
    if isinstance(a, T7Object):
        assert (a.class_name, a.version) == (b.class_name, b.version)
        return [(a.fields, b.fields)]
    if isinstance(a, list):
        return list(zip(a, as_list(b), strict=True))
    keys = [(plain(x), plain(y)) for x, y in zip(a, b, strict=True)]
    return keys + list(zip(a.values(), b.values(), strict=True))


def kind(value: Any) -> str:
    """Name the type of a plain value as Lua has it."""
    return "number" if isinstance(value, float | int) and not isinstance(value, bool) else type(value).__name__


def plain(key: Any) -> Any:
    return key.value if isinstance(key, Key) else key


@st.composite
def containers(draw: st.DrawFn) -> Any:
    """An empty table, list or object, or an array that lies in memory in some way."""
    sort = draw(st.sampled_from(["dict", "list", "object", "array"]))
    if sort == "array":
        return draw(arrays())
    return {
        "dict": {},
        "list": [],
        "object": T7Object(draw(st.sampled_from(["nn.A", "b.C"])), draw(st.integers(0, 9))),
    }[sort]


@st.composite
def arrays(draw: st.DrawFn) -> np.ndarray:
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    shape = draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    array = rng.integers(0, 100, shape).astype(draw(st.sampled_from(list(NAMES))))
    array = array.transpose(rng.permutation(array.ndim)) if draw(st.booleans()) else array
    step = draw(st.sampled_from([1, 2, -1]))
    array = array[::step]
    if draw(st.booleans()):
        array = (
            array.astype(array.dtype.newbyteorder(">"))
            if draw(st.booleans())
            else np.broadcast_to(array, (2, *array.shape))
        )
    return array


def keys(nodes: list[Any]) -> st.SearchStrategy[Any]:
    """Keys that a table can have; tables and arrays stand in a `Key`."""
    held = [node if isinstance(node, T7Object) else Key(node) for node in nodes if not isinstance(node, list)]
    plain_keys = st.one_of(st.integers(-5, 5), st.text(max_size=3), st.sampled_from([0.5, Key(True), Key(False)]))
    return st.one_of(plain_keys, st.sampled_from(held)) if held else plain_keys


@st.composite
def values(draw: st.DrawFn) -> Any:
    """Tables, lists, objects and arrays that hold each other in any way, circles among them."""
    leaves = st.one_of(
        st.none(), st.booleans(), st.floats(), st.integers(-(2**53), 2**53), st.text(st.characters(codec="utf-8"))
    )
    nodes = [draw(containers()) for _ in range(draw(st.integers(1, 8)))]
    for node in nodes:
        if isinstance(node, np.ndarray):
            continue
        for number in range(draw(st.integers(0, 5))):
            entry = draw(st.one_of(leaves, st.sampled_from(nodes)))
            if isinstance(node, list):
                node.append(entry)
            elif isinstance(node, T7Object):
                node.fields[f"field {number}"] = entry
            else:
                node[draw(keys(nodes))] = entry
    return nodes[0]

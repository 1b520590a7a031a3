"""A network as a graph of operations, without its weights: what two networks must share to take the same weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Pair = tuple[int, int]
"""Vertical, horizontal."""

Kind = Literal["input", "conv", "norm", "relu", "max", "avg", "upsample", "add", "cat", "flatten", "linear"]


@dataclass(frozen=True, eq=False)
class Op:
    """One operation. Two are equal only if they are the same one.

    settings: all that makes two operations differ but weights and inputs, as (name, value) pairs;
    origin: where its weights are, a module's name or a Torch7 object.
    """

    kind: Kind
    inputs: tuple[Op, ...] = ()
    settings: tuple[tuple[str, Any], ...] = ()
    origin: Any = None

    def __str__(self) -> str:
        return " ".join((self.kind, *(f"{name}={value}" for name, value in self.settings)))


def conv(x: Op, origin: Any, shape: Sequence[int], stride: Sequence[int], padding: Sequence[int]) -> Op:
    """shape: (out, in, height, width) of the weights; stride, padding: (vertical, horizontal)."""
    settings = (("weight", tuple(shape)), ("stride", tuple(stride)), ("padding", tuple(padding)))
    return Op("conv", (x,), settings, origin)


def norm(x: Op, origin: Any, channels: int) -> Op:
    return Op("norm", (x,), (("channels", channels),), origin)


def pool(x: Op, kind: Literal["max", "avg"], kernel: Pair, stride: Pair, padding: Pair) -> Op:
    return Op(kind, (x,), (("kernel", kernel), ("stride", stride), ("padding", padding)))


def linear(x: Op, origin: Any, shape: Sequence[int]) -> Op:
    """shape: (out, in) of the weights."""
    return Op("linear", (x,), (("weight", tuple(shape)),), origin)


def upsample(x: Op, scale: int) -> Op:
    return Op("upsample", (x,), (("scale", scale),))


def in_order(outputs: Sequence[Op]) -> Iterator[Op]:
    """Yield every operation that the outputs need once, inputs before what uses them."""
    done: set[Op] = set()
    waiting = list(reversed(outputs))
    while waiting:
        op = waiting[-1]
        missing = [x for x in op.inputs if x not in done]
        if missing:
            waiting.extend(reversed(missing))
            continue
        waiting.pop()
        if op not in done:
            done.add(op)
            yield op


NESTING = ("add", "cat")
"""Kinds that give the same however they are bracketed."""


class Graph:
    """The operations behind some outputs; sums and concatenations are taken whole: `(a + b) + c` is a sum of three."""

    def __init__(self, outputs: Sequence[Op]) -> None:
        self.outputs = tuple(outputs)
        self._ops = tuple(in_order(outputs))
        uses = Counter(x for op in self._ops for x in op.inputs)
        uses.update(outputs)
        nested = (x for op in self._ops if op.kind in NESTING for x in op.inputs if x.kind == op.kind)
        self._folded = {x for x in nested if uses[x] == 1}

    @property
    def ops(self) -> Iterator[Op]:
        """All operations, inputs before what uses them; what is part of another sum or concatenation is left out."""
        return (op for op in self._ops if op not in self._folded)

    def operands(self, op: Op) -> tuple[Op, ...]:
        """Return the inputs of `op`, in order; of a sum or concatenation all its parts."""
        parts: list[Op] = []
        waiting = list(reversed(op.inputs))
        while waiting:
            part = waiting.pop()
            if part in self._folded:
                waiting.extend(reversed(part.inputs))
            else:
                parts.append(part)
        return tuple(parts)

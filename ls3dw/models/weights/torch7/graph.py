"""Networks as graphs of operations without weights, and the matching of two such graphs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ls3dw.errors import ModelError

Pair = tuple[int, int]
"""Vertical, horizontal."""

Kind = Literal["input", "conv", "norm", "relu", "max", "avg", "upsample", "add", "cat", "flatten", "linear"]


@dataclass(frozen=True, eq=False)
class Op:
    """One operation, compared by identity.

    settings: all properties except weights and inputs, as (name, value) pairs; origin: a module's name or a Torch7
    object, which has its weights.
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
    """Yield each operation behind the outputs once, inputs before their users."""
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
"""Associative kinds."""


class Graph:
    """The operations behind some outputs; sums and concatenations are flattened: `(a + b) + c` is a sum of three."""

    def __init__(self, outputs: Sequence[Op]) -> None:
        self.outputs = tuple(outputs)
        self._ops = tuple(in_order(outputs))
        uses = Counter(x for op in self._ops for x in op.inputs)
        uses.update(outputs)
        nested = (x for op in self._ops if op.kind in NESTING for x in op.inputs if x.kind == op.kind)
        self._folded = {x for x in nested if uses[x] == 1}

    @property
    def ops(self) -> Iterator[Op]:
        """All operations, inputs before their users, without the inner ones of flattened sums and concatenations."""
        return (op for op in self._ops if op not in self._folded)

    def operands(self, op: Op) -> tuple[Op, ...]:
        """Return the inputs of `op` in order; all parts of a flattened sum or concatenation."""
        parts: list[Op] = []
        waiting = list(reversed(op.inputs))
        while waiting:
            part = waiting.pop()
            if part in self._folded:
                waiting.extend(reversed(part.inputs))
            else:
                parts.append(part)
        return tuple(parts)


class Matcher:
    """Labels the operations of two graphs: equal labels for equal operations with equal inputs."""

    def __init__(self, expected: Graph, found: Graph) -> None:
        self._expected, self._found = expected, found
        known: dict[tuple[Any, ...], int] = {}
        self._label: dict[Op, int] = {}
        for graph in (expected, found):
            for op in graph.ops:
                labels = [self._label[x] for x in graph.operands(op)]
                if op.kind == "add":  # summands have no order
                    labels.sort()
                self._label[op] = known.setdefault((op.kind, op.settings, *labels), len(known))

    def match(self) -> dict[Op, Op]:
        """Return the found operation of each expected one; `ModelError` names the first difference."""
        if len(self._expected.outputs) != len(self._found.outputs):
            raise ModelError(f"{len(self._found.outputs)} outputs; expected {len(self._expected.outputs)}")
        pairs = list(zip(self._expected.outputs, self._found.outputs, strict=True))
        matched: dict[Op, Op] = {}
        while pairs:
            wanted, op = pairs.pop()
            if self._label[wanted] != self._label[op]:
                raise self._difference(wanted, op)
            if wanted not in matched:
                matched[wanted] = op
                pairs.extend(zip(*self._operands(wanted, op), strict=True))
            elif matched[wanted] is not op:
                raise ModelError(f"{_place(wanted)}: one operation in the network, two different ones in the file")
        return matched

    def _operands(self, wanted: Op, op: Op) -> tuple[list[Op], list[Op]]:
        """Return the inputs of both; those of sums are sorted by label."""
        inputs = [list(self._expected.operands(wanted)), list(self._found.operands(op))]
        if wanted.kind == "add":
            for terms in inputs:
                terms.sort(key=self._label.__getitem__)
        return inputs[0], inputs[1]

    def _difference(self, wanted: Op, op: Op) -> ModelError:
        """Follow two different operations back to where they first differ."""
        while True:
            inputs = self._operands(wanted, op)
            if wanted.kind != op.kind or wanted.settings != op.settings or len(inputs[0]) != len(inputs[1]):
                return ModelError(f"{_place(wanted)}: {op} of {len(inputs[1])}; expected {wanted} of {len(inputs[0])}")
            if wanted.kind == "add":
                inputs = self._without(*inputs), self._without(*reversed(inputs))
            wanted, op = next(
                pair for pair in zip(*inputs, strict=True) if self._label[pair[0]] != self._label[pair[1]]
            )

    def _without(self, terms: list[Op], others: list[Op]) -> list[Op]:
        """Return the summands that have no equal among the others."""
        spare = Counter(self._label[other] for other in others)
        spare.subtract(self._label[term] for term in terms)
        left: list[Op] = []
        for term in terms:
            if spare[self._label[term]] < 0:
                spare[self._label[term]] += 1
                left.append(term)
        return left


def _place(op: Op) -> str:
    """Name the nearest module at or before an operation that has a name."""
    while not isinstance(op.origin, str) and op.inputs:
        op = op.inputs[0]
    return op.origin if isinstance(op.origin, str) else "the input"

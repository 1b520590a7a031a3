"""Finds which operation of one graph does the work of which of another."""

from __future__ import annotations

from collections import Counter
from typing import Any

from ls3dw.errors import ModelError
from ls3dw.models.weights.torch7.ops import Graph, Op


class Matcher:
    """Labels the operations of two graphs so that two have one label if all that leads to them is alike."""

    def __init__(self, expected: Graph, found: Graph) -> None:
        self._expected, self._found = expected, found
        known: dict[tuple[Any, ...], int] = {}
        self._label: dict[Op, int] = {}
        for graph in (expected, found):
            for op in graph.ops:
                labels = [self._label[x] for x in graph.operands(op)]
                if op.kind == "add":  # the order of summands is nobody's business
                    labels.sort()
                self._label[op] = known.setdefault((op.kind, op.settings, *labels), len(known))

    def match(self) -> dict[Op, Op]:
        """Return the operation found for each one expected; `ModelError` names the first difference."""
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
        """Return the inputs of both, those of sums in the order of their labels."""
        inputs = [list(self._expected.operands(wanted)), list(self._found.operands(op))]
        if wanted.kind == "add":
            for terms in inputs:
                terms.sort(key=self._label.__getitem__)
        return inputs[0], inputs[1]

    def _difference(self, wanted: Op, op: Op) -> ModelError:
        """Follow two unlike operations back to where they first differ."""
        while True:
            inputs = self._operands(wanted, op)
            if wanted.kind != op.kind or wanted.settings != op.settings or len(inputs[0]) != len(inputs[1]):
                return ModelError(f"{_place(wanted)}: {op} of {len(inputs[1])}; expected {wanted} of {len(inputs[0])}")
            if wanted.kind == "add":
                inputs = self._unlike(*inputs)
            wanted, op = next(
                pair for pair in zip(*inputs, strict=True) if self._label[pair[0]] != self._label[pair[1]]
            )

    def _unlike(self, wanted: list[Op], found: list[Op]) -> tuple[list[Op], list[Op]]:
        """Leave out the summands that have their like on the other side."""
        return self._without(wanted, found), self._without(found, wanted)

    def _without(self, terms: list[Op], others: list[Op]) -> list[Op]:
        spare = Counter(self._label[other] for other in others)
        spare.subtract(self._label[term] for term in terms)
        left: list[Op] = []
        for term in terms:
            label = self._label[term]
            if spare[label] < 0:
                spare[label] += 1
                left.append(term)
        return left


def _place(op: Op) -> str:
    """Name the nearest module at or before an operation that has a name."""
    while not isinstance(op.origin, str) and op.inputs:
        op = op.inputs[0]
    return op.origin if isinstance(op.origin, str) else "the input"

"""What bounds a build, from what each of its parts takes for a face."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Lane:
    """A part of a build that works at the same time as the others.

    seconds: for a face; width: of lanes side by side, how many work in parallel, each on faces of its own; of lanes
    that share the cores, how many cores a face keeps busy.
    """

    name: str
    seconds: float
    width: int = 1


@dataclass(frozen=True)
class Bound:
    """rate: faces a second that the whole can reach; shares: how busy each lane is then, in [0, 1]; lane: the most."""

    rate: float
    shares: Mapping[str, float]

    @property
    def lane(self) -> str:
        return max(self.shares, key=lambda name: self.shares[name])


def side_by_side(lanes: Sequence[Lane]) -> Bound:
    """Bound lanes that do not take anything from each other, as beside a GPU: the slowest is always busy."""
    rate = min(lane.width / lane.seconds for lane in lanes)
    return Bound(rate, {lane.name: rate * lane.seconds / lane.width for lane in lanes})


def sharing(lanes: Sequence[Lane], cores: int) -> Bound:
    """Bound lanes that share the cores, as on the CPU: what one takes is missing to the others."""
    spent = sum(lane.seconds * lane.width for lane in lanes)
    return Bound(cores / spent, {lane.name: lane.seconds * lane.width / spent for lane in lanes})

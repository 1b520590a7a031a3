"""What is timed: a stage and its result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ls3dw.building.bench.timing import Clock, Clocks, Timing, Work


@dataclass(frozen=True)
class Stage:
    """A piece of work on `items` faces (or frames, where it decodes).

    clock: the one of `Clocks` that times it; macs: of the published form of its networks, for a face, each being two
    operations; 0: no arithmetic worth naming; within: its work is part of another stage's.
    """

    name: str
    work: Work
    items: int
    clock: Literal["host", "device", "steady"] = "host"
    macs: float = 0.0
    within: bool = False


@dataclass(frozen=True)
class Row:
    """A stage's figures. rate: faces a second; ms, best_ms: milliseconds a face, in the median and in the best run;
    flop: operations a face, 0 where they are not counted."""

    name: str
    rate: float
    ms: float
    best_ms: float
    runs: int
    flop: float = 0.0

    @classmethod
    def of(cls, name: str, timing: Timing, flop: float = 0.0) -> Row:
        return cls(name, timing.rate, 1e3 * timing.each, 1e3 * timing.best, len(timing.seconds), flop)

    def share(self, peak: float) -> float | None:
        """Return what share of a peak in FLOP/s the best run reaches: other work on the machine takes from the rest."""
        return self.flop / (self.best_ms / 1e3) / peak if self.flop else None


@dataclass(frozen=True)
class Bench:
    """How stages are timed: with which clocks, for how many seconds each."""

    clocks: Clocks
    seconds: float

    def time(self, stage: Stage) -> Row:
        clock: Clock = getattr(self.clocks, stage.clock)
        return Row.of(stage.name, clock.measure(stage.work, stage.items, self.seconds), 2 * stage.macs)

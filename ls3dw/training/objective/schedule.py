"""How far a run is, and what its learning rate is there."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ls3dw.training.options import OptimizerOptions, TrainOptions

FLOOR = 0.003
"""Share of the rate at which the cosine ends: the last steps still count."""


@dataclass(frozen=True)
class Length:
    """A run in steps, or in seconds; `epoch`: pictures in one."""

    batch: int
    epoch: int | None
    steps: int | None
    seconds: float | None

    def share(self, step: int, seconds: float) -> float:
        """Return how much of the run lies before this step, or has been used of its time: 1 or more is its end."""
        if self.steps is not None:
            return step / self.steps
        assert self.seconds is not None
        return seconds / self.seconds

    def epochs(self, step: int) -> float:
        return step * self.batch / self.epoch if self.epoch else math.nan


def length_of(options: TrainOptions, faces: int) -> Length:
    """Work out how long the run is. faces: in the file streams, which are an epoch unless the pipeline says more."""
    epoch = options.epoch or faces or None
    steps = options.steps
    if options.epochs is not None:
        assert epoch is not None
        steps = math.ceil(options.epochs * epoch / options.batch)
    return Length(options.batch, epoch, steps, None if options.minutes is None else options.minutes * 60)


def rate_at(options: OptimizerOptions, length: Length, step: int, seconds: float) -> float:
    """Return the learning rate of a step."""
    rate = options.rate
    if options.schedule == "cosine":
        share = min(1.0, length.share(step, seconds))
        rate *= (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * share)) + FLOOR
    if options.last is not None:
        rate *= (options.last / rate) ** min(1.0, length.share(step, seconds))
    for epoch, lower in options.drops:
        if length.epochs(step) >= epoch:
            rate = lower
    return rate * min(1.0, (step + 1) / options.warm_up) if options.warm_up else rate

"""Optimizers that a captured CUDA graph can follow, the length of a run, and learning rates."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer, RMSprop

from ls3dw.training.options import OptimizerOptions, TrainOptions

FLOOR = 0.003
"""Where the cosine ends, as a share of the rate: the last steps still count."""


def make_optimizer(parameters: Iterable[nn.Parameter], options: OptimizerOptions, device: torch.device) -> Optimizer:
    """Make an optimizer whose state exists from the start, all zero, so that it can be saved and restored in place.

    On a GPU the rate is a tensor, which a captured step reads at each replay.
    """
    on_gpu = device.type == "cuda"
    rate: Any = torch.tensor(options.rate, device=device) if on_gpu else options.rate
    common = {"lr": rate, "weight_decay": options.weight_decay}
    optimizer: Optimizer
    if options.kind == "adamw":
        optimizer = AdamW(parameters, capturable=on_gpu, **common)
    elif options.kind == "rmsprop":
        # alpha and epsilon of Torch7, the paper's framework
        optimizer = RMSprop(parameters, alpha=0.99, eps=1e-8, momentum=options.momentum, capturable=on_gpu, **common)
    else:
        optimizer = SGD(parameters, momentum=options.momentum, fused=on_gpu, **common)
    # A step with rate 0 and gradients of zero makes the state and changes no weight.
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    set_rate(optimizer, 0.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    set_rate(optimizer, options.rate)
    for _, value in state_tensors(optimizer):
        value.zero_()
    return optimizer


def set_rate(optimizer: Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def state_tensors(optimizer: Optimizer) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of the state, named by number of the parameter, dot, name."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for number, parameter in enumerate(parameters):
        for name, value in sorted(optimizer.state[parameter].items()):
            if isinstance(value, Tensor):
                yield f"{number}.{name}", value


@dataclass(frozen=True)
class RunLength:
    """The length of a run in steps or in seconds. batch: pictures a step; epoch: pictures an epoch."""

    batch: int
    epoch: int | None
    steps: int | None
    seconds: float | None

    def progress(self, step: int, seconds: float) -> float:
        """Return the share of the run that is done after `step` steps and `seconds` of training; 1 or more is its
        end."""
        if self.steps is not None:
            return step / self.steps
        assert self.seconds is not None
        return seconds / self.seconds

    def epochs(self, step: int) -> float:
        return step * self.batch / self.epoch if self.epoch else math.nan


def run_length(options: TrainOptions, faces: int) -> RunLength:
    """Work out how long a run is. faces: in the file streams, one epoch unless the pipeline says otherwise."""
    epoch = options.epoch or faces or None
    steps = options.steps
    if options.epochs is not None:
        assert epoch is not None
        steps = math.ceil(options.epochs * epoch / options.batch)
    return RunLength(options.batch, epoch, steps, None if options.minutes is None else options.minutes * 60)


def rate_at(options: OptimizerOptions, length: RunLength, step: int, seconds: float) -> float:
    """Return the learning rate of a step."""
    rate = options.rate
    if options.schedule == "cosine":
        done = min(1.0, length.progress(step, seconds))
        rate *= (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * done)) + FLOOR
    if options.last is not None:
        rate *= (options.last / rate) ** min(1.0, length.progress(step, seconds))
    for epoch, lower in options.drops:
        if length.epochs(step) >= epoch:
            rate = lower
    return rate * min(1.0, (step + 1) / options.warm_up) if options.warm_up else rate

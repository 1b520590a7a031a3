"""The moving average of the weights: what is validated and exported."""

from __future__ import annotations

import copy
from itertools import chain

import torch
from torch import Tensor, nn

from ls3dw.training.distributed import as_single


def average_of(network: nn.Module) -> nn.Module:
    """Start the average of a network: a copy in eval mode, without gradients."""
    return as_single(copy.deepcopy(network)).eval().requires_grad_(False)


class MovingAverage:
    """Averages of several networks, the statistics of their batch norms among the weights.

    decay: share that a step keeps; in the first steps less, so that the random start is soon forgotten. 0: no average,
    the weights themselves.
    """

    def __init__(self, pairs: list[tuple[nn.Module, nn.Module]], decay: float) -> None:
        self.decay = decay
        self._floating = _matching(pairs, floating=True)
        self._counters = _matching(pairs, floating=False)

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Follow the networks after the step of this number."""
        decay = min(self.decay, (step + 2) / (step + 11)) if self.decay else 0.0
        averages, values = self._floating
        torch._foreach_lerp_(averages, values, 1 - decay)
        if self._counters[0]:
            torch._foreach_copy_(*self._counters)


def _matching(pairs: list[tuple[nn.Module, nn.Module]], floating: bool) -> tuple[list[Tensor], list[Tensor]]:
    """List the tensors of the averages and those of the networks, in one order."""
    averages: list[Tensor] = []
    values: list[Tensor] = []
    for average, network in pairs:
        mine = dict(chain(average.named_parameters(), average.named_buffers()))
        for name, value in chain(network.named_parameters(), network.named_buffers()):
            if value.is_floating_point() == floating:
                averages.append(mine[name])
                values.append(value.detach())
    return averages, values

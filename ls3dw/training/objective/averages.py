"""The moving average of the weights, which is validated and exported."""

from __future__ import annotations

import copy
from itertools import chain

import torch
from torch import Tensor, nn

from ls3dw.training.distributed import unsync_norms


def average_of(network: nn.Module) -> nn.Module:
    """Start the average of a network: a copy in eval mode, without gradients."""
    return unsync_norms(copy.deepcopy(network)).eval().requires_grad_(False)


class MovingAverage:
    """Averages the parameters and buffers of several networks.

    pairs: (average, network); decay: share kept at each step, less in the first steps to forget the random start soon;
    0: no averaging.
    """

    def __init__(self, pairs: list[tuple[nn.Module, nn.Module]], decay: float) -> None:
        self.decay = decay
        self._averages: list[Tensor] = []
        self._values: list[Tensor] = []
        self._counters: tuple[list[Tensor], list[Tensor]] = ([], [])
        for average, network in pairs:
            mine = dict(chain(average.named_parameters(), average.named_buffers()))
            for name, value in chain(network.named_parameters(), network.named_buffers()):
                if value.is_floating_point():
                    self._averages.append(mine[name])
                    self._values.append(value.detach())
                else:
                    self._counters[0].append(mine[name])
                    self._counters[1].append(value)

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Update the averages after step number `step`."""
        decay = min(self.decay, (step + 2) / (step + 11)) if self.decay else 0.0
        torch._foreach_lerp_(self._averages, self._values, 1 - decay)
        if self._counters[0]:
            torch._foreach_copy_(*self._counters)


def freeze_batch_norms(network: nn.Module, average: nn.Module) -> None:
    """Fix the batch norms of a network in training at the statistics of its moving average.

    Done near the end of a run. Until then a picture is normed by statistics of its own batch. An unusual picture, such
    as a face before a pure green screen, raises the variance that it is divided by; the running averages do not, and a
    network that relies on this loses such faces in use.
    """
    statistics = dict(average.named_buffers())
    with torch.no_grad():
        for name, value in network.named_buffers():
            if value.is_floating_point():
                value.copy_(statistics[name])
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d | nn.SyncBatchNorm):
            module.eval()

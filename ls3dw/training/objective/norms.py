"""The end of a run: batch norms keep the statistics that the networks are used with.

Until then a picture is normed by its own batch, to which it belongs. One of its kind alone, a face before a screen of
pure green, makes the scale larger that it is divided by; the averages over all batches do not follow it, and a network
that has learned to rely on this loses the face in use.
"""

from __future__ import annotations

import torch
from torch import nn


def settle(network: nn.Module, average: nn.Module) -> None:
    """Give the batch norms of a network in training the statistics of its moving average, for good."""
    kept = dict(average.named_buffers())
    with torch.no_grad():
        for name, value in network.named_buffers():
            if value.is_floating_point():
                value.copy_(kept[name])
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d | nn.SyncBatchNorm):
            module.eval()

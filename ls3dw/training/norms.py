"""The end of a run: batch norms keep the statistics that the networks are used with.

Until then a picture is normed by its own batch, to which it belongs. One of its kind alone, a face before a screen of
pure green, makes the scale larger that it is divided by; the averages over all batches do not follow it, and a network
that has learned to rely on this loses the face in use.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def settle(network: nn.Module, average: nn.Module) -> None:
    """Give the batch norms of a network in training the statistics of its moving average, for good."""
    with torch.no_grad():
        for norm, kept in zip(_norms(network), _norms(average), strict=True):
            norm.load_state_dict({**norm.state_dict(), **_statistics(kept)})
            norm.eval()


def _norms(network: nn.Module) -> Iterator[_BatchNorm]:
    return (module for module in network.modules() if isinstance(module, _BatchNorm))


def _statistics(norm: _BatchNorm) -> dict[str, torch.Tensor]:
    return {name: value for name, value in norm.named_buffers() if value.is_floating_point()}

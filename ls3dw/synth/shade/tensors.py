"""Small tools of shading: constants on the device, smooth steps, and indices found without waiting for the device."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import torch
from torch import Tensor

from ls3dw.synth.rng import Rng


@cache
def constant(values: Any, device: torch.device) -> Tensor:
    """Return nested tuples as a cached tensor on the device: a copy would wait for all queued work."""
    return torch.tensor(values, dtype=torch.float32, device=device)


def planes(values: Any, device: torch.device) -> Tensor:
    """Return a tuple of numbers as constant (1, C, 1, 1), to combine with pictures."""
    return constant(values, device).view(1, -1, 1, 1)


def step(values: Tensor, low: Tensor | float, high: Tensor | float) -> Tensor:
    """Return a linear ramp from 0 at low to 1 at high; it falls if high is the smaller."""
    # Shading is bound by memory, hence the in-place operations and no smoothing of the ramp.
    return torch.sub(values, low).mul_(1 / (high - low)).clamp_(0, 1)


def mix(low: Tensor, high: Tensor, share: Tensor) -> Tensor:
    """Interpolate: low where the share is 0, high where it is 1."""
    return torch.lerp(low, high, share.to(low.dtype))


def bell(values: Tensor, centre: Tensor | float, width: Tensor | float) -> Tensor:
    """Return a Gaussian of height 1."""
    return torch.sub(values, centre).mul_(1 / width).square_().neg_().exp_()


def flagged_indices(flag: Tensor, share: float, rng: Rng) -> Tensor:
    """Return the indices (n,) of the set flags (B,), filled up with random others to a fixed n.

    n is 1.5 times the expected number of set flags plus one, known without waiting for the device; flags beyond n are
    left out.
    """
    size = min(len(flag), math.ceil(1.5 * share * len(flag)) + 1)
    return (flag + 0.5 * rng.uniform(len(flag))).topk(size).indices

"""Small tools of shading: constants that stay on the device, and smooth steps."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor


@cache
def constant(values: Any, device: torch.device) -> Tensor:
    """Keep nested tuples of numbers on the device: copying them there would wait for all work under way."""
    return torch.tensor(values, dtype=torch.float32, device=device)


def planes(values: Any, device: torch.device) -> Tensor:
    """Return a tuple of numbers as constant (1, C, 1, 1), to combine with pictures."""
    return constant(values, device).view(1, -1, 1, 1)


def step(values: Tensor, low: Tensor | float, high: Tensor | float) -> Tensor:
    """Rise evenly from 0 at low to 1 at high (high may be the smaller: then it falls)."""
    # Shading is bound by memory: what is new is changed in place, and the ramp is not rounded off.
    return torch.sub(values, low).mul_(1 / (high - low)).clamp_(0, 1)


def mix(low: Tensor, high: Tensor, share: Tensor) -> Tensor:
    """Return low where the share is 0 and high where it is 1."""
    return torch.lerp(low, high, share.to(low.dtype))


def bell(values: Tensor, centre: Tensor | float, width: Tensor | float) -> Tensor:
    """Return the Gaussian of height 1."""
    return torch.sub(values, centre).mul_(1 / width).square_().neg_().exp_()

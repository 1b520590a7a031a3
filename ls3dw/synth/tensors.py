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
    """Rise smoothly from 0 at low to 1 at high (high may be the smaller: then it falls)."""
    t = ((values - low) / (high - low)).clamp(0, 1)
    return t * t * (3 - 2 * t)


def mix(low: Tensor, high: Tensor, share: Tensor) -> Tensor:
    """Return low where the share is 0 and high where it is 1."""
    return low + (high - low) * share


def bell(values: Tensor, centre: Tensor | float, width: Tensor | float) -> Tensor:
    """Return the Gaussian of height 1."""
    return torch.exp(-((values - centre) / width).square())

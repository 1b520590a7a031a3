"""Random numbers as functions of their place: the run's seed, a lane, a step, and never of what was drawn before."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor


def seed_of(*numbers: int | str) -> int:
    """Mix numbers and words to a seed of 63 bits."""
    text = "/".join(str(number) for number in numbers)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) >> 1


class Dice:
    """Random tensors on a device, from a seed made of `numbers`: the same numbers give the same tensors."""

    def __init__(self, device: torch.device, *numbers: int | str) -> None:
        self.device = device
        self._generator = torch.Generator(device).manual_seed(seed_of(*numbers))

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        return torch.rand(*shape, generator=self._generator, device=self.device) * (high - low) + low

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self._generator, device=self.device)

    def integers(self, high: int, *shape: int) -> Tensor:
        """Draw int64 from 0 to high - 1."""
        return torch.randint(high, shape, generator=self._generator, device=self.device)

    def chance(self, probability: float, *shape: int) -> Tensor:
        """Draw True with this probability."""
        return torch.rand(*shape, generator=self._generator, device=self.device) < probability

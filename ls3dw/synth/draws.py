"""Random tensors from a generator on the device; and those of the renderer, which have independent children."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from torch import Tensor

_HOST = 0x686F7374
"""Number of the child that draws on the CPU."""


class Random:
    """Draws tensors on a device from one generator."""

    def __init__(self, device: torch.device | str, seed: int) -> None:
        self.device = torch.device(device)
        self._generator = torch.Generator(self.device).manual_seed(seed)

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """Draw float32 uniform over [low, high)."""
        return torch.rand(*shape, generator=self._generator, device=self.device) * (high - low) + low

    def normal(self, *shape: int) -> Tensor:
        """Draw float32 from the standard normal distribution."""
        return torch.randn(*shape, generator=self._generator, device=self.device)

    def chance(self, p: float | Tensor, *shape: int) -> Tensor:
        """Draw booleans that are true with probability p (a number, or a tensor that broadcasts to the shape)."""
        return torch.rand(*shape, generator=self._generator, device=self.device) < p

    def integers(self, high: int, *shape: int) -> Tensor:
        """Draw int64 from 0 to high - 1."""
        return torch.randint(high, shape, generator=self._generator, device=self.device)

    def permutation(self, count: int) -> Tensor:
        """Draw an order of the numbers 0 to count - 1, int64."""
        return torch.randperm(count, generator=self._generator, device=self.device)


class Draws(Random):
    """Draws tensors on a device; the same seed on the same kind of device gives the same numbers.

    Children are made from the seed and the numbers alone, not from what was drawn before: chunk c of seed s,
    `Draws(s, device).child(c)`, is the same whoever renders it and in whatever order. way: numbers of the children on
    the way to these draws.
    """

    def __init__(self, seed: int, device: torch.device | str = "cpu", *way: int) -> None:
        self._entropy = (seed, *way)
        # A prefix of the length keeps (1,) and (1, 0) apart: SeedSequence pads its entropy with zeros.
        sequence = np.random.SeedSequence((len(self._entropy), *self._entropy))
        super().__init__(device, int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1)))

    def child(self, *numbers: int) -> Draws:
        """Return draws that are independent of these and of every other child."""
        seed, *way = self._entropy
        return Draws(seed, self.device, *way, *numbers)

    @cached_property
    def host(self) -> Draws:
        """Draws on the CPU that go with these: for decisions that Python takes, which must not wait for the device."""
        seed, *way = self._entropy
        return Draws(seed, "cpu", *way, _HOST)

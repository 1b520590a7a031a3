"""The random numbers of the renderer: one generator on the device, and independent children of it."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from torch import Tensor

_HOST = 0x686F7374
"""Number of the child that draws on the CPU."""


class Draws:
    """Draws tensors on a device; the same seed on the same kind of device gives the same numbers.

    Children are made from the seed and the numbers alone, not from what was drawn before: chunk c of seed s,
    `Draws(s, device).child(c)`, is the same whoever renders it and in whatever order.
    """

    def __init__(self, seed: int, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self._entropy: tuple[int, ...] = (seed,)
        self._generator = self._start()

    def child(self, *numbers: int) -> Draws:
        """Return draws that are independent of these and of every other child."""
        other = Draws.__new__(Draws)
        other.device = self.device
        other._entropy = (*self._entropy, *numbers)
        other._generator = other._start()
        return other

    @cached_property
    def host(self) -> Draws:
        """Draws on the CPU that go with these: for decisions that Python takes, which must not wait for the device."""
        other = self.child(_HOST)
        other.device = torch.device("cpu")
        other._generator = other._start()
        return other

    def _start(self) -> torch.Generator:
        # A prefix of the length keeps (1,) and (1, 0) apart: SeedSequence pads its entropy with zeros.
        sequence = np.random.SeedSequence((len(self._entropy), *self._entropy))
        seed = int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1))
        return torch.Generator(self.device).manual_seed(seed)

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

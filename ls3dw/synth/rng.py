"""Random number generators: tensors on a device, reproducible from seeds."""

from __future__ import annotations

import hashlib
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

_CPU_CHILD = 0x686F7374
"""Number of the child that draws on the CPU."""


class Rng:
    """Draws random tensors on a device."""

    def __init__(self, seed: int, device: torch.device | str = "cpu") -> None:
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
        """Draw a permutation of 0 to count - 1, int64."""
        return torch.randperm(count, generator=self._generator, device=self.device)


class SplitRng(Rng):
    """A generator with independent children. The same seed on the same kind of device gives the same numbers.

    A child depends on the seed and on its path of numbers only, not on what was drawn before: chunk c of seed s,
    `SplitRng(s, device).child(c)`, is the same in every process and in any order.
    """

    def __init__(self, seed: int, device: torch.device | str = "cpu", *path: int) -> None:
        self._entropy = (seed, *path)
        # The length comes first to keep (1,) and (1, 0) apart: SeedSequence pads its entropy with zeros.
        sequence = np.random.SeedSequence((len(self._entropy), *self._entropy))
        super().__init__(int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1)), device)

    def child(self, *numbers: int) -> SplitRng:
        """Return a generator that is independent of this one and of every other child."""
        seed, *path = self._entropy
        return SplitRng(seed, self.device, *path, *numbers)

    @cached_property
    def host(self) -> SplitRng:
        """A child on the CPU, for decisions in Python that must not wait for the device."""
        seed, *path = self._entropy
        return SplitRng(seed, "cpu", *path, _CPU_CHILD)


def hash_seed(*key: int | str) -> int:
    """Hash numbers and words to a seed of 63 bits."""
    text = "/".join(str(part) for part in key)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) >> 1


def keyed_rng(device: torch.device, *key: int | str) -> Rng:
    """Make a generator from a key, such as (seed, purpose, step): equal keys give equal numbers."""
    return Rng(hash_seed(*key), device)

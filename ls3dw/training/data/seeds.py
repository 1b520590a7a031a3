"""Random numbers as functions of their place: the run's seed, a lane, a step, and never of what was drawn before."""

from __future__ import annotations

import hashlib

import torch

from ls3dw.synth.draws import Random


def seed_of(*numbers: int | str) -> int:
    """Mix numbers and words to a seed of 63 bits."""
    text = "/".join(str(number) for number in numbers)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) >> 1


class Dice(Random):
    """Random tensors on a device, from a seed made of `numbers`: the same numbers give the same tensors."""

    def __init__(self, device: torch.device, *numbers: int | str) -> None:
        super().__init__(device, seed_of(*numbers))

"""Smooth random functions of points: sums of sinusoids of random direction, frequency and phase."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ls3dw.synth.rng import Rng

FALL = 0.7
"""Exponent of the fall of amplitude with frequency: 0 is white noise, 1 the 1/f of natural pictures."""


def sinusoid_noise(
    points: Tensor, rng: Rng, lowest: float, highest: float, waves: int = 10, channels: int = 1
) -> Tensor:
    """Evaluate one random function a channel and picture at points (B, D, *): (B, channels, *), about unit variance.

    Frequencies are radians a unit of the points, log-uniform from lowest to highest; they are shared by the channels,
    whose amplitudes are independent. The cost is in the waves: B * waves values are held for each point.
    """
    count, dimensions = points.shape[:2]
    ratio = math.log(highest / lowest)
    frequency = lowest * torch.exp(rng.uniform(count, waves, 1) * ratio)
    direction = F.normalize(rng.normal(count, waves, dimensions), dim=2) * frequency
    phase = rng.uniform(count, waves, 1, high=2 * math.pi)
    amplitude = rng.normal(count, channels, waves) * (lowest / frequency.transpose(1, 2)) ** FALL
    # A sinusoid has a variance of one half.
    amplitude = amplitude * (math.sqrt(2) / (amplitude.square().sum(2, keepdim=True).sqrt() + 1e-6))
    values = torch.baddbmm(phase, direction, points.flatten(2)).sin_()
    return torch.bmm(amplitude, values).view(count, channels, *points.shape[2:])

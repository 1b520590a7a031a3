"""Colours, in sRGB values, and age of each person, shared by all painted parts."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ls3dw.synth.rng import Rng
from ls3dw.synth.shade.tensors import constant, mix, planes, step

SKIN = (
    (0.96, 0.81, 0.73),
    (0.91, 0.72, 0.61),
    (0.83, 0.62, 0.49),
    (0.70, 0.50, 0.37),
    (0.53, 0.36, 0.26),
    (0.36, 0.24, 0.18),
    (0.24, 0.16, 0.13),
)
HAIR = (
    (0.06, 0.05, 0.05),
    (0.13, 0.09, 0.07),
    (0.21, 0.14, 0.09),
    (0.33, 0.22, 0.13),
    (0.52, 0.38, 0.22),
    (0.74, 0.60, 0.40),
    (0.47, 0.21, 0.10),
)
HAIR_ODDS = (0.32, 0.2, 0.16, 0.12, 0.09, 0.06, 0.05)
GRAY_HAIR = (0.62, 0.61, 0.60)
WHITE_HAIR = (0.88, 0.87, 0.85)
IRIS = (
    (0.30, 0.18, 0.09),
    (0.17, 0.10, 0.06),
    (0.36, 0.46, 0.58),
    (0.36, 0.45, 0.34),
    (0.44, 0.36, 0.20),
    (0.09, 0.06, 0.05),
)
LIPSTICK = ((0.60, 0.08, 0.14), (0.78, 0.22, 0.30), (0.72, 0.36, 0.36), (0.40, 0.08, 0.18), (0.85, 0.40, 0.48))


@dataclass(frozen=True)
class Looks:
    """One value a person, (B, C, 1, 1)."""

    skin: Tensor
    hair: Tensor
    brow: Tensor
    beard: Tensor
    age: Tensor
    """0 young, 1 old."""

    made_up: Tensor
    """bool: wears make-up."""

    bearded: Tensor
    """bool: may have a beard; excludes make-up."""


def draw_looks(rng: Rng, count: int) -> Looks:
    """Draw the looks of persons. Hair turns gray with age; dark skin mostly goes with dark hair."""
    one = (count, 1, 1, 1)
    darkness = rng.uniform(count).pow(1.4) * (len(SKIN) - 1)
    jitter = 1 + 0.03 * rng.normal(*one) + 0.03 * rng.normal(count, 3, 1, 1)
    skin = ramp(SKIN, darkness, rng.device) * jitter
    age = rng.uniform(*one)
    odds = constant(HAIR_ODDS, rng.device).expand(count, -1).clone()
    odds[:, 3:] *= (1 - darkness / 4).clamp(min=0.05)[:, None]
    hair = _chosen(rng, HAIR, odds) * (1 + 0.1 * rng.normal(*one) + 0.05 * rng.normal(count, 3, 1, 1))
    silver = mix(planes(GRAY_HAIR, rng.device), planes(WHITE_HAIR, rng.device), rng.uniform(*one))
    graying = ((age - 0.55) / 0.3).clamp(0, 1) * rng.uniform(*one).sqrt()
    gray = torch.where(rng.chance(0.04, *one), 1.0, graying)
    dyed = rng.chance(0.05, *one)
    scalp = torch.where(dyed, rng.uniform(count, 3, 1, 1), mix(hair, silver, gray))
    made_up = rng.chance(0.4, *one)
    return Looks(
        skin=skin.clamp(0.05, 1),
        hair=scalp.clamp(0.03, 1),
        brow=mix(hair * rng.uniform(*one, low=0.55, high=1.0), silver, gray * 0.6 * rng.uniform(*one)).clamp(0.03, 1),
        beard=mix(hair, silver, (gray * rng.uniform(*one, low=0.5, high=1.6)).clamp(0, 1)).clamp(0.03, 1),
        age=age,
        made_up=made_up,
        bearded=~made_up & rng.chance(0.75, *one),
    )


def ramp(colours: tuple[tuple[float, float, float], ...], place: Tensor, device: torch.device) -> Tensor:
    """Interpolate in a list of colours: (B, 3, 1, 1); place: (B,) position in the list, from 0."""
    table = constant(colours, device)
    low = place.long().clamp(0, len(colours) - 2)
    share = (place - low)[:, None]
    return mix(table[low], table[low + 1], share)[:, :, None, None]


def pick(rng: Rng, colours: tuple[tuple[float, float, float], ...], count: int) -> Tensor:
    """Draw colours (count, 3, 1, 1) uniformly from a list."""
    return constant(colours, rng.device)[rng.integers(len(colours), count)][:, :, None, None]


def plain_colours(rng: Rng, count: int) -> Tensor:
    """Draw colours (count, 3, 1, 1) of walls, screens and margins, half of them calm, half vivid, black or white.

    Networks trained without large vivid areas lose faces in front of them.
    """
    one = (count, 1, 1, 1)
    calm = rng.uniform(*one) + 0.25 * rng.normal(count, 3, 1, 1) * rng.uniform(*one)
    vivid = step(rng.uniform(count, 3, 1, 1), 0.3, 0.7)
    return mix(calm.clamp(0, 1), vivid, rng.chance(0.5, *one))


def between(rng: Rng, low: tuple[float, ...], high: tuple[float, ...], count: int) -> Tensor:
    """Draw colours (count, 3, 1, 1) on the line between two."""
    return mix(planes(low, rng.device), planes(high, rng.device), rng.uniform(count, 1, 1, 1))


def _chosen(rng: Rng, colours: tuple[tuple[float, float, float], ...], odds: Tensor) -> Tensor:
    """Draw colours (B, 3, 1, 1) by the odds (B, N)."""
    edges = odds.cumsum(1)
    index = (rng.uniform(len(odds), 1) * edges[:, -1:] > edges).sum(1).clamp(max=len(colours) - 1)
    return constant(colours, rng.device)[index][:, :, None, None]

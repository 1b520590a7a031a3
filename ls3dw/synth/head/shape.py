"""Shapes of random heads before they are turned: identity, expression, gaze, scalp hair."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from ls3dw.synth.head.brows import Brows, draw_brows
from ls3dw.synth.head.expression import Expressions, draw_gaze
from ls3dw.synth.head.model import Group, Head
from ls3dw.synth.rng import SplitRng
from ls3dw.synth.scene.camera import about
from ls3dw.synth.shade.noise import sinusoid_noise
from ls3dw.synth.shade.tensors import constant, step

SKULL: Final = (0.0, 0.3, -0.5)
"""Middle of the skull in head units; scalp places are directions from here."""

CROWN: Final = (0.0, 0.6, -0.8)
"""Direction of the crown; hairlines are circles about it."""

BALD: Final = 0.3
"""Hairlines above this leave no short hair on the front of the scalp."""

IDENTITY_SPREAD: Final = 0.82
"""Standard deviation of identity weights: normal, times a uniform factor from 0.5 to 1.1 for each head."""

LIP_SPREAD: Final = 0.15
"""Standard deviation of the relative loss of height of lips."""

TEMPLE: Final = ((0.85, 0.42), (-0.95, -0.75))
"""Ranges of height and depth, in head units on the mean head, over which hair gets flat in front of the ears. Volume
there would push out the contour at points 0 and 16."""

_LIP_LIMIT = 0.3
_LARGEST_VOLUME = 0.35
_NECK = -0.6
_CHEST, _SHOULDERS = -2.2, 2.2
"""The torso is extended below and beyond these, in head units."""

_LONGER = 1.6


@dataclass(frozen=True)
class Shape:
    """B heads in the head frame, with parameters that landmarks and appearance depend on."""

    vertices: Tensor
    """(B, V, 3)"""

    hairline: Tensor
    """(B,)"""

    brows: Brows


class Shaper:
    """Draws shapes of one head model."""

    def __init__(self, head: Head) -> None:
        device = head.mean.device
        self.head = head
        self.scalp = F.normalize(head.mean - constant(SKULL, device), dim=1)
        self._expressions = Expressions(head.expression_names, device)
        self._eyes = [(head.vertex_group == group).nonzero()[:, 0] for group in (Group.LEFT_EYE, Group.RIGHT_EYE)]
        self._basis = self._still_eyes().flatten(1)
        self._identity = torch.cat((head.identity, head.thinner_lips)).flatten(1)
        self._mean = (head.usual + self._beyond_frame()).flatten()
        skin = (head.vertex_group == Group.SKIN) & (head.mean[:, 1] > _NECK)
        (top, low), (back, front) = TEMPLE
        flat = step(head.mean[:, 1], top, low) * step(head.mean[:, 2], back, front)
        self._bearing = skin * (1 - head.ears) * (1 - flat)

    def _still_eyes(self) -> Tensor:
        """Return the expression basis with still eyeballs, which are turned as a whole instead."""
        basis = self.head.expressions.clone()
        for eye in self._eyes:
            basis[:, eye] = 0
        return basis

    def _beyond_frame(self) -> Tensor:
        """Return offsets (V, 3) that extend the torso: the mesh ends at the chest, which pictures must not show."""
        x, y = self.head.mean[:, 0], self.head.mean[:, 1]
        torso = (self.head.vertex_group == Group.SKIN) * (y < _CHEST)
        down = (_CHEST - y).clamp(min=0) * _LONGER
        aside = (x.abs() - _SHOULDERS).clamp(min=0) * x.sign()
        return torch.stack((aside, -down, torch.zeros_like(x)), dim=1) * torso[:, None]

    def draw(self, rotation: Tensor, flat: Tensor, rng: SplitRng) -> Shape:
        """Draw a head for each rotation (B, 3, 3), on which the gaze depends; flat: (B,) share of hair volume lost."""
        count = len(rotation)
        gaze = draw_gaze(rotation, rng)
        expression = self._expressions.draw(gaze, rng)
        identity = rng.normal(count, len(self.head.identity)) * rng.uniform(count, 1, low=0.5, high=1.1)
        lips = (rng.normal(count, 2) * LIP_SPREAD).clamp(-_LIP_LIMIT, _LIP_LIMIT)
        identity = torch.cat((identity, lips), dim=1)
        vertices = torch.addmm(self._mean, identity, self._identity)
        vertices = torch.addmm(vertices, expression, self._basis).view(count, -1, 3)
        vertices = self._look(self._warp(vertices, rng), gaze)
        hairline, volume = _draw_hair(count, rng)
        volume = volume * (1 - flat)
        brows = draw_brows(count, rng)
        return Shape(self._comb(vertices, hairline, volume, rng), hairline, brows)

    def _warp(self, vertices: Tensor, rng: SplitRng) -> Tensor:
        """Stretch along the axes, and make faces asymmetric by a shear and a smooth random field."""
        count = len(vertices)
        spread = constant((0.03, 0.05, 0.05), vertices.device)
        vertices = vertices * (1 + spread * rng.normal(count, 1, 3))
        across, up = vertices[..., 0], vertices[..., 1]
        skew = rng.normal(count, 3, 1) * 0.012
        sheared = torch.stack((up * skew[:, 0], across * skew[:, 1], across * skew[:, 2]), dim=-1)
        rest = self.head.mean.T[None].expand(count, -1, -1)
        field = sinusoid_noise(rest, rng, 0.7, 2.2, waves=6, channels=3).transpose(1, 2)
        return vertices + sheared + field * rng.uniform(count, 1, 1, high=0.018)

    def _look(self, vertices: Tensor, gaze: Tensor) -> Tensor:
        turned = about(1, gaze[:, 0]) @ about(0, -gaze[:, 1])
        vertices = vertices.clone()
        for eye in self._eyes:
            ball = vertices[:, eye]
            middle = ball.mean(1, keepdim=True)
            vertices[:, eye] = (ball - middle) @ turned.transpose(1, 2) + middle
        return vertices

    def _comb(self, vertices: Tensor, hairline: Tensor, volume: Tensor, rng: SplitRng) -> Tensor:
        """Push the scalp out by the volume of hair."""
        height = (self.scalp @ constant(CROWN, vertices.device))[None]
        covered = step(height, hairline[:, None] + 0.02, hairline[:, None] + 0.35) * self._bearing
        rest = self.scalp.T[None].expand(len(vertices), -1, -1)
        lumps = 1 + 0.35 * sinusoid_noise(rest, rng, 2, 9, waves=12)[:, 0]
        return vertices + self.scalp * (covered * volume[:, None] * lumps)[..., None]


def _draw_hair(count: int, rng: SplitRng) -> tuple[Tensor, Tensor]:
    hairline = rng.uniform(count, low=-0.33, high=-0.02)
    bald = rng.chance(0.06, count)
    hairline = torch.where(bald, rng.uniform(count, low=BALD, high=0.95), hairline)
    volume = rng.uniform(count).square() * _LARGEST_VOLUME * rng.chance(0.8, count)
    return hairline, volume * ~bald

"""Things in front of a face: hands, microphones and cups, long beards.

Only few pictures have them, so only those are computed: see `flagged_indices`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ls3dw.synth.rng import Rng
from ls3dw.synth.scene.capsules import Capsules, draw_capsules
from ls3dw.synth.shade.noise import sinusoid_noise
from ls3dw.synth.shade.tensors import constant, flagged_indices

HANDS, HELD = 0.12, 0.04
"""Shares of pictures with a hand, and with a microphone or cup."""

TOUCHED = (8, 8, 6, 10, 4, 12, 3, 13, 48, 54, 57, 57, 33, 18, 25, 2, 14)
"""Landmarks that hands touch."""

BEARDED = (4, 5, 6, 7, 8, 9, 10, 11, 12)
"""Landmarks that long beards hang from."""

_KNUCKLES = (-0.33, -0.11, 0.12, 0.33)
_LENGTHS = (0.62, 0.8, 0.84, 0.76)
_PALM = (0.45, 0.45)
_LOWER = -0.95
"""Height of the wrist below the knuckles. Hands are in head units, x across and y along the fingers."""


@dataclass(frozen=True)
class Prop:
    """Things in front of the faces of some pictures, ready for shading."""

    index: Tensor
    """(n,) the pictures."""

    normal: Tensor
    """(n, 3, H, W) unit vectors, view frame."""

    share: Tensor
    """(n, 1, H, W) coverage."""

    colour: Tensor
    """(n, 3, H, W) sRGB values."""

    gloss: float = 0.6
    """Strength of the lamp's reflection, 1 as on skin."""


def draw_hand(points: Tensor, scale: Tensor, skin: Tensor, size: int, rng: Rng) -> Prop:
    """Lay hands of the face's colour on some faces; the arm comes from below and outside.

    points: (B, 68, 3) on the screen; scale: (B,) pixels in a head unit; skin: (B, 3, 1, 1) colour
    """
    flag = rng.chance(HANDS, len(points)).float()
    index = flagged_indices(flag, HANDS, rng)
    count = len(index)
    touched = constant(TOUCHED, points.device).long()[rng.integers(len(TOUCHED), count)]
    target = points[index, touched]
    outward = (target - points[index, 30])[:, 0] / scale[index]
    lean = 0.9 * outward + 0.4 * rng.normal(count)
    down = F.normalize(torch.stack((lean, torch.ones_like(lean)), 1), dim=1)
    hand = _hand(rng, count)
    # The place of the hand that touches the face, from palm to fingertips.
    touch = rng.uniform(count, 1, low=-0.6, high=0.9)
    reach = scale[index] * rng.uniform(count, low=0.88, high=1.12)

    def to_screen(local: Tensor) -> Tensor:
        across, along = local[..., 0], local[..., 1] - touch
        x = across * down[:, 1:] - along * down[:, :1]
        y = -across * down[:, :1] - along * down[:, 1:]
        return torch.stack((x, y, local[..., 2]), 2) * reach[:, None, None] + target[:, None]

    capsules = Capsules(to_screen(hand.starts), to_screen(hand.ends), hand.radii * reach[:, None, None], hand.thickness)
    rounds = draw_capsules(capsules, size)
    tone = skin[index] * (1 + 0.04 * rng.normal(count, 3, 1, 1)) * rng.uniform(count, 1, 1, 1, low=0.85, high=1.1)
    sleeve = (rounds.which == _ARM) & (rounds.along > rng.uniform(count, 1, 1, 1, low=0.02, high=0.6))
    cloth = (rng.uniform(count, 1, 1, 1).square() + 0.2 * rng.normal(count, 3, 1, 1)).clamp(0.02, 1)
    red = 1 - 0.12 * (rounds.which > _ARM) * rounds.along * constant((0.0, 1.0, 0.8), tone.device).view(1, 3, 1, 1)
    return Prop(
        index, rounds.normal, rounds.share * flag[index].view(-1, 1, 1, 1), torch.where(sleeve, cloth, tone * red)
    )


_ARM = 0


def _hand(rng: Rng, count: int) -> Capsules:
    """Build a hand, left or right: the forearm, four bones of the palm, four fingers and a thumb of two parts each."""
    open_ = rng.uniform(count)
    zero = torch.zeros_like(open_)
    parts: list[tuple[Tensor, Tensor, float, float]] = []

    def at(x: Tensor | float, y: Tensor | float, z: Tensor | float) -> Tensor:
        return torch.stack((zero + x, zero + y, zero + z), 1)

    parts.append((at(0, _LOWER - 0.05, -0.1), at(0.3 * rng.normal(count), -5.0, -0.3), 0.24, 0.4))
    parts += [(at(0.5 * side, _LOWER + 0.15, 0), at(1.1 * side, -0.16, 0.03), 0.26, 0.25) for side in (-0.17, 0.17)]
    spread = rng.uniform(count, low=0.0, high=0.22)
    for number, (x, length) in enumerate(zip(_KNUCKLES, _LENGTHS, strict=True)):
        base = 0.05 - 0.25 * x * x * 4 * 0.3
        curl = (open_ * 1.4 + 0.12 * rng.normal(count)).clamp(0.1, 1)
        angle = (number - 1.5) * spread + 0.05 * rng.normal(count)
        middle_x, middle_y = x + angle.sin() * length * 0.52, base + angle.cos() * length * 0.52 * (0.5 + 0.5 * curl)
        bend = 2 * curl - 1
        tip = at(middle_x + angle.sin() * length * 0.48 * bend, middle_y + length * 0.48 * bend, 0.3 * (1 - curl))
        middle = at(middle_x, middle_y, 0.22 * (1 - curl) + 0.05)
        parts += [(at(x, base, 0.05), middle, 0.125, 0.108), (middle, tip, 0.108, 0.08)]
    out = rng.uniform(count, low=0.15, high=0.5)
    joint = at(-0.36 - 0.5 * out, -0.3, 0.12)
    parts += [(at(-0.2, -0.75, 0.02), joint, 0.17, 0.12)]
    parts += [(joint, at(-0.4 - out, 0.12 + 0.1 * rng.normal(count), 0.16), 0.115, 0.085)]
    starts, ends = torch.stack([part[0] for part in parts], 1), torch.stack([part[1] for part in parts], 1)
    radii = constant(tuple(part[2:] for part in parts), starts.device).expand(count, -1, -1)
    thickness = constant((0.7, *_PALM, *(1.0,) * (len(parts) - 3)), starts.device).expand(count, -1)
    mirror = torch.stack((1 - 2 * rng.chance(0.5, count).float(), zero + 1, zero + 1), 1)[:, None]
    return Capsules(starts * mirror, ends * mirror, radii, thickness)


def draw_held(points: Tensor, scale: Tensor, size: int, rng: Rng) -> Prop:
    """Hold a microphone or a cup to some mouths."""
    flag = rng.chance(HELD, len(points)).float()
    index = flagged_indices(flag, HELD, rng)
    count = len(index)
    unit = scale[index]
    shift = constant((0.0, 0.25, 0.9), points.device) + constant((0.45, 0.3, 0.1), points.device) * rng.normal(count, 3)
    head = points[index, 66] + shift * unit[:, None]
    lean = 0.6 * rng.normal(count)
    down = F.normalize(torch.stack((lean, torch.ones_like(lean), -0.2 * torch.ones_like(lean)), 1), dim=1)
    cup = rng.chance(0.4, count)
    length = torch.where(cup, 0.7, 3.0) * unit
    ball = torch.where(cup, 0.38, 0.26) * unit * rng.uniform(count, low=0.85, high=1.25)
    grip = torch.where(cup, 0.85 * ball, 0.42 * ball)
    ends = head + down * length[:, None]
    starts, ends = torch.stack((head, head), 1), torch.stack((head + 0.05 * down, ends), 1)
    radii = torch.stack((torch.stack((ball, ball), 1), torch.stack((grip, grip), 1)), 1)
    rounds = draw_capsules(Capsules(starts, ends, radii, torch.ones_like(radii[..., 0])), size)
    dark = rng.uniform(count, 1, 1, 1, high=0.35) + 0.08 * rng.normal(count, 3, 1, 1)
    bright = (rng.uniform(count, 1, 1, 1) + 0.3 * rng.normal(count, 3, 1, 1)).clamp(0.05, 1)
    colour = torch.where(cup.view(-1, 1, 1, 1), bright, dark).clamp(0.02, 1).expand(-1, -1, size, size)
    return Prop(index, rounds.normal, rounds.share * flag[index].view(-1, 1, 1, 1), colour)


def draw_long_beard(points: Tensor, scale: Tensor, depth: Tensor, bearded: Tensor, colour: Tensor, rng: Rng) -> Prop:
    """Hang long beards from some jaws, which hide the chin.

    depth: (B, 1, H, W) of the opaque layer; bearded: (B, 1, 1, 1); colour: (B, 3, 1, 1)
    """
    flag = (bearded.view(-1) & rng.chance(0.5, len(points))).float()
    index = flagged_indices(flag, 0.05, rng)
    count, size = len(index), depth.shape[-1]
    unit = scale[index].view(-1, 1, 1)
    roots = points[index][:, constant(BEARDED, points.device).long()]
    towards_chin = (points[index, 8][:, None] - roots) * constant((0.45, 0.0, 0.3), points.device)
    centred = 1 - (constant(BEARDED, points.device) - 8).abs() / 6
    length = rng.uniform(count, 1, 1, low=0.1, high=1.0) * centred[None, :, None] * unit
    gravity = constant((0.0, 1.0, 0.15), points.device) + constant((0.15, 0.0, 0.1), points.device) * rng.normal(
        count, 1, 3
    )
    mouth = (points[index, 57][:, None] - roots) * 0.18
    radii = unit * torch.stack((0.1 + 0.14 * centred, 0.06 + 0.08 * centred), 1)
    ends = roots + towards_chin + gravity * length
    beard = Capsules(roots + mouth, ends, radii.expand(count, -1, -1), torch.ones_like(ends[..., 0]))
    line = torch.linspace(0, 1, size, device=points.device)
    place = torch.stack(torch.meshgrid(line * 60, line * 9, indexing="xy"))[None].expand(count, -1, -1, -1)
    streaks = sinusoid_noise(place, rng, 0.7, 4, waves=12)
    rounds = draw_capsules(beard, size, ragged=0.14 * streaks)
    near = rounds.depth > depth[index] - 0.02 * unit[..., None]
    share = F.avg_pool2d(F.pad(rounds.share * near, (1, 1, 1, 1), mode="replicate"), 3, 1)
    shade = colour[index] * (1 + 0.4 * streaks).clamp(0.25, 2)
    return Prop(index, rounds.normal, share * flag[index].view(-1, 1, 1, 1), shade)

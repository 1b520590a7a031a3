"""How heads are turned, and the camera that looks at them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from ls3dw.core.geometry import RAISE, REFERENCE_SCALE, REFERENCE_SIDE
from ls3dw.synth.head.model import Group, Head
from ls3dw.synth.options import RenderOptions
from ls3dw.synth.rng import SplitRng
from ls3dw.synth.shade.tensors import constant

PROFILE: Final = 62.0
"""Degrees of yaw from which a head counts as in profile."""

PIVOT: Final = (0.0, -1.1, -0.7)
"""Where head and neck turn, in head units."""

NEAREST: Final = 7.8
"""Head units from the nearest camera to the middle of the head (about 0.8 m)."""

_PITCH_LIMIT = 0.8
_DEEPEST = 3.0
"""Head units beyond which depth no longer changes the perspective, so that shoulders stay in front of the camera."""


@dataclass(frozen=True)
class Pose:
    """How B heads are turned. Rotations (B, 3, 3) map the head frame to the view frame, both with y up."""

    roll: Tensor
    """(B,) radians in the picture plane, clockwise."""

    head: Tensor
    torso: Tensor


def draw_pose(count: int, draws: SplitRng, options: RenderOptions, yaw: Tensor | None = None) -> Pose:
    """Draw poses; yaw (count,) in degrees fixes the first turn of the heads, before pitch and roll."""
    drawn = _draw_yaw(count, draws, options)
    yaw = torch.deg2rad(drawn if yaw is None else yaw.to(draws.device, torch.float32))
    pitch = (draws.normal(count) * math.radians(options.pitch_std)).clamp(-_PITCH_LIMIT, _PITCH_LIMIT)
    roll = draws.normal(count) * math.radians(options.roll_std)
    askew = draws.uniform(count, low=-math.pi, high=math.pi) * draws.chance(options.turned_share, count)
    # A torso follows its head part of the way; in a third of the pictures the head is turned over a still torso.
    follows = draws.uniform(count, low=0.5, high=1.0) * (1 - 0.8 * draws.chance(0.33, count).float())
    torso = rotation(
        yaw * follows + draws.normal(count) * 0.2,
        pitch * 0.3 * draws.uniform(count) + draws.normal(count) * 0.08,
        roll * draws.uniform(count, low=0.3) + draws.normal(count) * 0.05 + askew,
    )
    roll = roll + askew
    return Pose(roll, rotation(yaw, pitch, roll), torso)


def _draw_yaw(count: int, draws: SplitRng, options: RenderOptions) -> Tensor:
    limit = options.yaw_limit
    kind = draws.uniform(count)
    uniform = draws.uniform(count, low=-limit, high=limit)
    side = draws.uniform(count, low=min(PROFILE, limit), high=limit)
    profile = torch.where(draws.chance(0.5, count), side, -side)
    near = (draws.normal(count) * options.yaw_std).clamp(-limit, limit)
    rest = torch.where(kind < options.uniform_share + options.profile_share, profile, near)
    return torch.where(kind < options.uniform_share, uniform, rest)


def rotation(yaw: Tensor, pitch: Tensor, roll: Tensor) -> Tensor:
    """Turn by radians (B,), yaw first and roll last: (B, 3, 3), head frame to view frame.

    Signs as in `core.pose`: yaw > 0 turns the nose to the left of the picture, pitch > 0 raises it, roll > 0 turns the
    head clockwise in the picture.
    """
    return about(2, -roll) @ about(0, -pitch) @ about(1, -yaw)


def about(axis: int, angle: Tensor) -> Tensor:
    """Rotate about one axis by angles (B,): (B, 3, 3), counter-clockwise when the axis points at the viewer."""
    cos, sin, zero, one = angle.cos(), angle.sin(), torch.zeros_like(angle), torch.ones_like(angle)
    rows = {
        0: (one, zero, zero, zero, cos, -sin, zero, sin, cos),
        1: (cos, zero, sin, zero, one, zero, -sin, zero, cos),
        2: (cos, -sin, zero, sin, cos, zero, zero, zero, one),
    }[axis]
    return torch.stack(rows, dim=-1).view(-1, 3, 3)


def pose_angles(turned: Tensor) -> Tensor:
    """Split rotations (B, 3, 3) into degrees (B, 3: yaw, pitch, roll), as `ls3dw.core.pose.head_pose` does."""
    yaw = -torch.asin(turned[:, 0, 2].clamp(-1, 1))
    pitch = torch.atan2(turned[:, 1, 2], turned[:, 2, 2])
    roll = torch.atan2(turned[:, 0, 1], turned[:, 0, 0])
    return torch.rad2deg(torch.stack((yaw, pitch, roll), dim=1))


def turn(vertices: Tensor, weight: Tensor, pose: Pose) -> Tensor:
    """Turn vertices (B, V, 3) of the head frame into the view frame; weight (V,): 1 with the head, 0 with the torso."""
    arms = vertices - constant(PIVOT, vertices.device)
    head = arms @ pose.head.transpose(1, 2)
    torso = arms @ pose.torso.transpose(1, 2)
    return torso + (head - torso) * weight[None, :, None]


def torso_weight(head: Head) -> Tensor:
    """Return how far each vertex (V,) turns with the head; long hair does above the shoulders."""
    fades = ((head.mean[:, 1] + 1.9) / 1.0).clamp(0, 1)
    inner = torch.where(head.vertex_group == Group.HAIR, fades, 1.0)
    return torch.where(head.vertex_group == Group.SKIN, head.head_weight, inner)


@dataclass(frozen=True)
class Camera:
    """Looks along -z of the view frame; what it sees is cut to a square picture around the face."""

    nearness: Tensor
    """(B,) inverse distance to the origin of the view frame, 1 / head units; 0 is infinitely far."""

    centre: Tensor
    """(B, 2) place in the picture plane (x right, y up) at the middle of the cut."""

    scale: Tensor
    """(B,) pixels in a head unit."""

    size: int

    def project(self, points: Tensor) -> Tensor:
        """Map points of the view frame (B, P, 3) to the screen: x and y in pixels, y down, z in the same pixels."""
        flat = self.to_pixels(to_plane(points, self.nearness))
        return torch.cat((flat, points[..., 2:] * self.scale[:, None, None]), dim=-1)

    def to_pixels(self, plane: Tensor) -> Tensor:
        """Map places of the picture plane (B, P, 2; y up) to pixels, y down."""
        offset = (plane - self.centre[:, None]) * self.scale[:, None, None]
        return (self.size - 1) / 2 + offset * constant((1.0, -1.0), plane.device)


def to_plane(points: Tensor, nearness: Tensor) -> Tensor:
    """Project points (B, P, 3) by perspective to the plane through the origin: (B, P, 2), y up."""
    depth = points[..., 2].clamp(-_DEEPEST, _DEEPEST)
    return points[..., :2] / (1 - nearness[:, None] * depth)[..., None]


def draw_nearness(count: int, draws: SplitRng, options: RenderOptions) -> Tensor:
    """Draw how near the cameras are (B,): uniform in the inverse distance, or infinitely far."""
    return draws.uniform(count, high=1 / NEAREST) * draws.chance(options.perspective_chance, count)


def frame(contour: Tensor, anatomical: Tensor, nearness: Tensor, draws: SplitRng, options: RenderOptions) -> Camera:
    """Place the cut by the published crop rule on the tight box of points in the plane (B, 68, 2; y up), with jitter.

    Half of the boxes are those of the 2D points, half of the 3D points, as both are found in data.
    """
    count = len(contour)
    box = torch.where(draws.chance(0.5, count, 1, 1), contour, anatomical)
    low, high = box.amin(1), box.amax(1)
    sides = high - low
    centre = (low + high) / 2 + torch.stack((torch.zeros(count, device=box.device), RAISE * sides[:, 1]), dim=1)
    side = REFERENCE_SIDE / REFERENCE_SCALE * sides.sum(1)
    side = side * torch.exp(draws.normal(count) * options.zoom_std) / options.zoom
    centre = centre + draws.normal(count, 2) * options.shift_std * side[:, None]
    return Camera(nearness, centre, options.size / side, options.size)

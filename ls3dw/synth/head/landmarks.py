"""The 68 points of posed heads: at their anatomical places, and with the jaw on the visible contour."""

from __future__ import annotations

import torch
from torch import Tensor

from ls3dw.core.markup import GROUPS
from ls3dw.synth.head.brows import Brows, brow_points
from ls3dw.synth.head.model import Head
from ls3dw.synth.raster.rasterizer import Fragments

JAW = len(GROUPS["jaw"])
BROWS = slice(GROUPS["right brow"][0], GROUPS["left brow"][-1] + 1)

TOLERANCE = 0.09
"""Head units by which something may lie before a point without hiding it: lashes, lids, the depth across a pixel."""


def places(vertices: Tensor, corners: Tensor, weights: Tensor) -> Tensor:
    """Find places on a surface: vertices (B, V, 3), corners and weights (..., 3) -> (B, ..., 3)."""
    found = vertices[:, corners.flatten()].view(len(vertices), *corners.shape, 3)
    return (found * weights[..., None]).sum(-2)


def anatomical_points(head: Head, vertices: Tensor, brows: Brows) -> Tensor:
    """Find the 68 points (B, 68, 3) on vertices (B, V, 3) of any frame."""
    points = places(vertices, head.point_vertices, head.point_weights)
    return torch.cat((points[:, : BROWS.start], _brows(head, vertices, brows), points[:, BROWS.stop :]), dim=1)


def frontal_jaw(head: Head, vertices: Tensor) -> Tensor:
    """Find the 3D jaw points (B, 17, 3) of heads seen from the front (B, V, 3; head frame).

    On a frontal face the 3D points are the 2D ones: so x and y are those of the contour there. z is that of their
    places on the skin, where the mean head is farthest out.
    """
    level = torch.zeros(len(vertices), device=vertices.device)
    contour = contour_points(places(vertices, head.jaw_vertices, head.jaw_weights), head.jaw_directions, level)
    depth = places(vertices, head.point_vertices[:JAW], head.point_weights[:JAW])[..., 2:]
    return torch.cat((contour[..., :2], depth), dim=-1)


def _brows(head: Head, vertices: Tensor, brows: Brows) -> Tensor:
    table = places(vertices, head.brow_vertices, head.brow_weights)
    offsets, height = head.brow_offsets, brows.height.contiguous()
    place = (torch.searchsorted(offsets, height) - 1).clamp(0, len(offsets) - 2)
    share = ((height - offsets[place]) / (offsets[place + 1] - offsets[place])).clamp(0, 1)
    lifted = _pick(table, place) * (1 - share[..., None]) + _pick(table, place + 1) * share[..., None]
    return brow_points(lifted, brows, head.brow_gaps)


def _pick(table: Tensor, place: Tensor) -> Tensor:
    """Take one place of each line: (B, P, L, C), (B, P) -> (B, P, C)."""
    index = place[..., None, None].expand(-1, -1, 1, table.shape[-1])
    return table.gather(2, index)[:, :, 0]


def contour_points(lines: Tensor, directions: Tensor, roll: Tensor) -> Tensor:
    """Find the visible contour of the jaw: lines (B, 17, L, C) of places, x right and y up -> (B, 17, C).

    Each point is the place of its line farthest out along its direction (17, 2), turned by the roll (B,; clockwise)
    alone: the near side of a face stays, the far side slides to the silhouette. Between places a parabola through
    three of them finds the maximum, so that points do not jump when heads turn.
    """
    cos, sin = roll.cos()[:, None], roll.sin()[:, None]
    x, y = directions[:, 0], directions[:, 1]
    turned = torch.stack((x * cos + y * sin, y * cos - x * sin), dim=-1)
    reach = (lines[..., :2] * turned[:, :, None]).sum(-1)
    # Beyond its ends a line goes on as the parabola of its last three places.
    before = 3 * reach[..., :1] - 3 * reach[..., 1:2] + reach[..., 2:3]
    after = 3 * reach[..., -1:] - 3 * reach[..., -2:-1] + reach[..., -3:-2]
    padded = torch.cat((before, reach, after), dim=-1)
    best = reach.argmax(-1, keepdim=True)
    left, middle, right = (padded.gather(-1, best + step) for step in range(3))
    bend = left - 2 * middle + right
    shift = torch.where(bend < -1e-9, 0.5 * (left - right) / bend.clamp(max=-1e-9), 0.0).clamp(-0.5, 0.5)
    last = reach.shape[-1] - 1
    place = (best + shift)[..., 0].clamp(0, last)
    first = place.floor().clamp(max=last - 1)
    share = (place - first)[..., None]
    return _pick(lines, first.long()) * (1 - share) + _pick(lines, first.long() + 1) * share


def seen(points: Tensor, layers: tuple[Fragments, ...], scale: Tensor) -> Tensor:
    """Tell which points (B, P, 3) of the screen nothing hides: (B, P) bool; scale (B,) pixels in a head unit.

    A point is seen when at one of the nine pixels around it nothing is nearer by more than the tolerance, so that
    points on the silhouette are. A point outside the picture is judged at the nearest pixel of its edge.
    """
    limit = (points[..., 2] + TOLERANCE * scale[:, None])[..., None]
    return torch.stack([(_around(layer.depth, points) <= limit).any(-1) for layer in layers]).all(0)


def _around(depth: Tensor, points: Tensor) -> Tensor:
    """Take the depths (B, P, 9) of the pixels around points."""
    height, width = depth.shape[1:]
    steps = torch.arange(-1, 2, device=depth.device)
    x = (points[..., 0].round().long()[..., None, None] + steps).clamp(0, width - 1)
    y = (points[..., 1].round().long()[..., None, None] + steps[:, None]).clamp(0, height - 1)
    index = (y * width + x).flatten(1)
    return depth.flatten(1).gather(1, index).view(*points.shape[:2], 9)

"""Capsules: the shapes that hands, microphones, cups and long beards are made of."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ls3dw.synth.shade.tensors import planes


@dataclass(frozen=True)
class Capsules:
    """K capsules a picture: balls swept from start to end (n, K, 3) on the screen, with radii (n, K, 2) at both."""

    starts: Tensor
    ends: Tensor
    radii: Tensor
    thickness: Tensor
    """(n, K) depth over width: below 1 for flat shapes."""


@dataclass(frozen=True)
class Rounds:
    """Rendered capsules."""

    share: Tensor
    """(n, 1, H, W) coverage, soft over the last pixel of the outline."""

    depth: Tensor
    """(n, 1, H, W) larger is nearer; -1e6 where nothing is seen."""

    normal: Tensor
    """(n, 3, H, W) unit vectors, view frame."""

    along: Tensor
    """(n, 1, H, W) 0 at the start, 1 at the end of a capsule."""

    which: Tensor
    """(n, 1, H, W) number of the capsule, as float."""


def draw_capsules(capsules: Capsules, size: int, ragged: Tensor | None = None) -> Rounds:
    """Draw capsules on pictures of size x size; ragged: (n, 1, H, W) moves outlines outward, in radii."""
    device = capsules.starts.device
    line = torch.arange(size, dtype=torch.float32, device=device)
    x, y = line.view(1, 1, 1, -1), line.view(1, 1, -1, 1)
    count = len(capsules.starts)
    best = torch.full((count, 1, size, size), -1e6, device=device)
    share = torch.zeros_like(best)
    values = torch.zeros(count, 5, size, size, device=device)
    for number in range(capsules.starts.shape[1]):
        start, end = capsules.starts[:, number, :, None, None], capsules.ends[:, number, :, None, None]
        step = end - start
        right, down = x - start[:, :1], y - start[:, 1:2]
        length = step[:, :2].square().sum(1, keepdim=True).clamp(min=1e-3)
        along = ((right * step[:, :1] + down * step[:, 1:2]) / length).clamp(0, 1)
        first, last = capsules.radii[:, number, :, None, None].chunk(2, 1)
        radius = (first + (last - first) * along).clamp(min=0.5)
        if ragged is not None:
            radius = radius * (1 + ragged)
        right, down = right - along * step[:, :1], down - along * step[:, 1:2]
        away = right.square() + down.square()
        height = (radius.square() - away).clamp(min=0).sqrt()
        thick = capsules.thickness[:, number, None, None, None]
        top = start[:, 2:] + along * step[:, 2:] + thick * height
        depth = torch.where(away < radius.square(), top, -1e6)
        nearer = depth > best
        best = torch.where(nearer, depth, best)
        share = torch.maximum(share, (radius - away.sqrt() + 0.5).clamp(0, 1))
        mine = torch.cat(
            (right / radius, -down / radius, height / (radius * thick), along, torch.full_like(along, number)), 1
        )
        values = torch.where(nearer, mine, values)
    normal = values[:, :3] + planes((0.0, 0.0, 1e-3), device)
    normal = normal / normal.square().sum(1, keepdim=True).sqrt()
    return Rounds(share, best, normal, values[:, 3:4], values[:, 4:])

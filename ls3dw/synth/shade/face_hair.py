"""Hair painted on the skin: brows, beards, short scalp hair."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ls3dw.synth.head.brows import POINTS_A_BROW, slid, to_nose
from ls3dw.synth.head.landmarks import places
from ls3dw.synth.head.model import Head
from ls3dw.synth.rng import Rng
from ls3dw.synth.scene.hair import strands
from ls3dw.synth.scene.scene import Attribute, Scene
from ls3dw.synth.shade.noise import sinusoid_noise
from ls3dw.synth.shade.paint import Paint
from ls3dw.synth.shade.palette import Looks
from ls3dw.synth.shade.pixels import Pixels
from ls3dw.synth.shade.tensors import bell, planes, step

SCALP_CENTRE = (0.0, 0.3, -0.5)
SCALP_AXIS = (0.0, 0.6, -0.8)


def paint_brows(paint: Paint, pixels: Pixels, scene: Scene, head: Head, looks: Looks, fine: Tensor, rng: Rng) -> None:
    """Paint brows along the curves of points 17 to 26, which follow the upper part of the painted brow."""
    count = len(pixels.rest)
    one = (count, 1, 1, 1)
    x, left = pixels.rest[:, :1].abs(), pixels.rest[:, :1] > 0
    inner, outer = (torch.where(left, *sides) for sides in _moved_ends(scene, head))
    above = pixels.rest[:, 1:2] - brow_curve(pixels.rest[:, :1], scene, head)
    thick = rng.uniform(*one, low=0.03, high=0.085) * torch.where(rng.chance(0.1, *one), 1.4, 1.0)
    thick = thick * (1 - 0.6 * step(x - outer, 0.5, 0.8)) * (1 + 0.12 * fine[:, 1:])
    upper = thick * rng.uniform(*one, low=0.15, high=0.6)
    start = rng.uniform(*one, low=0.16, high=0.22)
    end = rng.uniform(*one, low=0.72, high=0.84)
    share = step(above, upper * 1.3, upper * 0.5) * step(above, -1.6 * thick, -0.8 * thick)
    share = share * step(x - inner, start + 0.02 * fine[:, :1], start + 0.08)
    share = share * step(x - outer, end + 0.06, end - 0.04)
    share = share * (pixels.rest[:, 2:] > 0) * pixels.skin
    # Hairs lean outward and up from the nose.
    hairs = torch.sin((x * 1.6 + pixels.rest[:, 1:2]) * 140 + 2.5 * fine[:, :1])
    dense = rng.uniform(*one, low=0.25, high=1.0)
    share = share * (dense + 0.2 * (1 - dense) * hairs + 0.1 * fine[:, 1:]).clamp(0, 1)
    paint.coat(share, looks.brow * (1 + 0.2 * fine[:, :1]).clamp(0.3, 1.7), gloss=0.3)
    paint.raise_by(share * (0.012 + 0.002 * hairs))


def _moved_ends(scene: Scene, head: Head) -> list[tuple[Tensor, Tensor]]:
    """Return how much farther from the nose brows begin and end on the mean head: (left, right), (B, 1, 1, 1) each."""
    table = places(head.mean[None], head.brow_vertices, head.brow_weights)[0]
    still = table[None, :, table.shape[1] // 2]
    moved = slid(still.expand(len(scene.brows.slide), -1, -1), scene.brows.slide, head.brow_gaps)
    right, left = to_nose(moved[..., 0].abs() - still[..., 0].abs()).unbind(1)
    return [(left[:, end].view(-1, 1, 1, 1), right[:, end].view(-1, 1, 1, 1)) for end in (0, -1)]


def brow_curve(side: Tensor, scene: Scene, head: Head) -> Tensor:
    """Return the height of the brow curve at each x: linear between points, extended beyond the last ones."""
    table = places(head.mean[None], head.brow_vertices, head.brow_weights)[0]
    middle = table[:, table.shape[1] // 2]
    slope = (table[:, -1, 1] - table[:, 0, 1]) / (head.brow_offsets[-1] - head.brow_offsets[0])
    offset = scene.brows.height - head.brow_offsets[head.brow_offsets.shape[0] // 2]
    across, heights = middle[:, 0].abs(), middle[:, 1] + slope * offset
    x, left = side.abs(), side > 0

    def of(values: Tensor, point: int) -> Tensor:
        """Select a point, counted from the nose, on the pixel's side of the face."""
        right_value, left_value = values[..., POINTS_A_BROW - 1 - point], values[..., POINTS_A_BROW + point]
        return torch.where(left, left_value.view(-1, 1, 1, 1), right_value.view(-1, 1, 1, 1))

    height, start = of(heights, 0), of(across, 0)
    for point in range(1, POINTS_A_BROW):
        end, level = of(across, point), of(heights, point)
        run = x - start
        run = run if point == 1 else run.clamp(min=0)
        run = run if point == POINTS_A_BROW - 1 else torch.minimum(run, end - start)
        height = height + run * (level - of(heights, point - 1)) / (end - start)
        start = end
    return height


def paint_beard(paint: Paint, pixels: Pixels, looks: Looks, fine: Tensor, rng: Rng) -> Tensor:
    """Paint stubble, moustaches, goatees and full beards; return who has a full beard (B, 1, 1, 1)."""
    count = len(pixels.rest)
    one = (count, 1, 1, 1)
    kind = rng.uniform(*one)
    full = looks.bearded & (kind < 0.27)
    stubble = looks.bearded & (kind > 0.55)
    cheek, chin, lip = _beard_regions(pixels, fine, rng)
    dense = full * torch.maximum(cheek, lip)
    dense = torch.maximum(dense, (looks.bearded & (kind > 0.14) & (kind < 0.4)) * lip)
    dense = torch.maximum(dense, (looks.bearded & (kind > 0.33) & (kind < 0.45)) * chin)
    share = dense * rng.uniform(*one, low=0.65, high=1.0)
    sparse = stubble * rng.uniform(*one, low=0.1, high=0.5) * torch.maximum(cheek, lip)
    free = pixels.skin * step(pixels.share(Attribute.LIP), 0.6, 0.3) * step(pixels.share(Attribute.EAR), 0.3, 0.1)
    free = free * (pixels.share(Attribute.MOUTH) < 0.5)
    strands = sinusoid_noise(pixels.rest * planes((2.2, 0.9, 1.6), fine.device), rng, 14, 90, waves=12)
    share = (share * (0.9 + 0.12 * strands) * free).clamp(0, 1)
    paint.coat((sparse * free * (0.85 + 0.2 * fine[:, :1] + 0.1 * strands)).clamp(0, 1), looks.beard * 0.8, gloss=0.6)
    paint.coat(share, looks.beard * (1 + 0.3 * strands).clamp(0.25, 2), gloss=0.25)
    paint.flatten(share * 0.7)
    paint.raise_by(share * (0.03 + 0.006 * strands))
    return full


def _beard_regions(pixels: Pixels, fine: Tensor, rng: Rng) -> tuple[Tensor, Tensor, Tensor]:
    """Return masks (B, 1, H, W) of the beard on cheeks and neck, on the chin, on the upper lip."""
    one = (len(pixels.rest), 1, 1, 1)
    x, y, z = pixels.rest[:, :1].abs(), pixels.rest[:, 1:2] + 0.02 * fine[:, 1:], pixels.rest[:, 2:]
    lip = step(y, -0.56, -0.5) * step(y, -0.4, -0.46) * step(x, 0.42, 0.28) * (z > 0.3)
    corner = step(x, 0.3, 0.36) * step(x, 0.5, 0.42) * step(y, -0.8, -0.7) * step(y, -0.5, -0.6) * (z > 0.2)
    line = -0.5 + 0.45 * step(x, 0.5, 0.95) + rng.uniform(*one, low=-0.15, high=0.12)
    neck = rng.uniform(*one, low=-1.6, high=-1.25)
    below_mouth = (step(x, 0.34, 0.5) + step(y, -0.88, -1.0)).clamp(0, 1)
    cheek = step(y, line + 0.05, line - 0.2) * step(y, neck - 0.1, neck + 0.2) * below_mouth * step(z, -0.8, -0.6)
    width = rng.uniform(*one, low=0.2, high=0.42)
    chin = step(y, -0.9, -0.98) * step(x, width, width - 0.12) * step(y, -1.4, -1.25) * (z > 0)
    patch = bell(x, 0.0, 0.1) * step(y, -0.86, -0.92) * step(y, -1.1, -1.0) * (z > 0)
    return torch.maximum(cheek, chin), torch.maximum(chin, patch), torch.maximum(lip, 0.8 * corner)


def paint_scalp(paint: Paint, pixels: Pixels, scene: Scene, looks: Looks, fine: Tensor, rng: Rng) -> None:
    """Paint short hair above the hairline, at temples and neck, and some fringes."""
    count = len(pixels.rest)
    one = (count, 1, 1, 1)
    x, y, z = pixels.rest[:, :1].abs(), pixels.rest[:, 1:2], pixels.rest[:, 2:]
    outward = F.normalize(pixels.rest - planes(SCALP_CENTRE, fine.device), dim=1)
    height = (outward * planes(SCALP_AXIS, fine.device)).sum(1, keepdim=True) + 0.03 * fine[:, :1]
    line = scene.hairline.view(one)
    dense = rng.uniform(*one, low=0.7, high=1.0)
    top = step(height, line, line + rng.uniform(*one, low=0.03, high=0.18)) * (y > -0.75)
    low = -0.3 + 0.6 * rng.uniform(*one)
    back = -0.35 - 0.25 * rng.uniform(*one)
    temple = step(x, 0.76, 0.84) * step(y, low, low + 0.08) * step(z, back + 0.06, back - 0.06)
    streaks = strands(pixels.rest, rng)
    edge = rng.uniform(*one, low=0.55, high=1.15) + 0.25 * rng.normal(*one) * pixels.rest[:, :1] + 0.09 * streaks
    hairy = line < 0.2
    fringe = step(y, edge, edge + 0.05) * (z > -0.4) * (rng.chance(0.22, *one) & hairy)
    share = torch.maximum(torch.maximum(top, temple * rng.chance(0.8, *one)) * dense, fringe)
    share = share * pixels.skin * step(pixels.share(Attribute.EAR), 0.6, 0.2)
    colour = looks.hair * (1 + 0.24 * streaks * (0.4 + 0.6 * rng.uniform(*one))).clamp(0.2, 2.2)
    # Shaved heads show the skin between the hairs.
    shaved = rng.chance(0.12, *one)
    paint.coat(share * torch.where(shaved, 0.45, 1.0), colour, gloss=0.35)
    paint.flatten(share)
    paint.raise_by(share * torch.where(shaved, 0.002, 0.01) * (2 + streaks))

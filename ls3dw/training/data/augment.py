"""Augmentation on the device: place, turn, zoom and mirror in one resampling; then colour and occlusion.

Each draw is an affine from the crop to the new crop. The pixels are looked up through it and the landmarks mapped by
it, so that they cannot part.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ls3dw.core.geometry import CROP_SIZE, RAISE, REFERENCE_SCALE, REFERENCE_SIDE
from ls3dw.models.networks.heatmaps import mirror_on
from ls3dw.training.data.batch import Batch, Faces
from ls3dw.training.data.seeds import Dice
from ls3dw.training.options import AugmentOptions

MIDDLE = (CROP_SIZE - 1) / 2
WIDEST_BLUR = 3.0
"""Std in pixels of the crop: about one of CNN-6's input, which is a third as fine."""

LARGEST_BLOCK = 0.5
"""Sides of an occluding rectangle are up to this share of the crop's."""


def augment(faces: Faces, options: AugmentOptions, dice: Dice) -> Batch:
    """Draw a new crop of each face."""
    mirrored = dice.chance(options.flip, len(faces.pictures))
    affines = draw_affines(faces, options, mirrored, dice)
    reflect = dice.chance(options.reflect, len(faces.pictures))
    images = warp(faces.pictures, affines, reflect)
    points_2d, points_3d = (move(points, affines, mirrored) for points in (faces.landmarks_2d, faces.landmarks_3d))
    images = occlude(recolour(images, options.colour, dice), options.occlusion, dice)
    images = blur(images, options.blur, dice)
    return Batch(images, points_2d, points_3d)


def draw_affines(faces: Faces, options: AugmentOptions, mirrored: Tensor, dice: Dice) -> Tensor:
    """Draw the affines (B, 2, 3) from the pixels of the crop to those of the new one, about their middles."""
    count = len(mirrored)
    angle = math.radians(options.rotation) * _spread(options, dice, count)
    zoom = torch.exp(_between(options.scale, _spread(options, dice, count)))
    shift = options.translation * CROP_SIZE * _spread(options, dice, count, 2)
    centre, box_zoom = _shaken_crop(faces, options.box_noise, dice)
    zoom = zoom * box_zoom
    side = torch.where(mirrored, -1.0, 1.0)
    cos, sin = zoom * torch.cos(angle), zoom * torch.sin(angle)
    # Mirrored first, then turned: side only changes the sign of the first column.
    linear = torch.stack((torch.stack((side * cos, -sin), dim=-1), torch.stack((side * sin, cos), dim=-1)), dim=1)
    offset = MIDDLE + shift - (linear @ centre[..., None])[..., 0]
    return torch.cat((linear, offset[..., None]), dim=2)


def _spread(options: AugmentOptions, dice: Dice, *shape: int) -> Tensor:
    """Draw from [-1, 1], or from the normal distribution with standard deviation 0.5."""
    return dice.uniform(*shape, low=-1.0) if options.spread == "uniform" else 0.5 * dice.normal(*shape)


def _between(scale: tuple[float, float], draw: Tensor) -> Tensor:
    """Turn a draw around 0 into the logarithm of a zoom: -1 is the smallest, 1 the largest."""
    low, high = (abs(math.log(limit)) for limit in scale)
    return torch.where(draw < 0, draw * low, draw * high)


def _shaken_crop(faces: Faces, noise: float, dice: Dice) -> tuple[Tensor, Tensor]:
    """Move the edges of each face's box, and apply the published rule to it: the middle (B, 2) and zoom (B,) of the
    new crop within the old one."""
    count, device = len(faces.pictures), faces.pictures.device
    same = torch.full((count, 2), MIDDLE, device=device), torch.ones(count, device=device)
    if noise == 0:
        return same
    low, high = _tight_box(faces)
    moves = dice.uniform(count, 2, 2, low=-noise, high=noise) * (high - low)[:, None]
    new_low, new_high = low + moves[:, 0], high + moves[:, 1]
    # Both boxes go through the rule: how far its crop moves and grows is what counts.
    (old_centre, old_side), (centre, side) = _crop_of(low, high), _crop_of(new_low, new_high)
    known = torch.isfinite(side) & (old_side > 0)
    new_centre = torch.where(known[:, None], MIDDLE + centre - old_centre, same[0])
    return new_centre, torch.where(known, old_side / side, same[1])


def _tight_box(faces: Faces) -> tuple[Tensor, Tensor]:
    """Find the corners (B, 2) of the box of the 2D points, or of the 3D ones where there are none."""
    has_2d = torch.isfinite(faces.landmarks_2d).all(dim=2).any(dim=1)
    points = torch.where(has_2d[:, None, None], faces.landmarks_2d, faces.landmarks_3d[..., :2])
    return points.nan_to_num(nan=math.inf).amin(dim=1), points.nan_to_num(nan=-math.inf).amax(dim=1)


def _crop_of(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    size = high - low
    raised = torch.stack((torch.zeros_like(size[:, 1]), RAISE * size[:, 1]), dim=1)
    return (low + high) / 2 - raised, size.sum(dim=1) * (REFERENCE_SIDE / REFERENCE_SCALE)


def warp(pictures: Tensor, affines: Tensor, reflect: Tensor) -> Tensor:
    """Resample pictures (B, 3, S, S) uint8 by affines (B, 2, 3) of the crop in their middle -> (B, 3, 256, 256) float.

    Bilinear. Outside the picture it is black, or where `reflect` (B,) the picture mirrored at its edge.
    """
    size = pictures.shape[-1]
    margin = (size - CROP_SIZE) / 2
    # Turned, zoomed and mirrored only, so the inverse is the transpose over the squared zoom.
    linear = affines[..., :2] / affines[:, 0, :2].square().sum(dim=1)[:, None, None]
    axis = torch.arange(CROP_SIZE, dtype=torch.float32, device=pictures.device)
    target = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), dim=-1).flatten(0, 1)
    place = (target - affines[:, None, :, 2]) @ linear + margin
    place = torch.where(reflect[:, None, None], _fold(place, size), place)
    grid = ((place + 0.5) * (2 / size) - 1).view(-1, CROP_SIZE, CROP_SIZE, 2)
    return F.grid_sample(pictures.float(), grid, align_corners=False).mul_(1 / 255)


def _fold(place: Tensor, size: int) -> Tensor:
    """Mirror coordinates at the first and the last pixel until they lie between them."""
    last = size - 1
    return last - (place.remainder(2 * last) - last).abs()


def move(points: Tensor, affines: Tensor, mirrored: Tensor) -> Tensor:
    """Map points (B, 68, 2 or 3) by affines (B, 2, 3), z by their zoom; mirrored faces change their sides."""
    plane = points[..., :2] @ affines[..., :2].transpose(1, 2) + affines[:, None, :, 2]
    zoom = affines[:, 0, :2].norm(dim=1)
    moved = torch.cat((plane, points[..., 2:] * zoom[:, None, None]), dim=2)
    return torch.where(mirrored[:, None, None], moved[:, mirror_on(points.device)], moved)


def recolour(images: Tensor, strength: float, dice: Dice) -> Tensor:
    """Multiply each channel by a factor in 1 +- strength ("colour jittering" of the paper)."""
    if strength == 0:
        return images
    factors = dice.uniform(len(images), 3, low=1 - strength, high=1 + strength)
    return (images * factors[..., None, None]).clamp_(0, 1)


def blur(images: Tensor, probability: float, dice: Dice) -> Tensor:
    """Blur some pictures with a Gaussian of a std of up to `WIDEST_BLUR` pixels, by two products with its matrices."""
    if probability == 0:
        return images
    count = len(images)
    width = dice.uniform(count, low=0, high=WIDEST_BLUR) * dice.chance(probability, count)
    axis = torch.arange(CROP_SIZE, dtype=torch.float32, device=images.device)
    # A Gaussian this narrow has no other pixel in it: the picture stays as it is.
    kernel = torch.exp((axis - axis[:, None]).square() * (-0.5 / width.clamp(min=0.05).square()[:, None, None]))
    kernel = (kernel / kernel.sum(dim=2, keepdim=True))[:, None]
    return kernel @ images @ kernel.transpose(2, 3)


def occlude(images: Tensor, probability: float, dice: Dice) -> Tensor:
    """Cover a rectangle of some pictures with one colour and noise."""
    if probability == 0:
        return images
    count = len(images)
    hit = dice.chance(probability, count)
    half = dice.uniform(count, 2, low=0.05, high=LARGEST_BLOCK / 2) * CROP_SIZE
    middle = dice.uniform(count, 2) * CROP_SIZE
    axis = torch.arange(CROP_SIZE, dtype=torch.float32, device=images.device)
    columns, rows = ((axis - middle[:, i, None]).abs() < half[:, i, None] for i in (0, 1))
    covered = (columns[:, None, :] & rows[:, :, None] & hit[:, None, None])[:, None]
    block = dice.uniform(count, 3, 1, 1) + 0.1 * dice.normal(count, 3, CROP_SIZE, CROP_SIZE)
    return torch.where(covered, block.clamp_(0, 1), images)

"""Augmentation on the device: shift, turn, zoom and mirror in one resampling, then colour, occlusion and blur.

One affine from the crop to the new crop maps both pixels and landmarks.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ls3dw.core.geometry import CROP_SIZE, RAISE, REFERENCE_SCALE, REFERENCE_SIDE
from ls3dw.models.networks.heatmaps import mirror_on
from ls3dw.synth.rng import Rng
from ls3dw.training.data.batch import Batch, RawBatch
from ls3dw.training.options import AugmentOptions

MIDDLE = (CROP_SIZE - 1) / 2
WIDEST_BLUR = 3.0
"""Standard deviation in crop pixels; about one pixel of CNN-6's input, which is a third as fine."""

LARGEST_BLOCK = 0.5
"""Longest side of an occluding rectangle, in crop sides."""


def augment(faces: RawBatch, options: AugmentOptions, rng: Rng) -> Batch:
    """Cut a random new crop of each face."""
    mirrored = rng.chance(options.flip, len(faces.pictures))
    affines = draw_affines(faces, options, mirrored, rng)
    reflect = rng.chance(options.reflect, len(faces.pictures))
    images = warp(faces.pictures, affines, reflect)
    points_2d, points_3d = (
        transform_points(points, affines, mirrored) for points in (faces.landmarks_2d, faces.landmarks_3d)
    )
    images = occlude(recolour(images, options.colour, rng), options.occlusion, rng)
    images = blur(images, options.blur, rng)
    return Batch(images, points_2d, points_3d)


def draw_affines(faces: RawBatch, options: AugmentOptions, mirrored: Tensor, rng: Rng) -> Tensor:
    """Draw affines (B, 2, 3) from pixels of the crop to pixels of the new crop, about their middles."""
    count = len(mirrored)
    angle = math.radians(options.rotation) * _draw_unit(options, rng, count)
    zoom = torch.exp(_log_zoom(options.scale, _draw_unit(options, rng, count)))
    shift = options.translation * CROP_SIZE * _draw_unit(options, rng, count, 2)
    centre, box_zoom = _jittered_crop(faces, options.box_noise, rng)
    zoom = zoom * box_zoom
    side = torch.where(mirrored, -1.0, 1.0)
    cos, sin = zoom * torch.cos(angle), zoom * torch.sin(angle)
    # Mirrored before it is turned, so `side` changes the sign of the first column only.
    linear = torch.stack((torch.stack((side * cos, -sin), dim=-1), torch.stack((side * sin, cos), dim=-1)), dim=1)
    offset = MIDDLE + shift - (linear @ centre[..., None])[..., 0]
    return torch.cat((linear, offset[..., None]), dim=2)


def _draw_unit(options: AugmentOptions, rng: Rng, *shape: int) -> Tensor:
    """Draw uniformly from [-1, 1], or normally with standard deviation 0.5."""
    return rng.uniform(*shape, low=-1.0) if options.spread == "uniform" else 0.5 * rng.normal(*shape)


def _log_zoom(scale: tuple[float, float], draw: Tensor) -> Tensor:
    """Map -1 to the logarithm of the smallest zoom, 1 to that of the largest."""
    low, high = (abs(math.log(limit)) for limit in scale)
    return torch.where(draw < 0, draw * low, draw * high)


def _jittered_crop(faces: RawBatch, noise: float, rng: Rng) -> tuple[Tensor, Tensor]:
    """Jitter the edges of each face's box; return the middle (B, 2) and zoom (B,) of its new crop within the old
    one."""
    count, device = len(faces.pictures), faces.pictures.device
    same = torch.full((count, 2), MIDDLE, device=device), torch.ones(count, device=device)
    if noise == 0:
        return same
    low, high = _tight_box(faces)
    moves = rng.uniform(count, 2, 2, low=-noise, high=noise) * (high - low)[:, None]
    new_low, new_high = low + moves[:, 0], high + moves[:, 1]
    # The published rule gives a crop for both boxes; the new crop is the old one changed by their difference.
    (old_centre, old_side), (centre, side) = _crop_of(low, high), _crop_of(new_low, new_high)
    known = torch.isfinite(side) & (old_side > 0)
    new_centre = torch.where(known[:, None], MIDDLE + centre - old_centre, same[0])
    return new_centre, torch.where(known, old_side / side, same[1])


def _tight_box(faces: RawBatch) -> tuple[Tensor, Tensor]:
    """Return the corners (B, 2) of the box around the 2D points, or the 3D points of faces without 2D points."""
    has_2d = torch.isfinite(faces.landmarks_2d).all(dim=2).any(dim=1)
    points = torch.where(has_2d[:, None, None], faces.landmarks_2d, faces.landmarks_3d[..., :2])
    return points.nan_to_num(nan=math.inf).amin(dim=1), points.nan_to_num(nan=-math.inf).amax(dim=1)


def _crop_of(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    size = high - low
    raised = torch.stack((torch.zeros_like(size[:, 1]), RAISE * size[:, 1]), dim=1)
    return (low + high) / 2 - raised, size.sum(dim=1) * (REFERENCE_SIDE / REFERENCE_SCALE)


def warp(pictures: Tensor, affines: Tensor, reflect: Tensor) -> Tensor:
    """Resample pictures (B, 3, S, S) uint8 by affines (B, 2, 3) of their crops, bilinearly: (B, 3, 256, 256) in [0, 1].

    Outside the picture it is black, or mirrored at the edge where `reflect` (B,) is true.
    """
    size = pictures.shape[-1]
    margin = (size - CROP_SIZE) / 2
    # Without shear, the inverse is the transpose over the squared zoom.
    linear = affines[..., :2] / affines[:, 0, :2].square().sum(dim=1)[:, None, None]
    axis = torch.arange(CROP_SIZE, dtype=torch.float32, device=pictures.device)
    target = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), dim=-1).flatten(0, 1)
    place = (target - affines[:, None, :, 2]) @ linear + margin
    place = torch.where(reflect[:, None, None], _reflect(place, size), place)
    grid = ((place + 0.5) * (2 / size) - 1).view(-1, CROP_SIZE, CROP_SIZE, 2)
    return F.grid_sample(pictures.float(), grid, align_corners=False).mul_(1 / 255)


def _reflect(place: Tensor, size: int) -> Tensor:
    """Mirror coordinates at the first and last pixel until they lie inside."""
    last = size - 1
    return last - (place.remainder(2 * last) - last).abs()


def transform_points(points: Tensor, affines: Tensor, mirrored: Tensor) -> Tensor:
    """Map points (B, 68, 2 or 3) by affines (B, 2, 3), z by the zoom; mirrored faces swap left and right points."""
    plane = points[..., :2] @ affines[..., :2].transpose(1, 2) + affines[:, None, :, 2]
    zoom = affines[:, 0, :2].norm(dim=1)
    moved = torch.cat((plane, points[..., 2:] * zoom[:, None, None]), dim=2)
    return torch.where(mirrored[:, None, None], moved[:, mirror_on(points.device)], moved)


def recolour(images: Tensor, strength: float, rng: Rng) -> Tensor:
    """Multiply each channel by a random factor in 1 +- strength (the paper's colour jittering)."""
    if strength == 0:
        return images
    factors = rng.uniform(len(images), 3, low=1 - strength, high=1 + strength)
    return (images * factors[..., None, None]).clamp_(0, 1)


def blur(images: Tensor, probability: float, rng: Rng) -> Tensor:
    """Blur some pictures with a Gaussian of up to `WIDEST_BLUR` pixels, as two matrix products."""
    if probability == 0:
        return images
    count = len(images)
    width = rng.uniform(count, low=0, high=WIDEST_BLUR) * rng.chance(probability, count)
    axis = torch.arange(CROP_SIZE, dtype=torch.float32, device=images.device)
    # At the smallest width the kernel is one pixel, and the picture stays as it is.
    kernel = torch.exp((axis - axis[:, None]).square() * (-0.5 / width.clamp(min=0.05).square()[:, None, None]))
    kernel = (kernel / kernel.sum(dim=2, keepdim=True))[:, None]
    return kernel @ images @ kernel.transpose(2, 3)


def occlude(images: Tensor, probability: float, rng: Rng) -> Tensor:
    """Cover a rectangle of some pictures with one colour plus noise."""
    if probability == 0:
        return images
    count = len(images)
    hit = rng.chance(probability, count)
    half = rng.uniform(count, 2, low=0.05, high=LARGEST_BLOCK / 2) * CROP_SIZE
    middle = rng.uniform(count, 2) * CROP_SIZE
    axis = torch.arange(CROP_SIZE, dtype=torch.float32, device=images.device)
    columns, rows = ((axis - middle[:, i, None]).abs() < half[:, i, None] for i in (0, 1))
    covered = (columns[:, None, :] & rows[:, :, None] & hit[:, None, None])[:, None]
    block = rng.uniform(count, 3, 1, 1) + 0.1 * rng.normal(count, 3, CROP_SIZE, CROP_SIZE)
    return torch.where(covered, block.clamp_(0, 1), images)

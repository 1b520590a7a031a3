"""The faces that a run is validated on: held-out heads, rendered, and real faces that were never trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ls3dw.core.crops import cut_window
from ls3dw.core.geometry import CROP_SIZE, apply
from ls3dw.core.pose import head_pose
from ls3dw.core.sample import Floats, Sample
from ls3dw.errors import ConfigurationError
from ls3dw.models.inference.resampling import resample
from ls3dw.sources import open_source
from ls3dw.training.data.faces import landmarks_of
from ls3dw.training.data.heads import HeadMaker, OpenHeads, check_heads
from ls3dw.training.data.seeds import Dice
from ls3dw.training.options import RealOptions, ValidationOptions

CHUNK = 64


@dataclass(frozen=True)
class ValidationSet:
    """N faces. images: (N, 3, 256, 256) uint8 on the device; landmarks_2d: (N, 68, 2), landmarks_3d: (N, 68, 3), crop
    pixels on the CPU, NaN where unknown; yaw: (N,) degrees, NaN where unknown; flip: whether 2D heatmaps are averaged
    with the mirrored picture's."""

    name: str
    images: Tensor
    landmarks_2d: Floats
    landmarks_3d: Floats
    yaw: Floats
    flip: bool = False


def make_sets(options: ValidationOptions, open_heads: OpenHeads, device: torch.device) -> list[ValidationSet]:
    """Read and render what a pipeline asks for; heads as the renderer draws them by default."""
    sets = [read_real(real, device, options.flip) for real in options.real]
    if options.rendered:
        sets.insert(0, render_heads(options, open_heads(device, {}), device))
    return sets


@torch.no_grad()
def render_heads(options: ValidationOptions, maker: HeadMaker, device: torch.device) -> ValidationSet:
    """Render heads of a seed of their own, placed as they come, and degrade them."""
    images, points_2d, points_3d, yaw = [], [], [], []
    for number in range(-(-options.rendered // CHUNK)):
        size = min(CHUNK, options.rendered - number * CHUNK)
        heads = maker.render(size, options.seed, number)
        if check_heads(heads) != 0:
            raise ConfigurationError(
                f"validation: heads are {heads.images.shape[-1]} pixels wide, expected {CROP_SIZE}"
            )
        pictures = heads.images.float() / 255
        hit = Dice(device, options.seed, "degrade", number).chance(options.degrade, size)[:, None, None, None]
        pictures = torch.where(hit, maker.degrade(pictures, options.seed, number), pictures)
        images.append((pictures * 255).round().to(torch.uint8))
        points_2d.append(heads.landmarks_2d.cpu())
        points_3d.append(heads.landmarks_3d.cpu())
        yaw.append(heads.pose[:, 0].cpu())
    return ValidationSet(
        "heads",
        torch.cat(images),
        torch.cat(points_2d).numpy(),
        torch.cat(points_3d).numpy(),
        torch.cat(yaw).numpy(),
    )


def read_real(options: RealOptions, device: torch.device, flip: bool) -> ValidationSet:
    """Cut the published crops of a source's faces, by the box of its own points, as the annotator does."""
    source = open_source(options.source, options.root)
    samples: list[Sample] = []
    for media in source.media(options.subsets or None, piece=1):
        if options.limit is not None and len(samples) >= options.limit:
            break
        samples += [outcome for _, outcome in media.read(lambda unit: False) if isinstance(outcome, Sample)]
    if not samples:
        raise ConfigurationError(f"validation.real: {options.source}: no usable face in {options.root}")
    crops, flat, solid = [], [], []
    for sample in samples:
        window = cut_window(sample.image(), sample.box, reduction=sample.reduction)
        pixels = torch.from_numpy(np.ascontiguousarray(window.pixels))[None]
        crops.append(resample(pixels, torch.from_numpy(window.to_crop)[None]))
        points_2d, points_3d = landmarks_of(sample, source.annotation_kind)
        flat.append(apply(window.crop, points_2d))
        solid.append(apply(window.crop, points_3d))
    images = (torch.cat(crops) * 255).round().to(torch.uint8).to(device)
    return ValidationSet(options.source, images, np.stack(flat), np.stack(solid), _yaw(samples, flat, solid), flip)


def _yaw(samples: Sequence[Sample], flat: Sequence[Floats], solid: Sequence[Floats]) -> Floats:
    """Take the yaw that a source states, or else the one that its points show."""
    planes = [points[..., :2] for points in solid]
    shapes = np.stack([two if np.isnan(three).any() else three for two, three in zip(flat, planes, strict=True)])
    shown = head_pose(shapes)[:, 0]
    stated = [np.nan if sample.yaw is None else sample.yaw for sample in samples]
    return np.where(np.isnan(stated), shown, np.asarray(stated)).astype(np.float32)

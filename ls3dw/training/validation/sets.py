"""Validation sets: held-out rendered heads, and real faces."""

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
from ls3dw.models.weights.contract import Kind
from ls3dw.sources import open_source
from ls3dw.synth.rng import keyed_rng
from ls3dw.training.data.faces import landmarks_of
from ls3dw.training.data.heads import HeadRenderer, RendererFactory, crop_margin
from ls3dw.training.options import RealOptions, ValidationOptions

CHUNK = 64


@dataclass(frozen=True)
class ValidationSet:
    """N faces with their landmarks in crop pixels, NaN where unknown."""

    name: str
    images: Tensor
    """(N, 3, 256, 256) uint8 on the device."""

    landmarks_2d: Floats
    """(N, 68, 2)."""

    landmarks_3d: Floats
    """(N, 68, 3)."""

    yaw: Floats
    """(N,) degrees, NaN where unknown."""

    flip: bool = False
    """Whether 2D predictions are averaged with those of the mirrored picture."""

    def truth(self, kind: Kind) -> Floats:
        """Return the points (N, 68, 2) that a network of this kind should find."""
        return self.landmarks_2d if kind == "2d" else self.landmarks_3d[..., :2]


def make_sets(options: ValidationOptions, open_heads: RendererFactory, device: torch.device) -> list[ValidationSet]:
    """Read and render the sets of a pipeline; heads with the renderer's default options."""
    sets = [read_real(real, device, options.flip) for real in options.real]
    if options.rendered:
        sets.insert(0, render_heads(options, open_heads(device, {}), device))
    return sets


@torch.no_grad()
def render_heads(options: ValidationOptions, renderer: HeadRenderer, device: torch.device) -> ValidationSet:
    """Render and degrade held-out heads."""
    images, points_2d, points_3d, yaw = [], [], [], []
    for number in range(-(-options.rendered // CHUNK)):
        size = min(CHUNK, options.rendered - number * CHUNK)
        heads = renderer.render(size, options.seed, number)
        if crop_margin(heads) != 0:
            raise ConfigurationError(
                f"validation: heads are {heads.images.shape[-1]} pixels wide, expected {CROP_SIZE}"
            )
        pictures = heads.images.float() / 255
        hit = keyed_rng(device, options.seed, "degrade", number).chance(options.degrade, size)[:, None, None, None]
        pictures = torch.where(hit, renderer.degrade(pictures, options.seed, number), pictures)
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
    """Cut the published crops of a source's faces, around the box of its own points, as the annotator does."""
    source = open_source(options.source, options.root)
    samples: list[Sample] = []
    for media in source.media(options.subsets or None, piece=1):
        if options.limit is not None and len(samples) >= options.limit:
            break
        samples += [outcome for _, outcome in media.read(lambda unit: False) if isinstance(outcome, Sample)]
    if not samples:
        raise ConfigurationError(f"validation.real: {options.source}: no usable face in {options.root}")
    crops, points_2d, points_3d = [], [], []
    for sample in samples:
        window = cut_window(sample.image(), sample.box, reduction=sample.reduction)
        pixels = torch.from_numpy(np.ascontiguousarray(window.pixels))[None]
        crops.append(resample(pixels, torch.from_numpy(window.to_crop)[None]))
        in_2d, in_3d = landmarks_of(sample, source.annotation_kind)
        points_2d.append(apply(window.crop, in_2d))
        points_3d.append(apply(window.crop, in_3d))
    images = (torch.cat(crops) * 255).round().to(torch.uint8).to(device)
    in_2d, in_3d = np.stack(points_2d), np.stack(points_3d)
    return ValidationSet(options.source, images, in_2d, in_3d, _yaw(samples, in_2d, in_3d), flip)


def _yaw(samples: Sequence[Sample], points_2d: Floats, points_3d: Floats) -> Floats:
    """Return the yaw of the source, or where it gives none the yaw estimated from the points."""
    projected = points_3d[..., :2]
    unknown = np.isnan(projected).any(axis=(1, 2), keepdims=True)
    estimated = head_pose(np.where(unknown, points_2d, projected))[:, 0]
    given = np.asarray([np.nan if sample.yaw is None else sample.yaw for sample in samples])
    return np.where(np.isnan(given), estimated, given).astype(np.float32)

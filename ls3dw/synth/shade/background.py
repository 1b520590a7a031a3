"""The bank of pictures for backgrounds, clothes and reflections."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ls3dw.core.formats.pictures import decode_picture
from ls3dw.core.sample import Picture
from ls3dw.errors import ConfigurationError, PictureError
from ls3dw.sources.layout import visible
from ls3dw.sources.stills import PICTURES
from ls3dw.synth.rng import Rng
from ls3dw.synth.shade.palette import plain_colours
from ls3dw.synth.shade.patterns import KINDS, fractal
from ls3dw.synth.shade.tensors import constant, mix, planes, step

SIDE = 384


def make_bank(rng: Rng, count: int = 96, side: int = SIDE, folder: Path | None = None) -> Tensor:
    """Make the bank (N, 3, side, side) uint8 on the generator's device: `count` patterns, and a folder's pictures.

    A third of the patterns blend two kinds. Raises `ConfigurationError` for a folder without pictures or with one that
    cannot be read.
    """
    share = -(-count // len(KINDS))
    patterns = torch.cat([kind(rng, share, side) for kind in KINDS])[rng.permutation(share * len(KINDS))[:count]]
    mask = step(fractal(rng, count, side), 0.45, 0.55) * rng.chance(0.35, count, 1, 1, 1)
    bank = mix(patterns, patterns.roll(1, 0), mask).mul_(255).round_().to(torch.uint8)
    if folder is None:
        return bank
    return torch.cat((bank, torch.from_numpy(read_pictures(folder, side)).to(rng.device)))


def read_pictures(folder: Path, side: int = SIDE) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Read the middle squares of a folder's pictures: (N, 3, side, side); errors as in `make_bank`."""
    if not folder.is_dir():
        raise ConfigurationError(f"backgrounds {folder}: not a folder; expected one with pictures")
    paths = [path for path in visible(folder) if path.suffix.lower() in PICTURES]
    if not paths:
        raise ConfigurationError(f"backgrounds {folder}: no picture there; expected {', '.join(sorted(PICTURES))}")
    return np.stack([_read_square(path, side) for path in paths]).transpose(0, 3, 1, 2).copy()


def _read_square(path: Path, side: int) -> Picture:
    """Read the middle square of a picture, resized to (side, side, 3)."""
    try:
        picture = decode_picture(path.read_bytes()).pixels
    except (OSError, PictureError) as error:
        raise ConfigurationError(f"background {path}: {error}; mend it or take it away") from error
    height, width = picture.shape[:2]
    cut = min(height, width)
    top, left = (height - cut) // 2, (width - cut) // 2
    square = picture[top : top + cut, left : left + cut]
    return np.asarray(cv2.resize(square, (side, side), interpolation=cv2.INTER_AREA), np.uint8)


def crops(bank: Tensor, rng: Rng, count: int, side: int, smallest: float = 0.15, largest: float = 1.0) -> Tensor:
    """Cut turned, mirrored and recoloured parts of the bank: (count, 3, side, side) in [0, 1].

    smallest, largest: side of a part, in sides of the picture
    """
    chosen = bank[rng.integers(len(bank), count)].float() / 255
    zoom = rng.uniform(count, low=smallest, high=largest)
    angle = 0.3 * rng.normal(count)
    mirror = 1 - 2 * rng.chance(0.5, count).float()
    row = torch.stack((mirror * zoom * angle.cos(), -zoom * angle.sin()), 1)
    column = torch.stack((mirror * zoom * angle.sin(), zoom * angle.cos()), 1)
    shift = rng.uniform(count, 2, low=-1, high=1) * (1 - zoom)[:, None]
    grid = F.affine_grid(torch.stack((row, column, shift), 2).view(count, 2, 3), [count, 3, side, side], False)
    image = F.grid_sample(chosen, grid, padding_mode="reflection", align_corners=False)
    return _recolour(image, rng)


def _recolour(image: Tensor, rng: Rng) -> Tensor:
    """Change the colours of each picture, so that a small bank looks larger."""
    count = len(image)
    # Keys that rise by channel mostly keep the order of the channels.
    keys = rng.uniform(count, 3) + constant((0.0, 0.6, 1.2), image.device) * rng.chance(0.7, count, 1)
    image = image.gather(1, keys.argsort(1)[:, :, None, None].expand_as(image))
    image = image ** rng.uniform(count, 1, 1, 1, low=0.55, high=1.5)
    image = image * (1 + 0.12 * rng.normal(count, 3, 1, 1)) * rng.uniform(count, 1, 1, 1, low=0.45, high=1.2)
    gray = (image * planes((0.3, 0.59, 0.11), image.device)).sum(1, keepdim=True)
    return mix(gray, image, rng.uniform(count, 1, 1, 1, low=0.15, high=1.0)).clamp_(0, 1)


def backgrounds(bank: Tensor, rng: Rng, count: int, side: int) -> Tensor:
    """Make backgrounds (count, 3, side, side) in [0, 1]: sharp, out of focus, plain, unevenly lit or dark."""
    one = (count, 1, 1, 1)
    image = crops(bank, rng, count, side)
    coarse = F.avg_pool2d(F.avg_pool2d(image, 8), 3, 1, 1, count_include_pad=False)
    soft = F.interpolate(coarse, size=(side, side), mode="bilinear", align_corners=False)
    image = mix(image, soft, rng.chance(0.5, *one).float())
    image = mix(image, plain_colours(rng, count), rng.chance(0.25, *one))
    x = torch.linspace(-1, 1, side, device=image.device)
    slope = x * rng.normal(*one) + x[:, None] * rng.normal(*one)
    image = image * (1 + 0.25 * slope * rng.uniform(*one))
    return (image * torch.where(rng.chance(0.06, *one), 0.08, 1.0)).clamp_(0, 1)

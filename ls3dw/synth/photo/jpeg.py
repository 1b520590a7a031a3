"""JPEG compression of batches on any device: block transform, quantisation, chroma at half resolution."""

from __future__ import annotations

import math
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK = 8

_LUMA = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMA = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *((99,) * 8,) * 4,
)
_TO_YCC = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))


def compress(images: Tensor, quality: Tensor) -> Tensor:
    """Compress and decode pictures (B, 3, H, W) in [0, 1], H and W multiples of 16, at a quality (B,) from 1 to 100.

    Tables are those of ITU-T T.81, annex K, scaled by quality as in the IJG library.
    """
    to_ycc, to_rgb, cosines, luma_table, chroma_table = _tables(images.device)
    scale = torch.where(quality < 50, 5000 / quality, 200 - 2 * quality) / 100
    ycc = torch.einsum("ij,bjhw->bihw", to_ycc, images * 255)
    luma = _quantise(ycc[:, :1] - 128, _scaled(luma_table, scale), cosines) + 128
    chroma = _quantise(F.avg_pool2d(ycc[:, 1:], 2), _scaled(chroma_table, scale), cosines)
    chroma = F.interpolate(chroma, scale_factor=2, mode="bilinear", align_corners=False)
    return torch.einsum("ij,bjhw->bihw", to_rgb, torch.cat((luma, chroma), 1)).div_(255).clamp_(0, 1)


def _scaled(table: Tensor, scale: Tensor) -> Tensor:
    """Return each picture's quantisation steps, to broadcast with blocks (B, C, rows, columns, 8, 8)."""
    return (table * scale[:, None, None]).round().clamp(1, 255)[:, None, None, None]


def _quantise(channels: Tensor, steps: Tensor, cosines: Tensor) -> Tensor:
    """Round the cosine coefficients of each block of channels (B, C, H, W) to multiples of the steps."""
    count, planes, height, width = channels.shape
    shape = (count, planes, height // BLOCK, BLOCK, width // BLOCK, BLOCK)
    blocks = channels.reshape(shape).transpose(3, 4)
    coefficients = (cosines @ blocks @ cosines.T).div_(steps).round_().mul_(steps)
    return (cosines.T @ coefficients @ cosines).transpose(3, 4).reshape(channels.shape)


@cache
def _tables(device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Cache the constants on the device: a copy would wait for all queued work."""
    place = torch.arange(BLOCK, dtype=torch.float64)
    cosines = torch.cos((2 * place[None] + 1) * place[:, None] * (math.pi / (2 * BLOCK))) / 2
    cosines[0] /= math.sqrt(2)
    to_ycc = torch.tensor(_TO_YCC, dtype=torch.float64)
    tables = (to_ycc, torch.linalg.inv(to_ycc), cosines, torch.tensor(_LUMA), torch.tensor(_CHROMA))
    first, second, third, fourth, fifth = (table.to(device, torch.float32) for table in tables)
    return first, second, third, fourth, fifth

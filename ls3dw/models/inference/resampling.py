"""Resamples a batch of pictures to network crops on the device, with a filter that fits the zoom."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ls3dw.core.geometry import CROP_SIZE
from ls3dw.models import kernels


def resample(pixels: Tensor, affines: Tensor, size: int = CROP_SIZE) -> Tensor:
    """Cut the crops of pictures (N, H, W, 3) uint8 or float -> (N, 3, size, size) float32 in [0, 1].

    affines: (N, 2, 3) float64 on the CPU, picture -> crop, scaling and shifting only. Each output pixel is the mean of
    the input under a triangle as wide as the larger of an output and an input pixel: bilinear when enlarging, free of
    aliasing when shrinking. Outside the picture is black.
    """
    height, width = pixels.shape[1:3]
    # Found on the CPU, so that nothing waits for a GPU.
    span = int((1 / affines[:, (0, 1), (0, 1)]).clamp(min=1).max().ceil())
    affines = affines.to(pixels.device, non_blocking=True)
    if kernels.triton_available(pixels.device):
        # The same in a fifth of the time: nothing but the crops is written.
        return kernels.resample(pixels, affines, size, span)
    rows = find_taps(affines[:, 1, 1], affines[:, 1, 2], height, size, span)
    columns = find_taps(affines[:, 0, 0], affines[:, 0, 2], width, size, span)
    half = _blend(pixels.to(torch.float32).flatten(2), rows).view(len(pixels), size, width, 3)
    planes = _blend(half.permute(0, 2, 3, 1).flatten(2), columns).transpose(1, 2)
    return planes.contiguous().view(len(pixels), 3, size, size).mul_(1 / 255).clamp_(0, 1)


@dataclass(frozen=True)
class Taps:
    """Input pixels and weights of S output pixels of N pictures along one axis.

    place: (N, S, T), clamped to the picture; weight: (N, S, T) float32, 0 outside the picture.
    """

    place: Tensor
    weight: Tensor

    def dense(self, length: int) -> Tensor:
        """Return weights for all input pixels: (N, S, length)."""
        none = self.weight.new_zeros(*self.weight.shape[:2], length)
        return none.scatter_add_(2, self.place, self.weight)


def find_taps(zoom: Tensor, shift: Tensor, length: int, size: int, span: int) -> Taps:
    """Weigh `length` input pixels for `size` output pixels. zoom, shift: (N,) float64; span: reach of the widest
    triangle."""
    reach = (1 / zoom).clamp(min=1)[:, None, None]
    output = torch.arange(size, dtype=zoom.dtype, device=zoom.device)
    centre = ((output - shift[:, None]) / zoom[:, None])[..., None]
    whole = centre.floor()
    around = torch.arange(-span, span + 2, dtype=zoom.dtype, device=zoom.device)
    weight = (1 - (around - (centre - whole)).abs() / reach).clamp(min=0)
    # Pixels outside count in the sum, as black. Summed in order: zeros at the ends, from wider triangles of other
    # pictures, change no bit.
    weight /= weight.cumsum(dim=2)[..., -1:]
    place = (whole + around).long()
    inside = (place >= 0) & (place < length)
    return Taps(place.clamp(0, length - 1), torch.where(inside, weight, 0.0).to(torch.float32))


def _blend(rows: Tensor, taps: Taps) -> Tensor:
    """Sum rows (N, L, F) by taps: (N, S, F), as an embedding, the one operation that sums while reading."""
    count, length, features = rows.shape
    first = length * torch.arange(count, device=rows.device)[:, None, None]
    table, places = rows.reshape(-1, features), (taps.place + first).flatten(0, 1)
    sums = F.embedding_bag(places, table, per_sample_weights=taps.weight.flatten(0, 1), mode="sum")
    return sums.view(count, -1, features)

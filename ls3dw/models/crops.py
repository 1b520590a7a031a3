"""Resamples a whole batch of pictures to network crops at once, on the device, with a filter that fits the zoom."""

from __future__ import annotations

from importlib.util import find_spec

import torch
from torch import Tensor

from ls3dw.geometry import CROP_SIZE


def resample(pixels: Tensor, affines: Tensor, size: int = CROP_SIZE) -> Tensor:
    """Cut the crops of pictures (N, H, W, 3) uint8 or float -> (N, 3, size, size) float32 in [0, 1].

    affines: (N, 2, 3) float64 on the CPU, picture -> crop, scaling and shifting only. Each output pixel is the mean of
    the input under a triangle as wide as an output pixel, and never narrower than an input pixel: bilinear when it
    enlarges, free of aliasing when it shrinks. What lies outside the picture is black.
    """
    height, width = pixels.shape[1:3]
    # The widest triangle is found on the CPU, so that nothing here waits for a GPU.
    span = int((1 / affines[:, (0, 1), (0, 1)]).clamp(min=1).max().ceil())
    affines = affines.to(pixels.device, non_blocking=True)
    if pixels.is_cuda and find_spec("triton"):
        # The same in a fifth of the time: nothing is written but the crops.
        from ls3dw.models import crops_triton

        return crops_triton.resample(pixels, affines, size, span)
    rows = filter_weights(affines[:, 1, 1], affines[:, 1, 2], height, size, span)
    columns = filter_weights(affines[:, 0, 0], affines[:, 0, 2], width, size, span)
    # Rows first, with the channels still inside: two batched products do the whole picture.
    values = pixels.to(torch.float32).flatten(2)
    half = torch.bmm(rows, values).view(len(pixels), size, width, 3)
    planes = half.permute(0, 3, 1, 2).reshape(len(pixels), 3 * size, width)
    crops = torch.bmm(planes, columns.transpose(1, 2)).view(len(pixels), 3, size, size)
    return crops.mul_(1 / 255).clamp_(0, 1)


def filter_weights(zoom: Tensor, shift: Tensor, length: int, size: int, span: int) -> Tensor:
    """Weigh `length` input pixels for each of `size` output pixels: (N, size, length) float32. span: widest reach."""
    reach = (1 / zoom).clamp(min=1)[:, None, None]
    output = torch.arange(size, dtype=zoom.dtype, device=zoom.device)
    centre = ((output - shift[:, None]) / zoom[:, None])[..., None]
    inside = _triangle(torch.arange(length, dtype=zoom.dtype, device=zoom.device) - centre, reach)
    # Divided by the sum over all integers, not only those inside the picture: so the outside counts as black.
    around = torch.arange(-span, span + 2, dtype=zoom.dtype, device=zoom.device)
    everywhere = _triangle(around - (centre - centre.floor()), reach)
    return (inside / everywhere.sum(dim=2, keepdim=True)).to(torch.float32)


def _triangle(distance: Tensor, reach: Tensor) -> Tensor:
    return (1 - distance.abs() / reach).clamp(min=0)

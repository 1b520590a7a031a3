"""Predictions of networks in training."""

from __future__ import annotations

import torch
from torch import Tensor

from ls3dw.models.networks.heatmaps import decode_subpixel, with_mirrored
from ls3dw.models.networks.straight import straighten
from ls3dw.models.networks.wing import PointNetwork, predict_points
from ls3dw.training.networks import TrainedNetwork, network_input
from ls3dw.training.objective.losses import DEPTH_UNIT, complete_faces

CHUNK = 64
"""Faces in one pass."""


@torch.no_grad()
def predict(trained: TrainedNetwork, images: Tensor, guides: Tensor | None = None, flip: bool = False) -> Tensor:
    """Run a network in eval mode and float32 over crops (N, 3, 256, 256) uint8: landmarks (N, 68, 2) in crop pixels, or
    z (N, 68) from the depth network.

    guides: (N, 68, 2), for networks that need points; flip: average with the mirrored picture, for others.
    """
    chunks = [slice(start, start + CHUNK) for start in range(0, len(images), CHUNK)]
    return torch.cat(
        [
            _run(trained, images[chunk].float() / 255, None if guides is None else guides[chunk], flip)
            for chunk in chunks
        ]
    )


@torch.no_grad()
def predict_half(trained: TrainedNetwork, images: Tensor) -> Tensor:
    """Run a 2D network in eval mode over crops (B, 3, 256, 256) in [0, 1], on a GPU in float16: landmarks (B, 68, 2) in
    crop pixels."""
    with torch.autocast(images.device.type, torch.float16, enabled=images.device.type == "cuda"):
        return _run(trained, images, None, flip=False)


def _run(trained: TrainedNetwork, images: Tensor, guides: Tensor | None, flip: bool) -> Tensor:
    if isinstance(trained.network, PointNetwork):
        if guides is None:
            return predict_points(trained.network, images, flip)
        complete, guides = complete_faces(guides)
        coordinates: Tensor = trained.network(images, straighten(guides))
        return torch.where(complete[:, None, None], coordinates, torch.nan)
    if flip:
        heatmaps = with_mirrored(lambda crops: trained.network(crops)[-1], images)
    else:
        output = trained.network(network_input(images, guides, trained.kind))
        if trained.kind == "depth":
            depth: Tensor = output * DEPTH_UNIT
            return depth
        heatmaps = output[-1]
    points: Tensor = decode_subpixel(heatmaps.float())[0]
    return points

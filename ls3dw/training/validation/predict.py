"""Landmarks from networks in training, for whole sets of crops."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ls3dw.models.networks.heatmaps import decode_subpixel, with_mirrored
from ls3dw.models.networks.straight import straighten
from ls3dw.models.networks.wing import PointNetwork, predict_points
from ls3dw.training.networks import Trained, network_input
from ls3dw.training.objective.losses import whole_faces
from ls3dw.training.objective.targets import DEPTH_UNIT

PART = 64
"""Faces a pass."""


@torch.no_grad()
def predict(trained: Trained, images: Tensor, guides: Tensor | None = None, flip: bool = False) -> Tensor:
    """Run a network in eval mode over crops (N, 3, 256, 256) uint8: landmarks (N, 68, 2) in crop pixels, or for the
    depth network z (N, 68).

    In float32, so that validation does not hang on what training rounds to. guides: (N, 68, 2), for networks that need
    points; flip: average with the mirrored picture's, for those that need none.
    """
    parts = [
        _run(trained, images[part].float() / 255, None if guides is None else guides[part], flip)
        for part in _parts(len(images))
    ]
    return torch.cat(parts)


@torch.no_grad()
def predict_quickly(trained: Trained, images: Tensor) -> Tensor:
    """Run a 2D network in eval mode over a batch of crops (B, 3, 256, 256) in [0, 1], on a GPU in float16 where that
    pays: landmarks (B, 68, 2) in crop pixels."""
    with torch.autocast(images.device.type, torch.float16, enabled=images.device.type == "cuda"):
        return _run(trained, images, None, flip=False)


def _parts(count: int) -> Iterator[slice]:
    return (slice(start, start + PART) for start in range(0, count, PART))


def _run(trained: Trained, images: Tensor, guides: Tensor | None, flip: bool) -> Tensor:
    if isinstance(trained.network, PointNetwork):
        return _points(trained.network, images, guides, flip)
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


def _points(network: PointNetwork, images: Tensor, guides: Tensor | None, flip: bool) -> Tensor:
    """Run a network that gives coordinates; guides straighten the crops of stage two, a face without all is NaN."""
    if guides is None:
        return predict_points(network, images, flip)
    whole, guides = whole_faces(guides)
    points: Tensor = network(images, straighten(guides))
    return torch.where(whole[:, None, None], points, torch.nan)

"""The stages of an annotator, each on what the one before gives. The only module that reaches into `Annotator`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
import torch
from torch import Tensor

from ls3dw.annotator import Annotations, Annotator, FaceBatch
from ls3dw.bench.macs import network_macs
from ls3dw.bench.stages import Stage
from ls3dw.bench.timing import Work
from ls3dw.geometry import CROP_SIZE, apply, invert
from ls3dw.models import heatmap
from ls3dw.models.crops import resample
from ls3dw.sample import Floats

WITHOUT_FLIP: Final = "2D-FAN"
WHOLE: Final = "the whole annotator"


@contextmanager
def as_annotating() -> Iterator[None]:
    """Set what `Annotator` sets around its networks."""
    with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=True):
        yield


def precision(annotator: Annotator) -> torch.dtype:
    """Return the precision that the annotator's networks work in."""
    crop = torch.zeros(1, 3, CROP_SIZE, CROP_SIZE, device=annotator.device)
    return annotator._prepare(crop).dtype


@dataclass(frozen=True)
class Macs:
    """Multiplications and additions for a face, of each network as published, one pass."""

    fan_2d: int
    fan_3d: int
    depth: int

    @classmethod
    def of(cls, annotator: Annotator) -> Macs:
        depth = annotator.model_depth
        return cls(
            network_macs(annotator.model_2d.contract),
            network_macs(annotator.model_3d.contract),
            network_macs(depth.contract) if depth else 0,
        )

    def whole(self, annotator: Annotator) -> int:
        """Count all passes for a face: networks that see the picture alone see it mirrored too where that is set."""
        passes = 2 if annotator.flip else 1
        alone = annotator.model_3d.contract.kind == "3d"
        return passes * self.fan_2d + (passes if alone else 1) * self.fan_3d + self.depth


def network_stages(annotator: Annotator, faces: FaceBatch) -> Iterator[Stage]:
    """Go through a batch step by step; enter `as_annotating` around it and the timing."""
    stage = partial(Stage, items=len(faces), clock="device")
    macs = Macs.of(annotator)
    network = annotator.model_2d.network
    yield Stage("put a batch together, to the device", lambda: annotator._collate(faces), len(faces))
    pixels, affines = annotator._collate(faces)
    yield stage("resample the crops", lambda: resample(pixels, affines))
    crops = resample(pixels, affines)
    picture = annotator._prepare(crops)
    for flip, name, passes in ((False, WITHOUT_FLIP, 1), (True, "2D-FAN with flip", 2)):
        run = partial(_with_flip, annotator, flip, lambda: annotator._heatmaps(network, picture))
        yield stage(name, run, macs=passes * macs.fan_2d)
    heatmaps = annotator._heatmaps(network, picture)
    yield stage("decode the heatmaps", lambda: annotator._decode(heatmaps))
    points, _ = annotator._decode(heatmaps)
    yield from _stages_3d(annotator, stage, crops, picture, points, macs.fan_3d)
    if annotator.model_depth is not None:
        yield stage("depth: guidance and network", lambda: annotator._depth(crops, points), macs=macs.depth)
    outputs = annotator._outputs(faces).cpu().numpy()
    yield Stage("back to the picture, head pose", lambda: annotator._finish(faces, outputs), len(faces))


def _stages_3d(
    annotator: Annotator, stage: Callable[..., Stage], crops: Tensor, picture: Tensor, points: Tensor, macs: int
) -> Iterator[Stage]:
    model = annotator.model_3d
    if model.contract.kind == "3d":
        passes = 2 if annotator.flip else 1
        name = "3D-FAN with flip" if annotator.flip else "3D-FAN"
        yield stage(name, lambda: annotator._heatmaps(model.network, picture), macs=passes * macs)
        return

    def guide() -> Tensor:
        return annotator._guided(crops, heatmap.draw_gaussians(points, model.contract.guidance_std))

    yield stage("draw the guidance", guide)
    guided = guide()
    yield stage("2D-to-3D FAN", lambda: model.network(guided)[-1].float(), macs=macs)


def whole_stage(annotator: Annotator, faces: FaceBatch) -> Stage:
    """Annotate batch after batch as a build does: the next one is begun before the last is waited for."""
    macs = Macs.of(annotator).whole(annotator)
    return Stage(WHOLE, keep_ahead(annotator, lambda: faces), len(faces), clock="steady", macs=macs)


def keep_ahead(annotator: Annotator, batch: Callable[[], FaceBatch]) -> Work:
    """Return work that begins a batch and collects the one that the call before began; on the CPU each its own."""
    if annotator.device.type == "cpu":
        return lambda: annotator.annotate_windows(batch())
    begun = [annotator.begin(batch())]

    def advance() -> Annotations:
        begun.append(annotator.begin(batch()))
        return annotator.collect(begun.pop(0))

    return advance


def points_2d(annotator: Annotator, faces: FaceBatch) -> Floats:
    """Run the 2D-FAN alone, from windows, no more than a batch, to landmarks (N, 68, 2) in image pixels."""
    with as_annotating():
        picture = annotator._prepare(resample(*annotator._collate(faces)))
        points, _ = annotator._decode(annotator._heatmaps(annotator.model_2d.network, picture))
        crop = np.stack([window.crop for window in faces.windows])
        return apply(invert(crop), points[: len(faces)].cpu().numpy()).astype(np.float32)


def _with_flip(annotator: Annotator, flip: bool, run: Callable[[], Tensor]) -> Tensor:
    kept, annotator.flip = annotator.flip, flip
    try:
        return run()
    finally:
        annotator.flip = kept

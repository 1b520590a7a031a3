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
from ls3dw.geometry import apply, invert
from ls3dw.models.crops import resample
from ls3dw.sample import Floats

WHOLE: Final = "the whole annotator"


@contextmanager
def as_annotating() -> Iterator[None]:
    """Set what `Annotator` sets around its networks."""
    with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=True):
        yield


def precision(annotator: Annotator) -> torch.dtype:
    """Return the precision that the annotator's networks work in."""
    return annotator._policy.dtype


def _fan_2d(annotator: Annotator, crops: Tensor) -> Tensor:
    return annotator._heatmaps(annotator._runner("2d", annotator.model_2d), crops)


def _fan_3d(annotator: Annotator, crops: Tensor, points: Tensor) -> Tensor:
    return annotator._heatmaps_3d(crops, points)


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
    yield Stage("put a batch together, to the device", lambda: annotator._collate(faces), len(faces))
    pixels, affines = annotator._collate(faces)
    yield stage("resample the crops", lambda: resample(pixels, affines))
    crops = resample(pixels, affines)
    without = partial(_without_flip, annotator, lambda: _fan_2d(annotator, crops))
    yield stage("2D-FAN, one pass", without, macs=macs.fan_2d, within=annotator.flip)
    if annotator.flip:
        yield stage("2D-FAN with flip", lambda: _fan_2d(annotator, crops), macs=2 * macs.fan_2d)
    heatmaps = _fan_2d(annotator, crops)
    # Twice in a pass: for the 3D landmarks too.
    yield stage("decode heatmaps, twice", lambda: (annotator._decode(heatmaps), annotator._decode(heatmaps)))
    points, _ = annotator._decode(heatmaps)
    yield from _stages_3d(annotator, stage, crops, points, macs.fan_3d)
    if annotator.model_depth is not None:
        yield stage("depth network, guided", lambda: annotator._depth(crops, points), macs=macs.depth)
    outputs = annotator._outputs(faces).cpu().numpy()
    yield Stage("back to the picture, head pose", lambda: annotator._finish(faces, outputs), len(faces))


def _stages_3d(
    annotator: Annotator, stage: Callable[..., Stage], crops: Tensor, points: Tensor, macs: int
) -> Iterator[Stage]:
    contract = annotator.model_3d.contract
    work = partial(_fan_3d, annotator, crops, points)
    if contract.kind == "3d":
        passes, name = (2, "3D-FAN with flip") if annotator.flip else (1, "3D-FAN")
        yield stage(name, work, macs=passes * macs)
        return
    yield stage("2D-to-3D FAN, guided", work, macs=macs)


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
        points, _ = annotator._decode(_fan_2d(annotator, resample(*annotator._collate(faces))))
        crop = np.stack([window.crop for window in faces.windows])
        return apply(invert(crop), points[: len(faces)].cpu().numpy()).astype(np.float32)


def _without_flip(annotator: Annotator, run: Callable[[], Tensor]) -> Tensor:
    kept, annotator.flip = annotator.flip, False
    try:
        return run()
    finally:
        annotator.flip = kept

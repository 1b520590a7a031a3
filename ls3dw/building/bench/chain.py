"""The stages of an annotator, each on what the one before gives. The only module that reaches into `Annotator`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
import torch
from torch import Tensor

from ls3dw.building.bench.macs import network_macs
from ls3dw.building.bench.stages import Stage
from ls3dw.building.bench.timing import Work
from ls3dw.core.crops import Windows
from ls3dw.core.geometry import apply, invert
from ls3dw.core.sample import Floats
from ls3dw.models.annotator import Annotator, Pass
from ls3dw.models.face_batch import FaceBatch
from ls3dw.models.inference.resampling import resample
from ls3dw.models.networks.fan import FAN

WHOLE: Final = "the whole annotator"
PLANE: Final = "2D and 3D, without depth"
FLAT: Final = "2D network"
SOLID: Final = "3D network"


@contextmanager
def as_annotating() -> Iterator[None]:
    """Set what `Annotator` sets around its networks."""
    with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=True):
        yield


def precision(annotator: Annotator) -> torch.dtype:
    """Return the precision that the annotator's networks work in."""
    return annotator._policy.dtype


def _points_2d(annotator: Annotator, crops: Tensor) -> Tensor:
    points: Tensor = annotator._points("2d", annotator.model_2d, crops)[0]
    return points


@dataclass(frozen=True)
class Macs:
    """Multiplications and additions for a face, of each network as published, one pass."""

    flat: int
    solid: int
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
        return (2 if annotator.flip else 1) * self.flat + self.passes_3d(annotator) * self.solid + self.depth

    def passes_3d(self, annotator: Annotator) -> int:
        """Count the passes of the 3D network."""
        return 2 if annotator.flip and annotator.model_3d.contract.kind == "3d" else 1


def network_stages(annotator: Annotator, faces: FaceBatch) -> Iterator[Stage]:
    """Go through a batch step by step; enter `as_annotating` around it and the timing."""
    stage = partial(Stage, items=len(faces), clock="device")
    macs = Macs.of(annotator)
    (windows,) = faces.windows
    assert isinstance(windows, Windows)
    yield Stage("windows to the device", lambda: annotator.stage(windows).wait(), len(faces))
    staged = annotator.stage(windows)
    pixels = staged.wait().to(annotator.device)
    yield stage("resample the crops", lambda: resample(pixels, staged.to_crop))
    crops = annotator._crops(faces)
    without = partial(_without_flip, annotator, lambda: _points_2d(annotator, crops))
    yield stage(f"{FLAT}, one pass", without, macs=macs.flat, within=annotator.flip)
    if annotator.flip:
        yield stage(f"{FLAT} with flip", lambda: _points_2d(annotator, crops), macs=2 * macs.flat)
    points = _points_2d(annotator, crops)
    if isinstance(annotator.model_2d.network, FAN):
        heatmaps = annotator._runner("2d", annotator.model_2d)(crops, flip=annotator.flip)
        yield stage("decode heatmaps", lambda: annotator._decode(heatmaps), within=True)
    alone = annotator.model_3d.contract.kind == "3d"
    name = "2D-to-3D FAN, guided" if not alone else f"{SOLID} with flip" if annotator.flip else SOLID
    yield stage(name, lambda: annotator._points_3d(crops, points), macs=macs.passes_3d(annotator) * macs.solid)
    if annotator.model_depth is not None:
        yield stage("depth network, guided", lambda: annotator._depth(crops, points), macs=macs.depth)
    outputs = annotator._outputs(faces).cpu().numpy()
    yield Stage("back to the picture, head pose", lambda: annotator.finish(faces, outputs), len(faces))


def whole_stages(annotator: Annotator, faces: FaceBatch) -> Iterator[Stage]:
    """Annotate batch after batch as a build does: the next one is begun before the last is waited for."""
    if annotator.model_depth is not None:
        yield _whole_stage(PLANE, without_depth(annotator), faces)
    yield _whole_stage(WHOLE, annotator, faces)


def _whole_stage(name: str, annotator: Annotator, faces: FaceBatch) -> Stage:
    macs = Macs.of(annotator).whole(annotator)
    return Stage(name, keep_ahead(annotator, lambda: faces), len(faces), clock="steady", macs=macs)


def without_depth(annotator: Annotator) -> Annotator:
    """Return an annotator that gives no z, with the same networks made ready."""
    plane = copy(annotator)
    plane.model_depth = None
    return plane


def keep_ahead(annotator: Annotator, batch: Callable[[], FaceBatch]) -> Work:
    """Return work that begins a batch and collects the one that the call before began; on the CPU each its own."""
    return _ahead(annotator, annotator.begin, annotator.collect, batch)


def points_2d_ahead(annotator: Annotator, batch: Callable[[], FaceBatch]) -> Work:
    """Do what `keep_ahead` does with the 2D network alone."""
    return _ahead(annotator, partial(_begin_2d, annotator), partial(_collect_2d, annotator), batch)


def points_2d(annotator: Annotator, faces: FaceBatch) -> Floats:
    """Run the 2D network alone, from windows, no more than a batch, to landmarks (N, 68, 2) in image pixels."""
    return _collect_2d(annotator, _begin_2d(annotator, faces))


def _ahead(
    annotator: Annotator,
    begin: Callable[[FaceBatch], Pass],
    collect: Callable[[Pass], object],
    batch: Callable[[], FaceBatch],
) -> Work:
    if annotator.device.type == "cpu":
        return lambda: collect(begin(batch()))
    begun = [begin(batch())]

    def advance() -> object:
        begun.append(begin(batch()))
        return collect(begun.pop(0))

    return advance


def _begin_2d(annotator: Annotator, faces: FaceBatch) -> Pass:
    with as_annotating():
        points = _points_2d(annotator, annotator._crops(faces))
        return annotator._send_back(faces, points[: len(faces)])


def _collect_2d(annotator: Annotator, begun: Pass) -> Floats:
    return apply(invert(begun.faces.crop), annotator.result(begun)[..., :2]).astype(np.float32)


def _without_flip(annotator: Annotator, run: Callable[[], Tensor]) -> Tensor:
    kept, annotator.flip = annotator.flip, False
    try:
        return run()
    finally:
        annotator.flip = kept

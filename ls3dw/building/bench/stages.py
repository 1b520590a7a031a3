"""The stages of a build: decoding, cutting, networks and writing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from ls3dw.building.bench.material import VIDEO_SIZE, SampleFaces, embedded_video, write_video
from ls3dw.building.bench.timing import Stage, Work
from ls3dw.building.options import DEFAULT_SHARD_SIZE
from ls3dw.building.prepare import Chunk, DecodeTask
from ls3dw.building.write import ShardWriter, VersionFiles
from ls3dw.core.annotations import Annotations
from ls3dw.core.crops import FRAME, STILL, Windows, cut_stored, cut_window, encode_picture
from ls3dw.core.formats.pictures import decode_picture
from ls3dw.core.formats.videos import VideoReader
from ls3dw.core.geometry import CROP_SIZE
from ls3dw.core.phash import face_hash
from ls3dw.core.resources import folder
from ls3dw.dataset.store import Store
from ls3dw.models.annotator import Annotator
from ls3dw.models.face_batch import FaceBatch
from ls3dw.models.inference.resampling import resample
from ls3dw.models.networks.fan import FAN
from ls3dw.models.weights.contract import CHANNELS_OF, COORDINATES, Contract

PROCESS: Final = "a decoding process, all its work"
WRITER: Final = "write a shard"
WHOLE: Final = "the whole annotator"
WITHOUT_DEPTH: Final = "2D and 3D, without depth"

FRAMES: Final = 60
CODECS: Final = {"XVID": "XviD", "MJPG": "MJPEG"}


def decoding_stages(scratch: Path, faces: SampleFaces) -> Iterator[Stage]:
    """Decode a still, the sample's video, and videos of the faces' pictures made in `scratch`."""
    still = min((folder("embedded") / "AFLW2000").glob("*.jpg")).read_bytes()
    yield Stage("decode a still, 450x450 JPEG", lambda: decode_picture(still), 1)
    video = embedded_video()
    yield Stage("decode a frame of the sample, 320x320", _decoder(video.folder / "vid.avi"), video.expected)
    frames = faces.pictures[:FRAMES]
    for codec, name in CODECS.items():
        path = scratch / f"{codec.lower()}.avi"
        if write_video(path, codec, frames):
            yield Stage(f"decode a frame, {VIDEO_SIZE[0]}x{VIDEO_SIZE[1]} {name}", _decoder(path), len(frames))


def _decoder(path: Path) -> Work:
    def decode() -> None:
        with VideoReader(path) as reader:
            for frame in reader.frames():
                reader.picture(frame)

    return decode


def cutting_stages(faces: SampleFaces) -> Iterator[Stage]:
    """Cut, hash and encode faces as a decoding process does."""
    pairs = list(zip(faces.pictures, faces.boxes, strict=True))
    stored = [cut_stored(picture, box) for picture, box in pairs]

    def cut() -> None:
        for picture, box in pairs:
            cut_window(picture, box)
            cut_stored(picture, box)

    def describe() -> None:
        for one, box in zip(stored, faces.boxes, strict=True):
            face_hash(one.pixels, one.to_picture, box)

    yield Stage("cut the window and the kept picture", cut, len(pairs))
    yield Stage("hash the kept picture", describe, len(pairs))
    for name, chroma in (("still", STILL), ("frame", FRAME)):
        encode = partial(_encode_all, [one.pixels for one in stored], chroma)
        yield Stage(f"encode the kept picture of a {name}", encode, len(pairs))


def _encode_all(pictures: list[Any], chroma: Any) -> None:
    for pixels in pictures:
        encode_picture(pixels, chroma)


def process_stage() -> tuple[Stage, Chunk]:
    """Do all that a decoding process does with the embedded video; also return the chunk that it makes."""
    media = embedded_video()
    size = DEFAULT_SHARD_SIZE
    task = DecodeTask("300vw", media.name, media, media.expected, size, size, "subpixel")
    (chunk,) = task()
    return Stage(PROCESS, lambda: list(task()), len(chunk.faces)), chunk


def writing_stage(scratch: Path, chunk: Chunk, annotations: Annotations, configuration: Mapping[str, Any]) -> Stage:
    """Write a shard, synced to the disk of `scratch`, each time to another data set.

    annotations: of any faces; they are repeated for those of the chunk.
    """
    rows = np.arange(len(chunk.faces)) % len(annotations.pose)
    names = Annotations.__dataclass_fields__
    annotated = chunk.annotated(Annotations(**{name: getattr(annotations, name)[rows] for name in names}))
    numbers = count()

    def write() -> None:
        files = VersionFiles(Store(scratch / f"written-{next(numbers)}"), "v1", configuration)
        ShardWriter(files, {chunk.source: "2d"}).add(annotated)

    return Stage(WRITER, write, len(chunk.faces))


@contextmanager
def as_annotating() -> Iterator[None]:
    """Set the modes that `Annotator` sets around its networks."""
    with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=True):
        yield


def network_flop(contract: Contract) -> float:
    """Count the operations of a network in its published form for one picture of 256x256."""
    # Networks that give coordinates resample their crop with matrices that must be there; they are small.
    with torch.device("cpu" if contract.network["class"] in COORDINATES else "meta"), torch.no_grad():
        network = contract.build().eval()
        inputs = torch.empty(1, CHANNELS_OF[contract.kind], CROP_SIZE, CROP_SIZE)
        with FlopCounterMode(display=False) as counter:
            network(inputs)
    return float(counter.get_total_flops())


def network_stages(annotator: Annotator, faces: FaceBatch) -> Iterator[Stage]:
    """Go through a batch step by step; enter `as_annotating` around it and the timing."""
    stage = partial(Stage, items=len(faces), waits="rarely")
    flop_2d, flop_3d = (network_flop(model.contract) for model in (annotator.model_2d, annotator.model_3d))
    (windows,) = faces.windows
    assert isinstance(windows, Windows)
    yield Stage("windows to the device", lambda: annotator.stage(windows).wait(), len(faces))
    staged = annotator.stage(windows)
    pixels = staged.wait().to(annotator.device)
    yield stage("resample the crops", lambda: resample(pixels, staged.to_crop))
    crops = annotator._crops(faces)
    unflipped = without(annotator, flip=False)
    yield stage("2D network, one pass", lambda: points_2d(unflipped, crops), flop=flop_2d, within=annotator.flip)
    if annotator.flip:
        yield stage("2D network with flip", lambda: points_2d(annotator, crops), flop=2 * flop_2d)
    points = points_2d(annotator, crops)
    if isinstance(annotator.model_2d.network, FAN):
        heatmaps = annotator._runner("2d", annotator.model_2d)(crops, flip=annotator.flip)
        yield stage("decode heatmaps", lambda: annotator._decode(heatmaps), within=True)
    guided = annotator.model_3d.contract.kind != "3d"
    name = "2D-to-3D FAN, guided" if guided else "3D network with flip" if annotator.flip else "3D network"
    yield stage(name, lambda: annotator._points_3d(crops, points), flop=_passes_3d(annotator) * flop_3d)
    if annotator.model_depth is not None:
        flop = network_flop(annotator.model_depth.contract)
        yield stage("depth network, guided", lambda: annotator._depth(crops, points), flop=flop)
    outputs = annotator._outputs(faces).cpu().numpy()
    yield Stage("back to the picture, head pose", lambda: annotator.finish(faces, outputs), len(faces))


def whole_stages(annotator: Annotator, faces: FaceBatch) -> Iterator[Stage]:
    """Annotate batch after batch as a build does, without depth too."""
    for name, some in ((WITHOUT_DEPTH, without(annotator, model_depth=None)), (WHOLE, annotator)):
        if name == WHOLE or annotator.model_depth is not None:
            yield Stage(name, keep_ahead(some, lambda: faces), len(faces), waits="never", flop=whole_flop(some))


def whole_flop(annotator: Annotator) -> float:
    """Count the operations for a face; networks that see the picture alone see it mirrored too if flip is set."""
    passes = (2 if annotator.flip else 1, _passes_3d(annotator), 1)
    models = (annotator.model_2d, annotator.model_3d, annotator.model_depth)
    return sum(n * network_flop(model.contract) for n, model in zip(passes, models, strict=True) if model)


def _passes_3d(annotator: Annotator) -> int:
    return 2 if annotator.flip and annotator.model_3d.contract.kind == "3d" else 1


def without(annotator: Annotator, **changes: Any) -> Annotator:
    """Return a copy of the annotator with some attributes changed; it shares the prepared networks."""
    changed = copy(annotator)
    vars(changed).update(changes)
    return changed


def points_2d(annotator: Annotator, crops: Tensor) -> Tensor:
    """Run the 2D network alone."""
    points: Tensor = annotator._points("2d", annotator.model_2d, crops)[0]
    return points


def keep_ahead(annotator: Annotator, batch: Callable[[], FaceBatch]) -> Work:
    """Return work that begins a batch and collects the one begun before; on the CPU the same one."""
    if annotator.device.type == "cpu":
        return lambda: annotator.collect(annotator.begin(batch()))
    begun = [annotator.begin(batch())]

    def advance() -> object:
        begun.append(annotator.begin(batch()))
        return annotator.collect(begun.pop(0))

    return advance

"""Times the face-alignment package with the same weights, pictures and boxes, in the ways in which it is used."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
import torch

from ls3dw.building.bench.material import SampleFaces
from ls3dw.building.bench.stages import as_annotating, keep_ahead, points_2d
from ls3dw.building.bench.timing import Row, Stage, Timer, Work
from ls3dw.building.bench.widen import full_size
from ls3dw.core.crops import Decode
from ls3dw.core.sample import Floats
from ls3dw.errors import ConfigurationError
from ls3dw.models.annotator import Annotator
from ls3dw.models.inference.staging import BUFFERS
from ls3dw.models.weights.zoo import load

PACKAGE: Final = "face-alignment"
VERSION: Final = "1.5.0"

FACES: Final = {"cpu": 2, "cuda": 32}
"""Faces in one picture, and faces whose landmarks are compared."""

Models = tuple[str | Path | None, str | Path | None, str | Path | None]
"""2D, 3D and depth weights; None: bundled."""

MakeAnnotator = Callable[[Models, Decode], Annotator]


@dataclass(frozen=True)
class Rival:
    """What was measured. one: as the package is used, a face a call; solid: with z; many: several faces in one picture.

    ours: ours with networks of the published size; equal: share of its coordinates that `--decode reference` gives too;
    distance: mean, from its points to ours at sub-pixel precision, in pixels of the picture; compared: faces.
    """

    version: str
    compiled: bool
    one: Row
    solid: Row
    many: tuple[Row, ...]
    ours: tuple[Row, ...]
    equal: float
    distance: float
    compared: int


def check_installed() -> None:
    """Raise `ConfigurationError` where the package is not installed."""
    if importlib.util.find_spec("face_alignment") is None:
        raise ConfigurationError(
            f"{PACKAGE} is not installed, so there is nothing to compare with; pip install {PACKAGE}=={VERSION}"
        )


def published_weights(given: Models, scratch: Path) -> Models:
    """Return the given weights where they have the published size, else bundled ones in wider networks."""
    flat, solid, depth = given
    return full_size("2d", flat, scratch), full_size("2d-to-3d", solid, scratch), full_size("depth", depth, scratch)


def compare(
    timer: Timer, make: MakeAnnotator, weights: Models, report: Callable[[str], None], *, compiled: bool
) -> Rival:
    """Time both and compare their landmarks. make: makes our annotator; report: called with the name of each stage."""
    faces = SampleFaces.read()
    some = faces.spread(FACES[timer.device.type])
    theirs = _Theirs(timer, compiled, report)
    with _weights_in_place(weights):
        aligner = theirs.aligner("TWO_D", torch.float32, 1)
        one = theirs.time("one face a call", _one_by_one(aligner, some), 1)
        points = np.stack([_landmarks(aligner, some, number) for number in range(len(some))])
        aligner = theirs.aligner("THREE_D", torch.float32, 1)
        solid = theirs.time("one face a call, with z", _one_by_one(aligner, some), 1)
        many = tuple(theirs.many(some))

    def ours(decode: Decode) -> Floats:
        return make((*weights[:2], "none"), decode).annotate(some.pictures, some.boxes).landmarks_2d

    return Rival(
        version=importlib.metadata.version(PACKAGE),
        compiled=compiled,
        one=one,
        solid=solid,
        many=many,
        ours=tuple(_our_rows(timer, make, weights, faces, report)),
        equal=float((ours("reference") == points).mean()),
        distance=float(np.linalg.norm(ours("subpixel") - points, axis=2).mean()),
        compared=len(some),
    )


@dataclass(frozen=True)
class _Theirs:
    timer: Timer
    compiled: bool
    report: Callable[[str], None]

    def time(self, name: str, work: Work, items: int) -> Row:
        self.report(f"{PACKAGE}, {name}")
        return self.timer.time(Stage(f"{PACKAGE}, {name}", work, items))

    def many(self, faces: SampleFaces) -> Iterator[Row]:
        """Time many faces in one picture, the only way in which it works on several at once."""
        count = len(faces)
        boxes = [list(faces.boxes[0] + shift) for shift in np.linspace(-2, 2, count)]
        for name, precision in (("", torch.float32), (", float16", torch.float16)):
            if not name or self.timer.device.type == "cuda":
                aligner = self.aligner("TWO_D", precision, count)

                def work(aligner: Any = aligner) -> object:
                    return aligner.get_landmarks_from_image(faces.pictures[0], detected_faces=boxes)

                yield self.time(f"{count} faces in one picture{name}", work, count)

    def aligner(self, kind: str, precision: torch.dtype, batch: int) -> Any:
        import face_alignment

        return face_alignment.FaceAlignment(
            face_alignment.LandmarksType[kind],
            device=str(self.timer.device),
            dtype=precision,
            flip_input=True,
            face_detector="folder",  # the only one without a network: boxes are given
            compile=self.compiled,
            max_batch_size=batch,
        )


def _one_by_one(aligner: Any, faces: SampleFaces) -> Work:
    numbers = cycle(range(len(faces)))
    return lambda: _landmarks(aligner, faces, next(numbers))


def _landmarks(aligner: Any, faces: SampleFaces, number: int) -> Any:
    box = list(faces.boxes[number])
    return aligner.get_landmarks_from_image(faces.pictures[number], detected_faces=[box])[0]


def _our_rows(
    timer: Timer, make: MakeAnnotator, weights: Models, faces: SampleFaces, report: Callable[[str], None]
) -> Iterator[Row]:
    """Time ours from pictures and boxes: the 2D-FAN alone, with the 2D-to-3D FAN, with the depth network."""
    plane, whole = make((*weights[:2], "none"), "subpixel"), make(weights, "subpixel")
    batch = faces.spread(FACES["cpu"] if timer.device.type == "cpu" else plane.batch)

    def only_2d() -> object:
        with as_annotating():
            return points_2d(plane, plane._crops(batch.batch())).cpu()

    works = {"2D": only_2d, "2D and 3D": keep_ahead(plane, batch.batch)}
    works["2D and 3D with z"] = keep_ahead(whole, batch.batch)
    for name, work in works.items():
        report(f"ls3dw, {name}")
        # Pinned memory is allocated at first use, which takes longer than a batch.
        for _ in range(BUFFERS):
            work()
        yield timer.time(Stage(f"ls3dw, {name}", work, len(batch), waits="never"))


@contextmanager
def _weights_in_place(weights: Models) -> Iterator[None]:
    """Let the package load these weights instead of downloading its own; its 3D network gets those of the 2D one."""
    from face_alignment import api

    flat, _, depth = (load(weight).network.state_dict() for weight in weights if weight)
    files: Mapping[str, Any] = {
        "2DFAN": flat,
        "3DFAN": flat,
        "depth": {"state_dict": {f"module.{key}": value for key, value in depth.items()}},
    }
    fetch = api.load_file_from_url
    with TemporaryDirectory(prefix="ls3dw-bench-") as name:

        def local(url: str) -> str:
            (part,) = (part for part in files if part in url.rsplit("/", 1)[1])
            path = Path(name) / f"{part}.pth"
            torch.save(files[part], path)
            return str(path)

        api.load_file_from_url = local
        try:
            yield
        finally:
            api.load_file_from_url = fetch

"""The face-alignment package beside ours: the same weights, pictures and boxes, at the speed at which each is used."""

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

from ls3dw.building.bench import chain
from ls3dw.building.bench.material import Faces
from ls3dw.building.bench.stages import Bench, Row, Stage
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
"""Faces in one picture that it is given at a time, and faces whose landmarks are compared."""


Told = Callable[[str], None]

Models = tuple[str | Path | None, str | Path | None, str | Path | None]
"""Names or files of 2D, 3D and depth weights; None: the bundled ones."""


@dataclass(frozen=True)
class Rival:
    """What was measured. one: as it is used, a face a call; solid: likewise, with z; many: its batched modes.

    ours: with networks of the published size. equal: share of its coordinates that `--decode reference` gives too;
    distance: from its points to ours at sub-pixel precision, on average, in pixels of the picture.
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

    @property
    def batched(self) -> Row:
        """Its best batched mode."""
        return max(self.many, key=lambda row: row.rate)


@dataclass(frozen=True)
class Weights:
    """Weights of the published size, as files of ours."""

    fan_2d: str | Path
    fan_3d: str | Path
    depth: str | Path


def check_installed() -> None:
    """Raise `ConfigurationError` where the package is not there."""
    if importlib.util.find_spec("face_alignment") is None:
        raise ConfigurationError(
            f"{PACKAGE} is not installed, so there is nothing to compare with; pip install {PACKAGE}=={VERSION}"
        )


def make_weights(given: Models, scratch: Path) -> Weights:
    """Take the given weights where they are of the published size, and widened ones elsewhere."""
    fan_2d, fan_3d, depth = given
    return Weights(
        full_size("2d", fan_2d, scratch), full_size("2d-to-3d", fan_3d, scratch), full_size("depth", depth, scratch)
    )


def compare(theirs: Theirs, ours: Ours, faces: Faces) -> Rival:
    """Time both, and hold their landmarks against each other."""
    some = faces.spread(FACES[theirs.device.type])
    with _served(_as_published(ours.weights)):
        one, points = theirs.one(some)
        solid = theirs.solid(some)
        many = theirs.many(some)
    return Rival(
        version=importlib.metadata.version(PACKAGE),
        compiled=theirs.compiled,
        one=one,
        solid=solid,
        many=many,
        ours=ours.rows(faces),
        equal=float((ours.points(some, "reference") == points).mean()),
        distance=float(np.linalg.norm(ours.points(some, "subpixel") - points, axis=2).mean()),
        compared=len(some),
    )


@dataclass(frozen=True)
class Theirs:
    """Times the package. told: hears the name of what is timed next."""

    bench: Bench
    device: torch.device
    compiled: bool
    told: Told

    def one(self, faces: Faces) -> tuple[Row, Floats]:
        """Time its usual way, and return the 2D landmarks (N, 68, 2)."""
        aligner = self._aligner("TWO_D", torch.float32, 1)
        row = self._time("one face a call", _in_turn(aligner, faces), 1)
        points = [_landmarks(aligner, faces, number) for number in range(len(faces))]
        return row, np.stack(points)

    def solid(self, faces: Faces) -> Row:
        return self._time("one face a call, with z", _in_turn(self._aligner("THREE_D", torch.float32, 1), faces), 1)

    def many(self, faces: Faces) -> tuple[Row, ...]:
        """Time many faces in one picture, which is the only way in which it works on several at once."""
        count = len(faces)
        boxes = [list(faces.boxes[0] + shift) for shift in np.linspace(-2, 2, count)]
        precisions = {"": torch.float32} | ({", float16": torch.float16} if self.device.type == "cuda" else {})
        rows = []
        for name, precision in precisions.items():
            aligner = self._aligner("TWO_D", precision, count)

            def work(aligner: Any = aligner) -> object:
                return aligner.get_landmarks_from_image(faces.pictures[0], detected_faces=boxes)

            rows.append(self._time(f"{count} faces in one picture{name}", work, count))
        return tuple(rows)

    def _time(self, name: str, work: Callable[[], object], items: int) -> Row:
        self.told(f"{PACKAGE}, {name}")
        return self.bench.time(Stage(f"{PACKAGE}, {name}", work, items))

    def _aligner(self, kind: str, precision: torch.dtype, batch: int) -> Any:
        import face_alignment

        return face_alignment.FaceAlignment(
            face_alignment.LandmarksType[kind],
            device=str(self.device),
            dtype=precision,
            flip_input=True,
            face_detector="folder",  # the only one that loads no network: boxes are given
            compile=self.compiled,
            max_batch_size=batch,
        )


def _in_turn(aligner: Any, faces: Faces) -> Callable[[], object]:
    numbers = cycle(range(len(faces)))
    return lambda: _landmarks(aligner, faces, next(numbers))


def _landmarks(aligner: Any, faces: Faces, number: int) -> Any:
    box = list(faces.boxes[number])
    return aligner.get_landmarks_from_image(faces.pictures[number], detected_faces=[box])[0]


@dataclass(frozen=True)
class Ours:
    """Times ours, from pictures and boxes too. make: returns an annotator with some models; the depth may be "none"."""

    bench: Bench
    make: Callable[[Models, Decode], Annotator]
    weights: Weights
    told: Told

    def rows(self, faces: Faces) -> tuple[Row, ...]:
        """Time the 2D-FAN alone, with the 2D-to-3D FAN, and with the depth network."""
        plane, solid = self._annotator("none"), self._annotator(self.weights.depth)
        on_cpu = plane.device.type == "cpu"
        batch = faces.spread(FACES["cpu"] if on_cpu else plane.batch)
        return (
            self._time("2D", chain.points_2d_ahead(plane, batch.batch), len(batch)),
            self._time("2D and 3D", chain.keep_ahead(plane, batch.batch), len(batch)),
            self._time("2D and 3D with z", chain.keep_ahead(solid, batch.batch), len(batch)),
        )

    def points(self, faces: Faces, decode: Decode) -> Floats:
        """Return the 2D landmarks."""
        return self._annotator("none", decode).annotate(faces.pictures, faces.boxes).landmarks_2d

    def _annotator(self, depth: str | Path, decode: Decode = "subpixel") -> Annotator:
        return self.make((self.weights.fan_2d, self.weights.fan_3d, depth), decode)

    def _time(self, name: str, work: Callable[[], object], items: int) -> Row:
        self.told(f"ls3dw, {name}")
        # Each piece of pinned memory is made when it is first used, which takes longer than a batch.
        for _ in range(BUFFERS):
            work()
        return self.bench.time(Stage(f"ls3dw, {name}", work, items, clock="steady"))


def _as_published(weights: Weights) -> dict[str, Any]:
    """Return what the package's files would hold, by a part of their names; its 3D network has the 2D one's weights."""
    fan = load(weights.fan_2d).network.state_dict()
    depth = {f"module.{key}": value for key, value in load(weights.depth).network.state_dict().items()}
    return {"2DFAN": fan, "3DFAN": fan, "depth": {"state_dict": depth}}


@contextmanager
def _served(files: Mapping[str, Any]) -> Iterator[None]:
    """Let the package load these weights where it would fetch its own: what it would download is not needed."""
    from face_alignment import api

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

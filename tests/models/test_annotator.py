"""The annotator: shapes, places, batches, faults. Tiny random networks, and stubs that show known points."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import crop_to_cells, square_box
from torch import Tensor, nn

from ls3dw.core.annotations import Annotations
from ls3dw.core.crops import Decode, cut_window, pack_windows
from ls3dw.core.geometry import CROP_SIZE, REFERENCE_SIDE, apply, crop_affine, crop_placement, invert
from ls3dw.core.markup import MIRROR, POINTS
from ls3dw.core.sample import Picture
from ls3dw.errors import DeviceError, ModelError
from ls3dw.models import Model
from ls3dw.models.annotator import Annotator, default_batch
from ls3dw.models.face_batch import FaceBatch
from ls3dw.models.inference.policy import COMPILE_AFTER, choose, has_bfloat16
from ls3dw.models.networks.heatmaps import CELLS, draw_gaussians

FACES = 6
FLOAT32 = "plain" if has_bfloat16() else "fast"
"""The engine that computes in float32: heatmaps of random networks have ties near enough for bfloat16 to break."""


def pictures() -> list[Picture]:
    """Make noise of several sizes: without flat places, on which random networks would give even heatmaps."""
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (180 + 9 * n, 260 - 7 * n, 3), dtype=np.uint8) for n in range(FACES)]


def boxes() -> np.ndarray:
    rng = np.random.default_rng(1)
    corner, side = rng.uniform(10, 60, (FACES, 2)), rng.uniform(60, 130, (FACES, 2))
    return np.concatenate((corner, corner + side), axis=1)


@pytest.fixture(scope="module")
def make(tiny_models: dict[str, str]) -> Any:
    """Make annotators of the tiny networks."""

    def build(**options: Any) -> Annotator:
        kinds = {"model_2d": "2d", "model_3d": "2d-to-3d", "model_depth": "depth"}
        return Annotator(**{**{role: tiny_models[kind] for role, kind in kinds.items()}, **options})

    return build


class Shown(nn.Module):
    """Stands in for a FAN: gives the same heatmaps whatever it sees, so it needs the batch whole: the plain engine.
    points: (N, 68, 2), crop pixels."""

    def __init__(self, points: Tensor) -> None:
        super().__init__()
        self.heatmaps = draw_gaussians(crop_to_cells(points.float()), 1.2, CELLS)

    def forward(self, x: Tensor) -> list[Tensor]:
        return [self.heatmaps[: len(x)]]


class Even(nn.Module):
    """Stands in for a depth network: every point is at `depth` crop pixels."""

    def __init__(self, depth: float) -> None:
        super().__init__()
        self.depth = depth

    def forward(self, x: Tensor) -> Tensor:
        return torch.full((len(x), POINTS), self.depth)


def show(annotator: Annotator, points_2d: Tensor, points_3d: Tensor) -> None:
    """Make the annotator's networks show known points."""
    annotator.model_2d = Model(Shown(points_2d), annotator.model_2d.contract)
    annotator.model_3d = Model(Shown(points_3d), annotator.model_3d.contract)


def test_shapes_types_and_frames(make: Any) -> None:
    result = make().annotate(pictures(), boxes())
    shapes = {
        "landmarks_2d": (FACES, POINTS, 2),
        "landmarks_3d": (FACES, POINTS, 3),
        "confidence_2d": (FACES, POINTS),
        "confidence_3d": (FACES, POINTS),
        "pose": (FACES, 3),
        "crop": (FACES, 2, 3),
    }
    assert {field.name for field in fields(Annotations)} == shapes.keys()
    for name, shape in shapes.items():
        values = getattr(result, name)
        assert values.shape == shape
        assert values.dtype == (np.float64 if name == "crop" else np.float32)
        assert np.isfinite(values).all()
    np.testing.assert_array_equal(result.crop, crop_affine(boxes()))
    in_crop = apply(result.crop, result.landmarks_2d)
    assert in_crop.min() > -8
    assert in_crop.max() < CROP_SIZE + 8
    for confidence in (result.confidence_2d, result.confidence_3d):
        assert confidence.min() >= 0
        assert confidence.max() <= 1


def clearest(module: nn.Module, inputs: Any, heatmaps: Tensor, leads: list[float]) -> None:
    """Note by how much the highest cell leads, in standard deviations: the least clear of all heatmaps."""
    flat = heatmaps.flatten(2)
    best = flat.topk(2, dim=2).values
    leads.append(((best[..., 0] - best[..., 1]) / flat.std(dim=2)).min().item())


@pytest.mark.slow
def test_a_face_does_not_depend_on_its_batch(make: Any) -> None:
    leads: list[float] = []
    annotator = make(flip=False, batch=16, engine="plain")
    for model in (annotator.model_2d, annotator.model_3d):
        model.network.l0.register_forward_hook(lambda *call: clearest(*call, leads))
    plain = annotator.annotate(pictures(), boxes())
    assert min(leads) > 1e-4, "near ties in the heatmaps of the random networks: their order could change by rounding"
    # bfloat16 decides nearer ties than these otherwise, but alike in any company.
    fast = make(flip=False, batch=16).annotate(pictures(), boxes()) if has_bfloat16() else plain
    for batch, engine, whole in ((1, "plain", plain), (4, "plain", plain), (1, "fast", fast), (4, "fast", fast)):
        split = make(flip=False, batch=batch, engine=engine).annotate(pictures(), boxes())
        assert np.abs(split.landmarks_2d - whole.landmarks_2d).max() < 0.02
        assert np.abs(split.landmarks_3d - whole.landmarks_3d).max() < 0.02
        np.testing.assert_allclose(split.confidence_3d, whole.confidence_3d, atol=1e-4)
        np.testing.assert_array_equal(split.crop, whole.crop)


def test_flip_makes_the_2d_network_blind_to_mirroring(make: Any) -> None:
    picture, box = pictures()[0], boxes()[0]
    mirrored_box = np.array([picture.shape[1] - 1 - box[2], box[1], picture.shape[1] - 1 - box[0], box[3]])
    both = [picture, picture[:, ::-1]], np.stack((box, mirrored_box))

    def asymmetry(flip: bool) -> np.ndarray:
        plain, mirrored = make(flip=flip, engine=FLOAT32).annotate(*both).landmarks_2d
        back = mirrored[list(MIRROR)] * (-1, 1) + (picture.shape[1] - 1, 0)
        return np.abs(back - plain)

    assert asymmetry(flip=True).max() < 0.02
    assert asymmetry(flip=False).max() > 1


def test_without_depth_network_z_is_missing(make: Any) -> None:
    flat, deep = (make(**options).annotate(pictures(), boxes()) for options in ({"model_depth": "none"}, {}))
    assert np.isnan(flat.landmarks_3d[..., 2]).all()
    np.testing.assert_array_equal(flat.landmarks_3d[..., :2], deep.landmarks_3d[..., :2])
    assert np.isfinite(flat.pose).all()


def test_depth_comes_in_image_pixels(make: Any) -> None:
    annotator = make()
    annotator.model_depth = Model(Even(10.0), annotator.model_depth.contract)
    depth = annotator.annotate(pictures(), boxes()).landmarks_3d[..., 2]
    side = REFERENCE_SIDE * crop_placement(boxes())[1]
    np.testing.assert_allclose(depth, np.repeat(10 * side[:, None] / CROP_SIZE, POINTS, axis=1), rtol=1e-6)


def test_reference_decoding_gives_whole_pixels(make: Any) -> None:
    result = make(decode="reference").annotate(pictures(), boxes())
    for landmarks in (result.landmarks_2d, result.landmarks_3d[..., :2]):
        np.testing.assert_array_equal(landmarks, np.rint(landmarks))
    exact = np.stack([cut_window(image, box, "reference").crop for image, box in zip(pictures(), boxes(), strict=True)])
    np.testing.assert_array_equal(result.crop, exact)


@pytest.mark.parametrize(("decode", "crop_side"), [("subpixel", 256.0), ("subpixel", 397.3), ("reference", 256.0)])
def test_known_points_come_back_without_a_systematic_shift(make: Any, decode: Decode, crop_side: float) -> None:
    faces = 8
    # Centres spread evenly over a pixel: the published crop starts at a whole one.
    box = np.stack([square_box(180 + (n + 0.5) / faces, 190 + (n + 0.5) / faces, crop_side) for n in range(faces)])
    annotator = make(decode=decode, flip=False, model_depth="none", engine="plain")
    shown = torch.from_numpy(np.random.default_rng(2).uniform(16, 239, (2, faces, POINTS, 2)))
    show(annotator, *shown)
    result = annotator.annotate([np.zeros((400, 400, 3), dtype=np.uint8)] * faces, box)
    pixel = crop_side / CROP_SIZE
    mean, most = (0.02, 0.3 * pixel) if decode == "subpixel" else (0.15, pixel + 1.1)
    for points, landmarks in zip(shown.numpy(), (result.landmarks_2d, result.landmarks_3d[..., :2]), strict=True):
        error = landmarks - apply(invert(result.crop), points)
        assert np.abs(error.mean(axis=(0, 1))).max() < mean
        assert np.abs(error).max() < most


@pytest.mark.parametrize(("decode", "most"), [("subpixel", 0.3), ("reference", 1.01)])
def test_the_3d_network_and_the_depth_network_see_the_points_before_them(
    make: Any, decode: Decode, most: float
) -> None:
    seen: dict[str, Tensor] = {}
    annotator = make(decode=decode, flip=False, engine="plain")
    points = torch.from_numpy(np.random.default_rng(3).uniform(20, 235, (2, FACES, POINTS, 2)))
    show(annotator, *points)
    for role, model in (("3d", annotator.model_3d), ("depth", annotator.model_depth)):
        model.network.register_forward_pre_hook(lambda _, inputs, role=role: seen.update({role: inputs[0]}))
    annotator.annotate(pictures(), boxes())
    grid = torch.arange(CROP_SIZE, dtype=torch.float32)
    for role, expected in zip(("3d", "depth"), points, strict=True):
        drawn = seen[role][:, 3:]
        place = torch.stack([(drawn.sum(dim=dim) * grid).sum(dim=2) / drawn.sum(dim=(2, 3)) for dim in (2, 3)], dim=-1)
        # The published code stamps what the depth network sees half a pixel up and left.
        stamped = 0.5 if (role, decode) == ("depth", "reference") else 0.0
        error = place + stamped - expected
        assert error.abs().max() < most
        assert error.mean(dim=(0, 1)).abs().max() < 0.1
    np.testing.assert_array_equal(seen["3d"][:, :3], seen["depth"][:, :3])


def annotate_guided(annotator: Annotator, guidance: np.ndarray | None) -> Annotations:
    windows = [cut_window(image, box) for image, box in zip(pictures(), boxes(), strict=True)]
    return annotator.annotate_windows(FaceBatch((pack_windows(windows),), boxes(), guidance))


def test_guidance_with_a_missing_point_falls_back_for_its_face_alone(make: Any) -> None:
    annotator = make(flip=False, engine=FLOAT32)
    predicted = annotate_guided(annotator, None)
    own = np.random.default_rng(4).uniform(40, 120, (FACES, POINTS, 2)).astype(np.float32)
    own[1, 7, 0] = np.nan
    own[4] = np.nan
    guided = annotate_guided(annotator, own)
    np.testing.assert_array_equal(guided.landmarks_2d, predicted.landmarks_2d)
    moved = np.abs(guided.landmarks_3d - predicted.landmarks_3d).max(axis=(1, 2))
    assert np.flatnonzero(moved == 0).tolist() == [1, 4]
    again = annotate_guided(annotator, predicted.landmarks_2d)
    assert np.abs(again.landmarks_3d - predicted.landmarks_3d).max() < 0.02


@pytest.mark.parametrize(
    ("box", "name"),
    [
        ((10, 10, 10, 50), "box 2"),
        ((10, 50, 60, 10), "box 2"),
        ((10, np.nan, 60, 80), "box 2"),
        ((10, 10, np.inf, 80), "box 2"),
    ],
)
def test_a_bad_box_is_named_by_its_row(make: Any, box: tuple[float, ...], name: str) -> None:
    bad = boxes()
    bad[2] = box
    with pytest.raises(ValueError, match=name):
        make().annotate(pictures(), bad)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((9, 9), dtype=np.uint8),
        np.zeros((9, 9, 4), dtype=np.uint8),
        np.zeros((9, 9, 3), dtype=np.float32),
        np.zeros((0, 9, 3), dtype=np.uint8),
    ],
)
def test_a_bad_picture_is_named_by_its_row(make: Any, image: np.ndarray) -> None:
    bad = pictures()
    bad[3] = image
    with pytest.raises(ValueError, match="image 3"):
        make().annotate(bad, boxes())


def test_pictures_and_boxes_must_be_as_many(make: Any) -> None:
    with pytest.raises(ValueError, match="6 images and 5 boxes"):
        make().annotate(pictures(), boxes()[:5])
    with pytest.raises(ValueError, match="0 images and 0 boxes"):
        make().annotate([], np.empty((0, 4)))


@pytest.mark.parametrize("options", [{"decode": "exact"}, {"batch": 0}, {"engine": "quick"}])
def test_bad_options_are_refused(make: Any, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected"):
        make(**options)


def test_a_model_in_the_wrong_place_is_refused(make: Any, tiny_models: dict[str, str]) -> None:
    for role, other in (("2d", "2d-to-3d"), ("2d", "3d"), ("3d", "depth"), ("depth", "2d")):
        with pytest.raises(ModelError, match="expected"):
            make(**{f"model_{role}": tiny_models[other]})
    with pytest.raises(ModelError, match="neither a file"):
        make(model_2d=Path("missing.safetensors"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(make: Any) -> None:
    for device in ("cuda", "cuda:1"):
        with pytest.raises(DeviceError, match="0 CUDA devices"):
            make(device=device)


@pytest.mark.parametrize(
    ("engine", "free", "faces", "batch"),
    [
        ("compiled", 80 << 30, COMPILE_AFTER, 256),
        ("compiled", 80 << 30, COMPILE_AFTER - 1, 128),
        ("compiled", 16 << 30, COMPILE_AFTER, 128),
        ("plain", 80 << 30, COMPILE_AFTER, 128),
    ],
)
def test_many_faces_go_in_large_batches_where_the_memory_is(
    engine: str, free: int, faces: int, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 80 << 30))
    assert default_batch(choose(torch.device("cuda:0"), engine), faces) == batch
    assert default_batch(choose(torch.device("cpu"), engine), faces) == 8


def test_values_that_are_not_finite_are_an_error(make: Any) -> None:
    annotator = make()
    with torch.no_grad():
        annotator.model_depth.network.fc.bias.fill_(torch.inf)
    with pytest.raises(DeviceError, match="not finite"):
        annotator.annotate(pictures(), boxes())

"""The ablations, with tiny random networks and with a stand-in that answers exactly, whatever it is shown."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import Command

from ls3dw.core.geometry import apply, invert
from ls3dw.core.metrics import mean_errors
from ls3dw.core.sample import Picture
from ls3dw.dataset.open import Dataset, open_dataset
from ls3dw.evaluation.ablations import (
    HEIGHTS,
    NOISE,
    AblationOptions,
    as_stored,
    reduced,
    run_ablation,
    shaken,
    true_yaw,
    turned,
)
from ls3dw.evaluation.measure import EvaluationProtocol, read_truth


@pytest.fixture(scope="module")
def sample(sample_data: Path) -> Dataset:
    return open_dataset(sample_data)


class ByBox:
    """Stands in for the networks: a face's shape, its own or the mean one, put into the box that it is given."""

    batch = 5

    def __init__(self, sample: Dataset, *, own: bool = False) -> None:
        annotation, box = sample.column("annotation"), sample.column("box")[:, None].astype(np.float64)
        shapes = (annotation - box[..., :2]) / (box[..., 2:] - box[..., :2])
        self.mean = np.nanmean(shapes, axis=0)
        self.own = {face.image.tobytes(): shape for face, shape in zip(sample, shapes, strict=True)} if own else {}
        self.seen: list[tuple[int, int]] = []

    def annotate(self, images: Sequence[Picture], boxes: np.ndarray) -> Any:
        assert len(images) <= self.batch, "memory does not grow with the data set"
        self.seen += [image.shape[:2] for image in images]
        low, high = boxes[:, None, :2], boxes[:, None, 2:]
        shapes = np.stack([self.own.get(image.tobytes(), self.mean) for image in images])
        points = (low + shapes * (high - low)).astype(np.float32)
        return SimpleNamespace(landmarks_2d=points, landmarks_3d=np.concatenate((points, points[..., :1]), axis=2))


def plain(sample: Dataset, points: np.ndarray) -> np.ndarray:
    truth = read_truth(sample, EvaluationProtocol(points="source"))
    return mean_errors(points, truth.points, truth.sizes)


def test_faces_as_they_are_stored(sample: Dataset) -> None:
    for row in range(0, len(sample), 30):
        face = sample[row]
        view = as_stored(face, 0, 0)
        assert view.image.shape == face.image.shape
        corners = apply(invert(view.to_image), view.box.reshape(2, 2))
        np.testing.assert_allclose(corners.ravel(), face.box, atol=1e-3)


def test_boxes_are_shaken_the_same_way_at_every_level(sample: Dataset) -> None:
    edges = []
    for face in (sample[row] for row in range(0, len(sample), 3)):
        box = as_stored(face, 0, 0).box
        sides = np.tile(box[2:] - box[:2], 2)
        small, large = ((shaken(face, level, 4).box - box) / sides for level in (0.1, 0.3))
        np.testing.assert_allclose(large, 3 * small, atol=1e-9)
        np.testing.assert_array_equal(shaken(face, 0, 4).box, box)
        np.testing.assert_array_equal(shaken(face, 0.3, 4).box, shaken(face, 0.3, 4).box)
        assert (shaken(face, 0.3, 5).box != shaken(face, 0.3, 4).box).all()
        edges.append(large)
    spread = np.array(edges)
    assert np.abs(spread).max() <= 0.3
    assert np.abs(spread).max(axis=0).min() > 0.25, "the whole range is used"
    assert np.abs(spread.mean(axis=0)).max() < 0.1


def test_reduced_faces_have_the_height_and_their_points_in_place(sample: Dataset) -> None:
    for row in range(0, len(sample), 20):
        face = sample[row]
        own = as_stored(face, 0, 0)
        height = own.box[3] - own.box[1]
        view = reduced(face, 40, 0)
        assert height > 40
        assert view.box[3] - view.box[1] == pytest.approx(40, abs=0.5)
        # The corners come back to a hundredth of a pixel, and the pixels lie where the corners do.
        np.testing.assert_allclose(apply(invert(view.to_image), view.box.reshape(2, 2)).ravel(), face.box, atol=0.01)
        zoom = view.image.shape[0] / own.image.shape[0]
        grey, reference = (image.astype(float).mean(axis=2) for image in (view.image, own.image))
        rows, columns = (
            (grey.sum(axis=1) @ np.arange(grey.shape[0])) / grey.sum(),
            (reference.sum(axis=1) @ np.arange(reference.shape[0])) / reference.sum(),
        )
        assert rows == pytest.approx(columns * zoom + (zoom - 1) / 2, abs=0.05)
        untouched = reduced(face, height + 1, 0)
        assert untouched.image.shape == own.image.shape


def test_noise_moves_what_follows_the_box(sample: Dataset) -> None:
    networks: Any = {"by box": lambda: ByBox(sample, own=True)}
    results = run_ablation(sample, "noise", networks, AblationOptions(limit=30))
    flat = [result for result in results if result.points == "2d"]
    assert [result.level for result in flat] == list(NOISE)
    errors = np.array([result.nme_mean for result in flat])
    assert errors[0] < 1e-6
    np.testing.assert_allclose(errors[1:] / errors[-1], np.array(NOISE[1:]) / 0.3, rtol=1e-4)
    assert 0.05 < errors[-1] < 0.3, "as far as edges that move by 15 % on average take the points"
    assert flat[0].auc > 0.9999 > flat[1].auc > flat[-1].auc
    assert flat[0].change is None
    for result in flat[1:]:
        assert result.change == pytest.approx(result.auc - flat[0].auc)
        assert result.change_interval
        assert result.change_interval[0] < result.change < result.change_interval[1] < 0
    assert run_ablation(sample, "noise", networks, AblationOptions(limit=30)) == results, "the same seed"
    assert run_ablation(sample, "noise", networks, AblationOptions(limit=30, seed=1)) != results


def test_resolution_leaves_what_depends_on_the_box_alone(sample: Dataset) -> None:
    network = ByBox(sample)
    networks: Any = {"mean face": lambda: network}
    results = run_ablation(sample, "resolution", networks, AblationOptions(limit=12))
    flat = [result for result in results if result.points == "2d"]
    assert [result.level for result in flat] == list(HEIGHTS)
    assert np.ptp([result.nme_mean for result in flat]) < 1e-4
    # The faces differ much, each from itself little: the interval of the change is the narrow one.
    for result in flat[1:]:
        assert result.auc_interval
        assert result.change_interval
        assert np.ptp(result.change_interval) < 0.1 * np.ptp(result.auc_interval)
    assert min(min(size) for size in network.seen) < 80 < max(max(size) for size in network.seen)


def test_bins_of_yaw_hold_their_own_faces(sample: Dataset) -> None:
    network = ByBox(sample)
    networks: Any = {"mean face": lambda: network}
    results = run_ablation(sample, "yaw", networks, AblationOptions())
    yaw, box = np.abs(true_yaw(sample)), sample.column("box")[:, None].astype(np.float64)
    errors = plain(sample, (box[..., :2] + network.mean * (box[..., 2:] - box[..., :2])))
    deep = (sample.index["source"] == "aflw2000").to_numpy()
    for result in results:
        low, high = (float(end) for end in result.name.split("-"))
        inside = (yaw > low if low else yaw >= 0) & (yaw <= high) & (deep == (result.points == "3d"))
        values = errors[inside & ~np.isnan(errors)]
        assert result.faces == len(values)
        assert result.nme_mean == pytest.approx(values.mean(), rel=1e-4)
    assert sum(result.faces for result in results) == 129


def test_yaw_is_the_sources_own_where_it_has_one(sample: Dataset) -> None:
    yaw, index = true_yaw(sample), sample.index
    own = (index["source"] == "aflw2000").to_numpy()
    np.testing.assert_array_equal(yaw[~own], index["yaw"].to_numpy(dtype=np.float64)[~own])
    assert np.abs(yaw[own] - index["yaw"].to_numpy()[own]).max() > 1


def test_a_turned_picture_keeps_its_points_and_gets_their_box(sample: Dataset) -> None:
    for face in list(sample)[:6]:
        view = turned(face, 90, 0)
        points = apply(view.to_image, face.annotation.astype(np.float64))
        np.testing.assert_allclose(view.box, [*np.nanmin(points, 0), *np.nanmax(points, 0)], atol=0.5)
        straight = as_stored(face, 0, 0)
        before = apply(straight.to_image, face.annotation.astype(np.float64))
        down, right = before[8] - before[27], points[8] - points[27]
        np.testing.assert_allclose(right, [-down[1], down[0]], atol=1e-3)


@pytest.mark.parametrize("ablation", ["size", "noise", "roll"])
def test_the_command(
    ls3dw: Command, sample_data: Path, tiny_models: dict[str, str], tmp_path: Path, ablation: str
) -> None:
    models = ["--model-2d", tiny_models["2d"], "--model-3d", tiny_models["2d-to-3d"], "--gpu", "none"]
    words = ["evaluate", sample_data, "--ablation", ablation, *models, "--limit", 8]
    told = json.loads(ls3dw(*words, "--out", tmp_path / "a", "--json").out)
    assert told["ablation"] == ablation
    assert {result["points"] for result in told["results"]} <= {"2d", "3d"}
    if ablation == "size":
        millions = {result["points"]: result["level"] for result in told["results"]}
        assert 0 < millions["2d"] < millions["3d"] < 1, "guided points take both networks"
    assert ls3dw(*words, "--out", tmp_path / "b").status == 0
    for kind in ("json", "csv", "png", "svg"):
        first, second = ((tmp_path / folder / f"{ablation}.{kind}").read_bytes() for folder in "ab")
        assert first == second


def test_wrong_words(ls3dw: Command, sample_data: Path) -> None:
    for words, message in (
        (("--ablation", "yaw", "--temporal"), "runs networks"),
        (("--ablation", "yaw", "--points", "2d"), "runs networks"),
        (("--ablation", "size", *("--model-2d", "a") * 2, *("--model-3d", "b") * 3), "as many of both"),
        (("--limit", 3), "belong to an --ablation"),
    ):
        ended = ls3dw("evaluate", sample_data, *words)
        assert ended.status == 2
        assert message in ended.err

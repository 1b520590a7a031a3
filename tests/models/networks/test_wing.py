"""Networks that give coordinates: sizes and frames, faces made straight, the cascade, and their way to a build."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Command
from helpers import square_box
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from ls3dw.core.geometry import CROP_SIZE, apply, crop_affine, invert, tight_box
from ls3dw.core.pose import mean_head
from ls3dw.dataset.open import open_dataset
from ls3dw.errors import ModelError
from ls3dw.models import CNN6, CNN7, Cascade, Contract, ResNet50, load
from ls3dw.models.annotator import Annotator
from ls3dw.models.networks.heatmaps import draw_gaussians
from ls3dw.models.networks.straight import compose, cut, mean_on, mean_shape, move, move_back, straighten
from ls3dw.models.networks.wing import CoordinateNet, PointNetwork, mirror_points, predict_points
from ls3dw.models.weights.zoo import parameters, save

CPU = torch.device("cpu")
SMALL = {"class": "CNN6", "width": 0.25}
CASCADE = {"class": "Cascade", "first": SMALL, "second": {"class": "CNN7", "width": 0.125, "window": 176}}


def similarity(angle: float, zoom: float, x: float, y: float) -> Tensor:
    """Make the affine (1, 2, 3) that turns by radians and zooms about the crop's middle, then shifts."""
    cos, sin, middle = zoom * math.cos(angle), zoom * math.sin(angle), (CROP_SIZE - 1) / 2
    return torch.tensor(
        [[[cos, -sin, middle - (cos - sin) * middle + x], [sin, cos, middle - (sin + cos) * middle + y]]]
    )


similarities = st.builds(similarity, st.floats(-3.1, 3.1), st.floats(0.5, 1.5), st.floats(-60, 60), st.floats(-60, 60))


class Mean(CoordinateNet):
    """Gives the mean shape whatever it sees, and keeps what it saw."""

    def __init__(self, size: int = 128, window: int = 176) -> None:
        super().__init__(size, window)
        self.fc = nn.Linear(1, 136)
        nn.init.zeros_(self.fc.weight)
        nn.init.zeros_(self.fc.bias)
        self.seen = torch.empty(0)

    @property
    def last(self) -> nn.Linear:
        return self.fc

    def features(self, views: Tensor) -> Tensor:
        self.seen = views / 4 + 0.5
        return torch.ones(len(views), 1)


class Known(PointNetwork):
    """Stands for a perfect network: gives known points."""

    def __init__(self, points: Tensor) -> None:
        super().__init__()
        self.points = points

    def forward(self, images: Tensor) -> Tensor:
        return self.points


def draw(points: Tensor) -> Tensor:
    """Draw some of the points (N, 68, 2) as pictures (N, 3, 256, 256) of soft dots."""
    return draw_gaussians(points[:, ::9], 4.0).sum(dim=1, keepdim=True).clamp(max=1).repeat(1, 3, 1, 1)


def centroid(picture: Tensor) -> Tensor:
    """Find the one dot in (S, S): x, y."""
    axis = torch.arange(picture.shape[0], dtype=torch.float32)
    return torch.stack((picture.sum(dim=0) @ axis, picture.sum(dim=1) @ axis)) / picture.sum()


def test_the_papers_networks() -> None:
    first, second, deep, *narrow = CNN6(), CNN7(), ResNet50(), CNN6(0.5), CNN7(0.5)
    channels = [first.get_submodule(f"conv{n}").weight.shape[0] for n in range(1, 6)]  # type: ignore[union-attr]
    assert channels == [32, 64, 128, 256, 512]
    assert second.get_submodule("conv1").weight.shape == (64, 3, 3, 3)  # type: ignore[comparison-overlap]
    assert (first.size, second.size, second.depth) == (64, 128, 6)
    for network in (first, second):
        assert network.fc1.weight.shape == (1024, 2 * 2 * 512)
        assert network.fc2.weight.shape == (136, 1024)
    # The published ResNet-50 without its last layer has 23.508 M parameters.
    assert parameters(deep) == pytest.approx(23.508e6 + 2049 * 136, rel=1e-4)
    assert 2 * sum(map(parameters, narrow)) < 5.5e6


@pytest.mark.parametrize("network", [CNN6(0.25), CNN7(0.125), ResNet50(0.125, size=64)])
def test_random_networks_give_about_the_mean_face(network: CoordinateNet) -> None:
    with torch.no_grad():
        points = network.eval()(torch.rand(2, 3, CROP_SIZE, CROP_SIZE))
    assert points.shape == (2, 68, 2)
    assert points.dtype == torch.float32
    assert 0 < (points - mean_on(CPU)).abs().mean() < 6


def test_the_mean_shape_fills_the_published_crop() -> None:
    assert crop_affine(tight_box(mean_shape())) == pytest.approx(np.eye(2, 3), abs=1e-3)


@pytest.mark.parametrize("network", [Mean(64, 208), Mean(128, 176), Mean(224, 208), Mean(64, 300)])
def test_what_a_network_sees_is_where_it_says(network: Mean) -> None:
    place = torch.tensor([[[121.3, 160.8]]])
    picture = draw_gaussians(place, 8.0).repeat(1, 3, 1, 1)
    turn = similarity(0.4, 1.1, 9, -4)
    for affines in (None, turn):
        _, frame = network.look(picture, affines)
        assert centroid(network.seen[0, 0]) == pytest.approx(move(place, frame)[0, 0], abs=0.03)
        assert network.seen.shape == (1, 3, network.size, network.size)
    noise = torch.rand(1, 3, CROP_SIZE, CROP_SIZE)
    network.look(noise)
    plain = network.seen
    network.look(noise, similarity(0, 1, 0, 0))
    # Two filters for one picture: noise is the worst of all.
    assert (plain - network.seen).abs().mean() < 0.06
    inside = slice(network.size // 4, -network.size // 4)
    assert network.seen[..., inside, inside].std() < (0.2 if network.size == 64 else 0.35)


@settings(deadline=None, max_examples=40)
@given(similarities, similarities)
def test_affines_follow_each_other_and_back(first: Tensor, second: Tensor) -> None:
    points = mean_on(CPU)[None]
    both = move(move(points, first), second)
    assert move(points, compose(second, first)) == pytest.approx(both, abs=1e-2)
    assert move_back(both, compose(second, first)) == pytest.approx(points, abs=1e-2)


@settings(deadline=None, max_examples=40)
@given(similarities)
def test_straightening_undoes_any_similarity(turn: Tensor) -> None:
    moved = move(mean_on(CPU)[None], turn)
    affines = straighten(moved)
    assert move(moved, affines)[0] == pytest.approx(mean_on(CPU), abs=0.02)
    seen = tight_box(move(moved, affines)[0].numpy())
    assert crop_affine(seen) == pytest.approx(np.eye(2, 3), abs=1e-3)


@pytest.mark.parametrize("yaw", [-90, -60, 0, 45, 90])
@pytest.mark.parametrize("pitch", [-25, 0, 25])
def test_turned_and_nodding_heads_are_upright(yaw: float, pitch: float) -> None:
    a, b = math.radians(yaw), math.radians(pitch)
    about_y = np.array([[math.cos(a), 0, math.sin(a)], [0, 1, 0], [-math.sin(a), 0, math.cos(a)]])
    about_x = np.array([[1, 0, 0], [0, math.cos(b), -math.sin(b)], [0, math.sin(b), math.cos(b)]])
    flat = (mean_head() @ (about_x @ about_y).T)[:, :2] * np.array([60.0, -60.0]) + 128
    affine = straighten(torch.from_numpy(flat[None]).float())[0]
    assert math.degrees(math.atan2(affine[1, 0], affine[0, 0])) == pytest.approx(0, abs=0.01)


def test_points_that_coincide_give_a_crop_all_the_same() -> None:
    assert torch.isfinite(straighten(torch.full((1, 68, 2), 40.0))).all()


@pytest.mark.parametrize("turn", [similarity(-0.6, 0.85, 15, -9), similarity(0.4, 1.15, -8, 12)])
def test_a_cascade_undoes_what_its_first_stage_finds(turn: Tensor) -> None:
    truth = move(mean_on(CPU)[None], turn)
    cascade = Cascade(SMALL, SMALL)
    cascade.add_module("first", Known(truth))
    cascade.add_module("second", second := Mean())
    with torch.no_grad():
        points = cascade(draw(truth))
        assert points == pytest.approx(truth, abs=0.01)
        seen = second.seen
        second(draw(mean_on(CPU)[None]))
    # Turned, moved and zoomed, the face looks the same to stage two but for the size of its dots.
    assert (seen - second.seen).abs().mean() < 0.03


def test_pictures_that_shrink_do_not_alias() -> None:
    stripes = (torch.arange(CROP_SIZE) % 2).float().expand(1, 3, CROP_SIZE, CROP_SIZE)
    small = cut(stripes, torch.tensor([[[0.25, 0, 0], [0, 0.25, 0]]]), 64, 4)
    assert small[..., 4:-4, 4:-4].std() < 0.01


@pytest.mark.parametrize(("size", "finer"), [(64, 4), (128, 2), (100, 1)])
def test_a_cut_shows_each_place_where_its_affine_puts_it(size: int, finer: int) -> None:
    columns, rows = (torch.arange(CROP_SIZE).float().expand(CROP_SIZE, -1) for _ in range(2))
    picture = torch.stack((columns, rows.T, torch.ones_like(rows)))[None]
    zoom, middle = size / CROP_SIZE, (size - 1) / 2
    shift = middle - zoom * (CROP_SIZE - 1) / 2
    shrink = torch.tensor([[[zoom, 0, shift], [0, zoom, shift]]])
    turns = compose(shrink, torch.cat((similarity(0.4, 1.1, 9, -4), similarity(-1.9, 0.8, -6, 3))))
    found = cut(picture.expand(2, -1, -1, -1), turns, size, finer)
    pixels = torch.cartesian_prod(torch.arange(size), torch.arange(size)).flip(1).float()
    places = move_back(pixels[None], turns).mT.reshape(2, 2, size, size)
    inside = ((places > 4) & (places < CROP_SIZE - 5)).all(dim=1, keepdim=True)
    assert inside.float().mean() > 0.4
    assert ((found[:, :2] - places).abs() * inside).max() < 1e-3
    assert (found[:, 2:][((places < -4) | (places > CROP_SIZE + 3)).any(dim=1, keepdim=True)] == 0).all()


def test_mirrored_pictures_give_mirrored_points() -> None:
    network = CNN6(0.25).eval()
    crop = torch.rand(2, 3, CROP_SIZE, CROP_SIZE)
    with torch.no_grad():
        both, other = predict_points(network, crop, flip=True), predict_points(network, crop.flip(-1), flip=True)
        assert mirror_points(other) == pytest.approx(both, abs=1e-4)
        assert (both - network(crop)).abs().max() > 0.1
    assert mirror_points(mirror_points(both)) == pytest.approx(both, abs=1e-4)


def test_half_precision_keeps_points_exact() -> None:
    network = CNN6(0.25).eval()
    # A large offset, where a float16 has steps of 0.06 pixels.
    nn.init.constant_(network.fc2.bias, 20.03125)
    crop = torch.rand(1, 3, CROP_SIZE, CROP_SIZE)
    with torch.no_grad():
        exact = network(crop)
        half = network.half()(crop.half())
    assert half.dtype == torch.float32
    assert (half - exact).abs().max() < 0.05


def contract(network: dict[str, Any], kind: str = "2d") -> Contract:
    return Contract(f"points-{kind}", kind, network, "")  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def points_models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Weights of a random cascade that gives 2D landmarks, and of a CNN-6 that gives projected 3D ones."""
    folder = tmp_path_factory.mktemp("points")
    torch.manual_seed(0)
    for kind, network in (("2d", CASCADE), ("3d", SMALL)):
        signed = contract(network, kind)
        save(signed.build(), folder / f"{kind}.safetensors", signed)
    return {kind: str(folder / f"{kind}.safetensors") for kind in ("2d", "3d")}


def test_a_cascade_is_one_file(points_models: dict[str, str]) -> None:
    model = load(points_models["2d"], ("2d",))
    assert isinstance(model.network, Cascade)
    keys = {key.split(".")[0] for key in model.network.state_dict()}
    assert keys == {"first", "second"}
    assert json.loads(Path(points_models["2d"]).with_suffix(".json").read_text())["network"] == CASCADE


@pytest.mark.parametrize(
    ("network", "kind", "said"),
    [
        ({"class": "CNN6"}, "depth", "expected an object with class 'DepthNet'"),
        ({"class": "CNN6"}, "2d-to-3d", "expected an object with class 'FAN'"),
        ({"class": "CNN8"}, "2d", "or 'CNN6' or 'CNN7' or 'ResNet50' or 'Cascade'"),
    ],
)
def test_contracts_that_cannot_be(network: dict[str, Any], kind: str, said: str) -> None:
    values = {"name": "x", "kind": kind, "network": network, "sha256": ""}
    with pytest.raises(ModelError, match=said):
        Contract.from_dict(values, "x.json")


@pytest.mark.parametrize(
    ("network", "said"),
    [
        ({"class": "Cascade", "first": SMALL}, "second"),
        ({"class": "Cascade", "first": SMALL, "second": {"class": "FAN"}}, "CNN6 or CNN7 or ResNet50"),
        ({"class": "CNN6", "width": 1e9}, "at most 8"),
        ({"class": "CNN6", "window": 3}, "32 to 512"),
    ],
)
def test_arguments_that_cannot_be(points_models: dict[str, str], tmp_path: Path, network: Any, said: str) -> None:
    values = json.loads(Path(points_models["2d"]).with_suffix(".json").read_text())
    (tmp_path / "x.safetensors").write_bytes(Path(points_models["2d"]).read_bytes())
    (tmp_path / "x.json").write_text(json.dumps(values | {"network": network}))
    with pytest.raises(ModelError, match=said):
        load(tmp_path / "x.safetensors")


def test_the_annotator_takes_them(points_models: dict[str, str], tiny_models: dict[str, str]) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    box = square_box(100, 90, 150)[None]
    result = Annotator(points_models["2d"], tiny_models["3d"], "none").annotate([picture], box)
    assert np.isnan(result.confidence_2d).all()
    assert ((result.confidence_3d >= 0) & (result.confidence_3d <= 1)).all()
    # Random weights give about the mean face: where the box is, at its size.
    expected = apply(invert(crop_affine(box)), mean_shape()[None])
    assert np.abs(result.landmarks_2d - expected).mean() < 8
    solid = Annotator(tiny_models["2d"], points_models["3d"], "none").annotate([picture], box)
    assert np.isnan(solid.confidence_3d).all()
    assert np.isfinite(solid.landmarks_3d[..., :2]).all()
    with pytest.raises(ModelError, match=r"points-2d: gives coordinates.*use 'subpixel'"):
        Annotator(points_models["2d"], tiny_models["3d"], "none", decode="reference")


def test_a_whole_build(
    points_models: dict[str, str], tiny_models: dict[str, str], tmp_path: Path, ls3dw: Command
) -> None:
    out = tmp_path / "data"
    models = ["--model-2d", points_models["2d"], "--model-3d", points_models["3d"], "--model-depth", "none"]
    built = ls3dw("build", "--out", out, *models, "--gpu", "none", "--workers", 0, "--limit", 3)
    assert built.status == 0, built.err
    dataset = open_dataset(out)
    assert np.isnan(dataset.column("confidence_2d")).all()
    assert dataset.index["confidence"].isna().all()
    assert np.isfinite(dataset.column("landmarks_2d")).all()
    for command in (("verify", out), ("info", out), ("gallery", out, "--show", "confidence")):
        ended = ls3dw(*command)
        assert ended.status == 0, (command, ended.err)


def test_models_info_says_what_they_are(points_models: dict[str, str], ls3dw: Command) -> None:
    shown = ls3dw("models", "info", points_models["2d"], "--json")
    assert json.loads(shown.out)["network"] == CASCADE

"""Training of networks that give coordinates: losses, stage two, cascades, and draws that are balanced by pose."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from conftest import Command
from helpers import pts
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from training_helpers import ALONE, CPU, NETWORKS, losses, open_dots, options, pipeline, train

from ls3dw.core.geometry import tight_box
from ls3dw.core.pose import mean_head
from ls3dw.dataset.open import open_dataset
from ls3dw.dataset.subsets.pose_balanced import PoseBalance, balance_by_pose
from ls3dw.errors import ConfigurationError
from ls3dw.models.annotator import Annotator
from ls3dw.models.networks.heatmaps import draw_gaussians
from ls3dw.models.networks.straight import mean_on, mean_shape, straighten
from ls3dw.models.networks.wing import CNN6, Cascade
from ls3dw.models.weights.zoo import load
from ls3dw.synth.renderer import Rendered
from ls3dw.synth.rng import keyed_rng
from ls3dw.training.data.augment import WIDEST_BLUR, blur
from ls3dw.training.data.batch import StreamSlice
from ls3dw.training.data.faces import DatasetFaces, open_faces
from ls3dw.training.data.guidance import disturb
from ls3dw.training.data.heads import HeadRenderer, HeadStream
from ls3dw.training.export import export
from ls3dw.training.loop.trainer import Trainer
from ls3dw.training.network_options import FirstStageOptions, LossName, NetworkOptions
from ls3dw.training.objective.losses import coordinate_loss, penalties, point_loss, wing
from ls3dw.training.objective.optimizers import RunLength, rate_at
from ls3dw.training.options import AugmentOptions, StreamOptions, make_options

SMALL = {"class": "CNN6", "width": 0.1}
FIRST: dict[str, Any] = {"kind": "2d", "network": SMALL, "loss": "wing"}
SECOND: dict[str, Any] = {
    "kind": "2d",
    "network": {"class": "CNN7", "width": 0.1, "window": 176},
    "loss": "l1",
    "stage": 2,
}
CASCADE: dict[str, Any] = {"networks": {"one": FIRST, "two": SECOND}, "cascades": {"both": ["one", "two"]}}


def entry(loss: LossName, w: float = 10, epsilon: float = 2) -> NetworkOptions:
    return NetworkOptions("2d", SMALL, loss=loss, w=w, epsilon=epsilon)


# Losses


@settings(deadline=None)
@given(st.floats(0.5, 20), st.floats(0.1, 5), st.lists(st.floats(-60, 60), min_size=1, max_size=20))
def test_wing_is_the_papers(w: float, epsilon: float, values: list[float]) -> None:
    errors = torch.tensor(values, dtype=torch.float64)
    constant = w - w * math.log(1 + w / epsilon)
    expected = [w * math.log(1 + abs(x) / epsilon) if abs(x) < w else abs(x) - constant for x in values]
    assert wing(errors, w, epsilon).tolist() == pytest.approx(expected, abs=1e-9)


def test_losses_are_the_papers() -> None:
    errors = torch.tensor([-3.0, -0.5, 0.0, 0.25, 2.0], dtype=torch.float64)
    assert penalties(errors, entry("l2")).tolist() == [4.5, 0.125, 0, 0.03125, 2]
    assert penalties(errors, entry("l1")).tolist() == [3, 0.5, 0, 0.25, 2]
    assert penalties(errors, entry("smooth_l1")).tolist() == [2.5, 0.125, 0, 0.03125, 1.5]
    assert penalties(errors, NetworkOptions("2d", SMALL)).tolist() == wing(errors, 10, 2).tolist()


@pytest.mark.parametrize(
    ("loss", "slope"),
    [
        ("wing", lambda x: 10 / (2 + abs(x)) if abs(x) < 10 else 1.0),
        ("l1", lambda x: 1.0),
        ("l2", abs),
        ("smooth_l1", lambda x: min(abs(x), 1.0)),
    ],
)
def test_gradients(loss: LossName, slope: Callable[[float], float]) -> None:
    values = [-25.0, -9.9, -3.0, -0.4, 0.01, 0.7, 1.3, 8.0, 10.1, 40.0]
    errors = torch.tensor(values, dtype=torch.float64, requires_grad=True)
    penalties(errors, entry(loss)).sum().backward()  # type: ignore[no-untyped-call]
    assert errors.grad is not None
    assert errors.grad.tolist() == pytest.approx([math.copysign(slope(x), x) for x in values])
    assert torch.autograd.gradcheck(lambda x: penalties(x, entry(loss)), errors, eps=1e-6)


def test_wing_has_no_step_where_it_turns_straight() -> None:
    below, above = wing(torch.tensor([10 - 1e-9, 10 + 1e-9], dtype=torch.float64), 10, 2).tolist()
    assert below == pytest.approx(above, abs=1e-7)


def test_coordinates_are_added_up_and_faces_averaged() -> None:
    errors = torch.full((4, 68, 2), 2.0)
    known = torch.ones(4, 68, dtype=torch.bool)
    assert point_loss(errors, known, entry("l1")).item() == 68 * 2 * 2
    known[0] = False
    errors[0] = torch.nan
    errors.requires_grad_(True)
    loss = point_loss(errors, known, entry("l1"))
    assert loss.item() == 0.75 * 68 * 2 * 2
    loss.backward()  # type: ignore[no-untyped-call]
    assert errors.grad is not None
    assert (errors.grad[0] == 0).all()
    assert (errors.grad[1:] == 0.25).all()


def still(**arguments: Any) -> CNN6:
    """Make a network that gives the mean shape whatever it sees."""
    network = CNN6(0.1, **arguments)
    nn.init.zeros_(network.fc2.weight)
    return network


def test_errors_count_in_pixels_of_the_networks_input() -> None:
    truth = mean_on(CPU)[None] + torch.tensor([5.0, -3.0])
    truth[:, 7] = torch.nan
    loss = coordinate_loss(still(window=128), torch.zeros(1, 3, 256, 256), truth, None, entry("l1"))
    assert loss.item() == pytest.approx(67 * (5 + 3) * 64 / 128, rel=1e-5)


def test_stage_two_learns_in_the_straightened_frame() -> None:
    angle = 0.5
    turn = 1.2 * torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    truth = mean_on(CPU) @ turn.T + torch.tensor([20.0, -10.0])
    pair = torch.stack((truth, truth))
    pair[1, 3] = torch.nan  # cannot be straightened
    images = torch.zeros(2, 3, 256, 256)
    network = still()
    exact = coordinate_loss(network, images, pair, pair, entry("l1"))
    assert exact.item() == pytest.approx(0, abs=0.1)
    moved = coordinate_loss(network, images, pair + torch.tensor([6.0, 0.0]), pair, entry("l2"))
    # In the new frame the shift is turned and zoomed: its square is what it was, but for the zoom.
    assert moved.item() == pytest.approx(68 * (6 / 1.2 * 64 / network.window) ** 2 / 2 / 2, rel=1e-2)
    moved.backward()  # type: ignore[no-untyped-call]
    assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)


def test_stage_one_errs_as_asked() -> None:
    count = 3000
    truth = mean_on(CPU).expand(count, 68, 2)
    noise = FirstStageOptions(rotation=5, zoom=0.05, shift=0.03)
    affines = straighten(disturb(truth, noise, keyed_rng(CPU, 1)))
    turn = torch.rad2deg(torch.atan2(affines[:, 1, 0], affines[:, 0, 0]))
    assert turn.std() == pytest.approx(5, rel=0.05)
    # The size of the box changes a little when the face is turned, too.
    still_noise = FirstStageOptions(rotation=0, zoom=0.05, shift=0.03)
    affines = straighten(disturb(truth, still_noise, keyed_rng(CPU, 1)))
    assert affines[:, 0, 0].log().std() == pytest.approx(0.05, rel=0.05)
    side = float(np.ptp(mean_shape(), axis=0).mean())
    low, high = tight_box(mean_shape()).reshape(2, 2)
    middle = affines @ torch.tensor([*(low + high) / 2, 1.0])
    assert middle.std(dim=0).tolist() == pytest.approx([0.03 * side] * 2, rel=0.05)
    calm = disturb(truth[:2], FirstStageOptions(0, 0, 0), keyed_rng(CPU, 1))
    assert calm == pytest.approx(truth[:2], abs=1e-4)
    with_gap = truth[:1].clone()
    with_gap[0, 0] = torch.nan
    assert torch.isnan(disturb(with_gap, noise, keyed_rng(CPU, 1))[0, 0]).all()


# Runs


def test_a_killed_run_goes_on_exactly(tmp_path: Path) -> None:
    settings = {"kind": "sgd", "rate": 1e-5, "momentum": 0.9, "schedule": "geometric", "last": 1e-7}
    chosen = options(steps=5, batch=2, optimizer=settings, **CASCADE)
    whole = train(chosen, tmp_path / "whole")
    train(chosen, tmp_path / "killed", until=4)
    again = train(chosen, tmp_path / "killed").tensors()
    for name, value in whole.tensors().items():
        assert torch.equal(value, again[name]), name
    assert losses(tmp_path / "whole") == losses(tmp_path / "killed")


def test_a_cascade_is_trained_measured_exported_and_annotates(tmp_path: Path, tiny_models: dict[str, str]) -> None:
    networks = {**CASCADE["networks"], "flat": NETWORKS["flat"], "solid": {**FIRST, "kind": "3d"}}
    changes = {**CASCADE, "networks": networks, "validation": {"every": 0, "rendered": 5}}
    trainer = train(options(steps=2, **changes), tmp_path)
    assert trainer.results.keys() == {f"heads/{name}" for name in ("one", "two/exact", "both", "flat", "solid")}
    with np.load(tmp_path / "errors.npz") as arrays:
        assert set(arrays.files) == {*trainer.results, "yaw/heads"}
        assert arrays["heads/both"].mean() == pytest.approx(trainer.results["heads/both"]["nme"])
    contracts = export(trainer.exported, tmp_path / "models", options(**changes), 2, trainer.results)
    assert contracts.keys() == {"one", "both", "flat", "solid"}
    assert contracts["both"].figures["heads"]["faces"] == 5
    model = load(tmp_path / "models" / "both.safetensors", ("2d",))
    assert isinstance(model.network, Cascade)
    crops = trainer.feed.inputs(0).images
    with torch.no_grad():
        assert model.network(crops) == pytest.approx(trainer.exported["both"].network(crops), abs=0.1)
    annotator = Annotator(tmp_path / "models" / "both.safetensors", tiny_models["3d"], "none")
    picture = np.random.default_rng(0).integers(0, 255, (80, 90, 3), dtype=np.uint8)
    assert np.isfinite(annotator.annotate([picture], [[20, 20, 70, 70]]).landmarks_2d).all()


def test_training_goes_on_from_exported_weights(tmp_path: Path) -> None:
    trainer = train(options(steps=1, networks={"one": FIRST}), tmp_path / "first")
    export(trainer.exported, tmp_path, options(networks={"one": FIRST}), 1, {})
    further = {"one": {**FIRST, "init": str(tmp_path / "one.safetensors")}}
    started = Trainer(options(networks=further), tmp_path / "second", ALONE, open_dots)
    crops = torch.rand(1, 3, 256, 256)
    with torch.no_grad():
        before, after = (each.averages["one"].network(crops) for each in (trainer, started))
    assert after == pytest.approx(before, abs=0.1)


def test_it_learns(tmp_path: Path) -> None:
    chosen = options(
        steps=80,
        batch=6,
        log=20,
        augment={"flip": 0.0},
        data=[{"stream": "heads", "pool": 4, "chunk": 4, "start": 4, "every": 0}],
        networks={"one": {**FIRST, "loss": "l2"}},
        optimizer={"rate": 5e-3},
        checkpoint={"every": 1000},
    )
    train(chosen, tmp_path)
    curve = [line["one"] for line in losses(tmp_path)]
    assert curve[-1] < 0.2 * curve[0]


def test_each_network_has_its_rate(tmp_path: Path) -> None:
    networks = {"fast": FIRST, "slow": {**FIRST, "loss": "l2", "rate": 0.1}}
    trainer = Trainer(options(networks=networks, optimizer={"kind": "sgd"}), tmp_path, ALONE, open_dots)
    trainer.step(trainer.feed.inputs(0), 1e-6)
    rates = {name: each.param_groups[0]["lr"] for name, each in trainer.step.optimizers.items()}
    assert rates == {"fast": 1e-6, "slow": pytest.approx(1e-7)}


def test_networks_of_stage_two_see_the_same_crops(tmp_path: Path) -> None:
    networks = {"one": FIRST, "two": SECOND, "three": {**SECOND, "loss": "l2"}}
    cascades = {"a": ["one", "two"], "b": ["one", "three"]}
    chosen = options(batch=4, slices=2, networks=networks, cascades=cascades)
    inputs = Trainer(chosen, tmp_path, ALONE, open_dots).feed.inputs(3)
    assert inputs.guides.keys() == {"two", "three"}
    assert torch.equal(inputs.guides["two"], inputs.guides["three"])
    assert not torch.allclose(inputs.guides["two"], inputs.landmarks_2d, atol=0.5)


def test_the_rate_falls_by_the_same_factor() -> None:
    settings = make_options(pipeline(optimizer={"rate": 3e-5, "schedule": "geometric", "last": 3e-7})).optimizer
    length = RunLength(8, None, 100, None)
    rates = [rate_at(settings, length, step, 0) for step in (0, 50, 100)]
    assert rates == pytest.approx([3e-5, 3e-6, 3e-7])


def test_blur_widens_dots_and_leaves_the_others() -> None:
    count = 80
    dot = draw_gaussians(torch.full((count, 1, 2), 128.0), 2.0).repeat(1, 3, 1, 1)
    blurred = blur(dot, 0.5, keyed_rng(CPU, 3))
    same = (blurred == dot).flatten(1).all(dim=1)
    assert 0.35 < same.float().mean() < 0.65
    axis = torch.arange(256) - 128.0
    variance = (blurred[:, 0].sum(dim=1) @ axis.square()) / blurred[:, 0].sum(dim=(1, 2))
    assert variance[same] == pytest.approx(torch.full((int(same.sum()),), 4.0), abs=0.01)
    assert (variance[~same].max() - 4) ** 0.5 == pytest.approx(WIDEST_BLUR, rel=0.1)
    assert blurred.sum(dim=(2, 3)) == pytest.approx(dot.sum(dim=(2, 3)), rel=1e-4)


# Pose-based balancing


def open_turned(device: torch.device, values: Any) -> HeadRenderer:
    """Make a renderer of mean heads, most of them nearly frontal, without pictures."""

    def render(count: int, seed: int, chunk: int) -> Rendered:
        rng = keyed_rng(CPU, seed, chunk)
        yaw = rng.normal(count, 1) * 0.35
        x, y, z = torch.from_numpy(mean_head()).float().unbind(dim=1)
        turned = torch.stack((yaw.cos() * x - yaw.sin() * z, -y.expand(count, -1), yaw.sin() * x + yaw.cos() * z), 2)
        points = turned * 40 + torch.tensor([128.0, 128.0, 0.0]) + rng.normal(count, 68, 3) * 0.5
        images = torch.zeros(count, 3, 256, 256, dtype=torch.uint8)
        visible = torch.ones(count, 68, dtype=torch.bool)
        return Rendered(images, points[..., :2].contiguous(), points, visible, torch.rad2deg(yaw).expand(-1, 3))

    return HeadRenderer(render, lambda images, seed, step: images)


def test_a_pool_is_drawn_as_the_subset_would(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = StreamOptions("heads", pool=60, chunk=20, start=60, every=0, balance=5)
    stream = HeadStream(open_turned(CPU, {}), chosen, StreamSlice(1, 0, 1, 6), AugmentOptions(), CPU)
    batch = stream.batch(7)
    assert batch.images.shape == (6, 3, 256, 256)
    assert stream.rendered == 60
    pool = stream._pool
    assert pool is not None
    subset = balance_by_pose([""] * 60, pool.landmarks_3d[..., :2].numpy(), PoseBalance(bins=5))
    assert subset.repeats.max() > 3
    assert stream._balanced is not None
    assert stream._balanced.tolist() == np.repeat(subset.rows, subset.repeats).tolist()
    drawn = np.bincount([int(stream._choose(pool, 0, keyed_rng(CPU, n))[0]) for n in range(3000)], minlength=60)
    share = np.bincount(subset.bin, weights=drawn) / 3000
    expected = subset.balanced_counts / subset.balanced_counts.sum()
    assert share == pytest.approx(expected, abs=0.04)


def test_a_pool_that_stays(tmp_path: Path) -> None:
    chosen = StreamOptions("heads", pool=12, chunk=4, start=12, every=0)
    stream = HeadStream(open_dots(CPU, {}), chosen, StreamSlice(1, 0, 1, 2), AugmentOptions(), CPU)
    stream.batch(0)
    stream.batch(10**6)
    assert stream.rendered == 12


def test_a_data_set_is_drawn_as_its_subset(sample_data: Path, tmp_path: Path, ls3dw: Command) -> None:
    dataset = open_dataset(sample_data)
    subset = balance_by_pose(dataset.index["id"].tolist(), dataset.column("landmarks_3d")[..., :2], PoseBalance(bins=4))
    faces = open_faces(StreamOptions("dataset", root=sample_data, balance=4))
    assert isinstance(faces, DatasetFaces)
    assert faces.rows == np.repeat(subset.rows, subset.repeats).tolist()
    assert len(faces) > len(dataset)
    with pytest.raises(Exception, match="no such subset"):
        open_faces(StreamOptions("dataset", root=sample_data, subset="missing"))


def test_a_written_subset_is_drawn_with_its_copies(sample_data: Path, tmp_path: Path, ls3dw: Command) -> None:
    import shutil

    root = tmp_path / "data"
    shutil.copytree(sample_data, root)
    for mode in ("repeat", "thin", "weight"):
        words = ("subset", root, "pose-balanced", "--bins", 4, "--mode", mode, "--name", mode)
        assert ls3dw(*words).status == 0
    copies = open_faces(StreamOptions("dataset", root=root, subset="repeat"))
    balanced = open_faces(StreamOptions("dataset", root=root, balance=4))
    assert isinstance(copies, DatasetFaces)
    assert isinstance(balanced, DatasetFaces)
    assert copies.rows == sorted(balanced.rows)
    thin = open_dataset(root).subset("thin")
    assert len(open_faces(StreamOptions("dataset", root=root, subset="thin"))) == len(thin)
    with pytest.raises(ConfigurationError, match="drawn by weights"):
        open_faces(StreamOptions("dataset", root=root, subset="weight"))


def test_a_source_is_balanced_by_its_points(tmp_path: Path) -> None:
    maker = open_turned(CPU, {})
    shapes = maker.render(24, 3, 0).landmarks_2d.numpy()
    (tmp_path / "afw").mkdir()
    for number, shape in enumerate(shapes):
        (tmp_path / "afw" / f"a{number:02}.png").write_bytes(
            cv2.imencode(".png", np.zeros((256, 256, 3), np.uint8))[1].tobytes()
        )
        (tmp_path / "afw" / f"a{number:02}.pts").write_bytes(pts(shape + 1))
    faces = open_faces(StreamOptions("300w", root=tmp_path, balance=4))
    subset = balance_by_pose([""] * 24, shapes, PoseBalance(bins=4))
    assert len(faces) == subset.repeats.sum() > 24


# Configuration


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"networks": {"a": {"kind": "2d", "network": {"class": "Cascade"}}}}, "networks.a: a cascade is not trained"),
        ({"networks": {"a": {"kind": "depth", "network": SMALL}}}, "expected class DepthNet"),
        ({"networks": {"a": {"kind": "2d", "network": {"class": "CNN5"}}}}, "FAN or CNN6 or CNN7 or ResNet50 for"),
        ({"networks": {"a": {**NETWORKS["flat"], "loss": "wing"}}}, "loss and stage are for networks that give coord"),
        ({"networks": {"a": {**FIRST, "loss": "l3"}}}, "networks.a.loss 'l3': expected one of wing, l1, l2, smooth_l1"),
        ({"networks": {"a": {**FIRST, "epsilon": 0}}}, "networks.a: noise cannot be negative, and rate, w and epsilon"),
        ({"networks": {"a": {**FIRST, "rate": -1}}}, "must be more than 0"),
        ({"networks": {"a": {**FIRST, "stage": 3}}}, "stage 3: expected 1 or 2"),
        ({"networks": {"a": SECOND}}, "networks.a: stage 2 of no cascade"),
        ({**CASCADE, "cascades": {"one": ["one", "two"]}}, "cascades.one: a network has this name too"),
        (
            {**CASCADE, "cascades": {"b": ["two", "one"]}},
            "cascades.b: 'one', expected a network that gives coordinates",
        ),
        ({**CASCADE, "cascades": {"b": ["one", "zwei"]}}, "cascades.b: 'zwei', expected"),
        ({**CASCADE, "cascades": {"b": ["one"]}}, "cascades.b ['one']: expected a list of 2"),
        ({"networks": {"one": FIRST, "two": {**SECOND, "kind": "3d"}}, "cascades": {"b": ["one", "two"]}}, "two kinds"),
        ({"first_stage": {"shift": -1}}, "first_stage: no value can be negative"),
        ({"optimizer": {"schedule": "geometric"}}, "schedule geometric goes with last"),
        ({"optimizer": {"last": 1e-5}}, "schedule geometric goes with last"),
        ({"augment": {"blur": 2}}, "blur and degrade are probabilities"),
        ({"data": [{"stream": "heads", "balance": 9}]}, "a pool that stays as it is: start: 16384, every: 0"),
        ({"data": [{"stream": "heads", "balance": -1}]}, "balance -1: expected a number of bins"),
        ({"data": [{"stream": "300w", "root": "x", "subset": "y"}]}, "subset is for the stream dataset"),
        ({"data": [{"stream": "dataset", "root": "x", "subset": "y", "balance": 2}]}, "without balance"),
    ],
)
def test_what_cannot_be(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        make_options(pipeline(**changes))
    assert said in str(caught.value)


def test_every_fault_of_a_width_is_named(tmp_path: Path) -> None:
    networks = {
        "wide": {**FIRST, "network": {"class": "CNN6", "width": 100}},
        "odd": {**FIRST, "network": {"class": "CNN6", "wdth": 1}},
    }
    with pytest.raises(ConfigurationError) as caught:
        Trainer(options(networks=networks), tmp_path, ALONE, open_dots)
    assert "networks.wide: width=100" in str(caught.value)
    assert "networks.odd" in str(caught.value)


def test_dry_run_shows_cascades(tmp_path: Path, ls3dw: Command) -> None:
    import yaml

    path = tmp_path / "p.yaml"
    path.write_text(yaml.safe_dump(pipeline(**CASCADE)))
    assert "cascade of one and two" in ls3dw("train", path, "--dry-run").out

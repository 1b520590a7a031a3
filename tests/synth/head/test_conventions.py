"""Conventions of the points: how they move, and how they are fitted to labels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Command
from helpers import REAL

from ls3dw.errors import ConfigurationError
from ls3dw.synth.authoring.fit_convention import fit_convention, pose
from ls3dw.synth.head.conventions import Convention, Conventional, along
from ls3dw.synth.head.mean_head import mean_points
from ls3dw.synth.head.model import load_head
from ls3dw.synth.head.placement import dump_placement, load_placement
from ls3dw.synth.renderer import Renderer, RenderOptions
from ls3dw.synth.rng import SplitRng


@pytest.mark.parametrize("name", ["300w", "aflw2000-3d"])
def test_points_of_the_mean_head_move_by_the_offsets_in_any_frame(name: str) -> None:
    convention, mean = load_placement().convention(name), mean_points(load_head())
    moves = Conventional(convention, mean)
    expected = mean + torch.from_numpy(convention.offsets).float()
    assert float((moves.points(mean[None])[0] - expected).abs().max()) < 1e-4
    affine = torch.tensor([[0.3, -0.8, 0.1], [0.6, 0.2, -0.4]])
    assert float((moves.points((mean @ affine.T)[None])[0] - expected @ affine.T).abs().max()) < 1e-4


def test_the_plain_convention_moves_nothing() -> None:
    mean = mean_points(load_head())
    moves = Conventional(Convention.plain(), mean)
    assert torch.allclose(moves.points(mean[None])[0], mean, atol=1e-6)
    jaw = mean[None, :17, :2]
    assert torch.allclose(moves.contour(jaw, torch.tensor([50.0])), jaw, atol=1e-6)


def test_the_spacing_of_the_jaw_is_mirrored_with_the_head() -> None:
    jaw = mean_points(load_head())[None, :17, :2]
    jaw = (jaw + jaw.flip(1) * torch.tensor([-1.0, 1.0])) / 2
    moves = Conventional(load_placement().convention("300w"), mean_points(load_head()))
    left, right = (moves.contour(jaw, torch.tensor([yaw])) for yaw in (20.0, -20.0))
    assert torch.allclose(left, right.flip(1) * torch.tensor([-1.0, 1.0]), atol=1e-5)
    assert float((left - jaw).norm(dim=-1).max()) > 0.01


def test_places_along_a_curve_go_through_its_points_and_on_beyond_its_ends() -> None:
    curve = torch.tensor([[[0.0, 0.0], [1.0, 0.0], [2.0, 1.0], [3.0, 1.0]]])
    found = along(curve, torch.tensor([[-1.0, 0.0, 1.0, 2.0, 3.0, 3.5]]))
    assert torch.allclose(found[:, 1:5], curve)
    assert torch.allclose(found[0, 0], torch.tensor([-1.0, 0.0]))
    assert torch.allclose(found[0, 5], torch.tensor([3.5, 1.0]))


def test_an_unknown_convention_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="300w"):
        load_placement().convention("600w")
    placement = load_placement()
    spoilt = replace(placement.conventions["300w"], jaw_spacing=np.zeros((2, 3)))
    (tmp_path / "spoilt.json").write_bytes(dump_placement(replace(placement, conventions={"300w": spoilt})))
    with pytest.raises(ConfigurationError, match="convention 300w"):
        load_placement(tmp_path / "spoilt.json")


def test_conventions_survive_the_file(tmp_path: Path) -> None:
    placement = load_placement()
    (tmp_path / "placement.json").write_bytes(dump_placement(placement))
    again = load_placement(tmp_path / "placement.json")
    for name, convention in placement.conventions.items():
        np.testing.assert_allclose(again.convention(name).offsets, convention.offsets, atol=1e-4)


def labels(shape: np.ndarray, count: int = 200) -> np.ndarray:
    """The points (68, 3) of a head in many poses, as labels (N, 68, 2) with y down."""
    rng = np.random.default_rng(3)
    faces = []
    for yaw, roll in zip(rng.uniform(-50, 50, count), rng.uniform(-180, 180, count), strict=True):
        a, b = np.radians((yaw, roll))
        about = np.array([[np.cos(a), 0, -np.sin(a)], [0, 1, 0], [np.sin(a), 0, np.cos(a)]])
        turn = np.array([[np.cos(b), -np.sin(b)], [np.sin(b), np.cos(b)]])
        faces.append((turn @ (about @ shape.T)[:2]).T * 80 * [1, -1] + rng.uniform(0, 300, 2))
    return np.stack(faces)


def test_the_fit_finds_a_pose_at_any_roll() -> None:
    mean = mean_points(load_head()).double().numpy()
    found = pose(labels(mean), mean)
    assert abs(found.residuals(mean)).max() < 1e-3
    assert found.scale == pytest.approx(80, rel=1e-3)


def test_the_fit_finds_what_labels_have_in_common_beside_the_reference() -> None:
    head = load_head()
    mean = mean_points(head).double().numpy()
    habit = np.zeros((68, 3))
    habit[[55, 59], 0] = -0.05, 0.05
    found = fit_convention(head, labels(mean + habit), labels(mean), solid=True)
    assert found.offsets[59, 0] == pytest.approx(0.8 * 0.05, abs=0.006)
    assert found.offsets[55, 0] == pytest.approx(-found.offsets[59, 0])
    still = [point for point in range(68) if point not in (55, 59)]
    assert abs(found.offsets[still]).max() < 0.006


@pytest.mark.skipif(not REAL.is_dir(), reason="no labels of real faces here")
def test_the_command_gives_the_bundled_conventions(ls3dw: Command, tmp_path: Path) -> None:
    reference = REAL / "merl_rav_landmarks_half.npz"
    out = tmp_path / "placement.json"
    words = "head", "fit", REAL / "300w_train_landmarks.npz", out, "--convention", "300w", "--reference", reference
    assert ls3dw(*words).status == 0
    bundled = load_placement()
    np.testing.assert_allclose(
        load_placement(out).convention("300w").offsets, bundled.convention("300w").offsets, atol=2e-3
    )


def test_a_convention_needs_a_reference(ls3dw: Command, tmp_path: Path) -> None:
    assert ls3dw("head", "fit", tmp_path / "a.npz", tmp_path / "b.json", "--convention", "x").status == 2


def test_some_pictures_are_turned_by_any_angle() -> None:
    rolls = []
    for share in (0.0, 1.0):
        options = RenderOptions(size=32, roll_std=0, turned_share=share)
        staged = Renderer(options=options).stage(16, SplitRng(1), torch.zeros(16))
        rotation = staged.scene.rotation
        rolls.append(torch.rad2deg(torch.atan2(rotation[:, 0, 1], rotation[:, 0, 0])).abs())
    assert float(rolls[0].max()) < 1
    assert float((rolls[1] > 60).float().mean()) > 0.4

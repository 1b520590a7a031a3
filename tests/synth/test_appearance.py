"""Shading: light, relief, painted brows, round shapes, backgrounds, and whole pictures."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from helpers import no_waiting
from torch import Tensor

from ls3dw.errors import ConfigurationError
from ls3dw.synth.options import RenderOptions
from ls3dw.synth.renderer import Renderer, Staged
from ls3dw.synth.rng import SplitRng
from ls3dw.synth.scene.capsules import Capsules, draw_capsules
from ls3dw.synth.scene.hair import long_hair
from ls3dw.synth.shade.background import backgrounds, crops, make_bank
from ls3dw.synth.shade.compose import shade
from ls3dw.synth.shade.face_hair import brow_curve
from ls3dw.synth.shade.light import Lights, cast_shadows, draw_lights, irradiance
from ls3dw.synth.shade.noise import sinusoid_noise
from ls3dw.synth.shade.paint import bumped
from ls3dw.synth.shade.palette import draw_looks, plain_colours
from ls3dw.synth.shade.pixels import look, vertex_normals
from ls3dw.synth.shade.tensors import flagged_indices

COUNT = 3


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return Renderer("cpu", options=RenderOptions(size=64, glasses_chance=0, hat_chance=0))


@pytest.fixture(scope="module")
def staged(renderer: Renderer) -> Staged:
    return renderer.stage(COUNT, SplitRng(5), torch.zeros(COUNT))


@pytest.fixture(scope="module")
def bank() -> Tensor:
    return make_bank(SplitRng(1), 8, 48)


@torch.no_grad()
def test_equal_draws_give_equal_pictures(renderer: Renderer, staged: Staged, bank: Tensor) -> None:
    first, second, other = (shade(staged.scene, renderer.head, bank, SplitRng(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, second)
    assert (first - other).abs().mean() > 0.02
    assert first.shape == (COUNT, 3, 64, 64)
    assert first.isfinite().all()
    assert first.min() >= 0
    assert first.max() <= 1


def test_noise_has_unit_variance_and_no_wave_above_its_highest() -> None:
    points = torch.rand(8, 3, 20000) * 20
    values = sinusoid_noise(points, SplitRng(2), 2.0, 9.0, waves=12, channels=2)
    assert values.shape == (8, 2, 20000)
    assert values.mean().abs() < 0.05
    assert values.std() == pytest.approx(1, abs=0.1)
    step = 1e-3
    moved = sinusoid_noise(
        points + torch.tensor((step, 0, 0)).view(1, 3, 1), SplitRng(2), 2.0, 9.0, waves=12, channels=2
    )
    # Twelve waves of total amplitude at most sqrt(2 * 12), each no steeper than its frequency.
    assert (moved - values).abs().max() <= math.sqrt(24) * 9 * step


def test_relief_tilts_normals_by_its_slope() -> None:
    scale, slope = 50.0, 0.3
    normal = torch.tensor((0.0, 0.0, 1.0)).view(1, 3, 1, 1).expand(1, 3, 16, 16)
    relief = (torch.arange(16.0) * slope / scale).view(1, 1, 1, 16).expand(1, 1, 16, 16)
    tilted = bumped(normal, relief, torch.tensor([scale]))[0, :, 8, 8]
    assert torch.allclose(tilted, torch.tensor((-slope, 0.0, 1.0)) / math.hypot(1, slope), atol=1e-4)
    upward = bumped(normal, relief.transpose(2, 3).flip(2), torch.tensor([scale]))[0, :, 8, 8]
    assert torch.allclose(upward, torch.tensor((0.0, -slope, 1.0)) / math.hypot(1, slope), atol=1e-4)


def test_brows_are_painted_through_their_points(renderer: Renderer, staged: Staged) -> None:
    head, scene = renderer.head, staged.scene
    table = (head.mean[head.brow_vertices] * head.brow_weights[..., None]).sum(2)
    middle = len(head.brow_offsets) // 2
    places = table[:, middle]
    across = places[:, 0].view(1, 1, 1, -1).expand(COUNT, -1, -1, -1)
    curve = brow_curve(across, scene, head)[:, 0, 0]
    expected = places[:, 1] + scene.brows.height - head.brow_offsets[middle]
    assert (curve - expected).abs().max() < 0.01


def test_a_capsule_is_round() -> None:
    start, end = torch.tensor([[[20.0, 30.0, 5.0]]]), torch.tensor([[[40.0, 30.0, 5.0]]])
    capsules = Capsules(start, end, torch.full((1, 1, 2), 8.0), torch.ones(1, 1))
    rounds = draw_capsules(capsules, 64)
    assert rounds.share[0, 0, 30, 30] == 1
    assert rounds.share[0, 0, 30, 50] == 0
    assert rounds.share[0, 0, 38, 30] == pytest.approx(0.5)
    assert rounds.depth[0, 0, 30, 30] == pytest.approx(13, abs=1e-4)
    assert torch.allclose(rounds.normal[0, :, 30, 30], torch.tensor((0.0, 0.0, 1.0)), atol=1e-3)
    assert torch.allclose(rounds.normal[0, :, 26, 30], torch.tensor((0.0, 0.5, math.sqrt(0.75))), atol=1e-2)
    assert rounds.along[0, 0, 30, 25] == pytest.approx(0.25)


def test_few_finds_every_flag() -> None:
    flags = torch.zeros(100)
    flags[[3, 50, 99]] = 1
    found = flagged_indices(flags, 0.05, SplitRng(0))
    assert {3, 50, 99} <= set(found.tolist())
    assert len(found.unique()) == len(found) == 9
    assert flagged_indices(torch.ones(1), 0.05, SplitRng(0)).tolist() == [0]


def _lit_from(direction: tuple[float, float, float], count: int) -> Lights:
    lights = draw_lights(SplitRng(3), count)
    lamp = torch.tensor(direction).view(1, 3, 1, 1).expand(count, -1, -1, -1)
    return Lights(**{**vars(lights), "lamp": lamp, "shadow": torch.ones(count, 1, 1, 1)})


@torch.no_grad()
def test_heads_shade_themselves_from_a_lamp_behind(staged: Staged) -> None:
    pixels = look(staged.scene, staged.scene.opaque, vertex_normals(staged.scene))
    seen = pixels.seen.float()

    def lit(direction: tuple[float, float, float]) -> float:
        return float((cast_shadows(staged.scene, pixels.place, _lit_from(direction, COUNT)) * seen).sum() / seen.sum())

    assert lit((0.0, 0.0, 1.0)) > 0.93
    assert lit((0.0, 0.0, -1.0)) < 0.15
    assert 0.3 < lit((1.0, 0.0, 0.0)) < 0.85


def test_light_comes_from_the_lamp() -> None:
    lights = _lit_from((0.0, 0.6, 0.8), 4)
    normals = torch.tensor(((0.0, 0.6, 0.8), (0.0, -0.6, -0.8))).T.view(1, 3, 1, 2).expand(4, -1, -1, -1)
    one = torch.ones(4, 1, 1, 2)
    light = irradiance(lights, normals, one, one)
    assert (light[..., 0] > light[..., 1]).all()
    assert torch.allclose(
        (light - irradiance(lights, normals, one, 0 * one))[..., 0], lights.lamp_colour[..., 0].expand(-1, 3, 1)
    )


@torch.no_grad()
def test_no_hair_covers_who_wears_none() -> None:
    renderer = Renderer("cpu", options=RenderOptions(size=64, long_hair_chance=0.5))
    scene = renderer.stage(8, SplitRng(1)).scene
    normals = vertex_normals(scene)
    far = torch.full((8, 1, 64, 64), -torch.inf)
    _, share = long_hair(scene, normals, far, draw_looks(SplitRng(0), 8), draw_lights(SplitRng(0), 8), SplitRng(0))
    covers = share.amax((1, 2, 3)) > 0
    assert not covers[~scene.has_long_hair].any()
    assert covers[scene.has_long_hair].all()
    assert scene.has_long_hair.any()
    assert not scene.has_long_hair.all()


def test_the_bank_holds_different_pictures(bank: Tensor) -> None:
    assert bank.shape == (8, 3, 48, 48)
    assert bank.dtype == torch.uint8
    assert len(torch.unique(bank, dim=0)) == 8
    assert (bank.float().std((2, 3)).amax(1) > 5).all()
    for made in (crops(bank, SplitRng(0), 5, 32), backgrounds(bank, SplitRng(0), 5, 32)):
        assert made.shape == (5, 3, 32, 32)
        assert made.min() >= 0
        assert made.max() <= 1


def test_plain_colours_are_calm_or_vivid() -> None:
    colours = plain_colours(SplitRng(1), 2000).flatten(1)
    assert colours.min() == 0
    assert colours.max() == 1
    pure = ((colours == 0) | (colours == 1)).all(1)
    assert 0.05 < pure.float().mean() < 0.2
    assert len(torch.unique(colours[pure], dim=0)) == 8  # black, white, and the six colours between
    assert 0.3 < (colours.amax(1) - colours.amin(1) < 0.3).float().mean() < 0.7


def test_a_folder_adds_its_pictures_to_the_bank(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no picture"):
        make_bank(SplitRng(0), 8, 32, tmp_path)
    cv2.imwrite(str(tmp_path / "wide.png"), np.full((40, 90, 3), (10, 20, 30), np.uint8))
    bank = make_bank(SplitRng(0), 8, 32, tmp_path)
    assert len(bank) == 9
    assert (bank[-1] == torch.tensor((30, 20, 10), dtype=torch.uint8).view(3, 1, 1)).all()
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    with pytest.raises(ConfigurationError, match=r"broken\.jpg: not a picture"):
        make_bank(SplitRng(0), 8, 32, tmp_path)
    with pytest.raises(ConfigurationError, match="not a folder"):
        make_bank(SplitRng(0), 8, 32, tmp_path / "missing")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@torch.no_grad()
def test_shading_does_not_wait_for_the_device() -> None:
    draws = SplitRng(0, "cuda")
    renderer = Renderer("cuda", options=RenderOptions(size=128))
    bank = make_bank(draws, 8, 128)
    scene = renderer.stage(8, draws).scene
    shade(scene, renderer.head, bank, draws)
    with no_waiting():
        shade(scene, renderer.head, bank, draws)

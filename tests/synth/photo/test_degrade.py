"""The photographic chain: what it may change, and that it leaves everything in its place."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from helpers import no_waiting
from torch import Tensor

from ls3dw.errors import ConfigurationError
from ls3dw.synth.photo.degrade import MARGIN, DegradeOptions, degrade
from ls3dw.synth.photo.jpeg import compress
from ls3dw.synth.rng import SplitRng
from ls3dw.synth.scene.blobs import occlude
from ls3dw.synth.shade.patterns import dead_leaves

NEUTRAL = DegradeOptions(
    occluders=(),
    gamma=(1.0, 1.0),
    contrast=(1.0, 1.0),
    brightness=0.0,
    white_balance=0.0,
    saturation=(1.0, 1.0),
    gray=0.0,
    vignette=0.0,
    low_resolution=0.0,
    blur=0.0,
    noise=0.0,
    jpeg=0.0,
    border=0.0,
)


@pytest.fixture(scope="module")
def pictures() -> Tensor:
    return dead_leaves(SplitRng(3), 4, 128)


def test_neutral_options_change_nothing(pictures: Tensor) -> None:
    assert torch.allclose(degrade(pictures, SplitRng(0), NEUTRAL), pictures.clamp(1e-4, 1), atol=1e-5)


def test_equal_draws_give_equal_pictures_and_others_do_not(pictures: Tensor) -> None:
    first, second, other = (degrade(pictures, SplitRng(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, second)
    assert (first - other).abs().mean() > 0.01
    assert first.shape == pictures.shape
    assert first.min() >= 0
    assert first.max() <= 1


@pytest.mark.parametrize("count", [1, 3, 9])
def test_any_number_of_pictures_keeps_its_order(count: int) -> None:
    levels = torch.linspace(0.1, 0.9, count).view(-1, 1, 1, 1).expand(-1, 3, 64, 64)
    options = replace(NEUTRAL, low_resolution=1.0, jpeg=1.0, blur=1.0)
    assert torch.allclose(degrade(levels, SplitRng(5), options).mean((1, 2, 3)), levels.mean((1, 2, 3)), atol=0.02)


@pytest.mark.parametrize(
    "change",
    [{"low_resolution": 1.0}, {"blur": 1.0}, {"jpeg": 1.0}, {"noise": 0.05}, {"low_resolution": 1.0, "jpeg": 1.0}],
)
def test_a_spot_stays_in_its_place(change: dict[str, float]) -> None:
    place = torch.tensor((53.3, 70.8))
    grid = torch.arange(128.0)
    spot = torch.exp(-((grid[None, :] - place[0]) ** 2 + (grid[:, None] - place[1]) ** 2) / (2 * 5.0**2))
    done = degrade(spot.expand(24, 3, -1, -1), SplitRng(2), replace(NEUTRAL, **change)).mean(1)
    weight = (done - 0.3).clamp(min=0)
    x = (weight * grid[None, None, :]).sum((1, 2)) / weight.sum((1, 2))
    y = (weight * grid[None, :, None]).sum((1, 2)) / weight.sum((1, 2))
    assert torch.stack((x, y), 1).sub(place).mean(0).abs().max() < 0.15


@pytest.mark.parametrize("quality", [20, 50, 75, 92])
def test_jpeg_is_what_a_jpeg_file_does(pictures: Tensor, quality: int) -> None:
    picture = cv2.GaussianBlur((pictures[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8), (0, 0), 1.0)
    _, data = cv2.imencode(".jpg", picture[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    expected = cv2.imdecode(data, cv2.IMREAD_COLOR)[:, :, ::-1].astype(np.float32)
    given = torch.from_numpy(picture.astype(np.float32) / 255).permute(2, 0, 1)[None]
    ours = compress(given, torch.tensor([float(quality)]))[0].permute(1, 2, 0).numpy() * 255
    loss = np.abs(expected - picture).mean()
    assert np.abs(ours - expected).mean() < 0.35 * loss + 0.3
    assert np.abs(ours - picture).mean() == pytest.approx(loss, rel=0.1, abs=0.2)


def test_gray_pictures_are_gray(pictures: Tensor) -> None:
    done = degrade(pictures, SplitRng(0), replace(NEUTRAL, gray=1.0))
    assert torch.allclose(done, done.mean(1, keepdim=True).expand_as(done), atol=1e-5)


def test_borders_leave_the_middle_alone(pictures: Tensor) -> None:
    many = pictures.repeat(8, 1, 1, 1)
    done = degrade(many, SplitRng(4), replace(NEUTRAL, border=1.0))
    side = many.shape[-1]
    margin = int(MARGIN * side) + 1
    middle = slice(margin, side - margin)
    assert torch.allclose(done[:, :, middle, middle], many[:, :, middle, middle], atol=1e-3)
    changed = (done - many).abs().amax((1, 2, 3)) > 0.05
    assert 0.6 < changed.float().mean() < 1


def test_occluders_cover_as_often_as_they_should(pictures: Tensor) -> None:
    many = pictures.repeat(50, 1, 1, 1)
    assert torch.equal(occlude(many, SplitRng(0), ()), many)
    covered = (occlude(many, SplitRng(0), (0.5,)) - many).abs().amax((1, 2, 3)) > 0.05
    # Some shapes lie outside the picture.
    assert 0.3 < covered.float().mean() < 0.6


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"jpeg": 1.5}, "jpeg 1.5: expected 0 to 1"),
        ({"occluders": (0.5, -1.0)}, r"occluders\[1\] -1.0"),
        ({"gamma": (2.0, 1.0)}, r"gamma \(2.0, 1.0\): expected low and high"),
        ({"quality": (0.0, 50.0)}, "quality"),
        ({"smallest": 0}, "smallest 0: expected at least 16"),
        ({"noise": float("nan")}, "noise nan"),
    ],
)
def test_options_that_make_no_sense(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        DegradeOptions(**values)


@pytest.mark.parametrize("shape", [(2, 3, 450, 450), (2, 3, 64, 48)])
def test_pictures_that_have_no_whole_blocks(shape: tuple[int, ...]) -> None:
    with pytest.raises(ConfigurationError, match=f"{shape[3]} x {shape[2]} pixels"):
        degrade(torch.zeros(shape), SplitRng(0))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_nothing_waits_for_the_device() -> None:
    draws, images = SplitRng(0, "cuda"), torch.rand(16, 3, 256, 256, device="cuda")
    degrade(images, draws)
    with no_waiting():
        degrade(images, draws)

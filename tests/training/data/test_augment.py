"""Augmentation and targets: landmarks follow the pixels, unknown ones teach nothing, guidance errs as it should."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from helpers import crop_to_cells
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from training_helpers import CPU, dots

from ls3dw.core.geometry import CROP_SIZE, apply, compose, crop_affine, invert, tight_box
from ls3dw.core.markup import GROUPS, MIRROR
from ls3dw.models.networks.heatmaps import draw_gaussians
from ls3dw.synth.rng import hash_seed, keyed_rng
from ls3dw.training.data.augment import augment, draw_affines, occlude, recolour, transform_points, warp
from ls3dw.training.data.batch import RawBatch
from ls3dw.training.data.faces import WINDOW, cut_face
from ls3dw.training.data.guidance import guidance_noise
from ls3dw.training.network_options import GuidanceOptions
from ls3dw.training.objective.losses import depth_loss, depth_targets, heatmap_loss, heatmap_targets, known_points
from ls3dw.training.options import AugmentOptions

WILD = AugmentOptions(flip=0.5, rotation=70, scale=(0.7, 1.3), translation=0.1, box_noise=0.2)


def dot_at(points: Tensor, size: int) -> Tensor:
    """Draw one dot a picture, its place sub-pixel: (B, 2) pixels of the crop -> (B, 3, size, size) uint8."""
    shifted = points[:, None] + (size - CROP_SIZE) / 2
    return (draw_gaussians(shifted, 3.0, size) * 255).to(torch.uint8).expand(-1, 3, -1, -1)


def centre_of(images: Tensor) -> Tensor:
    """Find the dot in (B, 3, 256, 256) by its centroid: (B, 2)."""
    weight = images.mean(dim=1).double()
    axis = torch.arange(CROP_SIZE, dtype=torch.float64)
    total = weight.sum(dim=(1, 2))
    return torch.stack(((weight.sum(dim=1) @ axis) / total, (weight.sum(dim=2) @ axis) / total), dim=1)


@pytest.mark.parametrize("size", [256, 320, 321])
@pytest.mark.parametrize("options", [WILD, AugmentOptions(flip=1.0), AugmentOptions(flip=0.5, rotation=180)])
def test_landmarks_follow_the_pixels(size: int, options: AugmentOptions) -> None:
    count = 24
    rng = keyed_rng(CPU, 7)
    place = rng.uniform(count, 2, low=100, high=155)
    heads = dots(count, 0, 0)
    # The dot is point 8, the chin, which is its own mirror image; the others only span the box.
    points = heads.landmarks_2d.clone()
    points[:, 8] = place
    faces = RawBatch(dot_at(place, size), points, torch.cat((points, torch.ones(count, 68, 1)), dim=2))
    batch = augment(faces, options, rng)
    found = batch.landmarks_2d[:, 8]
    inside = ((found > 20) & (found < 235)).all(dim=1)
    assert inside.sum() > count // 2
    assert (centre_of(batch.images) - found)[inside].abs().max() < 0.1
    assert torch.equal(batch.landmarks_3d[..., :2], batch.landmarks_2d)


def test_depth_grows_with_the_picture_and_nothing_mirrors_it() -> None:
    heads = dots(6, 1, 0)
    faces = RawBatch(heads.images, heads.landmarks_2d, heads.landmarks_3d)
    batch = augment(faces, WILD, keyed_rng(CPU, 3))
    before, after = (
        (points - points.mean(dim=1, keepdim=True)).square().sum(dim=(1, 2))
        for points in (heads.landmarks_3d, batch.landmarks_3d)
    )
    before_z, after_z = (points[..., 2].square().sum(dim=1) for points in (heads.landmarks_3d, batch.landmarks_3d))
    assert after / before == pytest.approx(after_z / before_z, rel=1e-3)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_mirrored_twice_is_as_before(seed: int) -> None:
    points = keyed_rng(CPU, seed).uniform(3, 68, 3, high=255.0)
    faces = RawBatch(torch.zeros(3, 3, 256, 256, dtype=torch.uint8), points[..., :2], points)
    mirrored = torch.tensor([True, False, True])
    affines = draw_affines(faces, AugmentOptions(flip=1.0), mirrored, keyed_rng(CPU, seed))
    once = transform_points(points, affines, mirrored)
    assert once[0, :, 0] == pytest.approx(255 - points[0, list(MIRROR), 0], abs=1e-3)
    assert torch.allclose(once[1], points[1], atol=1e-3)
    assert torch.allclose(transform_points(once, affines, mirrored), points, atol=1e-3)


def test_without_options_nothing_changes() -> None:
    heads = dots(2, 2, 0)
    batch = augment(
        RawBatch(heads.images, heads.landmarks_2d, heads.landmarks_3d), AugmentOptions(flip=0), keyed_rng(CPU, 0)
    )
    assert torch.allclose(batch.images, heads.images / 255, atol=1e-4)
    assert torch.allclose(batch.landmarks_3d, heads.landmarks_3d, atol=1e-3)


def test_a_shaken_box_moves_the_crop_as_the_published_rule_does() -> None:
    count = 50
    points = np.random.default_rng(0).uniform(50, 400, (count, 68, 2)) * (1, 1.3)
    tight = tight_box(points)
    landmarks = torch.from_numpy(apply(crop_affine(tight), points)).float()
    faces = RawBatch(torch.zeros(count, 3, 1, 1, dtype=torch.uint8), landmarks, torch.full((count, 68, 3), math.nan))
    affines = draw_affines(
        faces, AugmentOptions(box_noise=0.2), torch.zeros(count, dtype=torch.bool), keyed_rng(CPU, 1)
    )
    rng = keyed_rng(CPU, 1)
    for shape in ((count,), (count,), (count, 2)):  # rotation, zoom and shift are drawn first
        rng.uniform(*shape)
    moves = rng.uniform(count, 2, 2, low=-0.2, high=0.2).numpy()
    size = tight[:, 2:] - tight[:, :2]
    shaken = tight + np.concatenate((moves[:, 0] * size, moves[:, 1] * size), axis=1)
    expected = compose(crop_affine(shaken), invert(crop_affine(tight)))
    assert affines.numpy() == pytest.approx(expected, abs=2e-3)


def test_reflection_continues_the_picture_and_black_does_not() -> None:
    pictures = torch.full((2, 3, 256, 256), 200, dtype=torch.uint8)
    affines = torch.eye(2, 3).repeat(2, 1, 1)
    affines[:, 0, 2] = 100
    images = warp(pictures, affines, torch.tensor([True, False]))
    assert images[0] == pytest.approx(torch.full((3, 256, 256), 200 / 255), abs=1e-4)
    assert images[1, :, :, :99].max() == 0
    ramp = torch.arange(256, dtype=torch.uint8).expand(1, 3, 256, 256)
    mirrored = warp(ramp, affines[:1], torch.tensor([True]))
    assert mirrored[0, 0, 0, 90] * 255 == pytest.approx(10, abs=0.01)


def test_colour_and_occlusion_stay_pictures() -> None:
    images = keyed_rng(CPU, 5).uniform(16, 3, 256, 256)
    coloured = recolour(images, 0.3, keyed_rng(CPU, 6))
    assert coloured.min() >= 0
    assert coloured.max() <= 1
    assert not torch.equal(coloured[0], images[0])
    covered = occlude(images, 0.5, keyed_rng(CPU, 7))
    changed = (covered != images).any(dim=1).float().mean(dim=(1, 2))
    assert 3 < (changed > 0).sum() < 14
    assert changed.max() < 0.3


def test_a_photograph_is_cut_around_its_published_crop() -> None:
    rng = np.random.default_rng(0)
    picture = np.zeros((700, 900, 3), dtype=np.uint8)
    points = rng.uniform((300, 200), (620, 560), (68, 2)).astype(np.float32)
    for wide in (1.0, 0.2):  # a large face, which is reduced, and a small one, which is enlarged
        points = (points - 400) * np.float32(wide) + 400
        x, y = points[8]
        rows, columns = np.mgrid[:700, :900]
        bright = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * (6 * wide + 1) ** 2))
        picture[:] = (bright * 250)[..., None]
        solid = np.concatenate((points, np.ones((68, 1), np.float32)), axis=1)
        face = cut_face(picture, np.eye(2, 3), tight_box(points), points, solid)
        assert face.picture.shape == (WINDOW, WINDOW, 3)
        weight = face.picture[..., 0].astype(float)
        found = np.array([(weight.sum(axis) * np.arange(WINDOW)).sum() for axis in (0, 1)]) / weight.sum()
        assert found - (WINDOW - CROP_SIZE) / 2 == pytest.approx(face.landmarks_2d[8], abs=0.15)
        assert face.landmarks_3d[0, 2] == pytest.approx(crop_affine(tight_box(points))[0, 0])


def test_targets_are_gaussians_at_their_places() -> None:
    points = torch.tensor([[[100.3, 50.7], [-1.0, 20.0], [math.nan, math.nan], [255.4, 0.0]]])
    targets = heatmap_targets(points, 1.2)
    cells = crop_to_cells(points)
    for row in (0, 3):
        for y in range(64):
            for x in range(0, 64, 7):
                distance = (x - cells[0, row, 0]) ** 2 + (y - cells[0, row, 1]) ** 2
                assert targets[0, row, y, x] == pytest.approx(math.exp(-distance / (2 * 1.2**2)), abs=1e-6)
    assert targets[0, 1].max() == 0  # outside the crop
    assert targets[0, 2].max() == 0  # unknown


def test_unknown_landmarks_teach_nothing_and_empty_ones_do() -> None:
    points = torch.full((2, 68, 2), 100.0)
    points[0, 3] = math.nan
    points[1, 4] = -50
    targets, known = heatmap_targets(points, 1.0), known_points(points)
    heatmaps = torch.rand(2, 68, 64, 64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    heatmap_loss([heatmaps], targets, known, 10.0).backward()
    assert heatmaps.grad is not None
    quiet = (heatmaps.grad == 0).all(dim=(2, 3))
    assert quiet[0, 3]
    assert quiet.sum() == 1
    expected = 100 * 2 * heatmaps[1, 4] / heatmaps.numel()
    assert heatmaps.grad[1, 4] == pytest.approx(expected.detach(), rel=1e-4)


def test_halves_of_a_batch_have_the_gradient_of_the_whole_as_their_mean() -> None:
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(4, 68, 2, generator=generator) * 256
    points[0, :60] = math.nan
    heatmaps = torch.rand(4, 68, 64, 64, generator=generator)
    loss = [
        heatmap_loss([heatmaps[part]], heatmap_targets(points[part], 1.0), known_points(points[part]), 10.0)
        for part in (slice(0, 2), slice(2, 4), slice(0, 4))
    ]
    assert float(loss[0] + loss[1]) / 2 == pytest.approx(float(loss[2]), rel=1e-5)


def test_depth_is_relative_and_a_face_without_it_teaches_nothing() -> None:
    points = torch.rand(2, 68, 3) * 100
    points[1, :, 2] = math.nan
    targets = depth_targets(points)
    assert targets[0].mean() == pytest.approx(0, abs=1e-5)
    assert depth_targets(points + 7)[0] == pytest.approx(targets[0], abs=1e-5)
    depths = torch.zeros(2, 68, requires_grad=True)
    depth_loss(depths, targets).backward()
    assert depths.grad is not None
    assert depths.grad[0].abs().min() > 0
    assert depths.grad[1].abs().max() == 0


def test_guidance_errs_as_told() -> None:
    def drawn(**changes: float) -> Tensor:
        quiet = {"spread": 0.0, "shift": 0.0, "jaw": 0.0, "gross": 0.0}
        return guidance_noise(4000, GuidanceOptions(**(quiet | changes)), keyed_rng(CPU, 0))

    assert drawn().abs().max() == 0
    shift = drawn(shift=2.0)
    assert shift.std() == pytest.approx(2.0, rel=0.05)
    assert (shift - shift[:, :1]).abs().max() < 1e-5
    # The mean square of a squared uniform share is 1/5.
    assert drawn(spread=4.0).square().mean() == pytest.approx(16 / 5, rel=0.1)
    jaw = drawn(jaw=6.0)
    assert jaw[:, 17:].abs().max() == 0
    neighbours, far = ((jaw[:, a] * jaw[:, b]).mean() / jaw[:, a].square().mean() for a, b in ((5, 6), (3, 13)))
    assert neighbours > 0.75
    assert abs(far) < 0.1
    gross = drawn(gross=0.2, gross_size=30.0)
    hit = (gross != 0).any(dim=2)
    assert hit.any(dim=1).float().mean() == pytest.approx(0.2, abs=0.03)
    parts = {tuple(row.nonzero().flatten().tolist()) for row in hit[hit.any(dim=1)]}
    assert parts == set(GROUPS.values())


def test_random_numbers_depend_on_their_place_alone() -> None:
    assert torch.equal(keyed_rng(CPU, 1, "a", 2).normal(5), keyed_rng(CPU, 1, "a", 2).normal(5))
    assert len({hash_seed(*numbers) for numbers in ((1, 2), (12,), (1, 2, 0), ("1", 3), (2, 1))}) == 5

"""Points to heatmaps and back: the round trip to a fraction of a pixel, the published rule, the mirror."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import crop_to_cells
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ls3dw.core.geometry import CROP_SIZE
from ls3dw.core.markup import MIRROR, POINTS
from ls3dw.models.networks.heatmaps import (
    CELLS,
    cells_to_crop,
    decode_quarter,
    decode_subpixel,
    draw_gaussians,
    mirror_heatmaps,
    peaks,
)

STD = 1.2
"""In cells: about what a network gives that was trained on a std of 1 cell."""


def points_inside(seed: int, faces: int = 16, margin: float = 16) -> Tensor:
    """Return points (N, 68, 2) in crop pixels, at least `margin` pixels from the border."""
    generator = torch.Generator().manual_seed(seed)
    share = torch.rand(faces, POINTS, 2, generator=generator, dtype=torch.float64)
    return margin + share * (CROP_SIZE - 1 - 2 * margin)


def heatmaps_of(points: Tensor) -> Tensor:
    return draw_gaussians(crop_to_cells(points), STD, CELLS)


def test_cells_and_crop_pixels_cover_the_same_picture() -> None:
    edges = torch.tensor([-0.5, CELLS / 2 - 0.5, CELLS - 0.5])
    assert cells_to_crop(edges).tolist() == [-0.5, CROP_SIZE / 2 - 0.5, CROP_SIZE - 0.5]
    assert torch.equal(crop_to_cells(cells_to_crop(edges)), edges)


def test_subpixel_gives_back_points_at_any_place() -> None:
    points = points_inside(0)
    decoded, values = decode_subpixel(heatmaps_of(points))
    error = decoded - points
    assert error.mean(dim=(0, 1)).abs().max() < 0.05
    assert error.abs().max() < 0.3
    assert values.min() > 0.8
    assert values.max() <= 1


def test_subpixel_near_the_border_stays_within_a_cell() -> None:
    points = torch.rand(16, POINTS, 2, generator=torch.Generator().manual_seed(1)) * (CROP_SIZE - 1)
    assert (decode_subpixel(heatmaps_of(points))[0] - points).abs().max() < CROP_SIZE / CELLS


def test_subpixel_ignores_negative_cells_and_distant_peaks() -> None:
    points = points_inside(2, faces=2)
    heatmaps = heatmaps_of(points)
    distant = torch.where(heatmaps < 1e-6, heatmaps + 0.5 * draw_gaussians(points * 0 + 8, 1.0, CELLS), heatmaps)
    decoded = decode_subpixel(heatmaps)[0]
    far = (crop_to_cells(points) - 8).abs().amax(dim=2) > 12
    assert (decode_subpixel(distant)[0] - decoded).abs().amax(dim=2)[far].max() < 0.01
    below = torch.where(heatmaps < 1e-6, torch.full_like(heatmaps, -1.0), heatmaps)
    assert (decode_subpixel(below)[0] - decoded).abs().max() < 0.01


def test_an_empty_heatmap_decodes_to_finite_points() -> None:
    for fill in (0.0, -1.0):
        decoded, values = decode_subpixel(torch.full((1, POINTS, CELLS, CELLS), fill))
        assert torch.isfinite(decoded).all()
        assert (values == fill).all()


def quarter_by_hand(heatmap: np.ndarray) -> tuple[float, float]:
    """Apply the published rule to one heatmap: cell k covers [k, k + 1), a quarter cell toward the higher neighbour."""
    best = max((float(heatmap[y, x]), -y, -x) for y in range(CELLS) for x in range(CELLS))
    y, x = -best[1], -best[2]
    place = [x + 0.5, y + 0.5]
    if 0 < x < CELLS - 1 and 0 < y < CELLS - 1:
        for axis, (before, after) in enumerate(
            [(heatmap[y, x - 1], heatmap[y, x + 1]), (heatmap[y - 1, x], heatmap[y + 1, x])]
        ):
            if after > before:
                place[axis] += 0.25
            elif after < before:
                place[axis] -= 0.25
    return place[0], place[1]


@settings(max_examples=60, deadline=None)
@given(x=st.integers(0, CELLS - 1), y=st.integers(0, CELLS - 1), seed=st.integers(0, 2**32 - 1))
def test_quarter_is_the_published_rule(x: int, y: int, seed: int) -> None:
    # Few levels, so that neighbours of the one peak are often equal.
    heatmap = np.random.default_rng(seed).integers(-2, 3, (CELLS, CELLS)).astype(np.float32)
    heatmap[y, x] = 3
    decoded, values = decode_quarter(torch.from_numpy(heatmap)[None, None])
    assert tuple(decoded[0, 0].tolist()) == quarter_by_hand(heatmap)
    assert values.item() == 3


def test_quarter_and_subpixel_agree_on_where_a_cell_lies() -> None:
    points = points_inside(3)
    quarter = cells_to_crop(decode_quarter(heatmaps_of(points))[0] - 0.5)
    assert (quarter - points).mean(dim=(0, 1)).abs().max() < 0.05
    assert (quarter - points).abs().max() <= 1.01


def test_mirroring_twice_changes_nothing() -> None:
    heatmaps = torch.rand(2, POINTS, CELLS, CELLS, generator=torch.Generator().manual_seed(4))
    assert torch.equal(mirror_heatmaps(mirror_heatmaps(heatmaps)), heatmaps)


def test_a_mirrored_heatmap_decodes_to_mirrored_points() -> None:
    heatmaps = heatmaps_of(points_inside(5))
    mirrored = mirror_heatmaps(heatmaps)
    for decode, width in ((decode_subpixel, CROP_SIZE - 1), (decode_quarter, CELLS)):
        expected = decode(heatmaps)[0][:, list(MIRROR)]
        expected[..., 0] = width - expected[..., 0]
        torch.testing.assert_close(decode(mirrored)[0], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("std", [1.0, 2.0])
def test_gaussians_stand_at_the_sub_pixel_place(std: float) -> None:
    points = points_inside(6, faces=1)
    drawn = draw_gaussians(points, std)
    grid = torch.arange(CROP_SIZE, dtype=drawn.dtype)
    for axis, profile in ((0, drawn.sum(dim=2)), (1, drawn.sum(dim=3))):
        mean = (profile * grid).sum(dim=2) / profile.sum(dim=2)
        spread = (profile * (grid - mean[..., None]).square()).sum(dim=2) / profile.sum(dim=2)
        assert (mean - points[..., axis]).abs().max() < 1e-6
        assert (spread.sqrt() - std).abs().max() < 1e-3
    assert torch.equal(peaks(drawn)[0], points.round().long())
    assert draw_gaussians(points.round(), std).amax(dim=(2, 3)).eq(1).all()


def test_a_missing_point_gives_an_empty_channel() -> None:
    points = points_inside(7, faces=1)
    points[0, 3] = torch.nan
    points[0, 5, 1] = torch.nan
    drawn = draw_gaussians(points, 1.0)
    assert drawn[0, [3, 5]].eq(0).all()
    assert torch.equal(drawn[0, [0, 4]], draw_gaussians(points[:, [0, 4]], 1.0)[0])

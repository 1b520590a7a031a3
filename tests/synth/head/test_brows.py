"""Brows that lie, begin and end elsewhere on every face: what is drawn, where the points go, and what is painted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import REAL
from torch import Tensor

from ls3dw.core.markup import GROUPS, MIRROR
from ls3dw.synth.head.brows import LENGTHENED, SHIFT, SHIFT_OUTSIDE, Brows, draw_brows, slid, to_nose
from ls3dw.synth.head.landmarks import anatomical_points
from ls3dw.synth.head.model import load_head
from ls3dw.synth.head.shape import Shaper
from ls3dw.synth.options import RenderOptions
from ls3dw.synth.renderer import Renderer
from ls3dw.synth.rng import SplitRng
from ls3dw.synth.shade.compose import shade

BROWS = [*GROUPS["right brow"], *GROUPS["left brow"]]
GAPS = torch.tensor([0.1, 0.2, 0.1, 0.2])


def straight() -> Tensor:
    """Brow points (1, 10, 2) on a line, with gaps of `GAPS` from the nose outward."""
    out = torch.cat((torch.zeros(1), GAPS.cumsum(0))) + 0.2
    across = torch.cat((-out.flip(0), out))
    return torch.stack((across, torch.ones(10)), dim=1)[None]


@pytest.mark.parametrize("by", [0.07, -0.07, 0.0])
def test_points_slide_along_their_brow_and_on_beyond_its_ends(by: float) -> None:
    moved = slid(straight(), torch.full((1, 10), by), GAPS) - straight()
    outward = torch.tensor([-1.0] * 5 + [1.0] * 5)
    torch.testing.assert_close(moved[0, :, 0], by * outward)
    assert not moved[..., 1].any()


def test_brows_count_from_the_nose() -> None:
    numbers = torch.arange(17, 27).view(1, 10, 1)
    assert to_nose(numbers)[0, :, :, 0].tolist() == [[21, 20, 19, 18, 17], [22, 23, 24, 25, 26]]


def test_both_ends_vary_and_both_sides_nearly_alike() -> None:
    right, left = to_nose(draw_brows(20000, SplitRng(3)).slide).unbind(1)
    inner = (SHIFT**2 + LENGTHENED**2) ** 0.5
    outer = ((SHIFT_OUTSIDE * SHIFT) ** 2 + LENGTHENED**2) ** 0.5
    for side in (right, left):
        assert side.mean().abs() < 1e-3
        assert float(side[:, 0].std()) == pytest.approx(inner, rel=0.05)
        assert float(side[:, -1].std()) == pytest.approx(outer, rel=0.05)
    assert float(torch.corrcoef(torch.stack((right[:, 0], left[:, 0])))[0, 1]) == pytest.approx(0.75, abs=0.03)


def test_what_is_painted_goes_with_the_points() -> None:
    """Brows farther from the nose change the picture where brows are, and nowhere else."""
    options = RenderOptions(size=160, glasses_chance=0, hat_chance=0, long_hair_chance=0, locks_chance=0)
    renderer = Renderer("cpu", options=options)
    staged = renderer.stage(4, SplitRng(8), torch.zeros(4))
    bank = torch.full((8, 3, 48, 48), 128, dtype=torch.uint8)
    pictures = []
    for by in (0.0, 0.1):
        brows = replace(staged.scene.brows, slide=torch.full((4, 10), by))
        pictures.append(shade(replace(staged.scene, brows=brows), renderer.head, bank, SplitRng(9)))
    changed = (pictures[0] - pictures[1]).abs().amax(1) > 0.03
    places = staged.landmarks_2d[:, BROWS]
    sides = places[:, -1, 0] - places[:, 0, 0]
    for picture, points, side in zip(changed, places, sides, strict=True):
        y, x = picture.nonzero().unbind(1)
        assert len(x) > 10
        away = torch.cdist(torch.stack((x, y), dim=1).float(), points).amin(1)
        assert float((away / side).max()) < 0.2


@pytest.mark.skipif(not REAL.is_dir(), reason="no labels of real faces here")
def test_heads_have_peoples_brows() -> None:
    """Seen from the front, brow points lie where people's do, across the face, and vary as much but for a fifth."""
    with np.load(REAL / "merl_rav_landmarks_half.npz") as file:
        frontal = file["pose_group"] == "frontal"
        labels = file["landmarks"][frontal].astype(np.float64)
        labels[file["externally_occluded"][frontal].astype(bool)] = np.nan
    people = _across(labels)
    head = load_head()
    shape = Shaper(head).draw(torch.eye(3).expand(1500, 3, 3), torch.zeros(1500), SplitRng(1))
    drawn = _across(anatomical_points(head, shape.vertices, shape.brows)[..., :2].double().numpy())
    without = anatomical_points(head, shape.vertices, Brows.mean(1500))
    fixed = _across(without[..., :2].double().numpy())
    assert abs(np.nanmedian(people, 0) - np.nanmedian(drawn, 0)).max() < 0.012
    assert 0.7 < np.mean(_spread(drawn) / _spread(people)) < 1
    assert np.mean(_spread(fixed) / _spread(people)) < 0.6


def _across(points: np.ndarray) -> np.ndarray:
    """Where brow points lie across upright faces (N, 68, 2), outer corners of the eyes at -0.5 and 0.5: (2 M, 5).

    Of faces turned by little, the right brow and the mirrored left one.
    """
    corners = points[:, [36, 45]]
    axis = corners[:, 1] - corners[:, 0]
    side = (points - corners.mean(1, keepdims=True)) @ axis[..., None] / (axis**2).sum(1)[:, None, None]
    side = side[abs(side[:, 30, 0]) < 0.05, :, 0]
    right = list(GROUPS["right brow"])
    return np.concatenate((side[:, right], -side[:, [MIRROR[point] for point in right]]))


def _spread(values: np.ndarray) -> np.ndarray:
    low, high = np.nanpercentile(values, (16, 84), axis=0)
    return np.asarray(high - low)

"""People's mean head: its file, its fit to labels of heads whose mean is known, and what thinner lips move."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ls3dw.core.markup import MIRROR
from ls3dw.errors import ConfigurationError
from ls3dw.synth.authoring.fit_people import fit_people
from ls3dw.synth.head.brows import Brows
from ls3dw.synth.head.landmarks import anatomical_points, frontal_jaw
from ls3dw.synth.head.model import Group, load_head
from ls3dw.synth.head.people import BUNDLED, People, dump_people, load_people
from ls3dw.synth.head.placement import load_placement
from ls3dw.synth.renderer import Renderer, RenderOptions
from ls3dw.synth.rng import SplitRng


def test_the_bundled_people_survive_their_file(tmp_path: Path) -> None:
    people = load_people()
    again = tmp_path / "people.json"
    again.write_bytes(dump_people(people))
    assert again.read_bytes() == BUNDLED.read_bytes()
    assert people.identity.shape == (len(load_head().identity),)
    assert (people.lips > 0).all(), "MakeHuman's lips are fuller than people's"
    assert abs(people.identity).max() < 3


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"lips": [0.1]}, r"lips of shape \(1,\), expected \(2,\)"),
        ({"stretch": [0, 0, float("nan")]}, "stretch not finite"),
        ({"identity": "none"}, "not a mean of people"),
    ],
)
def test_spoilt_people_are_refused(change: dict[str, object], said: str, tmp_path: Path) -> None:
    path = tmp_path / "people.json"
    path.write_text(json.dumps(People.none(4).to_dict() | change))
    with pytest.raises(ConfigurationError, match=said):
        load_people(path)


def test_peoples_mean_is_symmetric() -> None:
    head = load_head()
    points = anatomical_points(head, head.usual[None], Brows.mean(1))[0]
    mirrored = points[list(MIRROR)] * torch.tensor([-1.0, 1.0, 1.0])
    torch.testing.assert_close(points, mirrored, atol=0.01, rtol=0)


def test_lips_grow_thin_between_their_borders_and_nothing_else_moves() -> None:
    head = load_head()
    none = Brows.mean(1)
    before = anatomical_points(head, head.mean[None], none)[0]
    for lip, border, inner in ((0, 51, 62), (1, 57, 66)):
        thin = head.mean + 0.5 * head.thinner_lips[lip]
        moved = anatomical_points(head, thin[None], none)[0] - before
        height = before[border, 1] - before[[62, 66], 1].mean()
        assert float(moved[border, 1] / -height) == pytest.approx(0.5, abs=0.1)
        assert abs(float(moved[inner, 1])) < 0.01
        rest = [*range(48), 48, 54, *((57, 58, 56) if lip == 0 else (50, 51, 52))]
        assert float(moved[rest].norm(dim=1).max()) < 0.01
        assert not head.thinner_lips[lip, head.vertex_group != Group.SKIN].any()
        assert float(moved[:, 0].abs().max() + moved[:, 2].abs().max()) < 1e-6


def test_3d_jaw_points_are_the_2d_ones_on_a_frontal_head() -> None:
    """Heads of any shape and expression that look straight at a far camera; the chin is the same place anyway."""
    options = RenderOptions(
        size=64,
        pitch_std=0,
        roll_std=0,
        turned_share=0,
        convention_2d="merl-rav",
        convention_3d="merl-rav",
        perspective_chance=0,
        hat_chance=0,
        long_hair_chance=0,
    )
    staged = Renderer(options=options).stage(12, SplitRng(4), torch.zeros(12))
    flat = staged.landmarks_2d
    size = (flat.amax(1) - flat.amin(1)).prod(1).sqrt()
    apart = (flat - staged.landmarks_3d[..., :2]).norm(dim=-1) / size[:, None]
    assert float(apart[:, :17].max()) < 0.005
    assert float(apart[:, 17:].max()) < 1e-5


def test_3d_jaw_points_lie_behind_the_2d_ones() -> None:
    head = load_head()
    solid = frontal_jaw(head, head.usual[None])[0]
    seen = (head.usual[head.jaw_vertices[:, 0]] * head.jaw_weights[:, 0, :, None]).sum(1)
    assert (seen[[0, 1, 2, 3, 4, 5, 6], 2] > solid[[0, 1, 2, 3, 4, 5, 6], 2] + 0.03).all()


def test_a_known_mean_is_found_again() -> None:
    """Labels of faces about another mean: its thin upper lip is found, if not quite, and size is left to the faces."""
    head, generator = load_head(), torch.Generator().manual_seed(3)
    head = replace(head, identity=head.identity[:8], usual=head.mean)
    true = torch.tensor([0.0, 1.2, 0.0, 0.0, -1.0])
    labels = []
    for _ in range(60):
        weights = true + 0.5 * torch.randn(5, generator=generator)
        shape = head.mean + torch.einsum("k,kvx->vx", weights, head.identity[:5]) + 0.4 * head.thinner_lips[0]
        points = anatomical_points(head, shape[None], Brows.mean(1))[0].double()
        yaw = torch.rand((), generator=generator).item() - 0.5
        turned = points[:, 0] * np.cos(yaw) + points[:, 2] * np.sin(yaw)
        labels.append(torch.stack((100 + 50 * turned, 100 - 50 * points[:, 1]), -1))
    jaw = np.arange(68) < 17  # the 3D jaw is not what is labelled
    found = fit_people(head, load_placement(), torch.stack(labels).numpy(), occluded=np.tile(jaw, (60, 1)))
    assert found.lips[0] > 0.2
    assert found.lips[0] > found.lips[1] + 0.15
    assert found.fitted_on["faces"] == 60
    assert found.stretch.sum() == pytest.approx(0, abs=1e-3)

"""The placement's file, and its fit: on an egg for a head, whose true placement is known."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Command
from torch import Tensor

from ls3dw.core.markup import MIRROR, POINTS
from ls3dw.core.pose import mean_head
from ls3dw.errors import ConfigurationError
from ls3dw.synth.authoring.fit_faces import JAW, FaceModel, Fits, fit_faces, linearise, normalised
from ls3dw.synth.authoring.fit_placement import fit, fit_contour, held_out_error, prepare
from ls3dw.synth.authoring.sliding import HeadShape, Sheet, Sliding, local_vertices
from ls3dw.synth.head.frontal import with_frontal_jaw
from ls3dw.synth.head.model import load_head
from ls3dw.synth.head.nose import with_nose_tip
from ls3dw.synth.head.placement import BUNDLED, Placement, dump_placement, load_placement
from ls3dw.synth.head.places import Places, cast_rays, make_track, neighbours_of

RADII = np.array([1.0, 1.3, 0.9])


def egg(rings: int = 25, spokes: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """Return vertices and triangles of an ellipsoid that is its own mirror image."""
    tilt, turn = np.linspace(0.02, np.pi - 0.02, rings), np.arange(spokes) / spokes * 2 * np.pi
    unit = np.stack(
        (
            np.sin(tilt)[:, None] * np.sin(turn),
            np.broadcast_to(np.cos(tilt)[:, None], (rings, spokes)),
            np.sin(tilt)[:, None] * np.cos(turn),
        ),
        -1,
    )
    row, column = np.meshgrid(np.arange(rings - 1), np.arange(spokes), indexing="ij")
    here, beside = row * spokes + column, row * spokes + (column + 1) % spokes
    triangles = np.concatenate(
        [np.stack((here, here + spokes, beside), -1), np.stack((beside, here + spokes, beside + spokes), -1)]
    )
    return (unit * RADII).reshape(-1, 3), triangles.reshape(-1, 3)


def egg_head() -> tuple[HeadShape, Placement]:
    """Return a head that can grow noses and chins a little, and 68 points on it."""
    mean, triangles = egg()
    bumps = [np.exp(-(((mean - spot) / 0.6) ** 2).sum(1))[:, None] * mean for spot in ((0, 0, 0.9), (0, -1.2, 0.2))]
    head = HeadShape(
        mean=mean,
        identity=0.05 * np.stack(bumps),
        expressions=np.zeros((0, *mean.shape)),
        expression_names=(),
        triangles=triangles,
        skin=np.ones(len(triangles), bool),
        full_ids=np.arange(len(mean)),
    )
    wanted = mean_head() / abs(mean_head()).max(0) * [0.6, 0.6, 0.4] + [0, 0, 0.5]
    onto = wanted / np.linalg.norm(wanted / RADII, axis=1, keepdims=True)
    nearest = ((mean[None] - onto[:, None]) ** 2).sum(-1).argmin(1)
    corners = np.array([triangles[(triangles == vertex).any(1)][0] for vertex in nearest])
    weights = (corners == nearest[:, None]).astype(np.float32)
    flat = mean[nearest[:JAW], :2]
    return head, replace(
        load_placement(),
        point_vertices=corners,
        point_weights=weights,
        jaw_vertices=np.repeat(corners[:17, None], 12, axis=1),
        jaw_weights=np.repeat(weights[:17, None], 12, axis=1),
        jaw_directions=(flat / np.linalg.norm(flat, axis=1, keepdims=True)).astype(np.float32),
    )


def labelled(sheet: Sheet, sliding: Sliding, faces: int = 60) -> Tensor:
    """Return what exact annotators of that placement would label: (faces, 68, 2) pixels, y down."""
    generator = np.random.default_rng(5)
    model = sheet.model(sliding)
    yaw, roll = generator.uniform(-0.7, 0.7, faces), generator.normal(0, 0.2, faces)
    cosine, sine, none = np.cos(yaw), np.sin(yaw), 0 * yaw
    turned = np.stack((cosine, none, sine, none, none + 1, none, -sine, none, cosine), -1).reshape(-1, 3, 3)
    cosine, sine = np.cos(roll), np.sin(roll)
    rolled = np.stack((cosine, -sine, none, sine, cosine, none, none, none, none + 1), -1).reshape(-1, 3, 3)
    fits = Fits(
        rotation=torch.from_numpy(rolled @ turned),
        scale=torch.full((faces,), 80.0, dtype=torch.float64),
        shift=torch.full((faces, 2), 200.0, dtype=torch.float64),
        coefficients=torch.from_numpy(generator.normal(0, 0.5, (faces, len(model.precision)))) / model.precision.sqrt(),
    )
    nothing = torch.zeros(faces, POINTS, 2, dtype=torch.float64)
    drawn = -linearise(model, fits, nothing, torch.ones(faces, POINTS, dtype=torch.float64)).residual
    return drawn * torch.tensor([1.0, -1.0])


def test_the_bundled_placement_survives_its_file(tmp_path: Path) -> None:
    placement = load_placement()
    again = tmp_path / "placement.json"
    again.write_bytes(dump_placement(placement))
    assert again.read_bytes() == BUNDLED.read_bytes()
    assert placement.jaw_vertices.shape == (17, 12, 3)
    assert placement.brow_vertices.shape == (10, 7, 3)


def test_3d_jaw_points_make_the_frontal_contour() -> None:
    """They lie behind what 2D annotators follow, but for the chin, and the frontal face shows both in one place."""
    own = load_head()  # the bundled placement was made on the head file's own mean
    head, placement = HeadShape.of(replace(own, usual=own.mean)), load_placement()
    solid = Places(local_vertices(head, placement.point_vertices[:17]), placement.point_weights[:17])
    seen = Places(local_vertices(head, placement.jaw_vertices[:, 0]), placement.jaw_weights[:, 0])
    behind = seen.positions(head.mean) - solid.positions(head.mean)
    assert (behind[np.r_[0:7, 10:17], 2] > 0.05).all()
    assert abs(behind[8]).max() < 0.01
    assert np.linalg.norm(behind[:, :2], axis=1).max() < 0.06
    again = with_frontal_jaw(head, placement)
    np.testing.assert_array_equal(again.point_vertices, placement.point_vertices)


def test_the_tip_of_the_nose_is_the_tip() -> None:
    head, placement = HeadShape.of(load_head()), load_placement()
    points = Places(local_vertices(head, placement.point_vertices), placement.point_weights).positions(head.mean)
    face = (abs(head.mean[:, 1] - points[30, 1]) < 0.4) & (abs(head.mean[:, 0]) < 0.3)
    assert points[30, 2] > head.mean[face, 2].max() - 0.01
    np.testing.assert_allclose(np.diff(points[27:31, 1]), (points[30, 1] - points[27, 1]) / 3, atol=1e-3)
    assert abs(points[27:31, 0]).max() < 1e-3
    again = with_nose_tip(head, placement)
    np.testing.assert_allclose(again.point_weights, placement.point_weights, atol=1e-6)


def test_the_bundled_directions_are_mirror_images() -> None:
    directions = load_placement().jaw_directions
    np.testing.assert_allclose(directions[::-1] * [-1, 1], directions, atol=1e-5)
    assert (directions[:8, 0] < 0).all(), "the subject's right is at negative x"


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda values: values["points"].pop(), r"point places of shape \(67, 3\)"),
        (lambda values: values["points"][3].update(vertices=[1, 2, 19158]), "19158, expected 0 to 19157"),
        (lambda values: values["points"][3].update(vertices=[1, 2, 3.5]), "whole numbers"),
        (lambda values: values["jaw"][0]["places"][2].update(weights=[0.5, 0.5, 0.5]), "do not sum to 1"),
        (lambda values: values["jaw"][0].update(direction=[1, 1]), "not of length 1"),
        (lambda values: values["brows"]["offsets"].reverse(), "do not rise"),
        (lambda values: values.pop("brows"), "KeyError: 'brows'"),
    ],
)
def test_a_spoilt_placement_is_refused(spoil, said: str, tmp_path: Path) -> None:
    values = copy.deepcopy(load_placement().to_dict())
    spoil(values)
    (tmp_path / "spoilt.json").write_text(json.dumps(values))
    with pytest.raises(ConfigurationError, match=said):
        load_placement(tmp_path / "spoilt.json")


def test_rays_leave_the_egg_where_they_should() -> None:
    mean, triangles = egg()
    origins = np.zeros((40, 3))
    directions = np.random.default_rng(0).normal(size=(40, 3)) * [1, 0.3, 1]
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    found, hit = cast_rays(mean, triangles, origins, directions, 5.0)
    at = found.positions(mean)
    assert hit.all()
    np.testing.assert_allclose(np.cross(at, directions), 0, atol=1e-9)
    np.testing.assert_allclose(np.linalg.norm(at / RADII, axis=1), 1, atol=0.02)
    assert not cast_rays(mean, triangles, origins, directions, 0.1)[1].any()


def test_a_track_gives_back_what_lies_on_it() -> None:
    mean, triangles = egg()
    track = make_track(mean, neighbours_of(triangles), [32 * 6, 32 * 12 + 6])
    for distance in (0.0, 0.123, 0.5, track.along[-1]):
        corners, weights = track.at(distance)
        assert track.nearest(mean, weights @ mean[corners]) == pytest.approx(distance, abs=1e-9)
        assert {*corners} <= {*triangles[np.isin(triangles, corners).sum(1) == 3].ravel()}


def test_the_two_sides_move_alike() -> None:
    head, start = egg_head()
    sheet = Sheet(head, start)
    points = sheet.places(sheet.first(start)).positions(head.mean)
    brows = points[:10]
    np.testing.assert_allclose(brows[::-1] * [-1, 1, 1], brows, atol=1e-6)
    lines = points[51:].reshape(17, 12, 3)
    np.testing.assert_allclose(lines[::-1] * [-1, 1, 1], lines, atol=1e-6)


def test_faces_are_fitted_in_any_pose() -> None:
    head, start = egg_head()
    sheet = Sheet(head, start)
    sliding = sheet.first(start)
    points, unit = normalised(labelled(sheet, sliding))
    model: FaceModel = sheet.model(sliding)
    certainty = torch.ones(points.shape[:2], dtype=torch.float64)
    fits = fit_faces(model, points, certainty, steps=12)
    residual = linearise(model, fits, points, certainty).residual.norm(dim=-1)
    assert float(residual.mean()) < 0.01
    np.testing.assert_allclose(fits.scale * unit, 80.0, rtol=0.08)


def test_a_missing_point_has_no_say() -> None:
    head, start = egg_head()
    sheet = Sheet(head, start)
    sliding = sheet.first(start)
    labels = labelled(sheet, sliding, 4).numpy()
    guessed = np.arange(POINTS) == 40
    missing = np.where(guessed[:, None], np.nan, labels)
    inside = np.where(guessed[:, None], labels.mean(1, keepdims=True), labels)
    model = sheet.model(sliding)
    one, other = prepare(missing), prepare(inside, np.broadcast_to(guessed, labels.shape[:2]))
    assert (one[1][:, 40] == 0).all()
    assert torch.equal(fit_faces(model, *one).rotation, fit_faces(model, *other).rotation)
    with pytest.raises(ConfigurationError, match="0 faces with 20 visible points"):
        prepare(np.full((5, 68, 2), np.nan))
    with pytest.raises(ConfigurationError, match=r"shape \(12, 51, 2\): expected \(faces, 68, 2\)"):
        prepare(np.zeros((12, 51, 2)))
    with pytest.raises(ConfigurationError, match=r"externally_occluded of shape \(68,\): expected \(\d+, 68\)"):
        prepare(labels, guessed)


@pytest.mark.parametrize("kind", ["missing", "text", "empty", "cut", "pickle", "array", "other", "words", "few"])
def test_labels_that_cannot_be_used_are_one_clear_error(kind: str, tmp_path: Path, ls3dw: Command) -> None:
    path, out = tmp_path / f"{kind}.npz", tmp_path / "placement.json"
    arrays: dict[str, np.ndarray] = {
        "pickle": np.array([{"a": 1}], dtype=object),
        "words": np.full((9, 68, 2), "x"),
        "few": np.zeros((9, 51, 2)),
    }
    np.savez(path, **{"points" if kind == "other" else "landmarks": arrays.get(kind, np.zeros((9, 68, 2)))})
    if kind == "missing":
        path.unlink()
    elif kind == "array":
        with path.open("wb") as file:
            np.save(file, np.zeros((9, 68, 2)))
    elif kind in ("text", "empty", "cut"):
        path.write_bytes({"text": b"x y", "empty": b"", "cut": path.read_bytes()[:-30]}[kind])
    refused = ls3dw("head", "fit", path, out)
    assert refused.status == 1
    assert "(faces, 68, 2)" in refused.error if kind == "few" else refused.error.startswith("Error: ")
    assert not out.exists()


def test_a_known_placement_is_found_again() -> None:
    """Annotators who put brows higher and jaw points farther forward are understood, and the anchors stay."""
    head, start = egg_head()
    sheet = Sheet(head, start)
    first = sheet.first(start)
    truth = replace(
        first, brow=first.brow + np.array([0.0, 0.06]), depth=first.depth + np.append(np.full(8, 0.08), 0.0)
    )
    aim = sheet.placement(truth, {})
    found = fit(head, labelled(sheet, truth, 40).numpy(), start=start, rounds=(5,))

    def where(placement: Placement) -> np.ndarray:
        vertices, weights = placement.point_vertices.copy(), placement.point_weights.copy()
        vertices[:17], weights[:17] = placement.jaw_vertices[:, 0], placement.jaw_weights[:, 0]
        return (weights[..., None] * head.mean[vertices]).sum(1)

    before, after = (np.linalg.norm(where(one) - where(aim), axis=1) for one in (start, found))
    assert after[17:27].mean() < 0.35 * before[17:27].mean()
    assert after[1:8].mean() < 0.5 * before[1:8].mean()
    np.testing.assert_array_equal(found.point_vertices[36], start.point_vertices[36])
    assert found.fitted_on["faces"] == 40
    others = labelled(sheet, truth, 30).numpy()
    errors = [held_out_error(head, placement, others)["left brow"] for placement in (aim, found, start)]
    assert errors[0] < errors[1] + 0.05
    assert errors[1] < 0.5 * errors[2]


def test_the_contour_rule_is_found_again() -> None:
    """Lines that look aside and bend upward: their directions are found on turned faces."""
    head, start = egg_head()
    sheet = Sheet(head, start)
    first = sheet.first(start)
    truth = replace(first, outward=np.append(np.full(8, 185.0), 270.0))
    points, certainty = prepare(labelled(sheet, truth).numpy())
    fits = fit_faces(sheet.model(truth), points, certainty)
    found = fit_contour(sheet, replace(first, outward=np.full(9, 270.0)), fits, points, certainty)
    aims = [sheet.model(one) for one in (truth, found)]
    chosen = [linearise(model, fits, points, certainty).residual[:, :JAW].norm(dim=-1).mean() for model in aims]
    assert float(chosen[1]) < float(chosen[0]) + 0.02
    wrong = sheet.model(replace(first, outward=np.full(9, 270.0)))
    assert float(chosen[1]) < 0.5 * float(
        linearise(wrong, fits, points, certainty).residual[:, :JAW].norm(dim=-1).mean()
    )


def test_the_bundled_placement_fits_the_bundled_head() -> None:
    """Each place is where the fit would put it again: on the skin, and the lines go from the jaw to the front."""
    head = HeadShape.of(load_head())
    placement = load_placement()
    sheet = Sheet(head, placement)
    places = sheet.places(sheet.first(placement)).positions(head.mean)
    np.testing.assert_allclose(places[:51], sheet.start[JAW:], atol=0.02)
    lines = Places(local_vertices(head, placement.jaw_vertices), placement.jaw_weights.astype(float)).positions(
        head.mean
    )
    assert (lines[:, 6, 2] > lines[:, 0, 2] + 0.1).all()
    np.testing.assert_allclose(lines[::-1] * [-1, 1, 1], lines, atol=0.03)


def test_mirror_partners_slide_together() -> None:
    head, start = egg_head()
    sheet = Sheet(head, start)
    assert {*sheet.tracks} == {MIRROR[point] for point in sheet.tracks}

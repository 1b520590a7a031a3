"""The compact head: its file, its shape, the 68 points on it, and how it is made."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from ls3dw.core.markup import MIRROR
from ls3dw.core.pose import head_pose, mean_head
from ls3dw.core.resources import folder
from ls3dw.errors import ConfigurationError, ModelError
from ls3dw.synth.authoring.head_source import Mesh, Source
from ls3dw.synth.head.model import LAYOUT, Arrays, Group, Head, dump_arrays, load_head, read_arrays
from ls3dw.synth.head.shapes import draw_changes, draw_phenotypes, normalise, principal_directions

HAS_ANNY = importlib.util.find_spec("anny") is not None
ACROSS = torch.tensor((-1.0, 1.0, 1.0))


@pytest.fixture(scope="module")
def head() -> Head:
    return load_head()


@pytest.fixture(scope="module")
def partner(head: Head) -> Tensor:
    """For each vertex of the skin of head and neck the one on the other side; the mean head is symmetric."""
    skin = ((head.vertex_group == Group.SKIN) & (head.mean[:, 1] > -2)).nonzero()[:, 0]
    exact = "donot_use_mm_for_euclid_dist"
    nearest = torch.cdist(head.mean[skin] * ACROSS, head.mean[skin], compute_mode=exact).min(1)
    assert nearest.values.max() < 1e-3
    pairs = torch.arange(len(head.mean))
    pairs[skin] = skin[nearest.indices]
    return pairs


def places(head: Head) -> Tensor:
    """The 68 anatomical points of the mean head, (68, 3)."""
    return (head.mean[head.point_vertices] * head.point_weights[..., None]).sum(1)


def test_has_the_parts_and_sizes_it_promises(head: Head) -> None:
    vertices, triangles = len(head.mean), len(head.triangles)
    assert (vertices, triangles) == (6025, 11252)
    assert head.identity.shape == (100, vertices, 3)
    assert head.expressions.shape == (len(head.expression_names), vertices, 3) == (52, vertices, 3)
    assert head.uv.shape == (vertices, 2)
    assert (head.uv >= 0).all()
    assert (head.uv <= 1).all()
    assert set(head.vertex_group.tolist()) == set(head.triangle_group.tolist()) == set(map(int, Group))
    assert (head.vertex_group[head.triangles] == head.triangle_group[:, None]).all()
    assert head.mean.dtype == head.identity.dtype == head.occlusion.dtype == torch.float32
    assert head.triangles.dtype == head.full_ids.dtype == head.jaw_vertices.dtype == torch.int64
    assert (folder("bundled") / "head.npz").stat().st_size < 4_000_000


def test_face_has_the_origin_as_middle_and_the_axes_promised(head: Head) -> None:
    left, right = (head.mean[head.vertex_group == group].mean(0) for group in (Group.LEFT_EYE, Group.RIGHT_EYE))
    assert left[0] > 0.2
    torch.testing.assert_close(left, right * ACROSS, atol=1e-4, rtol=0)
    chest = head.mean[:, 1] < -4
    assert (head.head_weight[chest & (head.vertex_group == Group.SKIN)] == 0).all()
    assert (head.head_weight[head.vertex_group == Group.TONGUE] == 1).all()
    face = (head.vertex_group == Group.SKIN) & (head.mean[:, 2] > 0.2) & (head.mean[:, 1].abs() < 1)
    assert head.mean[face].mean(0).abs().max() < 0.6


@pytest.mark.parametrize("name", ["lips", "eyelids", "ears", "inner_mouth", "occlusion"])
def test_parts_are_the_same_on_both_sides(head: Head, partner: Tensor, name: str) -> None:
    values = getattr(head, name)
    torch.testing.assert_close(values, values[partner], atol=1e-3, rtol=0)
    assert 0 < values[head.vertex_group == Group.SKIN].mean() < 1


def test_parts_lie_where_they_belong(head: Head) -> None:
    points, skin = places(head), head.vertex_group == Group.SKIN

    def middle(mask: Tensor) -> Tensor:
        """The mean place of the vertices of the subject's left side that are of the part."""
        return head.mean[skin & (mask > 0.5) & (head.mean[:, 0] > 0)].mean(0)

    assert (middle(head.lips)[1:] - points[[51, 57]].mean(0)[1:]).norm() < 0.15
    assert (middle(head.eyelids)[:2] - points[42:48].mean(0)[:2]).norm() < 0.1
    assert middle(head.ears)[0] > 0.9
    assert (head.mean[head.ears > 0.5][:, 0].abs() > 0.7).all()
    assert middle(head.inner_mouth)[2] < points[62, 2]


def test_light_reaches_the_forehead_and_not_the_throat(head: Head) -> None:
    skin = head.vertex_group == Group.SKIN
    forehead = skin & (head.mean[:, 1] > 1) & (head.mean[:, 2] > 0)
    assert head.occlusion[forehead].mean() > 0.9
    ears = skin & (head.ears > 0.5)
    assert head.occlusion[ears].mean() < head.occlusion[forehead].mean() - 0.1
    teeth = (head.vertex_group == Group.UPPER_TEETH) | (head.vertex_group == Group.LOWER_TEETH)
    assert head.occlusion[teeth].min() > 0.7


def test_each_direction_is_symmetric_or_antisymmetric(head: Head, partner: Tensor) -> None:
    skin = (partner != torch.arange(len(partner))).nonzero()[:, 0]
    mirrored = head.identity[:, partner[skin]] * ACROSS
    moves = head.identity[:, skin]
    sizes = moves.square().sum((1, 2))
    parity = (moves * mirrored).sum((1, 2)) / sizes
    torch.testing.assert_close(parity.abs(), torch.ones(100), atol=1e-3, rtol=0)
    assert 3 <= (parity < 0).sum() <= 40


def test_heads_of_one_standard_deviation_differ_like_people(head: Head) -> None:
    face = (head.vertex_group == Group.SKIN) & (head.mean[:, 1].abs() < 1) & (head.mean[:, 2] > 0)
    spread = head.identity[:, face].square().sum(2).sum(0).mean().sqrt()
    assert 0.04 < spread < 0.12
    sizes = head.identity.square().sum(2).mean(1).sqrt()
    assert sizes[0] > 20 * sizes[-1] > 0


@pytest.mark.parametrize(("action", "point", "axis"), [("jawOpen", 8, 1), ("jawLeft", 8, 0), ("mouthSmileLeft", 54, 1)])
def test_expressions_move_what_they_name(head: Head, action: str, point: int, axis: int) -> None:
    change = head.expressions[head.expression_names.index(action)]
    moved = (change[head.point_vertices[point]] * head.point_weights[point, :, None]).sum(0)
    assert (moved[axis] < -0.05) if action == "jawOpen" else (moved[axis] > 0.02)
    nose = (change[head.point_vertices[27]] * head.point_weights[27, :, None]).sum(0)
    assert nose.norm() < 0.01


def test_points_are_symmetric_and_the_nose_tip_is_foremost(head: Head) -> None:
    points = places(head)
    width = points[16, 0] - points[0, 0]
    assert (points[list(MIRROR)] * ACROSS - points).norm(dim=1).max() < 0.01 * width
    assert points[:, 2].argmax() == 30
    # The neighbours of the chin's point lie as low as it, or a hair lower.
    assert points[:, 1].argmin() in (7, 8, 9)
    assert points[8, 1] < points[:, 1].min() + 0.02 * width
    assert points[0, 0] < points[36, 0] < points[39, 0] < points[42, 0] < points[45, 0] < points[16, 0]


def test_the_mean_head_of_pose_is_this_one(head: Head) -> None:
    """`pose` has the mean head's points as a table, so that it needs no torch.

    The table stays as it was when the points of the ridge moved (28 to 30, synth/nose.py): networks that give
    coordinates learnt to give them relative to it.
    """
    kept = np.setdiff1d(np.arange(68), [28, 29, 30])
    points, table = places(head)[kept], mean_head()[kept]
    np.testing.assert_allclose(table - table.mean(0), points - points.mean(0), atol=2e-5)


def test_points_lie_on_skin_and_the_tables_pass_through_them(head: Head) -> None:
    skin = head.vertex_group == Group.SKIN
    for vertices in (head.point_vertices, head.jaw_vertices, head.brow_vertices):
        assert skin[vertices].all()
    assert (head.jaw_directions.norm(dim=1) - 1).abs().max() < 1e-4
    lines = (head.mean[head.jaw_vertices] * head.jaw_weights[..., None]).sum(2)
    assert (lines[:, -1, 2] > lines[:, 0, 2]).all()
    brows = (head.mean[head.brow_vertices] * head.brow_weights[..., None]).sum(2)
    assert (brows[:, 1:, 1] > brows[:, :-1, 1]).all()
    nearest = (brows - places(head)[17:27, None]).norm(dim=2).min(1).values
    assert nearest.max() < 0.1


@pytest.mark.parametrize("degrees", [-60.0, 0.0, 35.0])
def test_turned_head_has_the_pose_it_was_turned_by(head: Head, degrees: float) -> None:
    """Yaw > 0 turns the nose to the left of the picture: against the turn that takes z to x."""
    turn = np.radians(-degrees)
    rotation = np.array([[np.cos(turn), 0, np.sin(turn)], [0, 1, 0], [-np.sin(turn), 0, np.cos(turn)]])
    points = places(head).numpy() @ rotation.T * (100, -100, 100)
    yaw, pitch, roll = head_pose(points[None])[0]
    assert yaw == pytest.approx(degrees, abs=3)
    assert abs(pitch) < 12
    assert abs(roll) < 3


@pytest.fixture(scope="module")
def small() -> Arrays:
    """A head file's arrays with five vertices."""
    sizes = {"V": 5, "I": 2, "E": 3, "T": 4}
    arrays: Arrays = {}
    for name, (kinds, shape) in LAYOUT.items():
        sides = tuple(sizes.get(str(side), side) for side in shape)
        arrays[name] = np.zeros(sides, {"f": np.float16, "U": "<U4"}.get(kinds, np.uint16))  # type: ignore[arg-type]
    arrays["full_ids"] = np.arange(5, dtype=np.uint16)
    arrays["expression_names"] = np.array(["a", "b", "c"])
    return arrays


def test_what_is_written_is_read(small: Arrays, tmp_path: Path) -> None:
    path = tmp_path / "head.npz"
    path.write_bytes(dump_arrays(small))
    for name, array in read_arrays(path).items():
        np.testing.assert_array_equal(array, small[name])
    assert dump_arrays(read_arrays(path)) == path.read_bytes()


@pytest.mark.parametrize(
    ("name", "spoil", "says"),
    [
        ("mean", lambda array: array[:, :2], "mean is float16 (5, 2)"),
        ("lips", lambda array: array[:4], "lips is float16 (4,), expected kind f (5)"),
        ("uv", lambda array: array.astype(np.int64), "uv is int64"),
        ("identity", lambda array: array + np.float16("nan"), "identity holds values that are not finite"),
        ("ears", lambda array: array + np.float16(1.5), "ears leaves 0 to 1"),
        ("triangles", lambda array: array + np.uint16(5), "triangles leaves 0 to 4"),
        ("vertex_group", lambda array: array + np.uint16(99), "vertex_group leaves 0 to 7"),
        ("full_ids", lambda array: array[::-1], "full_ids do not rise"),
        ("expression_names", lambda array: np.repeat(array[:1], 3), "expression_names repeat"),
        ("uv", lambda array: array.astype(object), "not a head file"),
    ],
)
def test_says_what_is_wrong_with_which_array(
    small: Arrays, tmp_path: Path, name: str, spoil: Callable[[NDArray[np.float16]], NDArray[np.float16]], says: str
) -> None:
    path = tmp_path / "head.npz"
    with path.open("wb") as file:
        np.savez(file, **(small | {name: spoil(small[name])}))
    with pytest.raises(ModelError) as caught:
        read_arrays(path)
    assert says in str(caught.value)
    assert str(path) in str(caught.value)
    assert "ls3dw head build" in str(caught.value)


def test_missing_file_and_missing_array_are_one_clear_error(small: Arrays, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"none\.npz: cannot be read"):
        load_head(path=tmp_path / "none.npz")
    path = tmp_path / "head.npz"
    with path.open("wb") as file:
        np.save(file, small["mean"])
    with pytest.raises(ModelError, match="not a head file"):
        load_head(path=path)
    with path.open("wb") as file:
        np.savez(file, **{name: array for name, array in small.items() if name != "uv"})
    with pytest.raises(ModelError, match="uv"):
        load_head(path=path)


def test_head_without_the_vertices_of_the_points_is_refused(small: Arrays, tmp_path: Path) -> None:
    path = tmp_path / "head.npz"
    path.write_bytes(dump_arrays(small))
    with pytest.raises(ModelError, match="vertices that the placement of the points refers to"):
        load_head(path=path)


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_damage_anywhere_is_an_error_or_harmless(
    small: Arrays, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    whole = bytearray(dump_arrays(small))
    place = data.draw(st.integers(0, len(whole) - 1))
    if data.draw(st.booleans()):
        whole[place] ^= data.draw(st.integers(1, 255))
    else:
        del whole[place:]
    path = tmp_path_factory.getbasetemp() / "damaged.npz"
    path.write_bytes(whole)
    try:
        arrays = read_arrays(path)
    except ModelError:
        return
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, small[name])


@pytest.fixture(scope="module")
def flat_mesh() -> Mesh:
    """Twelve vertices of face and neck in pairs, the left one first."""
    base = np.random.default_rng(3).uniform((0.1, 5, 0.4), (0.8, 8, 1), (6, 3)).repeat(2, axis=0)
    base[1::2, 0] *= -1
    order = np.arange(12)
    nothing = np.zeros((0, 3), np.int64)
    group = np.zeros(12, np.int64)
    uv = np.zeros((12, 2), np.float32)
    return Mesh(order, base.astype(np.float32), uv, nothing, nothing[:, 0], group, order ^ 1)


def test_directions_are_one_standard_deviation_long_and_rebuild_the_heads(flat_mesh: Mesh) -> None:
    """Heads differ in three ways: two the same on both sides, one opposite. The neck counts less, yet is rebuilt."""
    generator = np.random.default_rng(4)
    ways = generator.normal(size=(3, 6, 3)).repeat(2, axis=1)
    ways[:, 1::2] *= (-1, 1, 1)
    ways[2, 1::2] *= -1
    amounts = generator.normal(size=(400, 3)) * (3, 1.5, 0.4)
    heads = (flat_mesh.base + np.einsum("nk,kvc->nvc", amounts, ways)).astype(np.float32)
    basis = principal_directions(heads, flat_mesh, 3)

    assert basis.explained == pytest.approx(1, abs=1e-5)
    assert basis.error(heads, np.ones(12, bool)) < 1e-4
    np.testing.assert_allclose(basis.mean[1::2], basis.mean[::2] * (-1, 1, 1), atol=1e-5)
    mirrored = basis.directions[:, flat_mesh.mirror] * np.float32((-1, 1, 1))
    signs = (1, 1, -1)
    np.testing.assert_allclose(mirrored, basis.directions * np.reshape(signs, (3, 1, 1)), atol=1e-4)

    both = np.concatenate((heads, heads[:, flat_mesh.mirror] * np.float32((-1, 1, 1)))) - basis.mean
    weights = np.linalg.lstsq(basis.directions.reshape(3, -1).T, both.reshape(800, -1).T, rcond=None)[0]
    np.testing.assert_allclose(weights @ weights.T / 800, np.eye(3), atol=1e-3)


def test_normalised_heads_forget_place_and_size() -> None:
    heads = np.random.default_rng(5).normal(size=(1, 20, 3)).astype(np.float32)
    face = np.arange(20) < 12
    moved, sizes = normalise(np.concatenate((heads, 3 * heads + 7)), face)
    np.testing.assert_allclose(moved[0], moved[1], atol=1e-5)
    np.testing.assert_allclose(sizes[1], 3 * sizes[0], rtol=1e-5)
    assert np.square(moved[0, face]).sum(1).mean() == pytest.approx(1, abs=1e-5)


def test_draws_follow_the_seed_and_keep_within_the_sliders() -> None:
    names = ("nose-width1-incr", "l-ear-scale-incr", "r-ear-scale-incr", "stomach-tone-incr", "l-hand-scale-incr")
    first, again = (draw_changes(np.random.default_rng(6), names, 4000) for _ in range(2))
    assert list(first) == ["nose-width1-incr", "l-ear-scale-incr", "r-ear-scale-incr"]
    for name, values in first.items():
        np.testing.assert_array_equal(values, again[name])
        assert abs(values).max() <= 1
    apart = first["l-ear-scale-incr"] - first["r-ear-scale-incr"]
    assert 0.1 < apart.std() < 0.25
    assert np.corrcoef(first["l-ear-scale-incr"], first["r-ear-scale-incr"])[0, 1] > 0.8
    people = draw_phenotypes(np.random.default_rng(7), 4000)
    np.testing.assert_allclose(people["african"] + people["asian"] + people["caucasian"], 1, atol=1e-5)
    assert 0.1 < (people["age"] < 0.4).mean() < 0.3


@pytest.mark.skipif(HAS_ANNY, reason="the anny package is installed")
def test_missing_anny_names_the_extra() -> None:
    with pytest.raises(ConfigurationError, match=r'pip install "ls3dw\[heads\]"'):
        Source()


@pytest.mark.slow
@pytest.mark.skipif(not HAS_ANNY, reason="needs the anny package: pip install 'ls3dw[heads]'")
def test_head_is_made_again_with_the_vertices_of_the_bundled_one(tmp_path: Path) -> None:
    from ls3dw.synth.authoring.build_head import build_head

    built, again = (build_head(seed=1, heads=60, directions=20) for _ in range(2))
    assert dump_arrays(built.arrays) == dump_arrays(again.arrays)
    path = tmp_path / "head.npz"
    path.write_bytes(dump_arrays(built.arrays))
    made, bundled = load_head(path=path), load_head()
    for name in ("triangles", "triangle_group", "vertex_group", "full_ids", "uv", "lips"):
        assert torch.equal(getattr(made, name), getattr(bundled, name)), name
    assert built.changes == 139
    assert 0.8 < built.explained < 1
    assert (made.mean - bundled.mean)[made.vertex_group != Group.HAIR].norm(dim=1).mean() < 0.1

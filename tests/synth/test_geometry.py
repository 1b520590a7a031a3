"""Heads before they are shaded: poses, the crop, where the points lie, what hides them, and what is worn."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ls3dw.core.geometry import crop_affine, tight_box
from ls3dw.core.pose import head_pose
from ls3dw.errors import ConfigurationError
from ls3dw.synth.head.brows import Brows
from ls3dw.synth.head.expression import HABITS, Expressions, draw_gaze, habit_matrix
from ls3dw.synth.head.landmarks import anatomical_points, contour_points, places
from ls3dw.synth.head.model import Group, Head, load_head
from ls3dw.synth.head.shape import BALD, Shaper
from ls3dw.synth.renderer import Renderer, RenderOptions, Staged
from ls3dw.synth.rng import SplitRng
from ls3dw.synth.scene.camera import Camera, pose_angles, rotation, turn
from ls3dw.synth.scene.scene import Extra, HatKind

PLAIN = RenderOptions(
    size=96,
    turned_share=0,
    convention_2d="merl-rav",
    convention_3d="merl-rav",
    glasses_chance=0,
    hat_chance=0,
    long_hair_chance=0,
    locks_chance=0,
    perspective_chance=0,
)


@cache
def head() -> Head:
    return load_head()


@cache
def mean_head_renderer() -> Renderer:
    """Make a renderer whose heads all have the mean identity and no expression."""
    still = replace(
        head(), identity=torch.zeros_like(head().identity), expressions=torch.zeros_like(head().expressions)
    )
    return Renderer(head=still, options=replace(PLAIN, pitch_std=0, roll_std=0))


def stage(options: RenderOptions, count: int = 4, seed: int = 0, yaw: float | None = None) -> Staged:
    fixed = None if yaw is None else torch.full((count,), yaw)
    return Renderer(head=head(), options=options).stage(count, SplitRng(seed), fixed)


def groups_seen(staged: Staged) -> list[set[int]]:
    """Return the groups that are seen in the opaque layer of each picture."""
    scene = staged.scene
    return [set(scene.triangle_group[shown[shown >= 0]].tolist()) for shown in scene.opaque.triangle]


def test_draws_on_the_host_go_on_and_leave_those_on_the_device_alone() -> None:
    draws, alone = SplitRng(5), SplitRng(5)
    first, second = draws.host.uniform(2), draws.host.uniform(2)
    assert not torch.equal(first, second)
    assert torch.equal(first, alone.host.uniform(2))
    assert torch.equal(draws.uniform(2), SplitRng(5).uniform(2))


def test_draws_keep_to_their_ranges() -> None:
    draws = SplitRng(1)
    values = draws.uniform(1000, low=-2, high=3)
    assert -2 <= float(values.min()) < -1.9
    assert 2.9 < float(values.max()) <= 3
    assert set(draws.integers(3, 100).tolist()) == {0, 1, 2}
    assert sorted(draws.permutation(9).tolist()) == list(range(9))
    assert abs(float(draws.chance(0.3, 4000).float().mean()) - 0.3) < 0.03
    assert draws.chance(torch.tensor([0.0, 1.0]), 50, 2).float().mean(0).tolist() == [0, 1]


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_one_turn_gives_one_angle(axis: int) -> None:
    angles = torch.zeros(3, 1)
    angles[axis] = 0.5
    expected = torch.rad2deg(angles).T
    torch.testing.assert_close(pose_angles(rotation(*angles)), expected, atol=1e-3, rtol=0)


@settings(deadline=None, max_examples=40)
@given(st.floats(-80, 80), st.floats(-40, 40), st.floats(-60, 60))
def test_the_pose_is_the_one_that_landmarks_tell(yaw: float, pitch: float, roll: float) -> None:
    turned = rotation(*torch.deg2rad(torch.tensor([[yaw], [pitch], [roll]])))
    points = anatomical_points(head(), head().mean[None] @ turned.transpose(1, 2), Brows.mean(1))
    seen = points * torch.tensor((1.0, -1.0, 1.0)) * 50
    told = head_pose(seen.numpy())
    fitted = torch.from_numpy(told)
    # Compare rotations, not angles: near profile yaw hides what pitch and roll share.
    again = torch.linalg.matrix_norm(turned - _from_angles(fitted))
    assert float(again) < 0.1


def _from_angles(degrees: Tensor) -> Tensor:
    """Build the rotation (B, 3, 3) that `pose_angles` splits: pitch about x after yaw after roll."""
    yaw, pitch, roll = torch.deg2rad(degrees).unbind(1)
    zero = torch.zeros_like(yaw)
    return rotation(zero, pitch, zero) @ rotation(yaw, zero, zero) @ rotation(zero, zero, roll)


def test_positive_yaw_turns_the_nose_to_the_left_of_the_picture() -> None:
    staged = mean_head_renderer().stage(1, SplitRng(0), torch.tensor([40.0]))
    points = staged.landmarks_3d[0]
    assert points[30, 0] < points[[0, 16], 0].mean()
    assert points[16, 2] > points[0, 2]


@pytest.mark.parametrize("zoom", [1.0, 0.8])
def test_the_picture_is_the_published_crop_of_its_own_points(zoom: float) -> None:
    staged = stage(replace(PLAIN, zoom=zoom, zoom_std=0, shift_std=0, size=256), count=6)
    boxes = tight_box(torch.stack((staged.landmarks_2d, staged.landmarks_3d[..., :2])).numpy())
    affine = crop_affine(boxes)
    expected = np.eye(2, 3) / zoom
    expected[:, 2] = 127.5 * (1 - 1 / zoom)
    error = np.abs(affine - expected).max(axis=(2, 3))
    # The box is that of the 2D points or that of the 3D points, one or the other.
    assert (error.min(axis=0) < 2e-2).all()


def test_points_lie_on_the_surface_that_is_drawn() -> None:
    staged = mean_head_renderer().stage(1, SplitRng(3), torch.tensor([5.0]))
    scene = staged.scene
    inner = [*range(17, 31), 48, 51, 54, 57, 8]  # the other 3D jaw points lie inside
    points = staged.landmarks_3d[0, inner]
    column, row = points[:, :2].round().long().T
    drawn = scene.opaque.depth[0, row, column]
    # A pixel's centre is up to 0.7 px from the point, on a surface of up to 70 degrees.
    assert float((drawn - points[:, 2]).abs().max()) < 2.5
    assert float((drawn - points[:, 2]).abs().median()) < 0.3


def test_a_frontal_face_keeps_its_jaw_and_a_turned_one_slides_its_far_side_to_the_silhouette() -> None:
    renderer = mean_head_renderer()
    front = renderer.stage(1, SplitRng(0), torch.tensor([0.0]))
    moved = (front.landmarks_2d - front.landmarks_3d[..., :2])[0].norm(dim=-1) / front.scene.scale
    assert float(moved.max()) < 0.01
    turned = renderer.stage(1, SplitRng(0), torch.tensor([45.0]))
    moved = (turned.landmarks_2d - turned.landmarks_3d[..., :2])[0].norm(dim=-1) / turned.scene.scale
    assert float(moved[9:17].max()) < 0.2  # the near side: 2D points follow an edge in front of the 3D ones
    assert float(moved[1:5].min()) > 0.15
    assert float(moved[17:].max()) < 1e-4
    # Nothing of the head is left of the far cheek's points.
    for point in range(1, 6):
        x, y = turned.landmarks_2d[0, point].round().long().tolist()
        assert bool((turned.scene.opaque.triangle[0, y, : x - 2] < 0).all())
        assert bool((turned.scene.opaque.triangle[0, y, x : x + 3] >= 0).any())


def test_the_contour_does_not_jump() -> None:
    angles = torch.arange(0, 60, 0.5)
    turned = rotation(torch.deg2rad(angles), torch.zeros(len(angles)), torch.zeros(len(angles)))
    posed = head().mean @ turned.transpose(1, 2)
    lines = places(posed, head().jaw_vertices, head().jaw_weights)
    contour = contour_points(lines, head().jaw_directions, torch.zeros(len(angles)))
    steps = (contour[1:] - contour[:-1])[..., :2].norm(dim=-1)
    assert float(steps[angles[1:] <= 50].max()) < 0.08
    # Beyond that the contour of the far cheek is in two pieces, and a point goes from one to the other.
    assert int((steps > 0.08).sum()) <= 1
    assert float(steps.max()) < 0.2


@settings(deadline=None, max_examples=40)
@given(st.floats(-2.5, 2.5))
def test_the_contour_turns_with_the_picture(roll: float) -> None:
    draws = SplitRng(2)
    lines, directions = draws.normal(1, 17, 12, 2), torch.nn.functional.normalize(draws.normal(17, 2), dim=1)
    turn_by = torch.tensor([roll])
    turned = lines @ rotation(turn_by * 0, turn_by * 0, turn_by)[:, :2, :2].transpose(1, 2)
    straight = contour_points(lines, directions, turn_by * 0) @ rotation(turn_by * 0, turn_by * 0, turn_by)[
        :, :2, :2
    ].transpose(1, 2)
    torch.testing.assert_close(contour_points(turned, directions, turn_by), straight, atol=1e-3, rtol=0)


def test_the_contour_of_a_circle_is_found_between_the_places_of_the_line() -> None:
    angle = torch.linspace(0, 1.5, 12)
    lines = torch.stack((angle.cos(), angle.sin()), dim=-1).expand(1, 17, -1, -1)
    aim = torch.linspace(0, 1.5, 17)
    directions = torch.stack((aim.cos(), aim.sin()), dim=-1)
    found = contour_points(lines, directions, torch.zeros(1))
    torch.testing.assert_close(torch.atan2(found[0, :, 1], found[0, :, 0]), aim, atol=0.01, rtol=0)


def test_a_turned_head_hides_its_far_side() -> None:
    staged = mean_head_renderer().stage(2, SplitRng(0), torch.tensor([75.0, -75.0]))
    assert staged.visible[0, [8, 13, 30, 42, 45, 54]].all()
    assert not staged.visible[0, [1, 2, 3, 36, 39]].any()
    assert staged.visible[1, [8, 3, 30, 36, 39, 48]].all()
    assert not staged.visible[1, [15, 14, 13, 42, 45]].any()


def test_hair_and_hats_hide_points() -> None:
    hair = stage(replace(PLAIN, long_hair_chance=1), count=8, yaw=50)
    bare = stage(PLAIN, count=8, yaw=50)
    assert bare.visible[:, :17].float().mean() > hair.visible[:, :17].float().mean() + 0.1
    assert torch.isinf(bare.scene.hair_cut).all()
    assert (hair.scene.hair_cut > 0).flatten(1).any(1).all()


def test_locks_across_the_face_hide_points_where_they_are_opaque() -> None:
    options = replace(PLAIN, locks_chance=1)
    crossed, bare = stage(options, count=16, yaw=0), stage(PLAIN, count=16, yaw=0)
    assert torch.equal(crossed.landmarks_3d, bare.landmarks_3d)
    hidden = bare.visible & ~crossed.visible
    assert 0.01 < float(hidden.float().mean()) < 0.2
    assert not (crossed.visible & ~bare.visible).any()
    locks = crossed.scene.locks
    share = torch.zeros(16, 96, 96).index_copy(0, locks.index, locks.share[:, 0])
    head_, point = hidden.nonzero().T
    x, y = crossed.landmarks_2d[head_, point].round().long().T
    # The anatomical place of a jaw point is not the contour's.
    inner = point >= 17
    assert bool((share[head_, y, x] > 0.5)[inner].all())
    assert bool((crossed.scene.hairline[share.amax((1, 2)) > 0] < BALD).all())
    soft = (share > 0.1) & (share < 0.9)
    assert 0.2 < float(soft.sum() / (share > 0.1).sum()) < 0.9


def test_locks_are_as_frequent_as_asked_and_lie_under_hats() -> None:
    scene = stage(replace(PLAIN, size=32, locks_chance=0.2, hat_chance=1), count=100, yaw=0).scene
    there = scene.locks.share.flatten(1).amax(1) > 0.1
    assert 10 <= int(there.sum()) <= 30
    hat = scene.triangle_group[scene.opaque.triangle[scene.locks.index]] == Extra.HAT
    hat &= scene.opaque.triangle[scene.locks.index] >= 0
    assert not scene.locks.share[:, 0][hat].any()


def test_only_what_is_worn_is_drawn() -> None:
    bare, dressed = stage(PLAIN), stage(replace(PLAIN, glasses_chance=1, hat_chance=1), yaw=20)
    assert all({Extra.GLASSES_FRAME, Extra.HAT}.isdisjoint(groups) for groups in groups_seen(bare))
    assert all({Extra.GLASSES_FRAME, Extra.HAT} <= groups for groups in groups_seen(dressed))
    assert not (bare.scene.lens.triangle >= 0).any()
    assert (dressed.scene.lens.triangle >= 0).flatten(1).any(1).all()
    assert not bare.scene.has_hat.any()
    assert dressed.scene.has_hat.all()


def test_layers_number_the_triangles_of_the_whole_mesh() -> None:
    scene = stage(replace(PLAIN, glasses_chance=1, long_hair_chance=1)).scene
    group = scene.triangle_group
    assert set(group[scene.lens.triangle[scene.lens.triangle >= 0]].tolist()) == {Extra.GLASSES_LENS}
    assert set(group[scene.hair.triangle[scene.hair.triangle >= 0]].tolist()) == {Group.HAIR}
    assert scene.posed.shape[1:] == scene.rest.shape
    assert len(scene.attributes) == len(scene.rest)
    assert int(scene.triangles.max()) == len(scene.rest) - 1


def test_hats_of_all_kinds_sit_on_the_scalp() -> None:
    staged = stage(replace(PLAIN, hat_chance=1), count=16, yaw=0, seed=1)
    assert set(staged.scene.hat_kind.tolist()) == set(HatKind) - {HatKind.NONE}
    # What is drawn highest is hat: no crown looks through.
    for picture, shown in enumerate(staged.scene.opaque.triangle):
        top = staged.scene.triangle_group[shown[shown >= 0][:40]]
        assert bool((top == Extra.HAT).all()), picture


def test_equal_draws_give_equal_scenes_and_others_differ() -> None:
    options = RenderOptions(size=32)
    one, same, other = stage(options, seed=1), stage(options, seed=1), stage(options, seed=2)
    assert torch.equal(one.landmarks_3d, same.landmarks_3d)
    assert torch.equal(one.scene.opaque.triangle, same.scene.opaque.triangle)
    assert not torch.equal(one.landmarks_3d, other.landmarks_3d)


def test_hair_leaves_the_jaw_where_it_is() -> None:
    """However full it is: what it lifts is the scalp, not the skin before the ears, where points 0 and 16 lie."""
    shaper, frontal = Shaper(head()), torch.eye(3).expand(16, 3, 3)
    full, flat = (shaper.draw(frontal, torch.full((16,), lost), SplitRng(6)).vertices for lost in (0.0, 1.0))
    assert float((full - flat).norm(dim=-1).max()) > 0.2
    lines = [places(vertices, head().jaw_vertices, head().jaw_weights) for vertices in (full, flat)]
    assert float((lines[0] - lines[1]).norm(dim=-1).max()) < 0.01


def test_an_open_jaw_takes_the_chin_and_its_contour_along() -> None:
    opened = head().mean + head().expressions[head().expression_names.index("jawOpen")]
    both = torch.stack((head().mean, opened))
    points = anatomical_points(head(), both, Brows.mean(2))
    lines = places(both, head().jaw_vertices, head().jaw_weights)
    contour = contour_points(lines, head().jaw_directions, torch.zeros(2))
    for shut, wide in (points, contour):
        assert float((shut - wide)[6:11, 1].min()) > 0.15


def test_lids_follow_the_gaze() -> None:
    expressions = Expressions(head().expression_names, torch.device("cpu"))
    down = head().expression_names.index("eyeLookDownLeft")
    gaze = torch.tensor([[0.0, -0.3], [0.0, 0.3]])
    weights = expressions.draw(gaze, SplitRng(0))
    assert float(weights[0, down]) == pytest.approx(0.75, abs=1e-5)
    assert float(weights[1, down]) == 0
    assert 0 <= float(weights.min()) <= float(weights.max()) <= 1.1 + 1e-6


def test_some_eyes_look_at_the_camera_when_they_can() -> None:
    turned = rotation(*torch.tensor([[0.4], [0.0], [0.0]]).expand(3, 400).contiguous())
    gaze = draw_gaze(turned, SplitRng(0))
    assert 0.3 < float((gaze[:, 0] - 0.4).abs().lt(0.1).float().mean()) < 0.7


def test_every_habit_is_known_to_the_head() -> None:
    assert bool((habit_matrix(head().expression_names).sum(1) > 0).all())
    known = {name.removesuffix("Left").removesuffix("Right") for name in head().expression_names}
    known |= set(head().expression_names)
    assert {name for habit in HABITS for name in habit.actions} <= known


def test_near_cameras_widen_what_is_near() -> None:
    points = torch.tensor([[[1.0, 0.0, 1.0], [1.0, 0.0, -1.0]]])
    near = Camera(torch.tensor([0.1]), torch.zeros(1, 2), torch.ones(1), 101).project(points)
    far = Camera(torch.tensor([0.0]), torch.zeros(1, 2), torch.ones(1), 101).project(points)
    torch.testing.assert_close(far[0, :, 0], torch.tensor([51.0, 51.0]))
    torch.testing.assert_close(near[0, :, 0], torch.tensor([50 + 1 / 0.9, 50 + 1 / 1.1]))


def test_torsos_stay_where_heads_turn() -> None:
    from ls3dw.synth.scene.camera import Pose

    eye = torch.eye(3)[None]
    turned = rotation(torch.tensor([1.0]), torch.zeros(1), torch.zeros(1))
    pair = torch.tensor([[[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]]])
    moved = turn(pair, torch.tensor([1.0, 0.0]), Pose(torch.zeros(1), turned, eye))
    assert float((moved[0, 0] - moved[0, 1]).norm()) > 0.5


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ({"glasses_chance": 1.5}, "glasses_chance 1.5"),
        ({"uniform_share": 0.9, "profile_share": 0.3}, "expected at most 1"),
        ({"size": 4}, "size 4"),
        ({"zoom": 0.0}, "zoom 0.0"),
    ],
)
def test_options_that_cannot_be_are_refused(values: dict[str, float], fault: str) -> None:
    with pytest.raises(ConfigurationError, match=fault):
        RenderOptions(**values)  # type: ignore[arg-type]


def test_rendering_is_a_function_of_its_draws() -> None:
    bank = (SplitRng(1).uniform(3, 3, 64, 64) * 255).to(torch.uint8)
    renderer = Renderer(head=head(), options=RenderOptions(size=64), bank=bank)
    one, same = (renderer.render(2, SplitRng(4).child(1)) for _ in range(2))
    assert one.images.dtype == torch.uint8
    assert one.images.shape == (2, 3, 64, 64)
    assert one.landmarks_2d.shape == (2, 68, 2)
    assert one.landmarks_3d.shape == (2, 68, 3)
    assert one.visible.shape == (2, 68)
    assert one.pose.shape == (2, 3)
    assert torch.equal(one.images, same.images)
    assert float(one.images.float().std()) > 10

"""Renders random heads in batches, with their landmarks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ls3dw.errors import DeviceError
from ls3dw.models.kernels import triton_available
from ls3dw.synth.head.conventions import Conventional
from ls3dw.synth.head.landmarks import JAW, anatomical_points, contour_points, frontal_jaw, places, seen
from ls3dw.synth.head.mean_head import mean_points
from ls3dw.synth.head.model import Head, load_head
from ls3dw.synth.head.placement import load_placement
from ls3dw.synth.head.shape import BALD, Shape, Shaper
from ls3dw.synth.options import RenderOptions
from ls3dw.synth.raster.rasterizer import Fragments, barycentric, interpolate, rasterize
from ls3dw.synth.rng import SplitRng
from ls3dw.synth.scene.accessories import Accessories, Outfit, draw_outfit
from ls3dw.synth.scene.camera import (
    Camera,
    Pose,
    draw_nearness,
    draw_pose,
    frame,
    pose_angles,
    to_plane,
    torso_weight,
    turn,
)
from ls3dw.synth.scene.locks import draw_locks
from ls3dw.synth.scene.scene import Extra, HatKind, Scene
from ls3dw.synth.shade.background import make_bank
from ls3dw.synth.shade.compose import shade

__all__ = ["RenderOptions", "Rendered", "Renderer"]

_BANK_SEED = 68

_FLATTENED = 0.8
"""Share of its volume that the scalp's hair loses under a hat or under long hair, which would not cover it else."""


@dataclass(frozen=True)
class Rendered:
    """B pictures with their landmarks, in pixels of the pictures."""

    images: Tensor
    """(B, 3, S, S) uint8, RGB."""

    landmarks_2d: Tensor
    """(B, 68, 2) the jaw on the visible contour, in one convention."""

    landmarks_3d: Tensor
    """(B, 68, 3) all points at their places in 3D, in another convention."""

    visible: Tensor
    """(B, 68) bool: the anatomical place is hidden neither by the head itself nor by hair, hat or frames of glasses.

    Lenses hide nothing, whatever their tint, nor do hands and other things before the face, nor hair that is less than
    half opaque.
    """

    pose: Tensor
    """(B, 3) degrees: yaw, pitch, roll of the head, signs as in `ls3dw.core.pose`."""


@dataclass(frozen=True)
class Staged:
    """A scene with its landmarks, before it is shaded."""

    scene: Scene
    landmarks_2d: Tensor
    landmarks_3d: Tensor
    visible: Tensor


class Renderer:
    """Draws heads, dresses, turns and shades them. Equal draws give equal pictures on the CPU.

    bank (N, 3, side, side) uint8: what backgrounds and clothes are cut from (`background.make_bank`); by default
    patterns that are the same for every renderer, and the pictures of `options.backgrounds`.
    """

    def __init__(
        self,
        device: torch.device | str = "cpu",
        head: Head | None = None,
        options: RenderOptions | None = None,
        bank: Tensor | None = None,
    ) -> None:
        self.head = load_head(device) if head is None else head
        self.device = self.head.mean.device
        if self.device.type == "cuda" and not triton_available(self.device):
            raise DeviceError(
                f"{self.device}: Triton renders heads there, and cannot compile here; install a C compiler and Python's"
                " headers (gcc, python3-dev), or render on the CPU: --gpu none"
            )
        self.options = RenderOptions() if options is None else options
        self._own_bank = bank
        self._shaper = Shaper(self.head)
        self._accessories = Accessories(self.head)
        self._weight = self._accessories.weight(torso_weight(self.head))
        placement, mean = load_placement(), mean_points(self.head)
        self._flat, self._solid = (
            Conventional(placement.convention(name), mean)
            for name in (self.options.convention_2d, self.options.convention_3d)
        )

    @cached_property
    def _bank(self) -> Tensor:
        """Made when the first picture is rendered: it takes seconds on a CPU."""
        if self._own_bank is not None:
            return self._own_bank
        return make_bank(SplitRng(_BANK_SEED, self.device), folder=self.options.backgrounds)

    @torch.no_grad()
    def render(self, count: int, draws: SplitRng, yaw: Tensor | None = None) -> Rendered:
        """Render `count` heads; yaw (count,) in degrees fixes their first turn, before pitch and roll."""
        staged = self.stage(count, draws, yaw)
        colours = shade(staged.scene, self.head, self._bank, draws)
        images = (colours * 255).round().to(torch.uint8)
        pose = pose_angles(staged.scene.rotation)
        return Rendered(images, staged.landmarks_2d, staged.landmarks_3d, staged.visible, pose)

    @torch.no_grad()
    def stage(self, count: int, draws: SplitRng, yaw: Tensor | None = None) -> Staged:
        """Make the scene of `count` heads and find their landmarks."""
        pose = draw_pose(count, draws, self.options, yaw)
        outfit = draw_outfit(count, draws, self.options)
        covered = (outfit.hat.kind > HatKind.NONE) | outfit.hair.worn
        shape = self._shaper.draw(pose.head, covered * _FLATTENED, draws)
        dressed = self._accessories.dress(shape.vertices, shape.brows, outfit, draws)
        posed = turn(dressed, self._weight, pose)
        on_skin = anatomical_points(self.head, posed, shape.brows)
        solid = turn(frontal_jaw(self.head, dressed), self._weight.new_ones(JAW), pose)
        placed = torch.cat((solid, on_skin[:, JAW:]), dim=1)
        points, inner = self._solid.points(placed), self._flat.points(placed)[:, JAW:]
        lines = places(posed, self.head.jaw_vertices, self.head.jaw_weights)
        nearness = draw_nearness(count, draws, self.options)
        jaw = contour_points(
            to_plane(lines.flatten(1, 2), nearness).view(*lines.shape[:3], 2), self.head.jaw_directions, pose.roll
        )
        jaw = self._flat.contour(jaw, pose_angles(pose.head)[:, 0])
        contour = torch.cat((jaw, to_plane(inner, nearness)), dim=1)
        camera = frame(contour, to_plane(points, nearness), nearness, draws, self.options)
        places_seen = camera.project(on_skin)
        scene = self._scene(posed, shape, outfit, pose, camera, places_seen, draws)
        visible = self._visible(places_seen, scene)
        return Staged(scene, camera.to_pixels(contour), camera.project(points), visible)

    def _scene(
        self, posed: Tensor, shape: Shape, outfit: Outfit, pose: Pose, camera: Camera, points: Tensor, draws: SplitRng
    ) -> Scene:
        """Put heads before their cameras; points (B, 68, 3) of the screen are where locks of hair fall."""
        worn = self._accessories
        screen = camera.project(posed)
        layers = worn.layers
        opaque, lens, hair = (
            self._draw(screen, part, camera.size) for part in (layers.opaque, layers.lens, layers.hair)
        )
        hairy, hats = (shape.hairline < BALD) | outfit.hair.worn, worn.triangle_group == Extra.HAT
        locks = draw_locks(points, camera.scale, hairy, opaque, hats, self.options.locks_chance, draws)
        return Scene(
            size=camera.size,
            screen=screen,
            posed=posed,
            rest=worn.rest,
            triangles=worn.triangles,
            triangle_group=worn.triangle_group,
            attributes=worn.attributes,
            opaque=opaque,
            lens=lens,
            hair=hair,
            rotation=pose.head,
            scale=camera.scale,
            hairline=shape.hairline,
            hair_cut=self._hair_cut(hair, screen, outfit),
            locks=locks,
            brows=shape.brows,
            has_long_hair=outfit.hair.worn,
            hat_kind=outfit.hat.kind,
        )

    def _draw(self, screen: Tensor, part: slice, size: int) -> Fragments:
        """Rasterize one layer; its fragments have the numbers of all triangles."""
        found = rasterize(screen, self._accessories.triangles[part], size, size)
        return Fragments(torch.where(found.triangle >= 0, found.triangle + part.start, -1), found.depth)

    def _hair_cut(self, hair: Fragments, screen: Tensor, outfit: Outfit) -> Tensor:
        worn = self._accessories
        weights = barycentric(hair, screen, worn.triangles)
        rest = interpolate(hair, weights, worn.rest, worn.triangles)
        cut = worn.hair_cut(rest.flatten(1, 2), outfit).view(hair.triangle.shape)
        return torch.where(hair.triangle >= 0, cut, -torch.inf)

    @staticmethod
    def _visible(points: Tensor, scene: Scene) -> Tensor:
        kept = Fragments(scene.hair.triangle, torch.where(scene.hair_cut > 0, scene.hair.depth, -torch.inf))
        locks = Fragments(scene.opaque.triangle, scene.locks.depth(len(points)))
        return seen(points, (scene.opaque, kept, locks), scene.scale)

"""The stream of rendered heads: a pool on the device, drawn from again and again, and slowly renewed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor

from ls3dw.core.geometry import CROP_SIZE
from ls3dw.core.markup import POINTS
from ls3dw.dataset.subsets.pose_bins import balanced_rows
from ls3dw.errors import ConfigurationError
from ls3dw.training.data.augment import augment
from ls3dw.training.data.batch import Batch, Faces
from ls3dw.training.data.files import Share
from ls3dw.training.data.seeds import Dice, seed_of
from ls3dw.training.options import AugmentOptions, StreamOptions, render_options


class RenderedHeads(Protocol):
    """What a renderer gives, as `synth.renderer.Rendered`: B pictures, the crop in their middle, with the landmarks in
    their pixels."""

    @property
    def images(self) -> Tensor:
        """(B, 3, S, S) uint8, S at least 256."""
        ...

    @property
    def landmarks_2d(self) -> Tensor:
        """(B, 68, 2)."""
        ...

    @property
    def landmarks_3d(self) -> Tensor:
        """(B, 68, 3)."""
        ...

    @property
    def pose(self) -> Tensor:
        """(B, 3) yaw, pitch, roll in degrees."""
        ...


@dataclass(frozen=True)
class HeadMaker:
    """render(count, seed, chunk) draws new heads, the same ones for the same numbers; degrade(images, seed, step) makes
    crops (B, 3, 256, 256) float in [0, 1] look like photographs of many qualities."""

    render: Callable[[int, int, int], RenderedHeads]
    degrade: Callable[[Tensor, int, int], Tensor]


OpenHeads: TypeAlias = Callable[[torch.device, Mapping[str, Any]], HeadMaker]
"""Makes a renderer ready on a device, with some options."""


def open_renderer(device: torch.device, options: Mapping[str, Any]) -> HeadMaker:
    """Make the renderer of `ls3dw.synth` ready on a device; options: of `RenderOptions`."""
    from ls3dw.synth.draws import Draws
    from ls3dw.synth.photo.degrade import degrade
    from ls3dw.synth.renderer import Renderer

    renderer = Renderer(device, options=render_options(options))
    return HeadMaker(
        render=lambda count, seed, chunk: renderer.render(count, Draws(seed, device).child(chunk)),
        degrade=lambda images, seed, step: degrade(images, Draws(seed, device).child(step)),
    )


class HeadStream:
    """Rendered heads. The pool is a ring of chunks, and which of them it holds is a function of the step.

    Chunks 0 to start / chunk are there at step 0, and one more every `every` steps (0: none); once the ring is full,
    each new one takes the place of the oldest. A run that goes on at some step renders the chunks of that step once
    more.
    """

    def __init__(
        self, maker: HeadMaker, options: StreamOptions, share: Share, augmentation: AugmentOptions, device: torch.device
    ) -> None:
        self.maker = maker
        self.share = share
        self.augmentation = augmentation
        self.device = device
        self.chunk = options.chunk
        self.every = options.every
        self.slots = max(1, options.pool // options.chunk // share.lanes)
        self.first = max(1, options.start // options.chunk // share.lanes)
        self.balance = options.balance
        self.rendered = 0
        self._balanced: Tensor | None = None
        self._held = [-1] * self.slots
        self._pool: Faces | None = None

    def batch(self, step: int) -> Batch:
        pool = self._pool_at(step)
        dice = Dice(self.device, self.share.seed, "heads", self.share.lane, step)
        chosen = self._choose(pool, step, dice)
        faces = Faces(pool.pictures[chosen], pool.landmarks_2d[chosen], pool.landmarks_3d[chosen])
        batch = augment(faces, self.augmentation, dice)
        return Batch(self._degrade(batch.images, dice, step), batch.landmarks_2d, batch.landmarks_3d)

    def _choose(self, pool: Faces, step: int, dice: Dice) -> Tensor:
        """Draw places of the pool: all heads alike, or so that all poses come alike."""
        if self.balance == 0:
            return dice.integers(min(self.slots, self._chunks(step)) * self.chunk, self.share.count)
        if self._balanced is None:  # once: such a pool stays as it is
            shapes = pool.landmarks_3d[..., :2].cpu().numpy()
            self._balanced = torch.from_numpy(balanced_rows(shapes, self.balance)).to(self.device)
        return self._balanced[dice.integers(len(self._balanced), self.share.count)]

    def _degrade(self, images: Tensor, dice: Dice, step: int) -> Tensor:
        share = self.augmentation.degrade
        if share == 0:
            return images
        worse = self.maker.degrade(images, seed_of(self.share.seed, "degrade", self.share.lane), step)
        return torch.where(dice.chance(share, len(images))[:, None, None, None], worse, images)

    def _chunks(self, step: int) -> int:
        """Return how many chunks have been rendered by `step`."""
        return self.first + (step // self.every if self.every else 0)

    def _pool_at(self, step: int) -> Faces:
        """Render what the pool of this step has and the present one has not."""
        newest = self._chunks(step)
        pool = self._pool
        for number in range(max(0, newest - self.slots), newest):
            slot = number % self.slots
            if self._held[slot] != number or pool is None:
                pool = self._fill(pool, slot, number)
        assert pool is not None
        self._pool = pool
        return pool

    def _fill(self, pool: Faces | None, slot: int, number: int) -> Faces:
        heads = self.maker.render(self.chunk, seed_of(self.share.seed, "render", self.share.lane), number)
        margin = check_heads(heads)
        if pool is None:
            pool = _empty_pool(self.slots * self.chunk, heads.images.shape[-1], self.device)
        place = slice(slot * self.chunk, (slot + 1) * self.chunk)
        pool.pictures[place] = heads.images
        pool.landmarks_2d[place] = heads.landmarks_2d - margin
        pool.landmarks_3d[place] = heads.landmarks_3d
        pool.landmarks_3d[place, :, :2] -= margin
        self._held[slot] = number
        self.rendered += self.chunk
        return pool


def _empty_pool(count: int, size: int, device: torch.device) -> Faces:
    return Faces(
        torch.empty(count, 3, size, size, dtype=torch.uint8, device=device),
        torch.empty(count, POINTS, 2, device=device),
        torch.empty(count, POINTS, 3, device=device),
    )


def check_heads(heads: RenderedHeads) -> float:
    """Refuse pictures of a kind that the networks do not see; return the pixels that they have around the crop."""
    channels, height, width = heads.images.shape[1:]
    if heads.images.dtype != torch.uint8 or channels != 3 or height != width or width < CROP_SIZE:
        raise ConfigurationError(
            f"rendered heads are {heads.images.dtype} {tuple(heads.images.shape[1:])};"
            f" expected uint8 (3, S, S), S at least {CROP_SIZE}"
        )
    return (width - CROP_SIZE) / 2

"""The stream of rendered heads: a pool on the device, drawn from many times and slowly renewed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor

from ls3dw.core.geometry import CROP_SIZE
from ls3dw.core.markup import POINTS
from ls3dw.dataset.subsets.pose_bins import balanced_rows
from ls3dw.errors import ConfigurationError
from ls3dw.synth.rng import Rng, SplitRng, hash_seed, keyed_rng
from ls3dw.training.data.augment import augment
from ls3dw.training.data.batch import Batch, RawBatch, StreamSlice
from ls3dw.training.options import AugmentOptions, StreamOptions, render_options

if TYPE_CHECKING:
    from ls3dw.synth.renderer import Rendered


@dataclass(frozen=True)
class HeadRenderer:
    """A renderer for training."""

    render: Callable[[int, int, int], Rendered]
    """(count, seed, chunk): heads with the crop in the middle of their pictures, equal for equal numbers."""

    degrade: Callable[[Tensor, int, int], Tensor]
    """(images, seed, step): crops (B, 3, 256, 256) in [0, 1], degraded to photographs of varied quality."""


RendererFactory: TypeAlias = Callable[[torch.device, Mapping[str, Any]], HeadRenderer]
"""Makes a renderer on a device from options."""


def open_renderer(device: torch.device, options: Mapping[str, Any]) -> HeadRenderer:
    """Make the renderer of `ls3dw.synth` on a device; options: of `RenderOptions`."""
    from ls3dw.synth.photo.degrade import degrade
    from ls3dw.synth.renderer import Renderer

    renderer = Renderer(device, options=render_options(options))
    return HeadRenderer(
        render=lambda count, seed, chunk: renderer.render(count, SplitRng(seed, device).child(chunk)),
        degrade=lambda images, seed, step: degrade(images, SplitRng(seed, device).child(step)),
    )


class HeadStream:
    """Rendered heads from a pool: a ring of chunks whose content is a function of the step.

    It holds `start / chunk` chunks at step 0 and gets one more every `every` steps (0: none); in a full ring a new
    chunk replaces the oldest. A resumed run renders the chunks of its step again.
    """

    def __init__(
        self,
        renderer: HeadRenderer,
        options: StreamOptions,
        part: StreamSlice,
        augmentation: AugmentOptions,
        device: torch.device,
    ) -> None:
        self.renderer = renderer
        self.part = part
        self.augmentation = augmentation
        self.device = device
        self.chunk = options.chunk
        self.every = options.every
        self.slots = max(1, options.pool // options.chunk // part.slices)
        self.first = max(1, options.start // options.chunk // part.slices)
        self.balance = options.balance
        self.rendered = 0
        self._balanced: Tensor | None = None
        self._chunk_in_slot = [-1] * self.slots
        self._pool: RawBatch | None = None

    def batch(self, step: int) -> Batch:
        """Return the augmented heads of a step."""
        pool = self._pool_at(step)
        rng = keyed_rng(self.device, self.part.seed, "heads", self.part.index, step)
        chosen = self._choose(pool, step, rng)
        faces = RawBatch(pool.pictures[chosen], pool.landmarks_2d[chosen], pool.landmarks_3d[chosen])
        batch = augment(faces, self.augmentation, rng)
        images, share = batch.images, self.augmentation.degrade
        if share > 0:
            degraded = self.renderer.degrade(images, hash_seed(self.part.seed, "degrade", self.part.index), step)
            images = torch.where(rng.chance(share, len(images))[:, None, None, None], degraded, images)
        return Batch(images, batch.landmarks_2d, batch.landmarks_3d)

    def _choose(self, pool: RawBatch, step: int, rng: Rng) -> Tensor:
        """Draw rows of the pool, uniformly or balanced over poses."""
        if self.balance == 0:
            return rng.integers(min(self.slots, self._chunks(step)) * self.chunk, self.part.count)
        if self._balanced is None:  # once: a balanced pool does not change
            shapes = pool.landmarks_3d[..., :2].cpu().numpy()
            self._balanced = torch.from_numpy(balanced_rows(shapes, self.balance)).to(self.device)
        return self._balanced[rng.integers(len(self._balanced), self.part.count)]

    def _chunks(self, step: int) -> int:
        """Count the chunks rendered by `step`."""
        return self.first + (step // self.every if self.every else 0)

    def _pool_at(self, step: int) -> RawBatch:
        """Return the pool of a step, rendering the chunks that are missing."""
        newest = self._chunks(step)
        pool = self._pool
        for number in range(max(0, newest - self.slots), newest):
            if self._chunk_in_slot[number % self.slots] != number or pool is None:
                pool = self._render_chunk(pool, number)
        assert pool is not None
        self._pool = pool
        return pool

    def _render_chunk(self, pool: RawBatch | None, number: int) -> RawBatch:
        heads = self.renderer.render(self.chunk, hash_seed(self.part.seed, "render", self.part.index), number)
        margin = crop_margin(heads)
        if pool is None:
            size, side, device = self.slots * self.chunk, heads.images.shape[-1], self.device
            pool = RawBatch(
                torch.empty(size, 3, side, side, dtype=torch.uint8, device=device),
                torch.empty(size, POINTS, 2, device=device),
                torch.empty(size, POINTS, 3, device=device),
            )
        slot = number % self.slots
        rows = slice(slot * self.chunk, (slot + 1) * self.chunk)
        pool.pictures[rows] = heads.images
        pool.landmarks_2d[rows] = heads.landmarks_2d - margin
        pool.landmarks_3d[rows] = heads.landmarks_3d
        pool.landmarks_3d[rows, :, :2] -= margin
        self._chunk_in_slot[slot] = number
        self.rendered += self.chunk
        return pool


def crop_margin(heads: Rendered) -> float:
    """Return the pixels around the crop; raises `ConfigurationError` for pictures that networks cannot take."""
    channels, height, width = heads.images.shape[1:]
    if heads.images.dtype != torch.uint8 or channels != 3 or height != width or width < CROP_SIZE:
        raise ConfigurationError(
            f"rendered heads are {heads.images.dtype} {tuple(heads.images.shape[1:])};"
            f" expected uint8 (3, S, S), S at least {CROP_SIZE}"
        )
    return (width - CROP_SIZE) / 2

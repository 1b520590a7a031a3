"""The stream of photographs: decoded by worker processes, in an order given by seed and epoch."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from ls3dw.core.sample import Drop
from ls3dw.errors import ConfigurationError
from ls3dw.synth.rng import hash_seed, keyed_rng
from ls3dw.training.data.augment import augment
from ls3dw.training.data.batch import Batch, RawBatch, StreamSlice
from ls3dw.training.data.faces import FaceList, TrainingFace
from ls3dw.training.options import AugmentOptions

log = logging.getLogger(__name__)

ATTEMPTS = 64
"""Unusable faces in a row before the stream gives up."""


class _Decoder(Dataset[Any]):
    """Decodes faces by number; an unusable one is dropped and replaced by the next of the list."""

    def __init__(self, faces: FaceList) -> None:
        self.faces = faces

    def __getitem__(self, number: int) -> tuple[TrainingFace, list[Drop]]:
        drops: list[Drop] = []
        for further in range(min(ATTEMPTS, len(self.faces))):
            face = self.faces.face((number + further) % len(self.faces))
            if isinstance(face, TrainingFace):
                return face, drops
            drops.append(face)
        raise ConfigurationError(f"{len(drops)} faces in a row cannot be used; the first: {_describe(drops[0])}")


class _Order(Sampler[list[int]]):
    """The face numbers of each step from `start` on."""

    def __init__(self, faces: int, part: StreamSlice, start: int) -> None:
        self.faces = faces
        self.part = part
        self.start = start

    def __iter__(self) -> Iterator[list[int]]:
        step = self.start
        while True:
            yield face_numbers(step, self.faces, self.part)
            step += 1


def face_numbers(step: int, faces: int, part: StreamSlice) -> list[int]:
    """Return the faces of one step. Every epoch is a new permutation of all faces, the same for any number of
    slices."""
    first = (step * part.slices + part.index) * part.count
    return [
        int(_permutation(faces, part.seed, place // faces)[place % faces]) for place in range(first, first + part.count)
    ]


@lru_cache(maxsize=4)  # a step may touch two epochs, and several streams take turns
def _permutation(faces: int, seed: int, epoch: int) -> NDArray[np.int64]:
    return np.random.default_rng(hash_seed(seed, "epoch", epoch)).permutation(faces)


def _describe(drop: Drop) -> str:
    return f"{drop.id}: {drop.reason} ({drop.detail})"


class FileStream:
    """Photographs with their landmarks, augmented on the device."""

    def __init__(
        self, faces: FaceList, part: StreamSlice, augmentation: AugmentOptions, device: torch.device, workers: int = 0
    ) -> None:
        self.decoder = _Decoder(faces)
        self.part = part
        self.augmentation = augmentation
        self.device = device
        self.workers = workers
        self.dropped: dict[str, Drop] = {}
        self._next = -1
        self._loaded: Iterator[tuple[tuple[Tensor, ...], list[Drop]]] = iter(())
        self.decoder[0]  # fails early if no face of the folder can be used

    def batch(self, step: int) -> Batch:
        """Return the augmented faces of a step."""
        if step != self._next:
            self._loaded = self._load_from(step)
        self._next = step + 1
        decoded, drops = next(self._loaded)
        for drop in drops:
            if drop.id not in self.dropped:
                self.dropped[drop.id] = drop
                log.warning("left out of training, another face takes its place: %s", _describe(drop))
        pictures, points_2d, points_3d = (value.to(self.device, non_blocking=True) for value in decoded)
        faces = RawBatch(pictures.permute(0, 3, 1, 2), points_2d, points_3d)
        return augment(
            faces, self.augmentation, keyed_rng(self.device, self.part.seed, "augment", self.part.index, step)
        )

    def _load_from(self, step: int) -> Iterator[tuple[tuple[Tensor, ...], list[Drop]]]:
        loader = DataLoader(
            self.decoder,
            batch_sampler=_Order(len(self.decoder.faces), self.part, step),
            num_workers=self.workers,
            collate_fn=_collate,
            pin_memory=self.device.type == "cuda",
            multiprocessing_context="spawn" if self.workers else None,  # a process with CUDA cannot be forked
        )
        return iter(loader)


def _collate(items: list[tuple[TrainingFace, list[Drop]]]) -> tuple[tuple[Tensor, ...], list[Drop]]:
    """Stack pictures (B, H, W, 3), landmarks_2d and landmarks_3d; join the drops."""
    names = ("picture", "landmarks_2d", "landmarks_3d")
    stacked = tuple(torch.from_numpy(np.stack([getattr(face, name) for face, _ in items])) for name in names)
    return stacked, [drop for _, drops in items for drop in drops]

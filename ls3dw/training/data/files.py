"""The stream of photographs: decoded by processes in an order that the seed and the epoch decide."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from ls3dw.core.sample import Drop
from ls3dw.errors import ConfigurationError
from ls3dw.training.data.augment import augment
from ls3dw.training.data.batch import Batch, Faces
from ls3dw.training.data.cut import TrainingFace
from ls3dw.training.data.faces import FaceList
from ls3dw.training.data.seeds import Dice, seed_of
from ls3dw.training.options import AugmentOptions

log = logging.getLogger(__name__)

ATTEMPTS = 64
"""Faces in a row that cannot be used before the stream gives up."""


@dataclass(frozen=True)
class Share:
    """A lane's share of a stream: `count` faces a step, from place `lane * count` of the step's `lanes * count`."""

    seed: int
    lane: int
    lanes: int
    count: int


class _Decoder(Dataset[Any]):
    """Decodes faces; one that cannot be used gives its place to the next of the list, and its name to the log."""

    def __init__(self, faces: FaceList) -> None:
        self.faces = faces

    def __getitem__(self, number: int) -> tuple[TrainingFace, list[Drop]]:
        drops: list[Drop] = []
        for further in range(min(ATTEMPTS, len(self.faces))):
            face = self.faces.face((number + further) % len(self.faces))
            if isinstance(face, TrainingFace):
                return face, drops
            drops.append(face)
        raise ConfigurationError(f"{len(drops)} faces in a row cannot be used; the first: {described(drops[0])}")


class _Order(Sampler[list[int]]):
    """The numbers of the faces of each step from `start` on."""

    def __init__(self, faces: int, share: Share, start: int) -> None:
        self.faces = faces
        self.share = share
        self.start = start

    def __iter__(self) -> Iterator[list[int]]:
        step = self.start
        while True:
            yield numbers_of(step, self.faces, self.share)
            step += 1


def numbers_of(step: int, faces: int, share: Share) -> list[int]:
    """Return the faces of one step: every epoch is a new order of all of them, whatever the batch and the lanes."""
    first = (step * share.lanes + share.lane) * share.count
    return [
        int(_permutation(faces, share.seed, place // faces)[place % faces])
        for place in range(first, first + share.count)
    ]


_ORDERS: dict[tuple[int, int, int], NDArray[np.int64]] = {}


def _permutation(faces: int, seed: int, epoch: int) -> NDArray[np.int64]:
    key = (faces, seed, epoch)
    if key not in _ORDERS:
        while len(_ORDERS) > 3:  # a step may touch two epochs, and several streams take turns
            del _ORDERS[next(iter(_ORDERS))]
        _ORDERS[key] = np.random.default_rng(seed_of(seed, "epoch", epoch)).permutation(faces)
    return _ORDERS[key]


def described(drop: Drop) -> str:
    return f"{drop.id}: {drop.reason} ({drop.detail})"


class FileStream:
    """Photographs with their landmarks, augmented on the device."""

    def __init__(
        self, faces: FaceList, share: Share, augmentation: AugmentOptions, device: torch.device, workers: int = 0
    ) -> None:
        self.decoder = _Decoder(faces)
        self.share = share
        self.augmentation = augmentation
        self.device = device
        self.workers = workers
        self.dropped: dict[str, Drop] = {}
        self._next = -1
        self._loaded: Iterator[tuple[Faces, list[Drop]]] = iter(())
        self.decoder[0]  # early: a folder whose faces cannot be used at all ends here

    def batch(self, step: int) -> Batch:
        if step != self._next:
            self._loaded = self._load_from(step)
        self._next = step + 1
        faces, drops = next(self._loaded)
        self._report(drops)
        moved = Faces(*(value.to(self.device, non_blocking=True) for value in _tensors(faces)))
        # From here in (B, H, W, 3) as it was decoded; the channels go first on the device.
        moved = Faces(moved.pictures.permute(0, 3, 1, 2), moved.landmarks_2d, moved.landmarks_3d)
        dice = Dice(self.device, self.share.seed, "augment", self.share.lane, step)
        return augment(moved, self.augmentation, dice)

    def _load_from(self, step: int) -> Iterator[tuple[Faces, list[Drop]]]:
        loader = DataLoader(
            self.decoder,
            batch_sampler=_Order(len(self.decoder.faces), self.share, step),
            num_workers=self.workers,
            collate_fn=_collate,
            pin_memory=self.device.type == "cuda",
            multiprocessing_context="spawn" if self.workers else None,  # a fork of a process with CUDA is not safe
        )
        return iter(loader)

    def _report(self, drops: list[Drop]) -> None:
        for drop in drops:
            if drop.id not in self.dropped:
                self.dropped[drop.id] = drop
                log.warning("left out of training, another face takes its place: %s", described(drop))


def _tensors(faces: Faces) -> tuple[Tensor, Tensor, Tensor]:
    return faces.pictures, faces.landmarks_2d, faces.landmarks_3d


def _collate(items: list[tuple[TrainingFace, list[Drop]]]) -> tuple[Faces, list[Drop]]:
    faces = [face for face, _ in items]
    pictures = torch.from_numpy(np.stack([face.picture for face in faces]))
    points_2d = torch.from_numpy(np.stack([face.landmarks_2d for face in faces]))
    points_3d = torch.from_numpy(np.stack([face.landmarks_3d for face in faces]))
    return Faces(pictures, points_2d, points_3d), [drop for _, drops in items for drop in drops]

"""A torch sampler that shows the faces of a subset as often as their weights say."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from ls3dw.dataset.open import Dataset
from ls3dw.errors import ConfigurationError


class SubsetSampler(Sampler[int]):
    """Yields rows of the data set; call `set_epoch` before each epoch for another order.

    In an epoch a row of weight w comes length * w / sum(w) times, rounded down or up at random: with whole weights and
    the length left out, w times exactly. The processes of a group get shares of equal length, made up like torch's
    DistributedSampler by repeating the first rows.
    """

    def __init__(
        self,
        rows: NDArray[Any],
        weights: NDArray[Any],
        *,
        length: int | None = None,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.rows = np.asarray(rows, dtype=np.int64)
        self.weights = np.asarray(weights, dtype=np.float64)
        if self.rows.shape != self.weights.shape or not (self.weights >= 0).all() or not self.weights.sum() > 0:
            raise ConfigurationError("sampler: expected a weight from 0 for each row, and one above 0")
        if not 0 <= rank < world:
            raise ConfigurationError(f"sampler: rank {rank} of {world} processes; expected 0 to {world - 1}")
        self.total = round(self.weights.sum()) if length is None else length
        self.seed, self.rank, self.world, self.epoch = seed, rank, world, 0

    @classmethod
    def of(cls, dataset: Dataset, subset: str, **options: Any) -> SubsetSampler:
        """Sample a subset of a data set by its column `weight`; every face alike where it has none."""
        chosen = dataset.subset(subset)
        row_of = {face: row for row, face in enumerate(dataset.index["id"])}
        rows = np.array([row_of[face] for face in chosen["id"]], dtype=np.int64)
        weights = chosen["weight"].to_numpy() if "weight" in chosen else np.ones(len(rows))
        return cls(rows, weights, **options)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-self.total // self.world)

    def __iter__(self) -> Iterator[int]:
        dice = np.random.default_rng((self.seed, self.epoch))
        # Systematic draws along the summed weights, in a new order each time so that no two rows go together.
        order = dice.permutation(len(self.rows))
        ends = np.cumsum(self.weights[order])
        marks = (np.arange(self.total) + dice.random()) * (ends[-1] / max(self.total, 1))
        drawn = self.rows[order][np.minimum(np.searchsorted(ends, marks, side="right"), len(order) - 1)]
        drawn = np.resize(dice.permutation(drawn), len(self) * self.world)
        return iter(drawn[self.rank :: self.world].tolist())

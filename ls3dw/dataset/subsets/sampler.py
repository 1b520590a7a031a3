"""A torch sampler that draws the faces of a subset by their weights."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from ls3dw.dataset.open import Dataset
from ls3dw.errors import ConfigurationError, DatasetError


class SubsetSampler(Sampler[int]):
    """Yields rows of the data set; call `set_epoch` before each epoch for another order.

    In an epoch a row of weight w comes length * w / sum(w) times, rounded down or up at random; without a length and
    with integer weights, exactly w times. Processes of a group get shares of equal length; as in torch's
    DistributedSampler, the first rows are repeated to fill them.
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
        """Sample a subset of a data set by its column `weight`, or uniformly if it has none."""
        chosen = dataset.subset(subset)
        row_of = {face: row for row, face in enumerate(dataset.index["id"])}
        if missing := [face for face in chosen["id"] if face not in row_of]:
            raise DatasetError(f"{subset}: {missing[0]} is not in version {dataset.version}; draw the subset again")
        rows = np.array([row_of[face] for face in chosen["id"]], dtype=np.int64)
        weights = chosen["weight"].to_numpy() if "weight" in chosen else np.ones(len(rows))
        return cls(rows, weights, **options)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-self.total // self.world)

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng((self.seed, self.epoch))
        # Systematic sampling along the summed weights, in a new order each epoch so that rows stay independent.
        order = rng.permutation(len(self.rows))
        ends = np.cumsum(self.weights[order])
        marks = (np.arange(self.total) + rng.random()) * (ends[-1] / max(self.total, 1))
        drawn = self.rows[order][np.minimum(np.searchsorted(ends, marks, side="right"), len(order) - 1)]
        drawn = np.resize(rng.permutation(drawn), len(self) * self.world)
        return iter(drawn[self.rank :: self.world].tolist())

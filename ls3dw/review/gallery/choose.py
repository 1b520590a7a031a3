"""Chooses the faces of a gallery and their order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ls3dw.core.files import safe_name
from ls3dw.core.pose import YAW_BINS, yaw_bins
from ls3dw.dataset.open import Dataset
from ls3dw.errors import ConfigurationError
from ls3dw.review.gallery.measures import SHOWS, Scores, Show

DROPS = "drops"


@dataclass(frozen=True)
class GalleryOptions:
    """What a gallery shows.

    show: a name of `SHOWS`, `changed:VERSION` or `drops`; sources, subsets, yaw (names of `YAW_BINS`): only these,
    empty for all; limit: most faces; seed: of the random sample.
    """

    show: str = "worst"
    sources: tuple[str, ...] = ()
    subsets: tuple[str, ...] = ()
    yaw: tuple[str, ...] = ()
    limit: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        kind, colon, version = self.show.partition(":")
        if (kind not in SHOWS and kind != DROPS) or (kind == "changed") != bool(version) or (colon and not version):
            known = ", ".join([*(name for name in SHOWS if name != "changed"), "changed:VERSION", DROPS])
            raise ConfigurationError(f"--show {self.show}: choose from {known}")
        if kind == DROPS and (self.subsets or self.yaw):
            raise ConfigurationError("--show drops: what was left out has no subset and no yaw; filter by --source")

    @property
    def kind(self) -> str:
        return self.show.partition(":")[0]

    @property
    def version(self) -> str:
        """The other version of `changed`."""
        return self.show.partition(":")[2]

    @property
    def name(self) -> str:
        """The folder under galleries/<version>: the show and its filters."""
        return safe_name("-".join([self.show.replace(":", "-"), *self.sources, *self.subsets, *self.yaw]))


@dataclass(frozen=True)
class Choice:
    """rows: (K,) of the index, in order; scores: (K,) they are ordered by; total: number of faces without the limit."""

    show: Show
    rows: NDArray[np.intp]
    scores: Scores
    total: int


def choose(dataset: Dataset, request: GalleryOptions) -> Choice:
    """Choose the faces. `ConfigurationError` for an unknown source, subset or bin."""
    show = SHOWS[request.kind]
    wanted = _filtered(dataset, request)
    scores = show.score(dataset, request.version, request.seed)
    rows = np.flatnonzero(wanted & np.isfinite(scores))
    order = np.argsort(-scores[rows] if show.largest else scores[rows], kind="stable")
    chosen = rows[order][: request.limit]
    return Choice(show, chosen, scores[chosen], len(rows))


def _filtered(dataset: Dataset, request: GalleryOptions) -> NDArray[np.bool_]:
    index = dataset.index
    wanted = np.ones(len(index), dtype=bool)
    for column, names in (("source", request.sources), ("subset", request.subsets)):
        known = set(index[column])
        if unknown := sorted(set(names) - known):
            raise ConfigurationError(
                f"{dataset.store.root}: no {column} {', '.join(unknown)} in it; choose from {', '.join(sorted(known))}"
            )
        if names:
            wanted &= index[column].isin(names).to_numpy()
    if request.yaw:
        if unknown := sorted(set(request.yaw) - set(YAW_BINS)):
            raise ConfigurationError(f"--yaw {', '.join(unknown)}: choose from {', '.join(YAW_BINS)}")
        bins = yaw_bins(index["yaw"].to_numpy(dtype=np.float64))
        wanted &= np.any([bins[name] for name in request.yaw], axis=0)
    return wanted

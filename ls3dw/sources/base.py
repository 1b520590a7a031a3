"""The interface of a source: its media for the build, a report on its completeness, its samples one by one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, ClassVar, Final, Literal, NamedTuple

from ls3dw.core.resources import manifest
from ls3dw.core.sample import Drop, Media, Sample
from ls3dw.errors import SourceError
from ls3dw.sources.layout import existing_folder

PIECE: Final = 256
"""Stills per medium, the unit of work of a process."""


class Count(NamedTuple):
    """Number of pictures or videos found in a subset; expected: the published number, None if there is none."""

    subset: str
    found: int
    expected: int | None


class Source(ABC):
    """A data set in a folder. Iterate over it for its samples; `drops` then has what could not be used, and `notes`
    counts the flags of the samples.

    A sample holds its decoded picture: do not keep many.
    """

    name: ClassVar[str]
    annotation_kind: ClassVar[Literal["2d", "3d"]] = "2d"
    """Predicted points that the source's own annotation is compared with."""
    counted: ClassVar[Literal["pictures", "videos"]] = "pictures"
    """The things that `report` counts."""

    def __init__(self, root: str | Path) -> None:
        self.root = existing_folder(self.name, root)
        self.drops: list[Drop] = []
        self.notes: Counter[str] = Counter()

    @property
    def manifest(self) -> dict[str, Any]:
        """Title, citation, licence, expected counts."""
        return manifest(self.name)

    @property
    @abstractmethod
    def subsets(self) -> tuple[str, ...]:
        """Names of the subsets found."""

    @property
    def default_subsets(self) -> tuple[str, ...]:
        """Subsets that are read if none are named."""
        return self.subsets

    @abstractmethod
    def list_media(self, subset: str, piece: int) -> list[Media]:
        """List the media of a subset, stills in pieces of at most `piece` units."""

    @abstractmethod
    def report(self) -> list[Count]:
        """Count the pictures or videos of each subset, next to the published numbers."""

    def media(self, subsets: Collection[str] | None = None, piece: int = PIECE) -> list[Media]:
        """List the media of some subsets (None: the default ones), stills in pieces of at most `piece` units."""
        return [media for subset in self._chosen(subsets) for media in self.list_media(subset, piece)]

    def matching(self, asked: Collection[str]) -> list[str]:
        """List the subsets that `asked` names, in full or by their beginning (`balanced`: `balanced-0-30`, ...)."""
        return [subset for subset in self.subsets if any(self._means(name, subset) for name in asked)]

    def _means(self, name: str, subset: str) -> bool:
        return subset == name if name in self.subsets else subset.startswith(f"{name}-")

    def __iter__(self) -> Iterator[Sample]:
        """Yield the samples of the default subsets."""
        self.drops, self.notes = [], Counter()
        for media in self.media():
            for _, outcome in media.read(lambda number: False):
                if isinstance(outcome, Drop):
                    self.drops.append(outcome)
                else:
                    self.notes.update(outcome.flags)
                    yield outcome

    def _chosen(self, asked: Collection[str] | None) -> list[str]:
        there = ", ".join(self.subsets)
        if asked is None and not self.default_subsets:
            raise SourceError(f"{self.name}: {self.root} has only {there}; ask for them with --subset NAME")
        chosen = self.default_subsets if asked is None else asked
        missing = sorted(name for name in chosen if not self.matching([name]))
        if missing:
            raise SourceError(f"{self.name}: no subset {', '.join(missing)} in {self.root}; choose from {there}")
        return self.matching(chosen)

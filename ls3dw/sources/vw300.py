"""300-VW: 114 annotated videos in a training set and the test categories A, B and C."""

from __future__ import annotations

import csv
from functools import cache
from pathlib import Path
from typing import ClassVar, Final, Literal

from ls3dw.core.resources import folder
from ls3dw.core.sample import Media
from ls3dw.sources.base import Count, Source
from ls3dw.sources.face import printable
from ls3dw.sources.layout import find, visible, wrong_layout
from ls3dw.sources.video import ANNOTATIONS, VideoMedia, find_video, list_labels

OTHER: Final = "other"
"""Subset of videos that are not in the official split."""


class VW300(Source):
    """300-VW; the manifest lists each subset's videos."""

    name: ClassVar[str] = "300vw"
    counted: ClassVar[Literal["pictures", "videos"]] = "videos"

    def __init__(self, root: str | Path) -> None:
        super().__init__(root)
        outer = find(self.root, _has_videos, hint=self.name)
        if outer is None:
            raise wrong_layout(self.name, self.root, "001/vid.avi with 001/annot/000001.pts and so on")
        self._videos: dict[str, list[Path]] = {}
        for video in filter(_is_video, visible(outer)):
            self._videos.setdefault(self._subset_of(video.name), []).append(video)

    @property
    def subsets(self) -> tuple[str, ...]:
        """The subsets with at least one video, in the manifest's order."""
        return tuple(subset for subset in (*self.manifest["subsets"], OTHER) if subset in self._videos)

    def list_media(self, subset: str, piece: int) -> list[Media]:
        """List the videos of a subset. They are never split, since each is decoded in one pass."""
        return [self._media(subset, video) for video in self._videos[subset]]

    def report(self) -> list[Count]:
        """Count the videos of every subset."""
        split = self.manifest["subsets"]
        counts = [Count(name, len(self._videos.get(name, ())), len(split[name]["videos"])) for name in split]
        others = self._videos.get(OTHER)
        return [*counts, Count(OTHER, len(others), None)] if others else counts

    def _subset_of(self, video: str) -> str:
        split = self.manifest["subsets"]
        return next((name for name in split if video in split[name]["videos"]), OTHER)

    def _media(self, subset: str, video: Path) -> VideoMedia:
        return VideoMedia(
            name=printable(video.name),
            subset=subset,
            source=self.name,
            root=self.root,
            folder=video,
            expected=max(1, len(list_labels(video))),
            broken=broken_frames().get(video.name, ()),
        )


def _is_video(path: Path) -> bool:
    return path.is_dir() and (find_video(path) is not None or (path / ANNOTATIONS).is_dir())


def _has_videos(path: Path) -> bool:
    return any(map(_is_video, visible(path)))


@cache
def broken_frames() -> dict[str, tuple[tuple[int, int], ...]]:
    """Return for each video the first and last frame, from 1, of the ranges with a wrong annotation."""
    broken: dict[str, tuple[tuple[int, int], ...]] = {}
    with (folder("manifests") / "300vw_broken_frames.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            frames = (int(row["first_frame"]), int(row["last_frame"]))
            broken[row["video"]] = (*broken.get(row["video"], ()), frames)
    return broken

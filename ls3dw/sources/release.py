"""LS3D-W as its authors released it: pictures, each with its 68 re-annotated points in a Torch7 file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Final, Literal

import numpy as np

from ls3dw.core.formats import t7
from ls3dw.core.markup import POINTS
from ls3dw.errors import SourceError, T7Error
from ls3dw.sources.face import Face, Rejected, printable, to_float32
from ls3dw.sources.layout import find, has_files, visible, wrong_layout
from ls3dw.sources.stills import AnnotationFormat, Pair, StillFolder, StillSource, list_pairs

SUFFIX: Final = ".t7"

VIDEOS: Final = "300VW-3D"
CATEGORIES: Final = {
    "300vw-train": "Trainset",
    "300vw-a": "CatA",
    "300vw-b": "CatB",
    "300vw-c": "CatC",
}
"""Subset -> folder in `VIDEOS`, with a folder of frames for each video."""

STILLS: Final = {
    "300w": "300W-Testset-3D",
    "menpo": "Menpo-3D",
    "aflw2000": "AFLW2000-3D-Reannotated",
}
"""Subset -> folder."""

BALANCED: Final = "balanced"
BALANCED_FOLDERS: Final = ("LS3D-W_balanced", "new_dataset", "LS3D-W_balanced/new_dataset")
BINS: Final = {1: "balanced-0-30", 2: "balanced-30-60", 0: "balanced-60-90"}
"""Number of a balanced picture modulo 3 -> subset, named by its bin of |yaw| in degrees."""

UNNUMBERED: Final = "balanced-other"
"""Subset of the balanced pictures whose name is no number."""


def parse_t7(data: bytes) -> Face:
    """Read a tensor of 68 x 2 points, which are 0-based."""
    try:
        tensor = t7.loads(data, name="the file")
    except T7Error as error:
        raise _malformed(str(error)) from error
    if not isinstance(tensor, np.ndarray):
        raise _malformed(f"a {type(tensor).__name__}; expected a tensor of {POINTS} x 2")
    if tensor.ndim != 2 or tensor.shape[1] != 2 or tensor.dtype.kind not in "fiu":
        raise _malformed(f"a tensor of {tensor.dtype} {tensor.shape}; expected {POINTS} x 2 numbers")
    if len(tensor) != POINTS:
        raise Rejected("wrong number of points", f"{len(tensor)} points; expected {POINTS}")
    points = to_float32(tensor.astype(np.float64))
    return Face(points, points)


def _malformed(detail: str) -> Rejected:
    return Rejected("malformed annotation", detail)


def yaw_bin(stem: str) -> str:
    """Return the subset of a balanced picture by its file name."""
    return BINS[int(stem) % 3] if stem.isascii() and stem.isdigit() else UNNUMBERED


class Release(StillSource):
    """LS3D-W. Ids are `ls3dw/` and the path in the release, e.g. `ls3dw/300VW-3D/CatA/114/0001`.

    The balanced set repeats pictures of the others, so it is read only if it is named, or if there is nothing else.
    """

    name: ClassVar[str] = "ls3dw"
    annotation_kind: ClassVar[Literal["2d", "3d"]] = "3d"
    format: ClassVar[AnnotationFormat] = AnnotationFormat(SUFFIX, parse_t7, digests=True)

    def find_folders(self) -> list[StillFolder]:
        """Look for any of the release's folders."""
        known = (VIDEOS, *STILLS.values(), *BALANCED_FOLDERS)
        outer = find(self.root, lambda path: any((path / name).is_dir() for name in known), hint="LS3D-W")
        if outer is None and self.root.name in known:
            outer = self.root.parent
        found = [] if outer is None else [*_videos(outer), *_stills(outer), *self._balanced(outer)]
        # If the root is one of the folders, its siblings are not meant.
        folders = [folder for folder in found if folder.path.is_relative_to(self.root)]
        if not folders:
            raise wrong_layout(
                self.name, self.root, f"{VIDEOS}/CatA/, {', '.join(f'{name}/' for name in known[1:])} or some of them"
            )
        return folders

    @property
    def default_subsets(self) -> tuple[str, ...]:
        """All but the balanced set, unless there is nothing else."""
        others = tuple(subset for subset in self.subsets if not is_balanced(subset))
        return others or self.subsets

    def list_folder(self, folder: StillFolder) -> list[Pair]:
        """List the pairs of a folder; of a balanced one, those of its bin."""
        pairs = super().list_folder(folder)
        return [pair for pair in pairs if yaw_bin(pair.stem) == folder.subset] if is_balanced(folder.subset) else pairs

    def _balanced(self, outer: Path) -> Iterator[StillFolder]:
        there = [name for name in BALANCED_FOLDERS if (outer / name).is_dir() and has_files(outer / name, SUFFIX)]
        if len(there) > 1:
            raise SourceError(f"{outer}: {' and '.join(there)} could each be the balanced set; keep one of them there")
        for name in there:
            found = {yaw_bin(pair.stem) for pair in list_pairs(outer / name, SUFFIX)}
            for subset in (*BINS.values(), UNNUMBERED):
                if subset in found:
                    yield StillFolder(subset, subset, outer / name, f"{name}/")


def is_balanced(subset: str) -> bool:
    """Return whether a subset belongs to the balanced set."""
    return subset in BINS.values() or subset == UNNUMBERED


def _videos(outer: Path) -> Iterator[StillFolder]:
    for subset, category in CATEGORIES.items():
        folder = outer / VIDEOS / category
        for video in visible(folder) if folder.is_dir() else []:
            if video.is_dir():
                name = printable(video.name)
                yield StillFolder(f"{subset}-{name}", subset, video, f"{VIDEOS}/{category}/{name}/")


def _stills(outer: Path) -> Iterator[StillFolder]:
    for subset, name in STILLS.items():
        if (outer / name).is_dir():
            yield StillFolder(subset, subset, outer / name, f"{name}/")

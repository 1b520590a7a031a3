"""Writes LS3D-W as it was released: a Torch7 file beside each picture."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Final

from ls3dw.core.formats import t7
from ls3dw.dataset.exporters.base import (
    ExportOptions,
    ExportReport,
    Layout,
    Places,
    Points,
    chosen_rows,
    to_whole_pixels,
    write_faces,
)
from ls3dw.dataset.gate import relative_id
from ls3dw.dataset.open import Dataset
from ls3dw.errors import ConfigurationError, DatasetError
from ls3dw.sources.release import CATEGORIES, STILLS, VIDEOS

CATEGORY_OF: Final = {"train": "300vw-train", "A": "300vw-a", "B": "300vw-b", "C": "300vw-c"}
"""Subset of 300-VW -> that of the release."""

TEST_SET: Final = frozenset({"indoor", "outdoor"})
"""The subsets of 300-W that are in the release."""


class ReleaseLayout(Layout):
    """x and y of the 3D landmarks as a DoubleTensor of 68 x 2."""

    suffix = ".t7"

    def __init__(self, whole_pixels: bool) -> None:
        self._whole_pixels = whole_pixels

    def encode(self, points: Points) -> bytes:
        plane = points["landmarks_3d"][:, :2]
        return bytes(t7.dumps(to_whole_pixels(plane) if self._whole_pixels else plane))


def export_release(dataset: Dataset, out: Path, options: ExportOptions) -> ExportReport:
    """Write `<place>.jpg` and `<place>.t7` for every face that has a place in the release.

    The picture is the kept one, its bytes unchanged: the face and its surroundings, not the whole picture. The points
    are in pixels of that picture.
    """
    places: Places = {}
    taken: dict[PurePosixPath, str] = {}
    left_out: dict[str, int] = {}
    for row, face, source, subset in chosen_rows(dataset, options.sources):
        place = release_place(face, source, subset)
        if place is None:
            left_out[f"{source}/{subset}"] = left_out.get(f"{source}/{subset}", 0) + 1
            continue
        if place in taken:
            raise ConfigurationError(f"{taken[place]} and {face} would both be {place}; export one --source at a time")
        taken[place], places[row] = face, place
    if not places:
        raise DatasetError(
            f"{dataset.store.root}: none of its faces ({', '.join(sorted(left_out)) or 'none of these sources'}) has a"
            " place in LS3D-W; export 300vw, 300w test, menpo, aflw2000 or ls3dw"
        )
    write_faces(dataset, out, places, ReleaseLayout(options.whole_pixels))
    return ExportReport(out, dataset.version, len(places), left_out)


def release_place(face: str, source: str, subset: str) -> PurePosixPath | None:
    """Return the path of a face in the release, without suffix; None if it is not in it.

    Faces of the source `ls3dw` keep the path they came from.
    """
    path = relative_id(face)
    if path.parts[0] != source or len(path.parts) < 2:
        raise DatasetError(f"{face!r}: an id of another source than {source}; the data set is damaged")
    name = path.relative_to(source)
    if source == "ls3dw":
        return name
    if source == "300vw" and subset in CATEGORY_OF:
        return PurePosixPath(VIDEOS, CATEGORIES[CATEGORY_OF[subset]], name)
    if source in STILLS and (source != "300w" or subset in TEST_SET):
        return PurePosixPath(STILLS[source], name.name)
    return None

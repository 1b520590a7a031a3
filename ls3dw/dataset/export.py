"""Writes a version in the layouts of others. Here: LS3D-W as it was released, a Torch7 file beside each picture."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ls3dw.core.files import TEMPORARY
from ls3dw.core.formats import t7
from ls3dw.core.geometry import apply
from ls3dw.dataset.open import Dataset
from ls3dw.dataset.shards import Shard
from ls3dw.errors import ConfigurationError, DatasetError
from ls3dw.sources.release import CATEGORIES, STILLS, VIDEOS

CATEGORY_OF: Final = {"train": "300vw-train", "A": "300vw-a", "B": "300vw-b", "C": "300vw-c"}
"""Subset of 300-VW -> that of the release."""

TEST_SET: Final = frozenset({"indoor", "outdoor"})
"""The subsets of 300-W that the release has."""


@dataclass(frozen=True)
class Export:
    """What was written. left_out: faces that the layout has no place for, by source and subset."""

    written: int
    left_out: dict[str, int]


@dataclass(frozen=True)
class Options:
    """sources: only these; empty: all. whole_pixels: truncate as the release did, instead of keeping fractions."""

    sources: Collection[str] = ()
    whole_pixels: bool = False


def export_release(dataset: Dataset, out: Path, options: Options) -> Export:
    """Write `<place>.jpg` and `<place>.t7` for every face that has a place in the release.

    The picture is the one that the data set keeps, its bytes as they are: the face and its surroundings, not the whole
    picture. The points are the x and y of the 3D landmarks in pixels of that picture, as a DoubleTensor of 68 x 2.
    """
    places, left_out = _places(dataset, options.sources)
    if not places:
        raise DatasetError(
            f"{dataset.store.root}: none of its faces ({', '.join(sorted(left_out)) or 'none of these sources'}) has a"
            " place in LS3D-W; export 300vw, 300w test, menpo, aflw2000 or ls3dw"
        )
    with new_folder(out) as folder:
        for (source, shard), part in dataset.index.groupby(["source", "shard"], sort=False):
            chosen = [(row, places[row], int(at)) for row, at in part["row"].items() if row in places]
            if chosen:
                _write_shard(dataset, (str(source), str(shard)), folder, chosen, options.whole_pixels)
    return Export(len(places), left_out)


def _write_shard(
    dataset: Dataset,
    shard: tuple[str, str],
    folder: Path,
    chosen: list[tuple[Any, PurePosixPath, int]],
    whole_pixels: bool,
) -> None:
    store = dataset.store
    with Shard(store.faces(*shard)) as faces, Shard(store.annotations(dataset.version, *shard)) as annotations:
        points = apply(faces.column("to_picture"), annotations.column("landmarks_3d")[..., :2])
        for _, place, at in chosen:
            file = folder / place.parent / f"{place.name}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(faces.picture_bytes(at).tobytes())
            tensor = to_whole_pixels(points[at]) if whole_pixels else points[at]
            file.with_name(f"{place.name}.t7").write_bytes(t7.dumps(tensor.astype(np.float64)))


def to_whole_pixels(points: NDArray[Any]) -> NDArray[Any]:
    """Truncate as the published code does: its pixel k covers [k, k + 1), ours [k - 0.5, k + 0.5)."""
    return np.asarray(np.trunc(points.astype(np.float64) + 0.5))


def _places(dataset: Dataset, sources: Collection[str]) -> tuple[dict[int, PurePosixPath], dict[str, int]]:
    """Return where faces go, by row of the index, and count those that go nowhere."""
    index = dataset.index
    unknown = sorted(set(sources) - set(index["source"]))
    if unknown:
        raise ConfigurationError(f"{dataset.store.root}: no source {', '.join(unknown)} in it")
    places: dict[int, PurePosixPath] = {}
    taken: dict[PurePosixPath, str] = {}
    left_out: dict[str, int] = {}
    for row, (face, source, subset) in enumerate(index[["id", "source", "subset"]].itertuples(index=False)):
        if sources and source not in sources:
            continue
        place = release_place(face, source, subset)
        if place is None:
            left_out[f"{source}/{subset}"] = left_out.get(f"{source}/{subset}", 0) + 1
            continue
        if place in taken:
            raise ConfigurationError(f"{taken[place]} and {face} would both be {place}; export one --source at a time")
        taken[place], places[row] = face, place
    return places, left_out


def release_place(face: str, source: str, subset: str) -> PurePosixPath | None:
    """Return where the release has a face, without a suffix; None if it has no place for it.

    Faces of the source `ls3dw` go back to where they came from.
    """
    name = PurePosixPath(face).relative_to(source)
    if ".." in name.parts:
        raise DatasetError(f"{face}: an id that leaves its folder; the data set is damaged or not to be trusted")
    if source == "ls3dw":
        return name
    if source == "300vw" and subset in CATEGORY_OF:
        return PurePosixPath(VIDEOS, CATEGORIES[CATEGORY_OF[subset]], name)
    if source in STILLS and (source != "300w" or subset in TEST_SET):
        return PurePosixPath(STILLS[source], name.name)
    return None


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Give a folder to write to that becomes `out` when all went well, and is removed when not."""
    out = out.resolve()
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise ConfigurationError(f"{out}: not empty; choose a new folder")
    partial = out.with_name(out.name + TEMPORARY)
    shutil.rmtree(partial, ignore_errors=True)  # of a run that was killed
    partial.mkdir(parents=True)
    try:
        yield partial
        partial.replace(out)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


FORMATS: Final[dict[str, Callable[[Dataset, Path, Options], Export]]] = {"ls3d-w": export_release}
"""The formats that a data set can be exported to."""

"""What all export formats share: options, report, and a folder that is there whole or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ls3dw.core.files import partial_path
from ls3dw.core.geometry import apply
from ls3dw.core.jobs import run_all
from ls3dw.dataset.open import Dataset
from ls3dw.dataset.shards import Shard
from ls3dw.errors import ConfigurationError, DatasetError

Places = dict[int, PurePosixPath]
"""Row of the index -> path of a face's files below the new folder, without suffix."""

Points = dict[str, NDArray[np.float64]]
"""Points of one face by column: (68, 2 or 3), pixels of its kept picture."""


@dataclass(frozen=True)
class ExportReport:
    """out: the new folder; version: of the annotations; written: number of faces; left_out: number of faces without a
    place in the layout, by source and subset."""

    out: Path
    version: str
    written: int
    left_out: dict[str, int]


@dataclass(frozen=True)
class ExportOptions:
    """sources: only these, empty for all; whole_pixels: truncate as LS3D-W did, instead of keeping fractions."""

    sources: Collection[str] = ()
    whole_pixels: bool = False


class Layout:
    """How one format encodes the points of a face. Can be pickled, so that faces can be written elsewhere."""

    columns: tuple[str, ...] = ("landmarks_3d",)
    suffix: str = ""

    def encode(self, points: Points) -> bytes:
        raise NotImplementedError


def chosen_rows(dataset: Dataset, sources: Collection[str]) -> list[tuple[int, str, str, str]]:
    """Return row, id, source and subset of the faces of some sources, or of all if there are none."""
    index = dataset.index
    if unknown := sorted(set(sources) - set(index["source"])):
        raise ConfigurationError(f"{dataset.store.root}: no source {', '.join(unknown)} in it")
    rows = enumerate(index[["id", "source", "subset"]].itertuples(index=False, name=None))
    return [(row, *values) for row, values in rows if not sources or values[1] in sources]


def write_faces(dataset: Dataset, out: Path, places: Places, layout: Layout) -> None:
    """Write `<place>.jpg`, the kept picture unchanged, and `<place><suffix>`, its points, for every face."""
    with new_folder(out) as folder:
        calls = []
        for (source, shard), part in dataset.index.groupby(["source", "shard"], sort=False):
            chosen = [(places[row], int(at)) for row, at in part["row"].items() if row in places]
            if chosen:
                calls.append((dataset, (str(source), str(shard)), folder, chosen, layout))
        for _ in run_all(_write_shard, calls, few=4):
            pass


def _write_shard(
    dataset: Dataset, shard: tuple[str, str], folder: Path, chosen: list[tuple[PurePosixPath, int]], layout: Layout
) -> None:
    store = dataset.store
    annotated = store.annotations(dataset.version, *shard)
    with Shard(store.faces(*shard), store.root) as faces, Shard(annotated, store.root) as annotations:
        if len(faces) != len(annotations) or max(at for _, at in chosen) >= len(faces):
            raise DatasetError(f"{annotated}: its rows are not those of the index and the pictures; run ls3dw verify")
        affine = faces.column("to_picture")
        points = {name: apply(affine, annotations.column(name)) for name in layout.columns}
        for place, at in chosen:
            file = folder / place.parent / f"{place.name}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(faces.picture_bytes(at).tobytes())
            encoded = layout.encode({name: values[at].astype(np.float64) for name, values in points.items()})
            file.with_name(f"{place.name}{layout.suffix}").write_bytes(encoded)


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Yield a folder that becomes `out` unless an error is raised."""
    out = out.resolve()
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise ConfigurationError(f"{out}: not empty; choose a new folder")
    partial = partial_path(out)
    partial.mkdir(parents=True)
    try:
        yield partial
        partial.replace(out)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def to_whole_pixels(points: NDArray[Any]) -> NDArray[Any]:
    """Truncate as the published code does: its pixel k covers [k, k + 1), ours [k - 0.5, k + 0.5)."""
    return np.asarray(np.trunc(points.astype(np.float64) + 0.5))

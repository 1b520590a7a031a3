"""Writes a gallery: a folder that opens from disk in any browser, the same bytes for the same version."""

from __future__ import annotations

import io
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ls3dw.core.files import sha256_file
from ls3dw.core.markup import LINES
from ls3dw.dataset.index import read_drops
from ls3dw.dataset.open import Dataset, Face
from ls3dw.review.gallery.choose import DROPS, Choice, Request, choose
from ls3dw.review.gallery.data import CHUNK, STEPS, head_script, numbers, pack_points, points_script
from ls3dw.review.gallery.measures import neighbours
from ls3dw.review.gallery.tiles import TILE, encode_tile, to_tile
from ls3dw.sources import SOURCES

ASSETS: Final = Path(__file__).parent / "assets"
"""The page itself, copied as it is: whatever a data set is called, it never becomes part of a page or a script."""

STEPS_BESIDE: Final = (-2, -1, 1, 2)
"""The frames that are shown beside one of a video."""

_TOGETHER: Final = 64


@dataclass(frozen=True)
class Written:
    """page: the gallery's index.html; faces: shown in it; total: that it would have without a limit; size: bytes."""

    page: Path
    faces: int
    total: int
    size: int


def write_gallery(dataset: Dataset, request: Request, full: bool = True) -> Written:
    """Write galleries/<version>/<name>, in place of what is there. full: with the kept pictures at full size."""
    folder = dataset.store.gallery(dataset.version, request.name)
    with _replaced(folder) as new:
        for asset in sorted(ASSETS.iterdir()):
            shutil.copyfile(asset, new / asset.name)
        head = _head(dataset, request) | {"full": full}
        if request.kind == DROPS:
            shown, total = _write_drops(dataset, request, new, head)
        else:
            choice = choose(dataset, request)
            shown, total = len(choice.rows), choice.total
            _write_faces(dataset, choice, new, head)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return Written(folder / "index.html", shown, total, size)


@contextmanager
def _replaced(folder: Path) -> Iterator[Path]:
    """Give a new folder that takes the place of `folder` when all went well, and is removed when not."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Not one name for all: two runs at once must not write into one folder.
    work = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        new = work / "new"
        new.mkdir()
        yield new
        if folder.exists():
            folder.rename(work / "old")
        new.rename(folder)
    finally:
        shutil.rmtree(work)


def _head(dataset: Dataset, request: Request) -> dict[str, Any]:
    filters = [*request.sources, *request.subsets, *(f"yaw {name}" for name in request.yaw)]
    return {
        "dataset": dataset.store.root.resolve().name,
        "version": dataset.version,
        "manifest": sha256_file(dataset.store.manifest_file(dataset.version)),
        "gallery": request.name,
        "filters": filters,
        "tile": TILE,
        "chunk": CHUNK,
        "steps": STEPS,
        "lines": LINES,
        # The points that NME compares with the source's own.
        "compared": {name: source.annotation_kind for name, source in SOURCES.items()},
    }


def _write_drops(dataset: Dataset, request: Request, folder: Path, head: dict[str, Any]) -> tuple[int, int]:
    drops = read_drops(dataset.store, dataset.version)
    if request.sources:
        drops = drops[drops["source"].isin(request.sources)]
    shown = drops.iloc[: request.limit]
    head |= {"title": "Left out", "label": "", "percent": False, "pictures": False}
    head |= {"total": len(drops), "shown": len(shown)}
    (folder / "data.js").write_bytes(head_script(head, {str(name): values.tolist() for name, values in shown.items()}))
    return len(shown), len(drops)


def _write_faces(dataset: Dataset, choice: Choice, folder: Path, head: dict[str, Any]) -> None:
    rows, beside = _with_neighbours(dataset, choice.rows)
    show = choice.show
    head |= {"title": show.title, "label": show.label, "percent": show.percent, "pictures": True}
    head |= {"total": choice.total, "shown": len(choice.rows)}
    drawn = _draw(dataset, rows, len(choice.rows) if head["full"] else 0, folder)
    scores = np.concatenate([choice.scores, np.full(len(rows) - len(choice.rows), np.nan)])
    columns = _columns(dataset, rows) | {"score": numbers(scores, 5), "beside": beside}
    (folder / "data.js").write_bytes(head_script(head, columns | drawn))


def _with_neighbours(dataset: Dataset, rows: NDArray[np.intp]) -> tuple[NDArray[np.intp], list[list[int]]]:
    """Add the rows of the frames beside those of videos; return all, and for each chosen face which stand beside it."""
    place = {int(row): number for number, row in enumerate(rows)}
    steps = [neighbours(dataset, step) for step in STEPS_BESIDE]
    beside = [[place.setdefault(int(step[row]), len(place)) for step in steps if step[row] >= 0] for row in rows]
    return np.array(list(place), dtype=np.intp), beside


def _columns(dataset: Dataset, rows: NDArray[np.intp]) -> dict[str, list[Any]]:
    part = dataset.index.iloc[rows]
    columns = {name: part[name].tolist() for name in ("id", "source", "subset", "media", "frame", "broken")}
    digits = {"nme": 5, "yaw": 1, "pitch": 1, "roll": 1, "confidence": 3}
    return columns | {name: numbers(part[name].to_numpy(), places) for name, places in digits.items()}


def _draw(dataset: Dataset, rows: NDArray[np.intp], full: int, folder: Path) -> dict[str, list[Any]]:
    """Write the tiles of all rows, the whole pictures of the first `full`, and the points; return the places.

    view: the affine from a kept picture to its tile: zoom, x, y; size: width and height of the kept picture.
    """
    (folder / "tiles").mkdir()
    (folder / "full").mkdir()
    points: list[Any] = [None] * len(rows)
    view: list[Any] = [None] * len(rows)
    size: list[Any] = [None] * len(rows)

    def finish(number: int, face: Face) -> None:
        name = f"{number:06d}.jpg"
        (folder / "tiles" / name).write_bytes(encode_tile(face))
        if number < full:
            (folder / "full" / name).write_bytes(face.jpeg.tobytes())
        affine = to_tile(face)
        points[number] = pack_points(face)
        view[number] = numbers(np.array([affine[0, 0], affine[0, 2], affine[1, 2]]), 5)
        size[number] = list(jpeg_size(face.jpeg))

    # In the order of the shards, so that each is opened once.
    order = np.argsort(rows, kind="stable").tolist()
    with ThreadPoolExecutor(2) as pool:
        for start in range(0, len(order), _TOGETHER):
            part = order[start : start + _TOGETHER]
            faces = [dataset[int(rows[number])] for number in part]
            list(pool.map(finish, part, faces))
    for start in range(0, len(rows), CHUNK):
        script = points_script(start // CHUNK, points[start : start + CHUNK])
        (folder / f"data-{start // CHUNK:03d}.js").write_bytes(script)
    return {"view": view, "size": size}


def jpeg_size(data: NDArray[np.uint8]) -> tuple[int, int]:
    """Read width and height from the head of a JPEG file."""
    with Image.open(io.BytesIO(data.tobytes())) as image:
        return image.size

"""Writes a gallery: a folder that opens from disk in any browser; the same version gives the same bytes."""

from __future__ import annotations

import io
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ls3dw.core.files import sha256_file
from ls3dw.core.jobs import run_all
from ls3dw.core.markup import LINES
from ls3dw.dataset.index import read_drops
from ls3dw.dataset.open import Dataset, Face
from ls3dw.errors import PictureError
from ls3dw.review.folder import new_gallery
from ls3dw.review.gallery.choose import DROPS, Choice, GalleryOptions, choose
from ls3dw.review.gallery.measures import neighbours
from ls3dw.review.gallery.scripts import CHUNK, STEPS, head_script, numbers, pack_points, points_script
from ls3dw.review.gallery.tiles import TILE, encode_tile, to_tile

ASSETS: Final = Path(__file__).parent / "assets"
"""The page itself, copied unchanged: no name from a data set becomes part of HTML or a script."""

STEPS_BESIDE: Final = (-2, -1, 1, 2)
"""Neighbouring frames that are shown with a frame of a video."""

_TOGETHER: Final = 64
"""Faces of one call: enough to keep its cost small, few enough to share the work."""


@dataclass(frozen=True)
class Gallery:
    """page: its index.html; faces: number shown; total: number without the limit; size: bytes."""

    page: Path
    faces: int
    total: int
    size: int


def write_gallery(dataset: Dataset, request: GalleryOptions, full: bool = True) -> Gallery:
    """Write galleries/<version>/<name>, replacing an older one. full: include the kept pictures at full size."""
    folder = dataset.store.gallery(dataset.version, request.name)
    with new_gallery(dataset, request.name) as new:
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
    return Gallery(folder / "index.html", shown, total, size)


def _head(dataset: Dataset, request: GalleryOptions) -> dict[str, Any]:
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
        "compared": {name: dataset.annotation_kind(name) for name in sorted(dataset.manifest["counts"])},
    }


def _write_drops(dataset: Dataset, request: GalleryOptions, folder: Path, head: dict[str, Any]) -> tuple[int, int]:
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
    """Add the rows of neighbouring frames; return all rows, and for each chosen face the places of its neighbours."""
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
    """Write the tiles of all rows, the whole pictures of the first `full`, and the points; return two columns.

    view: zoom, x, y of the affine from a kept picture to its tile; size: width and height of the kept picture.
    """
    (folder / "tiles").mkdir()
    (folder / "full").mkdir()
    # In the order of the shards, so that each is opened once.
    order = np.argsort(rows, kind="stable")
    parts = [order[start : start + _TOGETHER] for start in range(0, len(order), _TOGETHER)]
    calls = [(dataset, rows[part], part, full, folder) for part in parts]
    drawn = {number: face for faces in run_all(_draw_faces, calls, few=1) for number, face in faces}
    points, view, size = ([drawn[number][column] for number in range(len(rows))] for column in range(3))
    for start in range(0, len(rows), CHUNK):
        script = points_script(start // CHUNK, points[start : start + CHUNK])
        (folder / f"data-{start // CHUNK:03d}.js").write_bytes(script)
    return {"view": view, "size": size}


def _draw_faces(
    dataset: Dataset, rows: NDArray[np.intp], numbers_of: NDArray[np.intp], full: int, folder: Path
) -> list[tuple[int, tuple[Any, ...]]]:
    """Write the pictures of some faces; return for each its number, points, view and size."""
    found = []
    for row, number in zip(rows.tolist(), numbers_of.tolist(), strict=True):
        face = dataset[row]
        name = f"{number:06d}.jpg"
        (folder / "tiles" / name).write_bytes(encode_tile(face))
        if number < full:
            (folder / "full" / name).write_bytes(face.jpeg.tobytes())
        affine = to_tile(face)
        view = numbers(np.array([affine[0, 0], affine[0, 2], affine[1, 2]]), 5)
        found.append((number, (pack_points(face), view, list(jpeg_size(face)))))
    return found


def jpeg_size(face: Face) -> tuple[int, int]:
    """Read width and height from the head of a kept picture."""
    try:
        with Image.open(io.BytesIO(face.jpeg.tobytes())) as image:
            return image.size
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise PictureError(f"{face.id}: the kept picture is not a JPEG; run ls3dw verify") from error

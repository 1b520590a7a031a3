"""A page of pairs: the faces that changed most between two versions, with the points of both side by side."""

from __future__ import annotations

import html
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from PIL import Image

from ls3dw.core.jobs import run_all
from ls3dw.dataset.open import Dataset, open_dataset
from ls3dw.evaluation.diff import DiffReport, face_values, plots
from ls3dw.review.folder import new_gallery
from ls3dw.review.page import render_page
from ls3dw.review.sheets import CONTACT, draw_tile

GAP: Final = 6

TITLES: Final = {"better": "Nearer to the source's points", "worse": "Farther from them", "moved": "Moved most"}
PLOTS: Final = {
    "errors.png": "Errors of both versions against the sources' own points",
    "moved.png": "How far faces moved, by source",
    "groups.png": "How far landmarks moved, by part of the face",
}


def write_pairs(report: DiffReport) -> Path:
    """Write galleries/<after>/diff-<before>: plots, a picture for each pair, and a page, whose path is returned."""
    moves = report.moves
    before, after = (open_dataset(report.dataset, name) for name in (moves.before, moves.after))
    name = f"diff-{before.version}"
    with new_gallery(after, name) as folder:
        for plot, data in plots(moves).items():
            (folder / plot).write_bytes(data)
        calls = [
            (before, after, str(moves.index["id"].iat[int(row)]), folder / _picture(group, number))
            for group, rows in report.chosen.items()
            for number, row in enumerate(rows)
        ]
        for _ in run_all(_write_pair, calls):
            pass
        (folder / "index.html").write_bytes(
            render_page(f"From {moves.before} to {moves.after}", "\n".join(_body(report)))
        )
    return after.store.gallery(after.version, name) / "index.html"


def _write_pair(before: Dataset, after: Dataset, face: str, path: Path) -> None:
    """Draw one face twice, with the points of one version and of the other."""
    tile = CONTACT.tile
    pair = Image.new("RGB", (2 * tile + GAP, tile), CONTACT.paper)
    for number, dataset in enumerate((before, after)):
        pair.paste(draw_tile(dataset[face], tile), (number * (tile + GAP), 0))
    buffer = io.BytesIO()
    pair.save(buffer, "JPEG", quality=92, subsampling=0)
    path.write_bytes(buffer.getvalue())


def _picture(group: str, number: int) -> str:
    return f"{group}-{number:03d}.jpg"


def _body(report: DiffReport) -> Iterator[str]:
    before, after = map(html.escape, (report.moves.before, report.moves.after))
    yield f"""<p>Left {before}, right {after}. Red: the source's own points; white: 2D
landmarks (visible contour); blue: projected 3D landmarks. Distances in pixels of the 256-pixel crop.</p>
<div class="grid">"""
    for name, text in PLOTS.items():
        yield f'<figure><img src="{name}" alt="{text}"></figure>'
    yield "</div>"
    for group, rows in report.chosen.items():
        yield f'<h2>{TITLES[group]}</h2>\n<div class="grid">'
        for number, row in enumerate(rows):
            yield _figure(_picture(group, number), face_values(report.moves, int(row)))
        yield "</div>" if len(rows) else "<p>No face.</p></div>"


def _figure(picture: str, face: dict[str, Any]) -> str:
    name = html.escape(face["id"])
    errors = "no points to compare with"
    if face["nme_before"] is not None and face["nme_after"] is not None:
        errors = f"NME {100 * face['nme_before']:.2f} % to {100 * face['nme_after']:.2f} %"
    return (
        f'<figure><img src="{picture}" alt="{name} in both versions" loading="lazy">'
        f"<figcaption>{name}<br>moved {face['moved']:.2f}, {errors}, yaw {face['yaw']:.0f}</figcaption></figure>"
    )

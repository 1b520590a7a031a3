"""A page of pairs: the faces that changed most between two versions, with the points of both side by side."""

from __future__ import annotations

import html
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from PIL import Image

from ls3dw.core.files import write_atomic
from ls3dw.dataset.open import Dataset
from ls3dw.evaluation.diff import Moves
from ls3dw.evaluation.diff_report import Chosen, face_values, plots
from ls3dw.review.contact_sheets import PAPER, TILE, draw_tile

GAP: Final = 6

TITLES: Final = {"better": "Nearer to the source's points", "worse": "Farther from them", "moved": "Moved most"}
PLOTS: Final = {
    "errors.png": "Errors of both versions against the sources' own points",
    "moved.png": "How far faces moved, by source",
    "groups.png": "How far landmarks moved, by part of the face",
}


def write_pairs(before: Dataset, after: Dataset, moves: Moves, chosen: Chosen) -> Path:
    """Write galleries/<after>/diff-<before>: plots, a picture a pair, and last the page; return the page's path."""
    folder = after.store.gallery(after.version, f"diff-{before.version}")
    for name, data in plots(moves).items():
        write_atomic(folder / name, data)
    for group, rows in chosen.items():
        for number, row in enumerate(rows):
            face = str(moves.index["id"].iat[int(row)])
            write_atomic(folder / _picture(group, number), _jpeg(draw_pair(before, after, face)))
    page = folder / "index.html"
    write_atomic(page, "\n".join(_page(moves, chosen)).encode())
    return page


def draw_pair(before: Dataset, after: Dataset, face: str) -> Image.Image:
    """Draw one face twice: with the points of the one version, and of the other."""
    pair = Image.new("RGB", (2 * TILE + GAP, TILE), PAPER)
    for number, dataset in enumerate((before, after)):
        pair.paste(draw_tile(dataset[face], TILE), (number * (TILE + GAP), 0))
    return pair


def _picture(group: str, number: int) -> str:
    return f"{group}-{number:03d}.jpg"


def _jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=92, subsampling=0)
    return buffer.getvalue()


def _page(moves: Moves, chosen: Chosen) -> Iterator[str]:
    title = html.escape(f"From {moves.before} to {moves.after}")
    yield f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src 'self'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ margin: 2rem auto; max-width: 84rem; padding: 0 1rem; background: #181a1e; color: #e1e4e8;
  font: 1rem/1.5 system-ui, sans-serif }}
.grid {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(24rem, 1fr)); gap: 1.2rem }}
figure {{ margin: 0 }} img {{ width: 100%; height: auto; border-radius: 6px }}
figcaption {{ overflow-wrap: anywhere }}
</style></head><body>
<h1>{title}</h1>
<p>Left {html.escape(moves.before)}, right {html.escape(moves.after)}. Red: the source's own points; white: 2D
landmarks (visible contour); blue: projected 3D landmarks. Distances in pixels of the 256-pixel crop.</p>
<div class="grid">"""
    for name, text in PLOTS.items():
        yield f'<figure><img src="{name}" alt="{text}"></figure>'
    yield "</div>"
    for group, rows in chosen.items():
        yield f'<h2>{TITLES[group]}</h2>\n<div class="grid">'
        for number, row in enumerate(rows):
            yield _figure(_picture(group, number), face_values(moves, int(row)))
        yield "</div>" if len(rows) else "<p>No face.</p></div>"
    yield "</body></html>\n"


def _figure(picture: str, face: dict[str, Any]) -> str:
    name = html.escape(face["id"])
    errors = "no points to compare with"
    if face["nme_before"] is not None and face["nme_after"] is not None:
        errors = f"NME {100 * face['nme_before']:.2f} % to {100 * face['nme_after']:.2f} %"
    return (
        f'<figure><img src="{picture}" alt="{name} in both versions" loading="lazy">'
        f"<figcaption>{name}<br>moved {face['moved']:.2f}, {errors}, yaw {face['yaw']:.0f}</figcaption></figure>"
    )

"""Contact sheets: some faces of each source with all their points, as one picture a source and a page to see them."""

from __future__ import annotations

import html
import io
from typing import Final

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ls3dw.core.files import write_atomic
from ls3dw.core.geometry import compose, invert
from ls3dw.dataset.open import Dataset, Face
from ls3dw.dataset.store import CONTACT_SHEETS
from ls3dw.review.overlay import Layer, draw_face, in_tile, tile_affine

COLUMNS: Final = 4
ROWS: Final = 4
TILE: Final = 300
CAPTION: Final = 34
MARGIN: Final = 0.3

ANNOTATION: Final = (255, 59, 48)
CONTOUR: Final = (255, 255, 255)
PROJECTED: Final = (64, 200, 255)
LEGEND: Final = (("source's own points", ANNOTATION), ("2D landmarks", CONTOUR), ("3D landmarks", PROJECTED))
PAPER: Final = (24, 26, 30)
INK: Final = (225, 228, 232)


def write_contact_sheets(dataset: Dataset) -> None:
    """Draw one sheet a source into galleries/<version>/contact-sheets, with a page to see them."""
    folder = dataset.store.gallery(dataset.version, CONTACT_SHEETS)
    sources = sorted(dataset.index["source"].unique())
    for source in sources:
        rows = np.flatnonzero(dataset.index["source"] == source)
        spread = np.unique(np.linspace(0, len(rows) - 1, COLUMNS * ROWS).round().astype(int))
        sheet = draw_sheet(
            [dataset[int(row)] for row in rows[spread]], f"{source}, {len(rows)} faces, {dataset.version}"
        )
        write_atomic(folder / f"{source}.png", _png(sheet))
    write_atomic(folder / "index.html", _page(sources, dataset.version).encode())


def draw_sheet(faces: list[Face], title: str) -> Image.Image:
    """Draw faces in rows of `COLUMNS`, each with its id, NME and yaw."""
    rows = -(-len(faces) // COLUMNS)
    height = CAPTION + rows * (TILE + CAPTION)
    sheet = Image.new("RGB", (COLUMNS * TILE, height), PAPER)
    _draw_head(ImageDraw.Draw(sheet), title)
    for number, face in enumerate(faces):
        place = (number % COLUMNS) * TILE, CAPTION + (number // COLUMNS) * (TILE + CAPTION)
        sheet.paste(draw_tile(face, TILE), place)
        _draw_caption(ImageDraw.Draw(sheet), face, (place[0], place[1] + TILE))
    return sheet


def draw_tile(face: Face, size: int) -> Image.Image:
    """Draw one face with the source's own points, the 2D and the 3D landmarks."""
    affine = tile_affine(face.box, size, MARGIN)
    layers = [
        # The smaller the later, so that points in one place show as rings.
        Layer(in_tile(affine, face.annotation), ANNOTATION, radius=2.6),
        Layer(in_tile(affine, face.landmarks_3d), PROJECTED, radius=1.8),
        Layer(in_tile(affine, face.landmarks_2d), CONTOUR, radius=1.0),
    ]
    return draw_face(face.image, compose(affine, invert(face.picture_affine)), size, layers)


def _draw_head(canvas: ImageDraw.ImageDraw, title: str) -> None:
    font = ImageFont.load_default(16)
    canvas.text((10, 8), title, fill=INK, font=font)
    x = COLUMNS * TILE - 10.0
    for label, colour in reversed(LEGEND):
        x -= canvas.textlength(label, font=font)
        canvas.text((x, 8), label, fill=INK, font=font)
        canvas.ellipse((x - 16, 12, x - 6, 22), fill=colour)
        x -= 34


def _draw_caption(canvas: ImageDraw.ImageDraw, face: Face, place: tuple[int, int]) -> None:
    nme = "no points" if np.isnan(face.nme) else f"NME {100 * face.nme:.2f} %"
    font = ImageFont.load_default(12)
    canvas.text((place[0] + 6, place[1] + 2), _short(face.id, 42), fill=INK, font=font)
    canvas.text((place[0] + 6, place[1] + 16), f"{nme}   yaw {face.pose[0]:.0f}", fill=INK, font=font)


def _short(text: str, length: int) -> str:
    return text if len(text) <= length else "..." + text[-length:]


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    # A sixth larger than by default, in a quarter of the time.
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _page(sources: list[str], version: str) -> str:
    figures = "\n".join(
        f'<figure><img src="{html.escape(source)}.png" alt="Faces of {html.escape(source)} with their landmarks">'
        f"<figcaption>{html.escape(source)}</figcaption></figure>"
        for source in sources
    )
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src 'self'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Contact sheets, version {html.escape(version)}</title>
<style>
body {{ margin: 2rem auto; max-width: 76rem; padding: 0 1rem; background: #181a1e; color: #e1e4e8;
  font: 1rem/1.5 system-ui, sans-serif }}
figure {{ margin: 0 0 2rem }} img {{ width: 100%; height: auto; border-radius: 6px }}
</style></head><body>
<h1>Contact sheets, version {html.escape(version)}</h1>
<p>Some faces of each source. Red: the source's own points; white: 2D landmarks (visible contour);
blue: projected 3D landmarks.</p>
{figures}
</body></html>
"""

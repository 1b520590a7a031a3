"""Sheets of the worst fittings, as the paper's figures 3, 4 and 6: annotation in red, prediction in white."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Final

from PIL import Image, ImageDraw, ImageFont

from ls3dw.core.files import write_atomic
from ls3dw.core.geometry import compose, invert
from ls3dw.dataset.open import Dataset, Face
from ls3dw.errors import ConfigurationError, DatasetError
from ls3dw.review.gallery.tiles import MARGIN
from ls3dw.review.overlay import Layer, draw_face, in_tile, tile_affine
from ls3dw.sources import SOURCES

WORST: Final = 8
COLUMNS: Final = 4
TILE: Final = 320
GAP: Final = 10
HEAD: Final = 40
CAPTION: Final = 36

ANNOTATION: Final = (255, 48, 40)
PREDICTION: Final = (255, 255, 255)
PAPER: Final = (255, 255, 255)
INK: Final = (20, 22, 26)

FORMATS: Final = {".png": "PNG", ".pdf": "PDF"}
DPI: Final = 150


def write_worst(dataset: Dataset, path: Path) -> list[str]:
    """Write the eight worst faces of each source that has points to compare with, and return these sources.

    A .png has the sources below each other, a .pdf has a page for each.
    """
    if path.suffix not in FORMATS:
        raise ConfigurationError(f"--sheet {path}: expected a name that ends in .png or .pdf")
    errors = dataset.index["nme"]
    sources = [name for name in sorted(dataset.index["source"].unique()) if name in SOURCES]
    worst = {name: errors[dataset.index["source"] == name].nlargest(WORST).index for name in sources}
    pages = [
        draw_worst([dataset[int(row)] for row in rows], name, dataset.version)
        for name, rows in worst.items()
        if len(rows)
    ]
    if not pages:
        raise DatasetError(f"{dataset.store.root}: version {dataset.version} has no face with an NME")
    write_atomic(path, _encode(pages, FORMATS[path.suffix]))
    return [name for name, rows in worst.items() if len(rows)]


def draw_worst(faces: list[Face], source: str, version: str) -> Image.Image:
    """Draw faces of one source in rows of four."""
    rows = -(-len(faces) // COLUMNS)
    step = TILE + GAP, TILE + CAPTION
    sheet = Image.new("RGB", (GAP + COLUMNS * step[0], HEAD + rows * step[1] + GAP), PAPER)
    canvas = ImageDraw.Draw(sheet)
    canvas.text((GAP, 11), f"{source}: worst of version {version}", fill=INK, font=ImageFont.load_default(18))
    _draw_legend(canvas, sheet.width - GAP)
    for number, face in enumerate(faces):
        x, y = GAP + number % COLUMNS * step[0], HEAD + number // COLUMNS * step[1]
        sheet.paste(_draw_tile(face, source), (x, y))
        text = f"{_short(face.id)}\nNME {100 * face.nme:.2f} %   yaw {face.pose[0]:.0f}°"
        canvas.multiline_text((x, y + TILE + 3), text, fill=INK, font=ImageFont.load_default(12), spacing=1)
    return sheet


def _draw_tile(face: Face, source: str) -> Image.Image:
    """Draw the points that the NME compares."""
    predicted = face.landmarks_2d if SOURCES[source].annotation_kind == "2d" else face.landmarks_3d
    affine = tile_affine(face.box, TILE, MARGIN)
    layers = [
        Layer(in_tile(affine, face.annotation), ANNOTATION, radius=2.4, lines=True),
        Layer(in_tile(affine, predicted), PREDICTION, radius=2.0, lines=True),
    ]
    return draw_face(face.image, compose(affine, invert(face.picture_affine)), TILE, layers)


def _draw_legend(canvas: ImageDraw.ImageDraw, right: float) -> None:
    font = ImageFont.load_default(14)
    for label, colour in (("prediction", PREDICTION), ("annotation", ANNOTATION)):
        right -= canvas.textlength(label, font=font)
        canvas.text((right, 13), label, fill=INK, font=font)
        canvas.ellipse((right - 18, 15, right - 7, 26), fill=colour, outline=INK)
        right -= 36


def _short(text: str, length: int = 44) -> str:
    return text if len(text) <= length else "..." + text[-length:]


def _encode(pages: list[Image.Image], kind: str) -> bytes:
    buffer = io.BytesIO()
    if kind == "PDF":
        # Without the times that Pillow would note: the same version gives the same bytes.
        pages[0].save(
            buffer, kind, save_all=True, append_images=pages[1:], resolution=DPI, creationDate=None, modDate=None
        )
        return buffer.getvalue()
    whole = Image.new("RGB", (max(page.width for page in pages), sum(page.height for page in pages)), PAPER)
    top = 0
    for page in pages:
        whole.paste(page, (0, top))
        top += page.height
    whole.save(buffer, kind)
    return buffer.getvalue()

"""Draws landmarks into pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from ls3dw.core.geometry import Affine, apply
from ls3dw.core.markup import LINES
from ls3dw.core.sample import Picture

Colour: TypeAlias = tuple[int, int, int]

SMOOTH: Final = 3
"""Tiles are drawn this many times larger, then reduced: smooth lines, sub-pixel points."""

MARGIN: Final = 0.3
"""Around the box of a face in a tile, as a share of its longer side."""


@dataclass(frozen=True)
class Layer:
    """Points (68, 2 or more) in one colour. lines: also draw the lines of the mark-up."""

    points: NDArray[Any]
    colour: Colour
    radius: float = 1.4
    lines: bool = False


def draw_face(picture: Picture, affine: Affine, size: int, layers: list[Layer]) -> Image.Image:
    """Draw a square tile of `size` pixels.

    affine: (2, 3) from pixels of `picture` to pixels of the tile, in which the layers' points are.
    """
    large = affine * SMOOTH + np.array([[0, 0, 1], [0, 0, 1]]) * (SMOOTH - 1) / 2
    whole = (size * SMOOTH, size * SMOOTH)
    tile = Image.fromarray(cv2.warpAffine(picture, large, whole, flags=cv2.INTER_LINEAR))
    canvas = ImageDraw.Draw(tile)
    for layer in layers:
        points = layer.points[:, :2] * SMOOTH + (SMOOTH - 1) / 2
        if layer.lines:
            _draw_lines(canvas, points, layer.colour)
        _draw_points(canvas, points, layer)
    return tile.resize((size, size), Image.Resampling.BOX)


def _draw_points(canvas: ImageDraw.ImageDraw, points: NDArray[Any], layer: Layer) -> None:
    radius = layer.radius * SMOOTH
    for x, y in points[np.isfinite(points).all(axis=1)].tolist():
        canvas.ellipse((x - radius, y - radius, x + radius, y + radius), fill=layer.colour)


def _draw_lines(canvas: ImageDraw.ImageDraw, points: NDArray[Any], colour: Colour) -> None:
    for first, second in LINES:
        pair = points[[first, second]]
        if np.isfinite(pair).all():
            canvas.line([tuple(end) for end in pair.tolist()], fill=colour, width=SMOOTH)


def tile_affine(box: NDArray[Any], size: int, margin: float) -> Affine:
    """Return the affine from image pixels to a square tile around `box` (4,).

    margin: on each side, as a share of the longer side of the box.
    """
    centre = (box[:2] + box[2:]).astype(np.float64) / 2
    side = float(max(box[2] - box[0], box[3] - box[1])) * (1 + 2 * margin)
    zoom = size / side
    return np.array([[zoom, 0, 0], [0, zoom, 0]]) + np.outer((size - 1) / 2 - zoom * centre, (0, 0, 1))


def in_tile(affine: Affine, points: NDArray[Any]) -> NDArray[Any]:
    """Turn image pixels into pixels of the tile."""
    return apply(affine, points[:, :2].astype(np.float64))

"""Renders the sheet of heads in docs/heads.md: clean pictures, on every other one its points.

    python benchmarks/heads_sheet.py docs/images/heads.jpg --seed 0

Green: the 68 points in 2D, whose jaw follows the visible contour. Red: where the same points lie on the head, if that
is more than a pixel away.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from ls3dw.review.overlay import Layer, draw_face
from ls3dw.synth.renderer import Renderer, RenderOptions
from ls3dw.synth.rng import SplitRng

ROWS, COLUMNS, SIDE = 4, 6, 192
GREEN, RED = (60, 255, 90), (255, 60, 60)


def make_sheet(seed: int) -> Image.Image:
    """Render the heads of a seed into one picture."""
    heads = Renderer(options=RenderOptions(size=SIDE, zoom=0.85)).render(ROWS * COLUMNS, SplitRng(seed))
    sheet = Image.new("RGB", (COLUMNS * SIDE, ROWS * SIDE))
    for number, image in enumerate(heads.images.permute(0, 2, 3, 1).numpy()):
        row, column = divmod(number, COLUMNS)
        layers = []
        if (row + column) % 2:
            contour, solid = heads.landmarks_2d[number].numpy(), heads.landmarks_3d[number, :, :2].numpy()
            moved = np.linalg.norm(contour - solid, axis=1) > 1
            layers = [Layer(solid[moved], RED, 1.0), Layer(contour, GREEN, 1.2)]
        sheet.paste(draw_face(image, np.eye(2, 3), SIDE, layers), (column * SIDE, row * SIDE))
    return sheet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    make_sheet(arguments.seed).save(arguments.out, quality=88, optimize=True)


if __name__ == "__main__":
    main()

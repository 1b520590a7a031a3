"""Counts the faces that networks lose before plain backgrounds of one colour, by hue and saturation.

    python benchmarks/backgrounds.py AFLW2000                            the bundled 2D-FAN
    python benchmarks/backgrounds.py AFLW2000 --models fan-2d-light wing

AFLW2000: a folder in its layout. All but a box around each face is filled with the colour. A face is lost where points
17 to 67 are off by more than 7 % of its size on average (the jaw, which lies elsewhere in 3D, does not count).
"""

from __future__ import annotations

import argparse
import colorsys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ls3dw import Annotator
from ls3dw.core.geometry import tight_box
from ls3dw.core.metrics import box_size
from ls3dw.sources import open_source

HUES = ("red", "yellow", "green", "cyan", "blue", "magenta")
AROUND = (0.2, 0.45, 0.2, 0.15)
"""What is left of the picture beyond the tight box: left, above, right and below, in its width or height."""

JAW = 17
LOST = 0.07


def framed(
    picture: NDArray[np.uint8], box: NDArray[np.floating], colour: tuple[float, float, float]
) -> NDArray[np.uint8]:
    """Fill all of a picture but the surroundings of a box with a colour (r, g, b from 0 to 1)."""
    sides = np.tile(box[2:] - box[:2], 2) * AROUND
    x0, y0 = np.maximum(0, box[:2] - sides[:2]).astype(int)
    x1, y1 = (box[2:] + sides[2:]).astype(int)
    filled = np.empty_like(picture)
    filled[:] = np.multiply(colour, 255).astype(np.uint8)
    filled[y0:y1, x0:x1] = picture[y0:y1, x0:x1]
    return filled


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("--models", nargs="+", default=["fan-2d-small"])
    parser.add_argument("--saturations", type=float, nargs="+", default=[1.0, 0.6])
    given = parser.parse_args()
    samples = list(open_source("aflw2000", given.root))
    pictures, truth = [sample.image() for sample in samples], np.stack([sample.annotation[:, :2] for sample in samples])
    boxes = tight_box(truth)
    for model in given.models:
        annotator = Annotator(model_2d=model, model_depth="none")
        for saturation in given.saturations:
            lost = {}
            for number, hue in enumerate(HUES):
                colour = colorsys.hsv_to_rgb(number / len(HUES), saturation, 0.9)
                shown = [framed(picture, box, colour) for picture, box in zip(pictures, boxes, strict=True)]
                points = annotator.annotate(shown, boxes).landmarks_2d
                errors = np.linalg.norm(points[:, JAW:] - truth[:, JAW:], axis=2).mean(1) / box_size(boxes)
                lost[hue] = int((errors > LOST).sum())
            print(f"{model}, saturation {saturation:.0%}, of {len(samples)} faces a hue: {lost}", flush=True)


if __name__ == "__main__":
    main()

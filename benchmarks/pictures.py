"""Measures how the kept pictures could be encoded: size, speed, and what it does to the landmarks.

    python benchmarks/pictures.py                              stills of the embedded sample
    python benchmarks/pictures.py --source aflw2000 --root DIR
    python benchmarks/pictures.py --source 300vw --every 6     frames of the embedded sample's videos, or under --root

shift: mean distance in pixels of the 256x256 crop between landmarks predicted from the source's picture and from the
kept one; it is what `regenerate` from kept pictures would add.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from ls3dw.core.annotations import Annotations
from ls3dw.core.crops import StoredPicture, cut_stored
from ls3dw.core.geometry import apply
from ls3dw.core.resources import folder
from ls3dw.core.sample import Sample
from ls3dw.models.annotator import Annotator
from ls3dw.sources import open_source

FULL = cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444
HALF = cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420


class Encoding(NamedTuple):
    name: str
    suffix: str
    options: list[int]


def jpeg(quality: int, sampling: int) -> list[int]:
    return [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling]


ENCODINGS = (
    Encoding("JPEG 90 4:2:0", ".jpg", jpeg(90, HALF)),
    Encoding("JPEG 90 4:4:4", ".jpg", jpeg(90, FULL)),
    Encoding("JPEG 95 4:2:0", ".jpg", jpeg(95, HALF)),
    Encoding("JPEG 95 4:4:4", ".jpg", jpeg(95, FULL)),
    Encoding("JPEG 97 4:2:0", ".jpg", jpeg(97, HALF)),
    Encoding("JPEG 98 4:2:0", ".jpg", jpeg(98, HALF)),
    Encoding("JPEG 98 4:4:4", ".jpg", jpeg(98, FULL)),
    Encoding("WebP 90", ".webp", [cv2.IMWRITE_WEBP_QUALITY, 90]),
    Encoding("WebP lossless", ".webp", [cv2.IMWRITE_WEBP_QUALITY, 101]),
    Encoding("PNG", ".png", [cv2.IMWRITE_PNG_COMPRESSION, 3]),
)


def timed(function: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    result = function()
    return result, 1e3 * (time.perf_counter() - start)


def encode(pixels: NDArray[np.uint8], encoding: Encoding) -> Any:
    return cv2.imencode(encoding.suffix, cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), encoding.options)[1]


def decode(data: Any) -> Any:
    return cv2.cvtColor(np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR)), cv2.COLOR_BGR2RGB)


def shift(first: Annotations, second: Annotations) -> tuple[float, float]:
    """Return the mean distances of the 2D and 3D landmarks in crop pixels."""
    pairs = ((first.landmarks_2d, second.landmarks_2d), (first.landmarks_3d[..., :2], second.landmarks_3d[..., :2]))
    means = [np.linalg.norm(apply(first.crop, a) - apply(first.crop, b), axis=2).mean() for a, b in pairs]
    return float(means[0]), float(means[1])


def from_kept(
    annotator: Annotator, kept: list[StoredPicture], pictures: list[NDArray[np.uint8]], boxes: NDArray[Any]
) -> Any:
    """Annotate kept pictures; return landmarks in the source's pixels."""
    corners = np.stack([apply(k.to_picture, box.reshape(2, 2)).ravel() for k, box in zip(kept, boxes, strict=True)])
    found = annotator.annotate(pictures, corners)
    back = np.stack([np.linalg.inv(np.vstack((k.to_picture, (0, 0, 1))))[:2] for k in kept])
    return Annotations(
        **{
            **vars(found),
            "landmarks_2d": apply(back, found.landmarks_2d),
            "landmarks_3d": apply(back, found.landmarks_3d),
        }
    )


def collect(name: str | None, root: Path | None) -> list[Sample]:
    if name:
        return list(open_source(name, root or folder("embedded")))
    stills = ("300w", "menpo", "aflw2000")
    return [sample for source in stills for sample in open_source(source, folder("embedded"))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source")
    parser.add_argument("--root", type=Path)
    parser.add_argument("--every", type=int, default=1, help="how many pictures to go on by")
    given = parser.parse_args()
    cv2.setNumThreads(1)
    samples = collect(given.source, given.root)[:: given.every]
    boxes = np.stack([sample.box for sample in samples]).astype(np.float64)
    annotator = Annotator()
    original = annotator.annotate([sample.image() for sample in samples], boxes)
    kept = [cut_stored(sample.image(), sample.box) for sample in samples]
    print(f"{len(samples)} faces, kept pictures of {np.mean([k.pixels.size / 3 for k in kept]) ** 0.5:.0f}² pixels")
    print(f"{'':<16} {'kB/face':>8} {'encode ms':>10} {'decode ms':>10} {'shift 2D':>9} {'shift 3D':>9}")
    exact = from_kept(annotator, kept, [k.pixels for k in kept], boxes)
    print(f"{'not encoded':<16} {'':>8} {'':>10} {'':>10} {'{:9.3f} {:9.3f}'.format(*shift(original, exact))}")
    for encoding in ENCODINGS:
        data = [timed(partial(encode, k.pixels, encoding)) for k in kept]
        pictures = [timed(partial(decode, blob)) for blob, _ in data]
        moved = shift(original, from_kept(annotator, kept, [picture for picture, _ in pictures], boxes))
        size = np.mean([len(blob) for blob, _ in data]) / 1e3
        times = [np.mean([ms for _, ms in entries]) for entries in (data, pictures)]
        print(f"{encoding.name:<16} {size:8.1f} {times[0]:10.2f} {times[1]:10.2f} {moved[0]:9.3f} {moved[1]:9.3f}")


if __name__ == "__main__":
    main()

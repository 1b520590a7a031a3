"""Makes small trees laid out like the released LS3D-W, from the embedded sample's faces."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import cv2
import numpy as np

from ls3dw.core.formats import t7
from ls3dw.core.resources import folder
from ls3dw.core.sample import Sample
from ls3dw.sources import open_source


@cache
def faces() -> list[Sample]:
    """Twelve pictures of different heads, 450 x 450."""
    return list(open_source("aflw2000", folder("embedded")))


def released(sample: Sample) -> np.ndarray:
    """The points of a face as the release has them: whole pixels, doubles."""
    return np.trunc(sample.annotation.astype(np.float64) + 0.5)


def encode(picture: np.ndarray, suffix: str = ".png", quality: int = 95) -> bytes:
    bgr = np.ascontiguousarray(picture[..., ::-1])
    return cv2.imencode(suffix, bgr, [cv2.IMWRITE_JPEG_QUALITY, quality] if suffix == ".jpg" else [])[1].tobytes()


def put(root: Path, place: str, number: int, *, suffix: str = ".jpg", points: np.ndarray | None = None) -> None:
    """Write face `number` as `place` with its points, or with others."""
    file = root / place
    file.parent.mkdir(parents=True, exist_ok=True)
    sample = faces()[number]
    file.with_name(f"{file.name}{suffix}").write_bytes(encode(sample.image(), suffix))
    t7.save(file.with_name(f"{file.name}.t7"), released(sample) if points is None else points)


PLACES = {
    "300VW-3D/Trainset/001/0001": 0,
    "300VW-3D/CatA/114/0001": 1,
    "300VW-3D/CatA/114/0002": 2,
    "300VW-3D/CatB/203/0001": 3,
    "300VW-3D/CatC/410/0001": 4,
    "300W-Testset-3D/indoor_001": 5,
    "AFLW2000-3D-Reannotated/image00002": 6,
    "Menpo-3D/aflw__face_1": 7,
}


def make_release(root: Path) -> Path:
    """Write all that is not balanced: eight faces, each of another head."""
    for place, number in PLACES.items():
        put(root, place, number, suffix=".png" if place.startswith("300W-") else ".jpg")
    return root

"""The data of a gallery as script files, since a page opened from disk may load scripts but fetch nothing."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ls3dw.dataset.open import Face

CHUNK: Final = 100
"""Faces per file of points: one screen of tiles needs one or two files."""

STEPS: Final = 16
"""Steps per pixel of the kept picture in which points are stored, as 16-bit integers: up to 2,047 pixels."""

MISSING: Final = -32768

NUMBERS: Final = 68 * (2 + 2 + 3)
"""Values per face: annotation (68, 2), 2D landmarks (68, 2), 3D landmarks (68, 3), in this order."""


def pack_points(face: Face) -> NDArray[np.int16]:
    """Return the points of a face in pixels of its kept picture (NUMBERS,), in sixteenths, `MISSING` where NaN."""
    layers = (face.annotation, face.landmarks_2d, face.landmarks_3d)
    values = np.concatenate([face.to_picture(points).ravel() for points in layers]).astype(np.float64) * STEPS
    # Points beyond the limit are invisible there, too.
    whole = np.clip(np.round(values), MISSING + 1, -MISSING - 1)
    return np.where(np.isnan(values), MISSING, whole).astype(np.int16)


def points_script(number: int, points: Sequence[NDArray[np.int16]]) -> bytes:
    """Return the script with one chunk of points, in base64."""
    packed = np.stack(points).astype("<i2").tobytes()
    return f'gallery.points({number}, "{base64.b64encode(packed).decode()}");\n'.encode()


def head_script(head: dict[str, Any], faces: dict[str, list[Any]]) -> bytes:
    """Return the script with everything but points. head: of the gallery; faces: columns with a value per face."""
    columns = ",\n".join(f"  {_json(name)}: {_json(values)}" for name, values in faces.items())
    return f"gallery.start({_json(head)}, {{\n{columns}\n}});\n".encode()


def _json(value: Any) -> str:
    """Encode for a script: ASCII without `<`, so that no value can end the script or start a tag."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")


def numbers(values: NDArray[Any], digits: int) -> list[float | None]:
    """Return numbers (N,) rounded, None for NaN."""
    rounded = np.round(values.astype(np.float64), digits).tolist()
    return [value if np.isfinite(value) else None for value in rounded]

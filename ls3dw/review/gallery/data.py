"""The data of a gallery as script files: a page opened from disk may load scripts, but fetch nothing."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ls3dw.dataset.open import Face

CHUNK: Final = 100
"""Faces whose points are loaded together: a page of tiles in the gallery's order needs one or two chunks."""

STEPS: Final = 16
"""Points are stored as whole sixteenths of a pixel of the kept picture, in 16 bits: up to 2,047 pixels away."""

MISSING: Final = -32768

NUMBERS: Final = 68 * (2 + 2 + 3)
"""Of one face: annotation (68, 2), 2D landmarks (68, 2), 3D landmarks (68, 3), in this order."""


def pack_points(face: Face) -> NDArray[np.int16]:
    """Return the points of a face in pixels of its kept picture (NUMBERS,), in sixteenths, `MISSING` where NaN."""
    layers = (face.annotation, face.landmarks_2d, face.landmarks_3d)
    values = np.concatenate([face.to_picture(points).ravel() for points in layers]).astype(np.float64) * STEPS
    # Far outside is outside: what does not fit is as invisible at the limit.
    whole = np.clip(np.round(values), MISSING + 1, -MISSING - 1)
    return np.where(np.isnan(values), MISSING, whole).astype(np.int16)


def points_script(number: int, points: Sequence[NDArray[np.int16]]) -> bytes:
    """Return the script that gives the page one chunk of points, in base64."""
    packed = np.stack(points).astype("<i2").tobytes()
    return f'gallery.points({number}, "{base64.b64encode(packed).decode()}");\n'.encode()


def head_script(head: dict[str, Any], faces: dict[str, list[Any]]) -> bytes:
    """Return the script with everything but points. head: about the gallery; faces: columns, one value a face."""
    columns = ",\n".join(f"  {_json(name)}: {_json(values)}" for name, values in faces.items())
    return f"gallery.start({_json(head)}, {{\n{columns}\n}});\n".encode()


def _json(value: Any) -> str:
    """Encode for a script: ASCII alone, and no `<`, so that nothing in it can end a script or start a tag."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")


def numbers(values: NDArray[Any], digits: int) -> list[float | None]:
    """Return numbers (N,) rounded for the page, None where NaN."""
    rounded = np.round(values.astype(np.float64), digits).tolist()
    return [value if np.isfinite(value) else None for value in rounded]

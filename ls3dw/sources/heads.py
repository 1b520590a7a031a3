"""Rendered heads as `ls3dw synth` writes them: pictures, each with a `.json` of exact landmarks."""

from __future__ import annotations

import json
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from ls3dw.core.markup import POINTS
from ls3dw.sources.face import Face, Rejected
from ls3dw.sources.layout import find, has_files, wrong_layout
from ls3dw.sources.stills import AnnotationFormat, StillFolder, StillSource

SHAPES: Final[dict[str, tuple[int, ...]]] = {
    "landmarks_2d": (POINTS, 2),
    "landmarks_3d": (POINTS, 3),
    "visible": (POINTS,),
    "pose": (3,),
}
"""Fields of an annotation file: points in 0-based pixels (z larger is nearer), 1 for visible points, and the angles
yaw, pitch, roll in degrees."""


def parse_json(data: bytes) -> Face:
    """Read an annotation file: the visible contour is the annotation, the other fields are extra."""
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Rejected("malformed annotation", f"not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise Rejected("malformed annotation", f"expected an object with {', '.join(SHAPES)}")
    arrays = {name: _array(fields, name, shape) for name, shape in SHAPES.items()}
    points = arrays.pop("landmarks_2d")
    if not all(np.isfinite(array).all() for array in (points, *arrays.values())):
        raise Rejected("non-finite points", "a coordinate or an angle")
    arrays["visible"] = arrays["visible"] != 0
    return Face(points, points, arrays, yaw=float(arrays["pose"][0]))


def _array(fields: dict[str, Any], name: str, shape: tuple[int, ...]) -> NDArray[Any]:
    try:
        array = np.asarray(fields.get(name), dtype=np.float32)
    except (TypeError, ValueError, OverflowError) as error:
        raise Rejected("malformed annotation", f"{name}: {error}") from error
    if array.shape != shape:
        points = array.ndim == len(shape) and array.shape[1:] == shape[1:]
        raise Rejected(
            "wrong number of points" if points else "malformed annotation",
            f"{name} has shape {array.shape}; expected {shape}",
        )
    return array


class Heads(StillSource):
    """Rendered heads."""

    name: ClassVar[str] = "heads"
    format: ClassVar[AnnotationFormat] = AnnotationFormat(".json", parse_json)

    def find_folders(self) -> list[StillFolder]:
        """Look for the folder with the `.json` files."""
        folder = find(self.root, lambda path: has_files(path, ".json"), hint=self.name)
        if folder is None:
            raise wrong_layout(self.name, self.root, "head_000000.jpg with head_000000.json and so on")
        return [StillFolder("all", "all", folder)]

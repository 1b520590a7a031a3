"""Where the 68 points lie on the head: places on the full MakeHuman mesh, so that they outlive any reduced mesh.

A place is a triangle of three vertices and its barycentric weights. Beside the 68 places there are two tables of them:
the line along which each jaw point slides to the visible contour, and the brow points moved up and down.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ls3dw.core.files import dump_json, read_json
from ls3dw.core.markup import GROUPS, POINTS
from ls3dw.errors import ConfigurationError
from ls3dw.synth.head.conventions import PLAIN, Convention

MESH_VERTICES = 19158
"""Vertices of the full MakeHuman mesh, in the order of its `base.obj`."""

JAW = len(GROUPS["jaw"])
BROWS = len(GROUPS["right brow"]) + len(GROUPS["left brow"])
BUNDLED = Path(__file__).parents[2] / "bundled" / "placement.json"

_TOLERANCE = 1e-4
"""By how much the three weights of a place may miss a sum of 1: they are written with six digits."""

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Placement:
    """The 68 points on the head. Vertices are numbers of the full MakeHuman mesh, weights barycentric.

    `point_*` (68, 3): the anatomical points. `jaw_*` (17, 12, 3): each jaw point's line from its anatomical place
    toward the front; the contour point of a picture is the place of the line that is farthest out along
    `jaw_directions` (17, 2; x to the subject's left, y up, turned by the roll only). `brow_*` (10, 7, 3): points 17 to
    26 moved up by `brow_offsets` (7,; head units, about 0.07 m). `fitted_on` says what the places were fitted on;
    `conventions` how the points of other labels lie beside these.
    """

    point_vertices: Ints
    point_weights: Floats
    jaw_vertices: Ints
    jaw_weights: Floats
    jaw_directions: Floats
    brow_vertices: Ints
    brow_weights: Floats
    brow_offsets: Floats
    fitted_on: Mapping[str, Any] = field(default_factory=dict)
    conventions: Mapping[str, Convention] = field(default_factory=dict)

    def convention(self, name: str) -> Convention:
        """Return how the points of some labels lie; `ConfigurationError` for a name that is not known."""
        if name == PLAIN:
            return Convention.plain()
        if name not in self.conventions:
            known = ", ".join((PLAIN, *sorted(self.conventions)))
            raise ConfigurationError(f"convention {name!r}: expected one of {known}")
        return self.conventions[name]

    def to_dict(self) -> dict[str, Any]:
        """Return what `from_dict` reads, ready for JSON."""
        lines = [
            {"direction": _digits(direction), "places": _to_places(vertices, weights)}
            for direction, vertices, weights in zip(
                self.jaw_directions, self.jaw_vertices, self.jaw_weights, strict=True
            )
        ]
        table = [
            _to_places(vertices, weights)
            for vertices, weights in zip(self.brow_vertices, self.brow_weights, strict=True)
        ]
        return {
            "points": _to_places(self.point_vertices, self.point_weights),
            "jaw": lines,
            "brows": {"offsets": _digits(self.brow_offsets), "places": table},
            "fitted_on": dict(self.fitted_on),
            "conventions": {name: one.to_dict() for name, one in self.conventions.items()},
        }

    @classmethod
    def from_dict(cls, values: Any, where: str) -> Placement:
        """Check and build; `ConfigurationError` names what is wrong with which part."""
        try:
            brows = values["brows"]
            points = _from_places(values["points"])
            jaw = _from_places([line["places"] for line in values["jaw"]])
            table = _from_places(brows["places"])
            directions = np.array([line["direction"] for line in values["jaw"]], np.float32)
            offsets = np.array(brows["offsets"], np.float32)
            fitted_on = dict(values["fitted_on"])
            conventions = dict(values.get("conventions", {}))
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigurationError(
                f"{where}: not a placement of the points ({type(error).__name__}: {error}); "
                "expected points, jaw, brows and fitted_on as `ls3dw/bundled/placement.json` has them"
            ) from error
        others = {name: Convention.from_dict(one, f"{where}: convention {name}") for name, one in conventions.items()}
        placement = cls(*points, *jaw, directions, *table, offsets, fitted_on, others)
        faults = _faults(placement)
        if faults:
            raise ConfigurationError(f"{where}: {'; '.join(faults)}")
        return placement


def load_placement(path: Path | None = None) -> Placement:
    """Read and check a placement; the bundled one where no path is given. `ConfigurationError` when it is damaged."""
    path = BUNDLED if path is None else path
    return Placement.from_dict(read_json(path, ConfigurationError), str(path))


def dump_placement(placement: Placement) -> bytes:
    """Encode as JSON that `load_placement` reads."""
    return dump_json(placement.to_dict())


def _digits(values: NDArray[Any]) -> list[float]:
    return [round(float(value), 6) for value in values]


def _to_places(vertices: Ints, weights: Floats) -> list[dict[str, Any]]:
    return [
        {"vertices": [int(vertex) for vertex in corners], "weights": _digits(shares)}
        for corners, shares in zip(vertices, weights, strict=True)
    ]


def _from_places(places: Any) -> tuple[Ints, Floats]:
    """Turn nested lists of places into vertices (..., 3) and weights (..., 3)."""

    def values(item: Any, key: str) -> Any:
        return [values(inner, key) for inner in item] if isinstance(item, list) else item[key]

    vertices = np.array(values(places, "vertices"))
    if vertices.dtype.kind != "i":
        raise ValueError("vertices must be whole numbers, three to a place")
    return vertices.astype(np.int64), np.array(values(places, "weights"), np.float32)


def _faults(placement: Placement) -> list[str]:
    faults = []
    along, up = placement.jaw_vertices.shape[1:2], placement.brow_offsets.shape
    for name, shape in (("point", (POINTS, 3)), ("jaw", (JAW, *along, 3)), ("brow", (BROWS, *up, 3))):
        vertices, weights = getattr(placement, f"{name}_vertices"), getattr(placement, f"{name}_weights")
        if vertices.shape != shape or weights.shape != shape:
            faults.append(f"{name} places of shape {vertices.shape} and {weights.shape}, expected {shape}")
        elif vertices.min() < 0 or vertices.max() >= MESH_VERTICES:
            faults.append(f"{name} vertices {vertices.min()} to {vertices.max()}, expected 0 to {MESH_VERTICES - 1}")
        elif not _are_barycentric(weights):
            faults.append(f"{name} weights that are negative or do not sum to 1")
    if placement.jaw_directions.shape != (JAW, 2) or not np.isfinite(placement.jaw_directions).all():
        faults.append(f"jaw directions of shape {placement.jaw_directions.shape}, expected {JAW} finite pairs")
    elif (abs(np.linalg.norm(placement.jaw_directions, axis=1) - 1) > _TOLERANCE).any():
        faults.append("jaw directions that are not of length 1")
    if placement.brow_offsets.ndim != 1 or not (np.diff(placement.brow_offsets) > 0).all():
        faults.append("brow offsets that do not rise")
    return faults


def _are_barycentric(weights: Floats) -> bool:
    sums = abs(weights.sum(-1) - 1)
    return bool((sums < _TOLERANCE).all() and (weights > -_TOLERANCE).all())

"""LJSON, menpo's format of landmarks: groups of points in y, x order, with connectivity and labels."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ls3dw.core.markup import GROUPS, LINES, POINTS

VERSION = 3


def dump_ljson(groups: Mapping[str, NDArray[Any]]) -> bytes:
    """Encode groups of points (68, 2), x y in pixels of a picture; NaN becomes null."""
    labels = [
        {"label": name, "mask": [point in members for point in range(POINTS)]} for name, members in GROUPS.items()
    ]
    connectivity = [list(map(int, line)) for line in LINES]
    values = {
        name: {
            "landmarks": {"points": _plain(points[:, ::-1]), "connectivity": connectivity},
            "labels": labels,
        }
        for name, points in groups.items()
    }
    return (json.dumps({"version": VERSION, "groups": values}, allow_nan=False) + "\n").encode()


def _plain(points: NDArray[Any]) -> list[list[float | None]]:
    return [[value if np.isfinite(value) else None for value in row] for row in points.astype(np.float64).tolist()]


def parse_ljson(data: bytes) -> dict[str, NDArray[np.float64]]:
    """Return the groups (P, 2 or 3) in x y z order, null as NaN; versions 1 to 3. `ValueError` if it is damaged.

    Files of versions 1 and 2 have one group, which is called "LJSON" as in menpo.
    """
    try:
        values = json.loads(data)
        groups = _groups(values)
        return {name: _points(points) for name, points in groups.items()}
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not LJSON ({error!r})") from error


def _groups(values: Any) -> dict[str, Any]:
    version = values["version"]
    if version == VERSION:
        return {str(name): group["landmarks"]["points"] for name, group in values["groups"].items()}
    if version == 2:
        return {"LJSON": values["landmarks"]["points"]}
    if version == 1:
        return {"LJSON": [mark["point"] for group in values["groups"] for mark in group["landmarks"]]}
    raise ValueError(f"LJSON version {version!r}; expected 1, 2 or 3")


def _points(rows: Any) -> NDArray[np.float64]:
    points = np.array([[np.nan if value is None else value for value in row] for row in rows], dtype=np.float64)
    if points.ndim != 2 or points.shape[1] not in (2, 3):
        raise ValueError(f"points of shape {points.shape}; expected (P, 2 or 3)")
    # y x to x y; a third coordinate stays last.
    points[:, :2] = points[:, 1::-1]
    return points

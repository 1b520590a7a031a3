"""The `.pts` format: `version: 1`, `n_points: 68`, then one `x y` a line between braces.

Public copies of AFW and HELEN have files without header and braces: 68 bare lines, 1-based like all others.
"""

from __future__ import annotations

import re
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ls3dw.core.markup import POINTS
from ls3dw.sources.face import Face, Rejected, zero_based

# At most nine digits: int() raises another error for very long numbers.
_NUMBER: Final = rb"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_BARE_ROW: Final = re.compile(rb"\s*" + _NUMBER + rb"[ \t]+" + _NUMBER + rb"\s*")
_COUNT: Final = re.compile(rb"n_points\s*:\s*(\d{1,9})(?!\d)")


BARE: Final = "pts without header, read as 1-based"
"""Flag of faces read from bare lines."""


def is_bare(data: bytes) -> bool:
    """Tell whether a file is 68 bare lines of two numbers."""
    if b"{" in data or b"n_points" in data:
        return False
    rows = [line for line in data.splitlines() if line.strip()]
    return len(rows) == POINTS and all(map(_BARE_ROW.fullmatch, rows))


def parse_pts(data: bytes) -> NDArray[np.float64]:
    """Return the points (P, 2) as written: 1-based, in the order x, y; `nan` and `inf` are values like others.

    Raises Rejected ("malformed annotation") unless the braces, the count and every line are as the format says, or
    the file is 68 bare lines.
    """
    if is_bare(data):
        return np.array(_numbers(data), dtype=np.float64).reshape(-1, 2)
    header, opening, rest = data.partition(b"{")
    body, closing, trailer = rest.partition(b"}")
    if not (opening and closing):
        raise _malformed("no pair of braces")
    if trailer.strip():
        raise _malformed("text after the closing brace")
    count = _COUNT.search(header)
    if count is None:
        raise _malformed("no n_points in the header")
    values = _numbers(body)
    if len(values) != 2 * int(count[1]):
        raise _malformed(f"n_points is {int(count[1])}, but {len(values) // 2} points follow")
    return np.array(values, dtype=np.float64).reshape(-1, 2)


def parse_face(data: bytes) -> Face:
    """Read a `.pts` file of the 68-point mark-up."""
    points = zero_based(parse_pts(data))
    if len(points) != POINTS:
        raise Rejected("wrong number of points", f"{len(points)} points; expected {POINTS}")
    return Face(points=points, annotation=points, flags=(BARE,) if is_bare(data) else ())


def _numbers(body: bytes) -> list[float]:
    """Return x, y, x, y, ...: plain Python, since 68 points are too few for numpy's text readers to be faster."""
    rows = [row for line in body.splitlines() if (row := line.split())]
    if b"_" in body or any(len(row) != 2 for row in rows):  # float() would take 1_0 for ten
        raise _malformed("a line that is not 'x y'")
    try:
        return [float(value) for row in rows for value in row]
    except ValueError:
        raise _malformed("a value that is not a number") from None


def _malformed(detail: str) -> Rejected:
    return Rejected("malformed annotation", detail)

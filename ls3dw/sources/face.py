"""A face as read from an annotation file, the faults that leave it out, and how it becomes a sample."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ls3dw.core.formats.pictures import DecodedPicture
from ls3dw.core.geometry import tight_box
from ls3dw.core.sample import ColourOrder, Drop, Floats, Picture, Reason, Sample
from ls3dw.errors import SourceError

LEAST_SEEN = 0.1
"""Least share of a face's box inside the picture. Faces cut by the edge are usual; boxes outside are faults."""


class Rejected(Exception):  # noqa: N818 - an outcome on its way to a Drop, not an error of the program
    """Raised for a face or file that becomes a Drop."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason: Reason = reason
        self.detail = detail


@dataclass(frozen=True)
class Face:
    """The contents of an annotation file, in 0-based pixels.

    points: (P, 2) float32, all its points; annotation: (68, 2) float32, NaN where it has no such point;
    extra, yaw and flags: as in Sample.
    """

    points: Floats
    annotation: Floats
    extra: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    yaw: float | None = None
    flags: tuple[str, ...] = ()


Parser: TypeAlias = Callable[[bytes], Face]
"""Parses the bytes of an annotation file; raises Rejected."""


@dataclass(frozen=True)
class Place:
    """Identity of a face; the fields are those of Sample."""

    id: str
    source: str
    subset: str
    media: str
    frame: int | None = None
    flags: tuple[str, ...] = ()

    def drop(self, fault: Rejected) -> Drop:
        """Return the drop that records the fault."""
        return Drop(self.id, self.source, fault.reason, printable(fault.detail))


def zero_based(matlab: NDArray[np.floating[Any]]) -> Floats:
    """Convert 1-based points of Matlab to 0-based float32. Nothing else does this."""
    return to_float32(matlab.astype(np.float64) - 1.0)


def to_float32(values: NDArray[np.float64]) -> Floats:
    """Convert to float32; what it cannot hold becomes infinite, and is reported as non-finite."""
    with np.errstate(over="ignore"):
        return values.astype(np.float32)


NOT_THERE: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG})
"""Errors that mean that there is no such file. All others may pass: disk, network, memory, permissions."""


@contextlib.contextmanager
def reading(path: Path, reason: Reason) -> Iterator[None]:
    """Turn an OSError into Rejected if the file is not there, and otherwise into a SourceError that ends the run."""
    try:
        yield
    except OSError as error:
        text = error.strerror or str(error)
        if error.errno in NOT_THERE:
            raise Rejected(reason, f"{path.name} cannot be read: {text}") from error
        raise SourceError(
            f"{path}: cannot be read ({text}); mend the cause and run again: what is finished is kept"
        ) from error


def read_face(path: Path, parse: Parser) -> Face:
    """Read an annotation file; raises Rejected unless its points are finite and span a box."""
    with reading(path, "malformed annotation"):
        data = path.read_bytes()
    face = parse(data)
    bad = np.count_nonzero(~np.isfinite(face.points).all(axis=1))
    if bad:
        raise Rejected("non-finite points", f"{path.name}: {bad} of {len(face.points)} points")
    x0, y0, x1, y1 = tight_box(face.points)
    if x0 == x1 or y0 == y1:
        raise Rejected("empty box", f"{path.name}: x {x0:g} to {x1:g}, y {y0:g} to {y1:g}")
    return face


def make_sample(face: Face, picture: DecodedPicture, place: Place, order: ColourOrder = "RGB") -> Sample:
    """Join a face and its picture, channels in `order`; raises Rejected if no point lies in the picture."""
    _check_inside(face.points, picture.size)
    return Sample(
        id=place.id,
        source=place.source,
        subset=place.subset,
        media=place.media,
        annotation=face.annotation,
        box=tight_box(face.points),
        load=partial(_same, picture.pixels),
        frame=place.frame,
        yaw=face.yaw,
        flags=(*place.flags, *face.flags),
        extra=face.extra,
        order=order,
        size=picture.size,
        reduction=picture.reduction,
    )


def _check_inside(points: Floats, size: tuple[int, int]) -> None:
    width, height = size
    # Pixel k covers [k - 0.5, k + 0.5].
    inside = (points >= -0.5) & (points <= (width - 0.5, height - 0.5))
    if not inside.all(axis=1).any():
        raise Rejected("outside picture", f"no point lies in the {width}x{height} picture")
    x0, y0, x1, y1 = tight_box(points).astype(float)
    seen = max(0.0, min(x1, width) - max(x0, 0.0)) * max(0.0, min(y1, height) - max(y0, 0.0))
    if seen < LEAST_SEEN * (x1 - x0) * (y1 - y0):
        raise Rejected("outside picture", f"hardly any of the points' box lies in the {width}x{height} picture")


def _same(picture: Picture) -> Picture:
    """Return the picture. A closure would do, but could not be pickled."""
    return picture


def printable(text: str) -> str:
    """Escape control characters and undecodable bytes of file names."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)

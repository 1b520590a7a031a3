"""The sample, which goes from a source to a shard, and the drop, which records why a face or file does not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ls3dw.core.markup import POINTS

Floats: TypeAlias = NDArray[np.float32]
Doubles: TypeAlias = NDArray[np.float64]
Picture: TypeAlias = NDArray[np.uint8]

ColourOrder = Literal["RGB", "BGR"]
"""Channel order of a picture. Video frames stay BGR: converting whole frames takes as long as decoding them."""

Reason = Literal[
    "unreadable picture",
    "missing picture",
    "missing annotation",
    "malformed annotation",
    "wrong number of points",
    "non-finite points",
    "empty box",
    "outside picture",
    "unreadable video",
    "frame without annotation",
    "annotation without frame",
    "uncertain frame number",
    "repeated id",
    "rejected in audit",
]
"""Why a face or file is left out; `Drop.detail` has the particulars."""


@dataclass(frozen=True)
class Drop:
    """A face or file that could not be used. read = written + dropped."""

    id: str
    source: str
    reason: Reason
    detail: str


@dataclass(frozen=True)
class Sample:
    """One face in one picture, in the convention of ls3dw (0-based pixels, centre of the top-left pixel (0, 0)).

    annotation: (68, 2) float32, NaN where the source has no such point; box: (4,) float32 x0 y0 x1 y1;
    media: file under the source's root; frame: number in a video, from 1; yaw: degrees, where the source has it;
    load: returns the picture with its channels in `order`;
    flags: notes for users, e.g. "broken" for a frame whose published annotation is known to be wrong;
    extra: further arrays of the source, the same names and shapes for all its samples;
    size: width and height of the picture, None if they are those of `image()`; reduction: how many times `image()` is
    smaller than the picture, 1 but for very large ones. Box and points are always in pixels of the picture.
    """

    id: str
    source: str
    subset: str
    media: str
    annotation: Floats
    box: Floats
    load: Callable[[], Picture]
    frame: int | None = None
    yaw: float | None = None
    flags: tuple[str, ...] = ()
    extra: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    order: ColourOrder = "RGB"
    size: tuple[int, int] | None = None
    reduction: int = 1

    def __post_init__(self) -> None:
        if self.annotation.shape != (POINTS, 2) or self.box.shape != (4,):
            raise ValueError(
                f"{self.id}: annotation {self.annotation.shape} and box {self.box.shape};"
                f" expected ({POINTS}, 2) and (4,)"
            )

    def image(self) -> Picture:
        """Return the picture (H, W, 3) uint8 RGB. Raises PictureError if the file is damaged."""
        pixels = self.load()
        if self.order == "RGB":
            return pixels
        # Fifty times faster than numpy.
        import cv2

        return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), dtype=np.uint8)


@dataclass(frozen=True, kw_only=True)
class StoredSample(Sample):
    """A face read back from a data set. `image()` is the stored picture; all coordinates are in source pixels.

    to_picture: (2, 3) affine from source pixels to those of `image()`; width, height: of the source picture.
    """

    to_picture: NDArray[np.float64]
    width: int
    height: int


Outcome: TypeAlias = Sample | Drop


class Media(Protocol):
    """The unit of reading for one process: a video, or some pictures of a folder. Small and picklable.

    Its units (files or frames) have fixed numbers, so every run puts them into the same shards.
    """

    @property
    def name(self) -> str:
        """Name of the video, or of the folder of pictures that it belongs to: a part of the source."""
        ...

    @property
    def start(self) -> int | None:
        """Number of its first unit in the part; None for a video, which is a whole part."""
        ...

    @property
    def subset(self) -> str: ...

    @property
    def expected(self) -> int:
        """Number of units by the listing; a video may have more frames."""
        ...

    def files(self) -> Iterator[Path]:
        """Yield the files that it reads, in a fixed order."""
        ...

    def read(self, skip: Callable[[int], bool]) -> Iterator[tuple[int, Outcome]]:
        """Yield the outcome of every unit once with its number, in order, except where `skip(number)` is true."""
        ...

"""What the stages work on: faces and videos of the embedded sample."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np

from ls3dw.core.crops import cut_window, pack_windows
from ls3dw.core.resources import folder
from ls3dw.core.sample import Picture
from ls3dw.models.face_batch import FaceBatch
from ls3dw.sources import LS3DW, open_source
from ls3dw.sources.video import VideoMedia

VIDEO_SIZE: Final = (640, 480)
"""The usual one of 300-VW."""


@dataclass(frozen=True)
class SampleFaces:
    """pictures: N of (H, W, 3) uint8 RGB; boxes: (N, 4) x0 y0 x1 y1 in their pixels."""

    pictures: tuple[Picture, ...]
    boxes: np.ndarray[Any, np.dtype[np.float64]]

    @classmethod
    def read(cls) -> SampleFaces:
        """Read every face of the embedded sample."""
        samples = [sample for name in LS3DW for sample in open_source(name, folder("embedded"))]
        boxes = np.stack([sample.box for sample in samples]).astype(np.float64)
        return cls(tuple(sample.image() for sample in samples), boxes)

    def __len__(self) -> int:
        return len(self.pictures)

    def spread(self, count: int) -> SampleFaces:
        """Return `count` faces, evenly spread; more than there are: some of them again."""
        rows = [row * len(self) // count for row in range(count)]
        return SampleFaces(tuple(self.pictures[row] for row in rows), self.boxes[rows])

    def batch(self) -> FaceBatch:
        """Cut the windows that the networks see."""
        windows = [cut_window(picture, box) for picture, box in zip(self.pictures, self.boxes, strict=True)]
        return FaceBatch((pack_windows(windows),), self.boxes)


def embedded_video() -> VideoMedia:
    """Return the first video of the embedded sample, with its annotations."""
    (video, *_) = open_source("300vw", folder("embedded")).media()
    assert isinstance(video, VideoMedia)
    return video


def write_video(path: Path, codec: str, pictures: tuple[Picture, ...]) -> bool:
    """Write pictures as an AVI file of `VIDEO_SIZE`; False if this OpenCV cannot write the codec."""
    writer: Any = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), 25.0, VIDEO_SIZE)
    if not writer.isOpened():
        return False
    for picture in pictures:
        writer.write(cv2.cvtColor(cv2.resize(picture, VIDEO_SIZE), cv2.COLOR_RGB2BGR))
    writer.release()
    return True


def repeat_videos(root: Path, copies: int) -> None:
    """Lay out a 300-VW folder with `copies` links to the embedded videos."""
    videos = sorted(path.parent for path in (folder("embedded") / "300VW").glob("*/vid.avi"))
    for number in range(copies):
        (root / f"{number + 1:03d}").symlink_to(videos[number % len(videos)], target_is_directory=True)

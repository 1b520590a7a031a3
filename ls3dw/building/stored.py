"""Reads the stored faces of a data set like a source, to annotate them again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ls3dw.core.crops import decode_stored
from ls3dw.core.sample import Picture, StoredSample
from ls3dw.dataset.shards import Shard

_COLUMNS = ("id", "media", "subset", "frame", "width", "height", "annotation", "box", "yaw", "broken", "to_picture")


@dataclass(frozen=True)
class StoredMedia:
    """A face shard. name: of its part; start: number of its first unit in the part.

    Its units are its faces, without drops.
    """

    name: str
    start: int
    source: str
    path: Path
    expected: int

    @property
    def subset(self) -> str:
        """The subset of all its faces."""
        with Shard(self.path) as faces:
            return str(faces.cell("subset", 0))

    def files(self) -> Iterator[Path]:
        """Yield nothing: the data set itself has the hashes of its shards."""
        return iter(())

    def read(self, skip: Callable[[int], bool]) -> Iterator[tuple[int, StoredSample]]:
        """Yield every face that is not skipped; its picture is decoded when it is loaded."""
        with Shard(self.path) as faces:
            columns = {name: faces.column(name) for name in _COLUMNS}
            for row in range(len(faces)):
                if not skip(self.start + row):
                    values = {name: column[row] for name, column in columns.items()}
                    yield self.start + row, self._sample(values, partial(_picture, faces, row))

    def _sample(self, values: dict[str, Any], load: Callable[[], Picture]) -> StoredSample:
        return StoredSample(
            id=str(values["id"]),
            source=self.source,
            subset=str(values["subset"]),
            media=str(values["media"]),
            annotation=values["annotation"],
            box=values["box"],
            load=load,
            frame=int(values["frame"]) or None,
            yaw=float(values["yaw"]),
            flags=("broken",) if values["broken"] else (),
            to_picture=values["to_picture"],
            width=int(values["width"]),
            height=int(values["height"]),
        )


def _picture(faces: Shard, row: int) -> Picture:
    return decode_stored(faces.picture_bytes(row))

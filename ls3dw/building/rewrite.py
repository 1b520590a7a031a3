"""Writes a version that builds on another: new rows over those of its parent, and no pictures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ls3dw.building.prepare import Chunk, PreparedFace
from ls3dw.building.write import ShardGatherer, VersionFiles
from ls3dw.core.files import sha256_file
from ls3dw.dataset.shards import ANNOTATION_COLUMNS, Shard
from ls3dw.dataset.store import FileRecord, ShardRecord, shard_name
from ls3dw.errors import DatasetError
from ls3dw.sources import SOURCES

Selected = Mapping[tuple[str, str], frozenset[str]]
"""Ids of the faces to annotate again, by source and shard; without shards that have none."""


class ShardRewriter:
    """Writes the annotation shards of a version from its chunks and its parent's rows; any thread may use it.

    records: of the parent's shards.
    """

    def __init__(self, files: VersionFiles, parent: str, records: Iterable[ShardRecord], selected: Selected) -> None:
        self._files = files
        self._store = files.store
        self._parent = parent
        self._records = {(record.source, record.name): record for record in records}
        self._selected = selected
        self._gatherer = ShardGatherer()

    def copy_unchanged(self) -> None:
        """Write the shards in which no face is annotated again, but for those that exist."""
        for key, record in self._records.items():
            if key not in self._selected and not self._exists(key):
                self._write(record, self._parent_rows(record) if record.written else None)

    def add(self, chunk: Chunk) -> None:
        """Add an annotated chunk; write its shard if it is complete."""
        if not (chunks := self._gatherer.add(chunk)):
            return
        key = chunk.source, shard_name(chunk.part, chunk.shard)
        faces = [face for part in chunks for face in part.faces]
        self._check_ids(key, faces, chunks)
        self._check_pictures(key, faces)
        record = self._records[key]
        rows = self._parent_rows(record)
        place = {face: row for row, face in enumerate(rows["id"])}
        places = [place[face.id] for face in faces]
        for column, values in self._files.annotation_rows(chunks, SOURCES[chunk.source].annotation_kind).items():
            rows[column][places] = values
        self._write(record, rows)

    def check_complete(self) -> None:
        """Check that every shard of the parent was written: a source that lost a whole shard gives no chunk."""
        missing = [key for key in self._records if not self._exists(key)]
        if missing:
            raise _changed("/".join(missing[0]), "its pictures are no longer where they were")

    def _exists(self, key: tuple[str, str]) -> bool:
        return self._store.marker(self._files.version, *key).exists()

    def _write(self, record: ShardRecord, rows: dict[str, NDArray[Any]] | None) -> None:
        """Write the rows of a shard, if it has any, and its marker: the parent's record with this version's files."""
        files: tuple[FileRecord, ...] = ()
        if rows is not None:
            pictures = self._file(record, self._store.faces(record.source, record.name).relative_to(self._store.root))
            files = pictures, self._files.write_annotations(record.source, record.name, rows)
        self._files.write_marker(replace(record, files=files, configuration=self._files.configuration_hash))

    def _parent_rows(self, record: ShardRecord) -> dict[str, NDArray[Any]]:
        path = self._store.annotations(self._parent, record.source, record.name)
        if sha256_file(path) != self._file(record, path.relative_to(self._store.root)).sha256:
            raise DatasetError(f"{path}: not as it was written; run ls3dw verify and build its version again")
        with Shard(path) as shard:
            return {column.name: shard.column(column.name) for column in ANNOTATION_COLUMNS}

    def _file(self, record: ShardRecord, path: object) -> FileRecord:
        return next(file for file in record.files if file.path == str(path))

    def _check_ids(self, key: tuple[str, str], faces: list[PreparedFace], chunks: list[Chunk]) -> None:
        """Check that the faces are those that were selected."""
        found, wanted = {face.id for face in faces}, self._selected.get(key, frozenset())
        for face in sorted(wanted ^ found):
            drops = [drop for chunk in chunks for drop in chunk.drops if drop.id == face]
            detail = f"{drops[0].reason}: {drops[0].detail}" if drops else "no longer where it was"
            raise _changed("/".join(key), f"{face}: {detail}")

    def _check_pictures(self, key: tuple[str, str], faces: list[PreparedFace]) -> None:
        """Check that faces read from a source again are those whose pictures are stored."""
        with Shard(self._store.faces(*key)) as stored:
            place = {face: row for row, face in enumerate(stored.column("id"))}
            columns = {name: stored.column(name) for name in ("annotation", "box", "to_picture")}
        for face in faces:
            for name, values in columns.items():
                if not np.array_equal(values[place[face.id]], getattr(face, name), equal_nan=True):
                    raise _changed("/".join(key), f"{face.id}: {name} is not that of the kept picture")


def _changed(where: str, detail: str) -> DatasetError:
    return DatasetError(
        f"{where}: {detail}; the source or the data set changed since it was built: build it into another --out, or"
        " regenerate from the stored faces"
    )

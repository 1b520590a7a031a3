"""Writes a version that builds on another: its rows over those of the parent, and never a picture."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ls3dw.building.prepare import Chunk, PreparedFace
from ls3dw.building.write import AnnotatedChunk, ShardWriter
from ls3dw.core.files import sha256_file
from ls3dw.dataset.shards import ANNOTATION_COLUMNS, Shard
from ls3dw.dataset.store import FileRecord, ShardRecord, Store, shard_name
from ls3dw.errors import DatasetError
from ls3dw.sources import SOURCES

Selected = Mapping[tuple[str, str], frozenset[str]]
"""Ids of the faces to annotate again, by source and shard; shards without such a face are not in it."""


class Rewriter(ShardWriter):
    """Writes the annotation shards of a version: faces that are annotated again over the rows of its parent.

    records: of the parent's shards.
    """

    def __init__(
        self,
        store: Store,
        version: str,
        configuration: Mapping[str, Any],
        parent: str,
        records: Iterable[ShardRecord],
        selected: Selected,
    ) -> None:
        super().__init__(store, version, configuration, {name: kind.annotation_kind for name, kind in SOURCES.items()})
        self._parent = parent
        self._records = {(record.source, record.name): record for record in records}
        self._selected = selected

    def carry_over(self) -> None:
        """Write the shards in which nothing is annotated again; those that are there already stay."""
        for key, record in self._records.items():
            if key not in self._selected and not self._store.marker(self._version, *key).exists():
                rows = self._parent_rows(record) if record.written else None
                self._store.write_marker(self._version, self._rewritten(record, rows))

    def check_whole(self) -> None:
        """Check that every shard of the parent has come out; a source that has lost a whole shard gives no chunk."""
        missing = [key for key in self._records if not self._store.marker(self._version, *key).exists()]
        if missing:
            raise _changed("/".join(missing[0]), "its pictures are no longer where they were")

    def _write(self, done: list[AnnotatedChunk]) -> ShardRecord:
        first = done[0].chunk
        name = shard_name(first.part, first.shard)
        faces = [face for part in done for face in part.chunk.faces]
        self._check_ids(first.source, name, faces, [part.chunk for part in done])
        self._check_pictures(first.source, name, faces)
        record = self._records[first.source, name]
        rows = self._parent_rows(record)
        place = {face: row for row, face in enumerate(rows["id"])}
        places = [place[face.id] for face in faces]
        for column, values in self._rows(first.source, faces, done).items():
            rows[column][places] = values
        return self._rewritten(record, rows)

    def _rewritten(self, record: ShardRecord, rows: dict[str, NDArray[Any]] | None) -> ShardRecord:
        """Write a shard's rows, if it has any, and return the parent's record as this version's."""
        files: tuple[FileRecord, ...] = ()
        if rows is not None:
            kept = self._file(record, self._store.faces(record.source, record.name).relative_to(self._store.root))
            files = kept, self._write_annotations(record.source, record.name, rows)
        return replace(record, files=files, configuration=self._configuration_hash)

    def _parent_rows(self, record: ShardRecord) -> dict[str, NDArray[Any]]:
        path = self._store.annotations(self._parent, record.source, record.name)
        if sha256_file(path) != self._file(record, path.relative_to(self._store.root)).sha256:
            raise DatasetError(f"{path}: not as it was written; run ls3dw verify and build its version again")
        with Shard(path) as shard:
            return {column.name: shard.column(column.name) for column in ANNOTATION_COLUMNS}

    def _file(self, record: ShardRecord, path: object) -> FileRecord:
        return next(file for file in record.files if file.path == str(path))

    def _check_ids(self, source: str, shard: str, faces: list[PreparedFace], chunks: list[Chunk]) -> None:
        """Check that the faces that came are those that were asked for."""
        came, wanted = {face.id for face in faces}, self._selected.get((source, shard), frozenset())
        for face in sorted(wanted ^ came):
            drops = [drop for chunk in chunks for drop in chunk.drops if drop.id == face]
            detail = f"{drops[0].reason}: {drops[0].detail}" if drops else "no longer where it was"
            raise _changed(f"{source}/{shard}", f"{face}: {detail}")

    def _check_pictures(self, source: str, shard: str, faces: list[PreparedFace]) -> None:
        """Check that faces read from a source once more are those whose pictures are kept."""
        with Shard(self._store.faces(source, shard)) as kept:
            place = {face: row for row, face in enumerate(kept.column("id"))}
            columns = {name: kept.column(name) for name in ("annotation", "box", "to_picture")}
        for face in faces:
            for name, values in columns.items():
                if not np.array_equal(values[place[face.id]], getattr(face, name), equal_nan=True):
                    raise _changed(f"{source}/{shard}", f"{face.id}: {name} is not that of the kept picture")


def _changed(where: str, detail: str) -> DatasetError:
    return DatasetError(
        f"{where}: {detail}; the source or the data set changed since it was built: build it into another --out, or"
        " regenerate from the stored faces"
    )

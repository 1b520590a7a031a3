"""Gathers the annotated chunks of each shard and writes it: faces, annotations, and last the marker."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ls3dw.building.prepare import Chunk, PreparedFace, face_rows
from ls3dw.core.annotations import Annotations
from ls3dw.core.files import sha256_file
from ls3dw.core.metrics import nme
from ls3dw.dataset.shards import ANNOTATION_COLUMNS, FACE_COLUMNS, FORMAT, Rows, encode_shard
from ls3dw.dataset.store import FileRecord, ShardRecord, Store, configuration_hash, shard_name
from ls3dw.errors import DatasetError


@dataclass(frozen=True)
class AnnotatedChunk:
    """A chunk and what the networks say of its faces; None where it has no face."""

    chunk: Chunk
    annotations: Annotations | None


@dataclass
class _Gathering:
    chunks: dict[int, AnnotatedChunk] = field(default_factory=dict)
    total: int | None = None

    def add(self, done: AnnotatedChunk) -> bool:
        """Take a chunk; True when the shard is complete."""
        self.chunks[done.chunk.number] = done
        if done.chunk.closes:
            self.total = done.chunk.number + 1
        return len(self.chunks) == self.total

    def in_order(self) -> list[AnnotatedChunk]:
        return [self.chunks[number] for number in sorted(self.chunks)]


class ShardWriter:
    """Writes the shards of one version of a data set.

    kinds: by source, which predicted points its own ones are compared with: "2d" or "3d"; None: with none.
    """

    def __init__(
        self, store: Store, version: str, configuration: Mapping[str, Any], kinds: Mapping[str, str | None]
    ) -> None:
        self._kinds = kinds
        self._store = store
        self._version = version
        self._configuration = dict(configuration)
        self._configuration_hash = configuration_hash(configuration)
        self._open: dict[tuple[str, str, int], _Gathering] = {}
        self._changing = threading.Lock()

    def add(self, done: AnnotatedChunk) -> None:
        """Take a chunk; write its shard if that is complete now. Several threads may, each with its own chunks."""
        if complete := self._gather(done):
            self._store.write_marker(self._version, self._write(complete))

    def _gather(self, done: AnnotatedChunk) -> list[AnnotatedChunk] | None:
        """Take a chunk; return all of its shard's, in order, once there are no others to come."""
        key = (done.chunk.source, done.chunk.part, done.chunk.shard)
        with self._changing:
            if self._open.setdefault(key, _Gathering()).add(done):
                return self._open.pop(key).in_order()
        return None

    def _write(self, done: list[AnnotatedChunk]) -> ShardRecord:
        """Write the files of a shard and return its record."""
        first, last = done[0].chunk, done[-1].chunk
        faces = [face for part in done for face in part.chunk.faces]
        files: tuple[FileRecord, ...] = ()
        if faces:
            shard = shard_name(first.part, first.shard)
            kept = self._write_faces(first.source, shard, face_rows(faces))
            files = kept, self._write_annotations(first.source, shard, self._rows(first.source, faces, done))
        return ShardRecord(
            source=first.source,
            part=first.part,
            number=first.shard,
            last=last.ends,
            expected=first.expected,
            read=sum(part.chunk.read for part in done),
            written=len(faces),
            drops=tuple(drop for part in done for drop in part.chunk.drops),
            files=files,
            configuration=self._configuration_hash,
        )

    def _rows(self, source: str, faces: list[PreparedFace], done: list[AnnotatedChunk]) -> dict[str, NDArray[Any]]:
        """Return the columns of an annotation shard for these faces."""
        rows = _annotation_rows(faces, [part.annotations for part in done if part.annotations], self._kinds[source])
        rows["guided"] = _guided(rows["annotation"], self._configuration)
        rows["made_by"] = np.full(len(faces), self._version)
        return rows

    def _write_annotations(self, source: str, shard: str, rows: Rows) -> FileRecord:
        data = encode_shard(ANNOTATION_COLUMNS, rows, {}, self._attributes(source))
        return self._store.write(self._store.annotations(self._version, source, shard), data)

    def _write_faces(self, source: str, shard: str, rows: Rows) -> FileRecord:
        """Write the pictures, which all versions share; what is there already must be the same to the byte."""
        path = self._store.faces(source, shard)
        known = {column.name for column in FACE_COLUMNS}
        others = {name: values for name, values in rows.items() if name not in known}
        attributes: dict[str, str | int] = {"format": FORMAT, "source": source}
        data = encode_shard(FACE_COLUMNS, rows, others, attributes)
        if not path.exists():
            return self._store.write(path, data)
        record = FileRecord.of(path, self._store.root, data)
        if sha256_file(path) != record.sha256:
            raise DatasetError(
                f"{path}: holds other pictures than the source gives now; the source or the options changed since:"
                " choose another --out"
            )
        return record

    def _attributes(self, source: str) -> dict[str, str | int]:
        return {
            "format": FORMAT,
            "version": self._version,
            "source": source,
            "models": json.dumps(self._configuration["models"], sort_keys=True),
            "configuration": json.dumps(self._configuration, sort_keys=True),
        }


def _annotation_rows(
    faces: list[PreparedFace], annotations: list[Annotations], kind: str | None
) -> dict[str, NDArray[Any]]:
    """Turn faces and what the networks say of them into the columns that need no configuration."""
    names = ("landmarks_2d", "landmarks_3d", "confidence_2d", "confidence_3d", "crop", "pose")
    rows = {name: np.concatenate([getattr(part, name) for part in annotations]) for name in names}
    rows["id"] = np.array([face.id for face in faces])
    rows["annotation"] = np.stack([face.annotation for face in faces])
    rows["box"] = np.stack([face.box for face in faces])
    compared = {"2d": rows["landmarks_2d"], "3d": rows["landmarks_3d"][..., :2]}
    rows["nme"] = nme(compared[kind], rows["annotation"]) if kind else np.full(len(faces), np.nan)
    return rows


def _guided(annotation: NDArray[np.float32], configuration: Mapping[str, Any]) -> NDArray[np.bool_]:
    """Say which faces were guided by the source's points: those that have all of them, if that was asked for."""
    whole = np.isfinite(annotation).all(axis=(1, 2))
    model = configuration["models"]["3d"]
    guided = configuration["guidance"] == "annotated" and model is not None and model["kind"] == "2d-to-3d"
    return np.asarray(whole & guided)

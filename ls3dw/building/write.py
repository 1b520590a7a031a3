"""Writes shards from annotated chunks: pictures, annotations, and last the marker."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
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


class ShardGatherer:
    """Collects chunks until all of a shard are there; any thread may use it."""

    def __init__(self) -> None:
        self._chunks: dict[tuple[str, str, int], dict[int, Chunk]] = {}
        self._changing = threading.Lock()

    def add(self, chunk: Chunk) -> list[Chunk] | None:
        """Add a chunk; return all chunks of its shard, in order, when it was the last one missing."""
        key = (chunk.source, chunk.part, chunk.shard)
        with self._changing:
            chunks = self._chunks.setdefault(key, {})
            chunks[chunk.number] = chunk
            last = max(chunks)
            if not chunks[last].closes or len(chunks) <= last:
                return None
            del self._chunks[key]
        return [chunks[number] for number in sorted(chunks)]


class VersionFiles:
    """Writes the files of one version of a data set."""

    def __init__(self, store: Store, version: str, configuration: Mapping[str, Any]) -> None:
        self.store = store
        self.version = version
        self.configuration = dict(configuration)
        self.configuration_hash = configuration_hash(configuration)

    def write_faces(self, source: str, shard: str, rows: Rows) -> FileRecord:
        """Write the pictures, which all versions share; those that exist must be the same to the byte."""
        path = self.store.faces(source, shard)
        known = {column.name for column in FACE_COLUMNS}
        others = {name: values for name, values in rows.items() if name not in known}
        attributes: dict[str, str | int] = {"format": FORMAT, "source": source}
        data = encode_shard(FACE_COLUMNS, rows, others, attributes)
        if not path.exists():
            return self.store.write(path, data)
        record = FileRecord.of(path, self.store.root, data)
        if sha256_file(path) != record.sha256:
            raise DatasetError(
                f"{path}: holds other pictures than the source gives now; the source or the options changed since:"
                " choose another --out"
            )
        return record

    def write_annotations(self, source: str, shard: str, rows: Rows) -> FileRecord:
        """Write an annotation shard."""
        attributes: dict[str, str | int] = {
            "format": FORMAT,
            "version": self.version,
            "source": source,
            "models": json.dumps(self.configuration["models"], sort_keys=True),
            "configuration": json.dumps(self.configuration, sort_keys=True),
        }
        data = encode_shard(ANNOTATION_COLUMNS, rows, {}, attributes)
        return self.store.write(self.store.annotations(self.version, source, shard), data)

    def write_marker(self, record: ShardRecord) -> None:
        """Write the marker, which makes a shard finished."""
        self.store.write_marker(self.version, record)

    def annotation_rows(self, chunks: list[Chunk], kind: str | None) -> dict[str, NDArray[Any]]:
        """Return the columns of an annotation shard. kind: "2d" or "3d": what the source's points are compared with."""
        faces = [face for chunk in chunks for face in chunk.faces]
        rows = _annotation_rows(faces, [chunk.annotations for chunk in chunks if chunk.annotations], kind)
        rows["guided"] = _guided(rows["annotation"], self.configuration)
        rows["made_by"] = np.full(len(faces), self.version)
        return rows


class ShardWriter:
    """Writes the shards of a version from its chunks; any thread may use it.

    kinds: by source, the predicted points its own ones are compared with: "2d", "3d" or None.
    """

    def __init__(self, files: VersionFiles, kinds: Mapping[str, str | None]) -> None:
        self._files = files
        self._kinds = kinds
        self._gatherer = ShardGatherer()

    def add(self, chunk: Chunk) -> None:
        """Add an annotated chunk; write its shard if it is complete."""
        if chunks := self._gatherer.add(chunk):
            self._files.write_marker(self._write(chunks))

    def _write(self, chunks: list[Chunk]) -> ShardRecord:
        first, last = chunks[0], chunks[-1]
        faces = [face for chunk in chunks for face in chunk.faces]
        files: tuple[FileRecord, ...] = ()
        if faces:
            shard = shard_name(first.part, first.shard)
            pictures = self._files.write_faces(first.source, shard, face_rows(faces))
            rows = self._files.annotation_rows(chunks, self._kinds[first.source])
            files = pictures, self._files.write_annotations(first.source, shard, rows)
        return ShardRecord(
            source=first.source,
            part=first.part,
            number=first.shard,
            last=last.ends,
            expected=first.expected,
            read=sum(chunk.read for chunk in chunks),
            written=len(faces),
            drops=tuple(drop for chunk in chunks for drop in chunk.drops),
            files=files,
            configuration=self._files.configuration_hash,
            fingerprint=last.fingerprint,
        )


def _annotation_rows(
    faces: list[PreparedFace], annotations: list[Annotations], kind: str | None
) -> dict[str, NDArray[Any]]:
    """Return the columns that need no configuration."""
    names = ("landmarks_2d", "landmarks_3d", "confidence_2d", "confidence_3d", "crop", "pose")
    rows = {name: np.concatenate([getattr(part, name) for part in annotations]) for name in names}
    rows["id"] = np.array([face.id for face in faces])
    rows["annotation"] = np.stack([face.annotation for face in faces])
    rows["box"] = np.stack([face.box for face in faces])
    compared = {"2d": rows["landmarks_2d"], "3d": rows["landmarks_3d"][..., :2]}
    rows["nme"] = nme(compared[kind], rows["annotation"]) if kind else np.full(len(faces), np.nan)
    return rows


def _guided(annotation: NDArray[np.float32], configuration: Mapping[str, Any]) -> NDArray[np.bool_]:
    """Return which faces (N,) were guided by the source's points: those that have all, if that was asked for."""
    whole = np.isfinite(annotation).all(axis=(1, 2))
    model = configuration["models"]["3d"]
    guided = configuration["guidance"] == "annotated" and model is not None and model["kind"] == "2d-to-3d"
    return np.asarray(whole & guided)

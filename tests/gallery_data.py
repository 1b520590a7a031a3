"""Data sets for tests of galleries and audits: copies of the sample's with other ids, and decisions on their faces."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ls3dw.building.finish import finish_version
from ls3dw.core.files import read_json, sha256_file
from ls3dw.dataset.open import open_dataset
from ls3dw.dataset.shards import ANNOTATION_COLUMNS, FACE_COLUMNS, Column, Shard, encode_shard
from ls3dw.dataset.store import FileRecord, Store

Rows = dict[str, np.ndarray]


def rewrite(root: Path, change: Callable[[str, Rows], None]) -> None:
    """Write version v1 again with other content. change: alters the rows of a shard of a source in place."""
    store = Store(root)
    for record in list(store.markers("v1")):
        if record.written:
            paths = store.faces(record.source, record.name), store.annotations("v1", record.source, record.name)
            columns = FACE_COLUMNS, ANNOTATION_COLUMNS
            files = tuple(
                _rewrite(store, record.source, path, change, of) for path, of in zip(paths, columns, strict=True)
            )
            store.write_marker("v1", replace(record, files=files))
    store.manifest_file("v1").unlink()
    finish_version(store, "v1", read_json(store.configuration_file("v1")))


def _rewrite(
    store: Store, source: str, path: Path, change: Callable[[str, Rows], None], columns: tuple[Column, ...]
) -> FileRecord:
    with Shard(path) as shard:
        rows = {column.name: shard.column(column.name) for column in columns}
        names = ["pictures"] if columns is FACE_COLUMNS else []
        others = {name: shard.column(name) for name in (*names, *(f"extra/{extra}" for extra in shard.extras))}
        attributes = shard.attributes
    change(source, rows)
    return store.write(path, encode_shard(columns, rows, others, attributes))


def decide(root: Path, path: Path, who: str, verdicts: Iterable[tuple[str, ...]], /, **changes: Any) -> Path:
    """Write a decisions.json for the newest version. verdicts: id, verdict, and hour of the day and note if need be."""
    dataset = open_dataset(root, changes.get("version"))
    decisions = []
    for face, verdict, *rest in verdicts:
        hour, note = (*rest, *("12", "")[len(rest) :])
        when = f"2026-03-01T{hour}:00:00.000Z"
        decisions.append({"id": face, "verdict": verdict, "note": note, "when": when})
    manifest = sha256_file(dataset.store.manifest_file(dataset.version))
    values = {"format": 1, "kind": "ls3dw decisions", "version": dataset.version, "manifest": manifest}
    values |= {"gallery": "worst", "who": who, "decisions": decisions}
    path.write_text(json.dumps(values | changes))
    return path

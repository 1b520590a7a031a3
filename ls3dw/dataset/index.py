"""The tables of a version: index, drops and subsets.

Faces that people rejected stay in the shards; the index leaves them out and the drops list them.
"""

from __future__ import annotations

import io
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ls3dw.core.files import is_safe_name, sha256
from ls3dw.core.pose import head_pose_fit
from ls3dw.core.sample import Drop
from ls3dw.dataset.decisions import Audit
from ls3dw.dataset.gate import inside, read_table, reading
from ls3dw.dataset.records import SUMS_SUFFIX, dump_sums
from ls3dw.dataset.shards import Shard
from ls3dw.dataset.store import FileRecord, ShardRecord, Store
from ls3dw.errors import DatasetError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

FACE_FIELDS: Final = ("id", "subset", "media", "frame", "width", "height", "broken", "phash")
"""Columns that the index takes from the face shard; `_rows` makes the others."""

BOX_FIELDS: Final = ("x0", "y0", "x1", "y1")
DROP_FIELDS: Final = ("id", "source", "reason", "detail")

NEEDED: Final = ("id", "source", "subset", "media", "frame", "width", "height", "shard", "row")
NEEDED_FLOATS: Final = ("yaw", "pitch", "roll", "nme", "confidence")
"""Columns that every index has; those that later versions of ls3dw added may be missing."""

ROW_GROUP: Final = 16384
"""Least number of faces in a row group: an index of 230,000 faces with a group a shard reads six times slower."""


def write_index(store: Store, version: str, records: list[ShardRecord], audit: Audit) -> FileRecord:
    """Write index.parquet, several shards to a row group: memory does not grow with the data set."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    schema = _index_schema()
    with pq.ParquetWriter(buffer, schema) as writer:
        tables = (pa.table(_rows(store, version, record, audit), schema=schema) for record in records if record.written)
        for group in row_groups(tables):
            writer.write_table(group.filter(_kept(group, audit.rejected)))
    return store.write(store.index_file(version), buffer.getvalue())


def _kept(table: pa.Table, rejected: Collection[str]) -> pa.Array:
    """Return which rows of a table with ids stay (N,)."""
    import pyarrow as pa

    return pa.array([face not in rejected for face in table["id"].to_pylist()], pa.bool_())


def row_groups(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Join the tables of shards, in order, into row groups."""
    import pyarrow as pa

    waiting: list[pa.Table] = []
    for table in tables:
        waiting.append(table)
        if sum(map(len, waiting)) >= ROW_GROUP:
            yield pa.concat_tables(waiting)
            waiting = []
    if waiting:
        yield pa.concat_tables(waiting)


def _index_schema() -> pa.Schema:
    import pyarrow as pa

    text, whole, real = pa.string(), pa.int32(), pa.float32()
    types = {"id": text, "source": text, "subset": text, "media": text, "frame": whole, "width": whole}
    types |= {"height": whole, "shard": text, "row": whole, "yaw": real, "pitch": real, "roll": real}
    types |= {"nme": real, "confidence": real, "broken": pa.bool_(), "phash": pa.uint64(), "made_by": text}
    types |= dict.fromkeys(("pose_residual", *BOX_FIELDS), real) | {"audit": text}
    return pa.schema(list(types.items()))


def _rows(store: Store, version: str, record: ShardRecord, audit: Audit) -> dict[str, Any]:
    with Shard(store.faces(record.source, record.name), store.root) as faces:
        rows: dict[str, Any] = {name: faces.column(name) for name in FACE_FIELDS}
    with Shard(store.annotations(version, record.source, record.name), store.root) as annotations:
        pose, box = annotations.column("pose"), annotations.column("box")
        rows["pose_residual"] = head_pose_fit(annotations.column("landmarks_3d")).residual
        rows["nme"] = annotations.column("nme")
        rows["confidence"] = annotations.column("confidence_3d").mean(axis=1)
        rows["made_by"] = annotations.column("made_by")
    rows["source"] = [record.source] * record.written
    rows["shard"] = [record.name] * record.written
    rows["row"] = np.arange(record.written)
    rows["audit"] = [audit.outcomes[face].verdict if face in audit.outcomes else "" for face in rows["id"]]
    rows |= dict(zip(("yaw", "pitch", "roll"), pose.T, strict=True))
    return rows | dict(zip(BOX_FIELDS, box.T, strict=True))


def rejections(store: Store, records: list[ShardRecord], audit: Audit) -> list[Drop]:
    """Return the faces of the shards that people rejected, as drops."""
    drops = []
    for record in records if audit.rejected else []:
        if record.written:
            with Shard(store.faces(record.source, record.name), store.root) as faces:
                found = [audit.rejected[face] for face in faces.column("id") if face in audit.rejected]
            drops += [Drop(decision.id, record.source, "rejected in audit", decision.text) for decision in found]
    return drops


def write_drops(store: Store, version: str, drops: list[Drop]) -> FileRecord:
    """Write drops.parquet: id, source, reason, detail."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([(name, pa.string()) for name in DROP_FIELDS])
    table = pa.table({name: [getattr(drop, name) for drop in drops] for name in DROP_FIELDS}, schema=schema)
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return store.write(store.drops_file(version), buffer.getvalue())


def carry_subsets(store: Store, parent: str, version: str, rejected: Collection[str]) -> dict[str, int]:
    """Write the subsets of another version without the rejected faces; return how many each lost.

    Metadata of the files (how a subset was drawn) is kept, and nothing is drawn anew.
    """
    import pyarrow.parquet as pq

    lost = {}
    for path in sorted(store.subset_file(parent, "any").parent.glob("*.parquet")):
        with reading(inside(store.root, path), "subset"):
            table = pq.read_table(path)
        if "id" in table.column_names and is_safe_name(path.stem):
            kept = table.filter(_kept(table, rejected))
            lost[path.stem] = len(table) - len(kept)
            buffer = io.BytesIO()
            pq.write_table(kept, buffer)
            write_subset_files(store, version, path.stem, {f"{path.stem}.parquet": buffer.getvalue()})
    return lost


def write_subset_files(store: Store, version: str, name: str, files: Mapping[str, bytes]) -> list[FileRecord]:
    """Write the files of a subset, by name, and then <name>.sha256, which lists them with their SHA-256."""
    folder = store.subset_file(version, name).parent
    sums = folder / f"{name}{SUMS_SUFFIX}"
    inside(store.root, folder)
    # Files without sums are unrecorded, not damaged: a run that is killed here leaves nothing that looks wrong.
    sums.unlink(missing_ok=True)
    records = [store.write(folder / file, data) for file, data in files.items()]
    store.write(sums, dump_sums({file: sha256(data) for file, data in files.items()}))
    return records


def read_index(store: Store, version: str) -> pd.DataFrame:
    """Read and check index.parquet; `DatasetError` where it is damaged."""
    schema = _index_schema()
    needed = {name: schema.field(name).type for name in (*NEEDED, *NEEDED_FLOATS)}
    path = store.index_file(version)
    index = read_table(store.root, path, needed, {field.name: field.type for field in schema})
    with reading(path, "index"):
        for name in ("source", "shard"):
            if wrong := [value for value in index[name].unique() if not is_safe_name(value)]:
                raise DatasetError(f"{path}: {name} {wrong[0]!r} is not a name that ls3dw writes; not to be trusted")
        if len(index) and int(index["row"].min()) < 0:
            raise DatasetError(f"{path}: a row below 0; run ls3dw verify")
    return index


def read_drops(store: Store, version: str) -> pd.DataFrame:
    """Read and check drops.parquet: id, source, reason, detail."""
    import pyarrow as pa

    return read_table(store.root, store.drops_file(version), dict.fromkeys(DROP_FIELDS, pa.string()))


def read_subset(store: Store, version: str, name: str) -> pd.DataFrame:
    """Read and check a subset: column `id`, and others that say how it was drawn."""
    import pyarrow as pa

    path = store.subset_file(version, name)
    if not is_safe_name(name) or not path.is_file():
        known = ", ".join(sorted(other.stem for other in path.parent.glob("*.parquet"))) or "none"
        raise DatasetError(f"{path}: no such subset, there are: {known}; draw it with ls3dw subset")
    table = read_table(store.root, path, {"id": pa.string()})
    if "weight" in table and table["weight"].dtype.kind not in "iuf":
        raise DatasetError(f"{path}: weight is {table['weight'].dtype}; expected numbers: draw the subset again")
    return table

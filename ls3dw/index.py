"""The tables of a version: index and drops from its finished shards, one row a face or drop, and subsets."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ls3dw.errors import DatasetError
from ls3dw.pose import head_pose_fit
from ls3dw.shards import Shard
from ls3dw.store import FileRecord, ShardRecord, Store

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

FACE_FIELDS: Final = ("id", "subset", "media", "frame", "width", "height", "broken", "phash")
"""Columns that the index takes from the face shard as they are; the others are made in `_rows`."""

BOX_FIELDS: Final = ("x0", "y0", "x1", "y1")


ROW_GROUP: Final = 16384
"""Faces in a row group, at least: with one a shard, an index of 230,000 faces takes six times longer to read."""


def write_index(store: Store, version: str, records: list[ShardRecord]) -> FileRecord:
    """Write index.parquet, a row group for some shards: memory does not grow with the data set."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    schema = _index_schema()
    with pq.ParquetWriter(buffer, schema) as writer:
        tables = (pa.table(_rows(store, version, record), schema=schema) for record in records if record.written)
        for group in row_groups(tables):
            writer.write_table(group)
    return store.write(store.index_file(version), buffer.getvalue())


def row_groups(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Join the tables of shards, in their order, to row groups."""
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
    types |= dict.fromkeys(("pose_residual", *BOX_FIELDS), real)
    return pa.schema(list(types.items()))


def _rows(store: Store, version: str, record: ShardRecord) -> dict[str, Any]:
    with Shard(store.faces(record.source, record.name)) as faces:
        rows: dict[str, Any] = {name: faces.column(name) for name in FACE_FIELDS}
    with Shard(store.annotations(version, record.source, record.name)) as annotations:
        pose, box = annotations.column("pose"), annotations.column("box")
        rows["pose_residual"] = head_pose_fit(annotations.column("landmarks_3d")).residual
        rows["nme"] = annotations.column("nme")
        rows["confidence"] = annotations.column("confidence_3d").mean(axis=1)
        rows["made_by"] = annotations.column("made_by")
    rows["source"] = [record.source] * record.written
    rows["shard"] = [record.name] * record.written
    rows["row"] = np.arange(record.written)
    rows |= dict(zip(("yaw", "pitch", "roll"), pose.T, strict=True))
    return rows | dict(zip(BOX_FIELDS, box.T, strict=True))


def write_drops(store: Store, version: str, records: list[ShardRecord]) -> FileRecord:
    """Write drops.parquet: id, source, reason, detail."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    drops = [drop for record in records for drop in record.drops]
    names = ("id", "source", "reason", "detail")
    schema = pa.schema([(name, pa.string()) for name in names])
    table = pa.table({name: [getattr(drop, name) for drop in drops] for name in names}, schema=schema)
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return store.write(store.drops_file(version), buffer.getvalue())


def write_subset(store: Store, version: str, name: str, columns: Mapping[str, list[Any]]) -> FileRecord:
    """Write subsets/<version>/<name>.parquet: some faces by id, and what is said of each."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(pa.table(dict(columns)), buffer)
    return store.write(store.subset_file(version, name), buffer.getvalue())


def read_index(store: Store, version: str) -> pd.DataFrame:
    import pandas as pd

    return pd.read_parquet(store.index_file(version))


def read_subset(store: Store, version: str, name: str) -> pd.DataFrame:
    import pandas as pd

    path = store.subset_file(version, name)
    if not path.is_file():
        known = ", ".join(sorted(other.stem for other in path.parent.glob("*.parquet"))) or "none"
        raise DatasetError(f"{path}: no such subset, there are: {known}; draw it with ls3dw subset")
    return pd.read_parquet(path)

"""Checks that every byte of a version is as it was written, and that its parts agree with each other."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ls3dw.core.files import TEMPORARY, sha256_file
from ls3dw.dataset.index import read_drops
from ls3dw.dataset.open import Dataset, open_dataset
from ls3dw.dataset.shards import Shard
from ls3dw.errors import DatasetError


@dataclass(frozen=True)
class Fault:
    """Something that is not as it was written."""

    path: str
    problem: str


def verify(root: Path, version: str | None = None) -> tuple[int, list[Fault]]:
    """Check a version; return how many files were checked and what is wrong. `DatasetError` if none can be opened."""
    dataset = open_dataset(root, version)
    files = dataset.manifest["files"]
    faults = [fault for record in files for fault in _check_file(root, record)]
    faults += [
        Fault(path.relative_to(root).as_posix(), "left behind by an interrupted build")
        for path in root.rglob(f"*{TEMPORARY}")
    ]
    if not faults:
        faults += _check_counts(dataset)
    return len(files), faults


def _check_file(root: Path, record: dict[str, Any]) -> Iterator[Fault]:
    path = root / record["path"]
    if not path.is_file():
        yield Fault(record["path"], "missing")
    elif path.stat().st_size != record["size"]:
        yield Fault(record["path"], f"{path.stat().st_size} bytes, expected {record['size']}")
    elif sha256_file(path) != record["sha256"]:
        yield Fault(record["path"], f"SHA-256 is not {record['sha256'][:12]}...")


def _check_counts(dataset: Dataset) -> Iterator[Fault]:
    """Compare index, counts and shards; the files themselves are sound by now."""
    index = dataset.index
    name = f"annotations/{dataset.version}/index.parquet"
    if index["id"].duplicated().any():
        yield Fault(name, f"id {index['id'][index['id'].duplicated()].iloc[0]} stands in it twice")
    for source, counts in dataset.manifest["counts"].items():
        rows = int((index["source"] == source).sum())
        if rows != counts["written"] or counts["read"] != rows + sum(counts["dropped"].values()):
            yield Fault(name, f"{source}: {rows} rows, {counts['read']} read, {counts['written']} written")
    drops = read_drops(dataset.store, dataset.version)
    left_out = set(drops.loc[drops["reason"] == "rejected in audit", "id"])
    for (source, shard), group in index.groupby(["source", "shard"]):
        yield from _check_shard(
            dataset, str(source), str(shard), dict(zip(group["row"], group["id"], strict=True)), left_out
        )


def _check_shard(
    dataset: Dataset, source: str, shard: str, ids: Mapping[int, str], left_out: Collection[str]
) -> Iterator[Fault]:
    """Compare a shard with its rows of the index; what is not in the index must be among the drops."""
    for path in (dataset.store.faces(source, shard), dataset.store.annotations(dataset.version, source, shard)):
        try:
            with Shard(path) as file:
                own = dict(enumerate(file.column("id").tolist()))
        except DatasetError as error:
            yield Fault(path.relative_to(dataset.store.root).as_posix(), str(error))
            continue
        if {row: face for row, face in own.items() if face not in left_out} != ids:
            yield Fault(path.relative_to(dataset.store.root).as_posix(), "its ids are not those of the index")

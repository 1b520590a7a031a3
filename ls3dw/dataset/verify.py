"""Checks that every byte of a data set is as it was written, and that its parts agree with each other."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from ls3dw.core.files import LOCK, TEMPORARY, dump_json, read_json, sha256, sha256_file
from ls3dw.core.jobs import run_all
from ls3dw.dataset.card import CARD
from ls3dw.dataset.gate import PASSING, UnreadableError, inside
from ls3dw.dataset.index import read_drops
from ls3dw.dataset.open import Dataset, open_dataset
from ls3dw.dataset.records import SUMS, SUMS_SUFFIX, check_seal, read_sums
from ls3dw.dataset.shards import Shard
from ls3dw.dataset.store import DIGEST, FileRecord, Store, read_dataset
from ls3dw.errors import DatasetError

Kind = Literal["damaged", "unreadable"]

NOT_RECORDED: Final = "no SHA-256 is recorded; an older ls3dw wrote it, or it is not ls3dw's"


@dataclass(frozen=True)
class Fault:
    """A file that is not as it was written (damaged), or that could not be read."""

    path: str
    problem: str
    kind: Kind = "damaged"


class Verification(NamedTuple):
    """files: number of files checked; notes: about files that nothing vouches for, which is no fault."""

    files: int
    faults: list[Fault]
    notes: list[str]


@dataclass
class _Findings:
    """What was found so far."""

    files: int = 0
    faults: list[Fault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def verify(root: Path, version: str | None = None) -> Verification:
    """Check a data set. version: only that one, with its subsets and galleries; None: all.

    Raise `DatasetError` if dataset.json cannot be used.
    """
    store, listed = Store(root), read_dataset(root)
    names = [open_dataset(root, version).version] if version else list(listed["versions"])
    if not names:
        open_dataset(root)
    result = _Findings()
    _check_head(store, result)
    opened = [_open(store, name, listed, result) for name in names]
    datasets = [dataset for dataset in opened if dataset is not None]
    records = _records(store, names, datasets, result)
    known = {"dataset.json", CARD, LOCK, *(f"annotations/{name}/manifest.json" for name in names), *records}
    found = run_all(check_file, [(root, record) for record in records.values()])
    faults = [fault for fault in found if fault]
    result.files += len(records)
    result.faults += faults
    _check_card(store, result)
    _look_for_others(store, names if version else None, known, result)
    if not result.faults:
        for dataset in datasets:
            result.faults += _check_counts(dataset)
    return Verification(result.files, result.faults, list(dict.fromkeys(result.notes)))


def _check_head(store: Store, result: _Findings) -> None:
    """Check dataset.json against its own digest."""
    result.files += 1
    values = read_json(store.dataset_file)
    digest = values.pop(DIGEST, None)
    if digest is None and "manifests" not in values:
        result.notes.append(f"dataset.json: {NOT_RECORDED}")
        return
    whole = dump_json(values | {DIGEST: sha256(dump_json(values))})
    if store.dataset_file.read_bytes() != whole:
        result.faults.append(Fault("dataset.json", "SHA-256 is not the one in it; changed by hand, or damaged"))


def _open(store: Store, name: str, listed: Mapping[str, Any], result: _Findings) -> Dataset | None:
    """Check a version's manifest and return the version, or None where it cannot be used."""
    path = store.manifest_file(name)
    where = path.relative_to(store.root).as_posix()
    result.files += 1
    expected = listed.get("manifests", {}).get(name)
    try:
        if expected is None:
            result.notes.append(f"{where}: {NOT_RECORDED}")
        elif sha256_file(path) != expected:
            result.faults.append(Fault(where, f"SHA-256 is not {expected[:12]}..."))
            return None
        dataset = Dataset(store, name, tuple(listed["versions"]))
        _ = dataset.manifest
    except OSError as error:
        result.faults.append(_io_fault(where, error))
        return None
    except DatasetError as error:
        result.faults.append(_fault(where, error))
        return None
    return dataset


def _records(store: Store, names: Collection[str], datasets: list[Dataset], result: _Findings) -> dict[str, FileRecord]:
    """Return what is recorded of the files of some versions, by path: in manifests and in lists of SHA-256."""
    records = {file["path"]: FileRecord(**file) for dataset in datasets for file in dataset.manifest["files"]}
    for name in names:
        lists = [*(store.root / "subsets" / name).glob(f"*{SUMS_SUFFIX}")]
        lists += (store.root / "galleries" / name).glob(f"*/{SUMS}")
        for path in sorted(lists):
            where = path.relative_to(store.root)
            result.files += 1
            try:
                digests = read_sums(inside(store.root, path))
            except OSError as error:
                result.faults.append(_io_fault(where.as_posix(), error))
            except DatasetError as error:
                result.faults.append(_fault(where.as_posix(), error))
            else:
                places = {(where.parent / name).as_posix(): digest for name, digest in digests.items()}
                records |= {place: FileRecord(place, -1, digest) for place, digest in places.items()}
    return records


def check_file(root: Path, record: FileRecord) -> Fault | None:
    """Compare a file with its record; a size of -1 is not known."""
    path = root / record.path
    try:
        inside(root, path)
        if not path.is_file():
            return Fault(record.path, "missing")
        size = path.stat().st_size
        if record.size not in (-1, size):
            return Fault(record.path, f"{size} bytes, expected {record.size}")
        if sha256_file(path) != record.sha256:
            return Fault(record.path, f"SHA-256 is not {record.sha256[:12]}...")
    except OSError as error:
        return _io_fault(record.path, error)
    except DatasetError as error:
        return _fault(record.path, error)
    return None


def _io_fault(path: str, error: OSError) -> Fault:
    if isinstance(error, FileNotFoundError):
        return Fault(path, "missing")
    kind: Kind = "unreadable" if error.errno in PASSING else "damaged"
    return Fault(path, f"could not be read ({error.strerror or error})", kind)


def _fault(path: str, error: DatasetError) -> Fault:
    return Fault(path, str(error), "unreadable" if isinstance(error, UnreadableError) else "damaged")


def _check_card(store: Store, result: _Findings) -> None:
    path = store.root / CARD
    if not path.is_file():
        result.notes.append(f"{CARD}: missing; the next build, or ls3dw versions, writes it")
        return
    result.files += 1
    try:
        seal = check_seal(inside(store.root, path).read_bytes())
    except OSError as error:
        result.faults.append(_io_fault(CARD, error))
        return
    if seal == "damaged":
        result.faults.append(Fault(CARD, "SHA-256 is not the one in its last line"))
    elif seal == "none":
        result.notes.append(f"{CARD}: {NOT_RECORDED}")


def _look_for_others(store: Store, names: Collection[str] | None, known: Collection[str], result: _Findings) -> None:
    """Find files of interrupted runs, which are faults, and note those that nothing vouches for.

    names: the versions that are checked; None: all.
    """
    unfinished = set(store.begun()) - set(read_dataset(store.root)["versions"])
    result.notes += [f"annotations/{name}: unfinished, not checked" for name in sorted(unfinished)]
    for path in sorted(store.root.rglob("*")):
        where = path.relative_to(store.root)
        if path.name.endswith(TEMPORARY):
            result.faults.append(Fault(where.as_posix(), "left behind by an interrupted build"))
            continue
        parts = where.parts
        versioned = len(parts) > 1 and parts[0] in ("annotations", "subsets", "galleries")
        apart = not versioned or parts[1] in unfinished or (names is not None and parts[1] not in names)
        mine = where.as_posix() in known or path.name == SUMS or path.name.endswith(SUMS_SUFFIX)
        if parts[0] == "faces":
            apart = names is not None or bool(unfinished)
        if (versioned or parts[0] == "faces") and not apart and not mine and path.is_file():
            # One note for a whole gallery.
            shown = "/".join(parts[:3] if parts[0] == "galleries" else parts)
            result.notes.append(f"{shown}: {NOT_RECORDED}")


def _check_counts(dataset: Dataset) -> Iterator[Fault]:
    """Compare index, counts and shards; the files themselves are sound."""
    name = f"annotations/{dataset.version}/index.parquet"
    try:
        index, drops = dataset.index, read_drops(dataset.store, dataset.version)
    except DatasetError as error:
        yield _fault(name, error)
        return
    if index["id"].duplicated().any():
        yield Fault(name, f"id {index['id'][index['id'].duplicated()].iloc[0]} stands in it twice")
    for source, counts in dataset.manifest["counts"].items():
        rows = int((index["source"] == source).sum())
        if rows != counts["written"] or counts["read"] != rows + sum(counts["dropped"].values()):
            yield Fault(name, f"{source}: {rows} rows, {counts['read']} read, {counts['written']} written")
    left_out = set(drops.loc[drops["reason"] == "rejected in audit", "id"])
    for (source, shard), group in index.groupby(["source", "shard"]):
        yield from _check_shard(
            dataset, str(source), str(shard), dict(zip(group["row"], group["id"], strict=True)), left_out
        )


def _check_shard(
    dataset: Dataset, source: str, shard: str, ids: Mapping[int, str], left_out: Collection[str]
) -> Iterator[Fault]:
    """Compare a shard with its rows of the index; faces that are not in the index must be among the drops."""
    store = dataset.store
    for path in (store.faces(source, shard), store.annotations(dataset.version, source, shard)):
        where = path.relative_to(store.root).as_posix()
        try:
            with Shard(path, store.root) as file:
                own = dict(enumerate(file.column("id").tolist()))
        except DatasetError as error:
            yield _fault(where, error)
            continue
        if {row: face for row, face in own.items() if face not in left_out} != ids:
            yield Fault(where, "its ids are not those of the index")

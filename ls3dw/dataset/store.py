"""Where everything lies in a data set's folder, and the small JSON files that hold it together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from ls3dw.core.files import LOCK, dump_json, is_safe_name, read_json, sha256, write_atomic
from ls3dw.core.sample import Drop
from ls3dw.errors import ConfigurationError, DatasetError

FORMAT: Final = 1

REGENERATED: Final = "regenerated"
"""The entry of a configuration that says which version it builds on and what was made again; a build has none."""

CONTACT_SHEETS: Final = "contact-sheets"
"""The gallery that every build writes."""

AUDITED: Final = "audited"
"""The entry of a configuration that names the decisions of people that a version follows."""


@dataclass(frozen=True)
class FileRecord:
    """A file of the data set as it was written."""

    path: str
    size: int
    sha256: str

    @classmethod
    def of(cls, path: Path, root: Path, data: bytes | memoryview) -> FileRecord:
        return cls(path.relative_to(root).as_posix(), len(data), sha256(data))


@dataclass(frozen=True)
class ShardRecord:
    """The marker of a finished shard, written after its files: annotations/<version>/<source>/<shard>.json.

    part: the video or group of pictures it belongs to; number: of the shard in it; last: the part has no further
    shard; expected: units that the part's listing promised; read = written + len(drops).
    """

    source: str
    part: str
    number: int
    last: bool
    expected: int
    read: int
    written: int
    drops: tuple[Drop, ...]
    files: tuple[FileRecord, ...]
    configuration: str

    @property
    def name(self) -> str:
        return shard_name(self.part, self.number)

    @classmethod
    def from_dict(cls, values: Any, where: Path) -> ShardRecord:
        try:
            drops = tuple(Drop(**drop) for drop in values.pop("drops"))
            files = tuple(FileRecord(**file) for file in values.pop("files"))
            return cls(**values, drops=drops, files=files)
        except (TypeError, KeyError, AttributeError) as error:
            raise DatasetError(f"{where}: not a marker of this version of ls3dw; delete it and build again") from error


def shard_name(part: str, number: int) -> str:
    return f"{part}-{number:04d}"


@dataclass(frozen=True)
class Store:
    """The paths of one data set."""

    root: Path

    @property
    def dataset_file(self) -> Path:
        return self.root / "dataset.json"

    def faces(self, source: str, shard: str) -> Path:
        return self.root / "faces" / source / f"{shard}.h5"

    def version(self, version: str) -> Path:
        return self.root / "annotations" / version

    def annotations(self, version: str, source: str, shard: str) -> Path:
        return self.version(version) / source / f"{shard}.h5"

    def marker(self, version: str, source: str, shard: str) -> Path:
        return self.version(version) / source / f"{shard}.json"

    def configuration_file(self, version: str) -> Path:
        return self.version(version) / "configuration.json"

    def manifest_file(self, version: str) -> Path:
        return self.version(version) / "manifest.json"

    def index_file(self, version: str) -> Path:
        return self.version(version) / "index.parquet"

    def drops_file(self, version: str) -> Path:
        return self.version(version) / "drops.parquet"

    def audit_file(self, digest: str) -> Path:
        """What people decided, by the SHA-256 of it: versions that follow the same decisions share it."""
        return self.root / "audits" / f"{digest[:16]}.json"

    def subset_file(self, version: str, name: str) -> Path:
        return self.root / "subsets" / version / f"{name}.parquet"

    def gallery(self, version: str, name: str) -> Path:
        return self.root / "galleries" / version / name

    def markers(self, version: str) -> Iterator[ShardRecord]:
        """Yield the records of all finished shards of a version, by source and name."""
        for path in sorted(self.version(version).glob("*/*.json")):
            yield ShardRecord.from_dict(read_json(path), path)

    def begun(self) -> list[str]:
        """Return the names of all versions that were begun, finished or not."""
        names = (path.parent.name for path in self.root.glob("annotations/*/configuration.json"))
        # What a deletion left behind has a name that no version can have.
        return sorted(name for name in names if is_safe_name(name))

    def write(self, path: Path, data: bytes | memoryview) -> FileRecord:
        write_atomic(path, data)
        return FileRecord.of(path, self.root, data)

    def write_marker(self, version: str, record: ShardRecord) -> None:
        write_atomic(self.marker(version, record.source, record.name), dump_json(asdict(record)))


def configuration_hash(configuration: Mapping[str, Any]) -> str:
    return sha256(dump_json(dict(configuration)))


def claim_version(store: Store, version: str, configuration: Mapping[str, Any]) -> None:
    """Note what a new version is made with, in a new folder or beside the versions that are there."""
    if not store.dataset_file.exists():
        if any(entry.name != LOCK for entry in store.root.iterdir()):
            raise ConfigurationError(f"{store.root}: not empty and not a data set; choose another --out")
        write_atomic(store.dataset_file, dump_json({"format": FORMAT, "newest": None, "versions": []}))
    path = store.configuration_file(version)
    if not path.exists():
        write_atomic(path, dump_json(dict(configuration)))


def check_version(store: Store, version: str, configuration: Mapping[str, Any]) -> None:
    """Check that a version, if it is there, was made with this; `ConfigurationError` says what differs."""
    if not is_safe_name(version):
        raise ConfigurationError(f"version name {version!r}: expected letters, digits, '.', '_', '+' and '-'")
    path = store.configuration_file(version)
    if not path.exists():
        return
    known = read_json(path)
    if not isinstance(known, dict):
        raise DatasetError(f"{path}: not a configuration; choose another --out or --version-name")
    differences = [
        f"{key}: {known.get(key)!r}, now {configuration.get(key)!r}"
        for key in sorted(known.keys() | configuration.keys())
        if known.get(key) != configuration.get(key)
    ]
    if differences:
        raise ConfigurationError(
            f"{store.root}: version {version} was made with another configuration ({'; '.join(differences)});"
            " choose another --out or --version-name"
        )


def read_dataset(root: Path) -> dict[str, Any]:
    """Read dataset.json; `DatasetError` where there is no data set that this version of ls3dw can read."""
    path = root / "dataset.json"
    if not path.is_file():
        raise DatasetError(f"{root}: not a data set (no dataset.json); make one with ls3dw build --out {root}")
    values = read_json(path)
    if not isinstance(values, dict) or values.get("format") != FORMAT or "versions" not in values:
        raise DatasetError(f"{path}: expected format {FORMAT}; use the ls3dw that wrote it")
    return values


def publish_version(store: Store, version: str, asked: Mapping[str, Any] | None = None) -> None:
    """List a finished version in dataset.json as the newest. asked: its parent and what was asked of it, if any."""
    values = read_dataset(store.root)
    versions = [name for name in values["versions"] if name != version] + [version]
    values |= {"newest": version, "versions": versions}
    if asked is not None:
        values["lineage"] = values.get("lineage", {}) | {version: dict(asked)}
    write_atomic(store.dataset_file, dump_json(values))

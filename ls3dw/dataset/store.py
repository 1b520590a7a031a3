"""The paths of a data set, and its small JSON files: dataset.json, configurations, manifests, markers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from ls3dw.core.files import LOCK, dump_json, is_safe_name, read_json, sha256, sha256_file, write_atomic
from ls3dw.core.sample import Drop
from ls3dw.dataset.gate import Shape, check, inside, is_count, is_digest, is_path, one_of, read_checked
from ls3dw.errors import ConfigurationError, DatasetError

FORMAT: Final = 1

REGENERATED: Final = "regenerated"
"""Entry of a configuration: the parent version and what was made again; a build has none."""

CONTACT_SHEETS: Final = "contact-sheets"
"""The gallery that every build writes."""

AUDITED: Final = "audited"
"""Entry of a configuration: which decisions of people a version follows."""

DIGEST: Final = "sha256"
"""Entry of dataset.json: the SHA-256 of the file as it is without this entry."""

_FILE: Final[Shape] = {"path": is_path, "size": is_count, "sha256": is_digest}
_DROP: Final[Shape] = {"id": str, "source": str, "reason": str, "detail": str}
_ORIGIN: Final[Shape] = {"parent": is_safe_name, "from": str, "only": [str], "manifests": {...: is_digest}}
_MODEL: Final[Shape] = {"name": str, "sha256": str}
_CONFIGURATION: Final[Shape] = {
    "models": {...: (None, _MODEL)},
    f"{REGENERATED}?": (None, _ORIGIN),
    f"{AUDITED}?": {"decisions": is_digest},
}
_MARKER: Final[Shape] = {
    **dict.fromkeys(("source", "part"), is_safe_name),
    **dict.fromkeys(("number", "expected", "read", "written"), is_count),
    "last": bool,
    "drops": [_DROP],
    "files": [_FILE],
    "configuration": is_digest,
    "fingerprint?": (
        None,
        {**dict.fromkeys(("files", "bytes"), is_count), **dict.fromkeys(("names", "content"), is_digest)},
    ),
}
_DATASET: Final[Shape] = {
    "newest": (None, is_safe_name),
    "versions": [is_safe_name],
    "lineage?": {...: _ORIGIN},
    "pinned?": [is_safe_name],
    "manifests?": {...: is_digest},
    f"{DIGEST}?": is_digest,
}
_MANIFEST: Final[Shape] = {
    "version": is_safe_name,
    "configuration": {"annotations?": one_of("network", "published"), "data?": str, **_CONFIGURATION},
    "counts": {...: {"read": is_count, "written": is_count, "dropped": {...: is_count}}},
    "files": [_FILE],
    "lineage?": [{"version": is_safe_name, "parent": (None, is_safe_name), "configuration": _CONFIGURATION}],
    "balanced_origins?": {...: is_count},
    "annotation_kinds?": {...: one_of("2d", "3d")},
}


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
    fingerprint: Mapping[str, Any] | None = None

    @property
    def name(self) -> str:
        return shard_name(self.part, self.number)

    @classmethod
    def from_dict(cls, values: Any, where: Path) -> ShardRecord:
        """Make a record of a marker's values, which must fit its place: `where` is the marker's path."""
        try:
            check(values, _MARKER, where)
            drops = tuple(Drop(**drop) for drop in values.pop("drops"))
            files = tuple(FileRecord(**file) for file in values.pop("files"))
            record = cls(**values, drops=drops, files=files)
        except (TypeError, KeyError, AttributeError, DatasetError) as error:
            raise DatasetError(
                f"{where}: not a marker of this version of ls3dw ({error}); delete it and build again"
            ) from error
        source = where.parent.name
        # Of an audited version, the annotations may be those of the version that it was made from.
        ends = {("faces", source, f"{record.name}.h5"), ("annotations", source, f"{record.name}.h5")}
        parts = [tuple(file.path.split("/")) for file in files]
        placed = all((part[0], *part[-2:]) in ends and len(part) == 3 + (part[0] != "faces") for part in parts)
        if (record.source, record.name) != (source, where.stem) or not placed:
            raise DatasetError(f"{where}: a marker of another shard; delete it and build again")
        return record


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
            inside(self.root, path)
            yield ShardRecord.from_dict(read_json(path), path)

    def read_manifest(self, version: str) -> dict[str, Any]:
        """Read a version's manifest; `DatasetError` where it is damaged or another version's."""
        path = inside(self.root, self.manifest_file(version))
        values: dict[str, Any] = read_checked(path, _MANIFEST)
        if values["version"] != version:
            raise DatasetError(f"{path}: the manifest of version {values['version']}; run ls3dw verify")
        return values

    def read_configuration(self, version: str) -> dict[str, Any]:
        """Read what a version, finished or not, is made with."""
        values: dict[str, Any] = read_checked(inside(self.root, self.configuration_file(version)), _CONFIGURATION)
        return values

    def begun(self) -> list[str]:
        """Return the names of all versions that were begun, finished or not."""
        names = (path.parent.name for path in self.root.glob("annotations/*/configuration.json"))
        # What a deletion left behind has a name that no version can have.
        return sorted(name for name in names if is_safe_name(name))

    def write(self, path: Path, data: bytes | memoryview) -> FileRecord:
        """Write a file of the data set, never through a link that leads out of it."""
        inside(self.root, path.parent)
        write_atomic(path, data)
        return FileRecord.of(path, self.root, data)

    def write_marker(self, version: str, record: ShardRecord) -> None:
        self.write(self.marker(version, record.source, record.name), dump_json(asdict(record)))


def configuration_hash(configuration: Mapping[str, Any]) -> str:
    return sha256(dump_json(dict(configuration)))


def check_output(root: Path) -> None:
    """Check that `root` is a data set, or empty or missing: nothing is written or deleted in any other folder."""
    if root.exists() and not root.is_dir():
        raise ConfigurationError(f"{root}: a file, not a folder; choose another --out")
    if root.is_dir() and not (root / "dataset.json").exists():
        # A run that was killed before it wrote dataset.json left these.
        own = (LOCK, "dataset.json.")
        if any(not entry.name.startswith(own) for entry in root.iterdir()):
            raise ConfigurationError(f"{root}: not empty and not a data set; choose another --out")


def claim_version(store: Store, version: str, configuration: Mapping[str, Any]) -> None:
    """Write the configuration of a new version, in a new folder or in a data set."""
    check_output(store.root)
    if not store.dataset_file.exists():
        write_dataset(store, {"format": FORMAT, "newest": None, "versions": []})
    path = store.configuration_file(version)
    if not path.exists():
        store.write(path, dump_json(dict(configuration)))


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
    try:
        found = path.is_file()
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path}: could not be read ({error})") from error
    if not found:
        raise DatasetError(f"{root}: not a data set (no dataset.json); make one with ls3dw build --out {root}")
    values = read_json(inside(root, path))
    if not isinstance(values, dict) or values.get("format") != FORMAT or "versions" not in values:
        raise DatasetError(f"{path}: expected format {FORMAT}; use the ls3dw that wrote it")
    check(values, _DATASET, path)
    names = values["versions"]
    if len(set(names)) < len(names) or (values["newest"] is None) != (not names):
        raise DatasetError(f"{path}: versions {', '.join(names)}, newest {values['newest']}; damaged: get a copy")
    if values["newest"] is not None and values["newest"] not in names:
        raise DatasetError(f"{path}: newest is {values['newest']}, which is not among its versions; get a copy")
    values.pop(DIGEST, None)
    return dict(values)


def write_dataset(store: Store, values: Mapping[str, Any]) -> None:
    """Write dataset.json with the SHA-256 of each version's manifest and its own."""
    manifests = values.get("manifests", {})
    digests = {
        name: manifests.get(name) or sha256_file(store.manifest_file(name))
        for name in values["versions"]
        if name in manifests or store.manifest_file(name).is_file()
    }
    rest = {key: value for key, value in values.items() if key != "manifests"}
    vouched = rest | {"manifests": digests} if digests else rest
    store.write(store.dataset_file, dump_json(vouched | {DIGEST: sha256(dump_json(vouched))}))


def publish_version(store: Store, version: str, asked: Mapping[str, Any] | None = None) -> None:
    """List a finished version in dataset.json as the newest. asked: its parent and what was asked of it, if any."""
    values = read_dataset(store.root)
    versions = [name for name in values["versions"] if name != version] + [version]
    values |= {"newest": version, "versions": versions}
    if asked is not None:
        values["lineage"] = values.get("lineage", {}) | {version: dict(asked)}
    values["manifests"] = {name: digest for name, digest in values.get("manifests", {}).items() if name != version}
    write_dataset(store, values)

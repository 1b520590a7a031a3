"""Finishes a version: index, drops, contact sheets, card, and last the manifest with the hashes of all files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from ls3dw import __version__
from ls3dw.core.files import dump_json, sha256_file
from ls3dw.core.sample import Drop
from ls3dw.dataset.balanced_origins import write_origins
from ls3dw.dataset.card import write_card
from ls3dw.dataset.decisions import Audit, read_audit
from ls3dw.dataset.index import rejections, write_drops, write_index
from ls3dw.dataset.open import Dataset
from ls3dw.dataset.store import (
    AUDITED,
    REGENERATED,
    FileRecord,
    ShardRecord,
    Store,
    configuration_hash,
    publish_version,
    read_dataset,
)
from ls3dw.review.sheets import write_contact_sheets
from ls3dw.sources import SOURCES


def finish_version(store: Store, version: str, configuration: Mapping[str, Any]) -> list[ShardRecord]:
    """Write all files of a version but its shards, and publish it last; return the records of its shards."""
    records = list(store.markers(version))
    audit = read_audit(store, configuration)
    drops = [drop for record in records for drop in record.drops] + rejections(store, records, audit)
    manifest = _manifest(store, version, configuration, counts(records, drops), audit)
    if _is_published(store, version, manifest):
        return records
    derived = [write_index(store, version, records, audit), write_drops(store, version, drops)]
    dataset = Dataset(store, version, versions=())
    origins, manifest["balanced_origins"] = write_origins(dataset)
    manifest["annotation_kinds"] = annotation_kinds(store, configuration, manifest["counts"])
    manifest["files"] = [asdict(file) for file in _files(store, version, configuration, records, [*derived, *origins])]
    write_contact_sheets(dataset)
    write_card(store, dataset.index, manifest)
    store.write(store.manifest_file(version), dump_json(manifest))
    publish_version(store, version, configuration.get(REGENERATED))
    return records


def _manifest(
    store: Store, version: str, configuration: Mapping[str, Any], counted: Mapping[str, Any], audit: Audit
) -> dict[str, Any]:
    """Return a version's manifest without its files."""
    asked = configuration.get(REGENERATED)
    audited = {"audit": audit.summary()} if audit.decisions else {}
    return audited | {
        "ls3dw": __version__,
        "version": version,
        "parent": asked and asked["parent"],
        "lineage": lineage(store, asked["parent"]) if asked else [],
        "configuration": dict(configuration),
        "configuration_sha256": configuration_hash(configuration),
        "counts": dict(counted),
    }


def lineage(store: Store, parent: str) -> list[dict[str, Any]]:
    """Return a parent and its ancestors, the oldest first, each with its configuration.

    It tells how a row was made even after the version that made it is deleted.
    """
    manifest = store.read_manifest(parent)
    own = {"version": parent, "parent": manifest["parent"], "configuration": manifest["configuration"]}
    return [*manifest.get("lineage", []), own]


def annotation_kinds(store: Store, configuration: Mapping[str, Any], sources: Iterable[str]) -> dict[str, str]:
    """Return by source what its own points are, "2d" or "3d": as its parent has it, or its reader."""
    asked = configuration.get(REGENERATED)
    known = store.read_manifest(asked["parent"]).get("annotation_kinds", {}) if asked else {}
    return {name: known.get(name) or SOURCES[name].annotation_kind for name in sources}


def _is_published(store: Store, version: str, manifest: Mapping[str, Any]) -> bool:
    """Whether the version is published with this manifest already."""
    path = store.manifest_file(version)
    if version not in read_dataset(store.root)["versions"] or not path.is_file():
        return False
    known = store.read_manifest(version)
    return all(known.get(key) == value for key, value in manifest.items())


def counts(records: list[ShardRecord], drops: list[Drop]) -> dict[str, Any]:
    """Count by source: read, written, and dropped by reason. read = written + dropped.

    drops: of the records, and of faces that were rejected later.
    """
    result: dict[str, Any] = {}
    for source in sorted({record.source for record in records}):
        own = [record for record in records if record.source == source]
        dropped = Counter(drop.reason for drop in drops if drop.source == source)
        read = sum(record.read for record in own)
        result[source] = {
            "read": read,
            "written": read - dropped.total(),
            "dropped": dict(sorted(dropped.items())),
        }
    return result


def _files(
    store: Store,
    version: str,
    configuration: Mapping[str, Any],
    records: list[ShardRecord],
    derived: list[FileRecord],
) -> list[FileRecord]:
    shards = [file for record in records for file in record.files]
    audited = [store.audit_file(configuration[AUDITED]["decisions"])] if AUDITED in configuration else []
    own = [store.configuration_file(version), *audited, *(store.marker(version, r.source, r.name) for r in records)]
    others = [
        FileRecord(path.relative_to(store.root).as_posix(), path.stat().st_size, sha256_file(path)) for path in own
    ]
    return sorted([*shards, *derived, *others], key=lambda file: file.path)

"""Makes a version of what people decided: rejected faces leave index and subsets, and the shards stay as they are."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ls3dw.building.finish import finish_version
from ls3dw.core.files import exclusive, read_json, remove_partial, sha256_file
from ls3dw.dataset.decisions import (
    Audit,
    Decision,
    DecisionsFile,
    Resolve,
    merge,
    read_audit,
    read_decisions,
    write_audit,
)
from ls3dw.dataset.index import carry_subsets
from ls3dw.dataset.open import Dataset, open_dataset
from ls3dw.dataset.store import (
    AUDITED,
    REGENERATED,
    FileRecord,
    Store,
    check_version,
    claim_version,
    configuration_hash,
)
from ls3dw.dataset.versions import free_name
from ls3dw.errors import AuditError, ConfigurationError


@dataclass(frozen=True)
class Applied:
    """version: the new one, or the parent where nothing was new; rejected: faces of the parent that left its index;
    subsets: those that were carried over, with the faces that each lost."""

    version: str
    parent: str
    audit: Audit
    rejected: int
    subsets: dict[str, int]


@dataclass(frozen=True)
class Plan:
    """What a version would be made of."""

    parent: Dataset
    known: Audit
    audit: Audit

    @property
    def rejected(self) -> list[str]:
        """Faces of the parent's index that leave it."""
        return [face for face in self.parent.index["id"] if face in self.audit.rejected]


def plan(root: Path, files: Sequence[Path], version: str | None = None, resolve: Resolve | None = None) -> Plan:
    """Merge the decisions in files with those that a version has already; writes nothing.

    resolve: what counts where people differ; None: as for the version itself.
    """
    parent = open_dataset(root, version)
    known = read_audit(parent.store, parent.manifest["configuration"])
    read = [read_decisions(path) for path in files]
    for file in read:
        _check_origin(parent, file, known)
    merged = merge(known.decisions, *(file.decisions for file in read))
    return Plan(parent, known, Audit(merged, resolve or known.resolve))


def apply(
    root: Path,
    files: Sequence[Path],
    version: str | None = None,
    version_name: str | None = None,
    resolve: Resolve | None = None,
) -> Applied:
    """Make a version that takes the decisions into account. version: what it builds on, the newest if None.

    Where nothing is new, none is made. `AuditError` where people differ and `resolve` does not say what counts.
    """
    open_dataset(root, version)
    with exclusive(root):
        planned = plan(root, files, version, resolve)
        parent, audit, rejected = planned.parent, planned.audit, planned.rejected
        if audit == planned.known:
            return Applied(parent.version, parent.version, audit, 0, {})
        store = parent.store
        remove_partial(store.root)
        kept = write_audit(store, audit)
        configuration = _configuration(parent, kept)
        name = _version_name(parent, configuration, version_name)
        check_version(store, name, configuration)
        claim_version(store, name, configuration)
        _link_shards(store, parent.version, name, configuration)
        subsets = carry_subsets(store, parent.version, name, audit.rejected)
        finish_version(store, name, configuration)
        return Applied(name, parent.version, audit, len(rejected), subsets)


def _check_origin(parent: Dataset, file: DecisionsFile, known: Audit) -> None:
    """Check that decisions are of this data set, and of faces that it has."""
    manifest = parent.store.manifest_file(file.version)
    if file.version not in parent.versions or sha256_file(manifest) != file.manifest:
        raise AuditError(
            f"{file.path}: made on a gallery of another data set, or of a version {file.version!r} that is not there"
            f" as it was; {parent.store.root} has {', '.join(parent.versions)}"
        )
    there = set(parent.index["id"]) | {decision.id for decision in known.decisions}
    strangers = [decision.id for decision in file.decisions if decision.id not in there]
    if strangers:
        more = f" and {len(strangers) - 1} more" if len(strangers) > 1 else ""
        raise AuditError(f"{file.path}: {strangers[0]!r}{more}: no such face in version {parent.version}")


def _configuration(parent: Dataset, kept: FileRecord) -> dict[str, Any]:
    """Return the parent's configuration with the audit in it: versions made from this one inherit it."""
    manifest = {parent.version: sha256_file(parent.store.manifest_file(parent.version))}
    asked = {"parent": parent.version, "from": "audit", "only": [], "manifests": manifest}
    return {**parent.manifest["configuration"], REGENERATED: asked, AUDITED: {"decisions": kept.sha256}}


def _version_name(parent: Dataset, configuration: dict[str, Any], wanted: str | None) -> str:
    """Return the name asked for, that of a run that was interrupted, or the next free one."""
    store = parent.store
    if wanted in parent.versions:
        raise ConfigurationError(f"{store.root}: version {wanted} is there already; choose another --version-name")
    if wanted:
        return wanted
    for path in sorted(store.root.glob("annotations/*/configuration.json")):
        if path.parent.name not in parent.versions and read_json(path) == configuration:
            return path.parent.name
    return free_name(store)


def _link_shards(store: Store, parent: str, version: str, configuration: dict[str, Any]) -> None:
    """Give the version the parent's shards. Shards never change, so a second name for the same bytes is enough."""
    for record in store.markers(parent):
        files = []
        for file in record.files:
            old = store.root / file.path
            if not old.is_relative_to(store.version(parent)):
                files.append(file)
                continue
            new = store.annotations(version, record.source, record.name)
            if not new.exists():
                _link(old, new)
            files.append(replace(file, path=new.relative_to(store.root).as_posix()))
        own = replace(record, files=tuple(files), configuration=configuration_hash(configuration))
        store.write_marker(version, own)


def _link(old: Path, new: Path) -> None:
    """Give a file a second name; a copy where the file system has no hard links, which only costs space."""
    new.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(old, new)
    except PermissionError:  # what exFAT and some network shares say
        partial = new.with_name(f"{new.name}.partial")
        shutil.copyfile(old, partial)
        partial.replace(new)


def render_conflicts(audit: Audit) -> str:
    """List on which faces people differ, a line each."""

    def told(decision: Decision) -> str:
        return f"{decision.who}: {decision.verdict} ({decision.when})"

    return "\n".join(f"{found[0].id}  {', '.join(map(told, found))}" for found in audit.conflicts)

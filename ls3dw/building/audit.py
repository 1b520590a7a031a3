"""Makes a version from people's decisions: rejected faces leave index and subsets; the shards stay as they are."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ls3dw.building.finish import finish_version
from ls3dw.core.files import exclusive, partial_path, read_json, remove_partial, sha256_file
from ls3dw.dataset.decisions import (
    Audit,
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
    """A version that follows decisions.

    version: the new one, or the parent if nothing was new; rejected: faces that left the parent's index; subsets: those
    that were copied, with the faces each lost.
    """

    version: str
    parent: str
    audit: Audit
    rejected: int
    subsets: dict[str, int]


@dataclass(frozen=True)
class AuditPlan:
    """The decisions that a new version would follow; known: those of its parent."""

    parent: Dataset
    known: Audit
    audit: Audit

    @property
    def rejected(self) -> list[str]:
        """Ids that would leave the parent's index."""
        return [face for face in self.parent.index["id"] if face in self.audit.rejected]


def plan(root: Path, files: Sequence[Path], version: str | None = None, resolve: Resolve | None = None) -> AuditPlan:
    """Merge the decisions in files with those of a version; writes nothing.

    resolve: which verdict counts where people differ; None: as for the version.
    """
    parent = open_dataset(root, version)
    known = read_audit(parent.store, parent.manifest["configuration"])
    read = [read_decisions(path) for path in files]
    for file in read:
        _check_origin(parent, file, known)
    merged = merge(known.decisions, *(file.decisions for file in read))
    return AuditPlan(parent, known, Audit(merged, resolve or known.resolve))


def apply(
    root: Path,
    files: Sequence[Path],
    version: str | None = None,
    version_name: str | None = None,
    resolve: Resolve | None = None,
) -> Applied:
    """Make a version that follows the decisions; none if nothing is new. version: its parent, by default the newest.

    Raises `AuditError` where people differ and `resolve` is None.
    """
    open_dataset(root, version)
    with exclusive(root):
        planned = plan(root, files, version, resolve)
        parent, audit, rejected = planned.parent, planned.audit, planned.rejected
        if audit == planned.known:
            return Applied(parent.version, parent.version, audit, 0, {})
        store = parent.store
        remove_partial(store.root)
        configuration = _configuration(parent, write_audit(store, audit))
        name = _version_name(parent, configuration, version_name)
        check_version(store, name, configuration)
        claim_version(store, name, configuration)
        _link_shards(store, parent.version, name, configuration)
        subsets = carry_subsets(store, parent.version, name, audit.rejected)
        finish_version(store, name, configuration)
        return Applied(name, parent.version, audit, len(rejected), subsets)


def _check_origin(parent: Dataset, file: DecisionsFile, known: Audit) -> None:
    """Check that decisions were made on this data set and on faces that it has."""
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


def _configuration(parent: Dataset, audit: FileRecord) -> dict[str, Any]:
    """Return the parent's configuration with the audit in it, which versions made from this one inherit."""
    manifest = {parent.version: sha256_file(parent.store.manifest_file(parent.version))}
    asked = {"parent": parent.version, "from": "audit", "only": [], "manifests": manifest}
    return {**parent.manifest["configuration"], REGENERATED: asked, AUDITED: {"decisions": audit.sha256}}


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
    """Give the version the parent's shards as hard links: shards never change."""
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
    """Hard-link a file; copy it where the file system has no hard links."""
    new.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(old, new)
    except PermissionError:  # raised by exFAT and some network shares
        partial = partial_path(new)
        shutil.copyfile(old, partial)
        partial.replace(new)


def render_conflicts(audit: Audit) -> str:
    """Return a line for each face on which people differ."""
    return "\n".join(
        f"{found[0].id}  {', '.join(f'{one.who}: {one.verdict} ({one.when})' for one in found)}"
        for found in audit.conflicts
    )

"""The versions of a data set: list, pin, delete."""

from __future__ import annotations

import re
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ls3dw.core.files import TEMPORARY, exclusive, is_safe_name, remove_partial
from ls3dw.dataset.card import write_card
from ls3dw.dataset.gate import inside
from ls3dw.dataset.open import open_dataset
from ls3dw.dataset.store import REGENERATED, Store, read_dataset, write_dataset
from ls3dw.errors import ConfigurationError, DatasetError


@dataclass(frozen=True)
class Version:
    """One line of the list of versions.

    parent, origin, only: the version it builds on, where its pictures came from, which faces were annotated again;
    None or empty if it was built from the sources. builds_on: all versions it needs or descends from. networks: names
    by role. faces: None while it is unfinished.
    """

    name: str
    parent: str | None
    origin: str | None
    only: tuple[str, ...]
    builds_on: tuple[str, ...]
    networks: Mapping[str, str | None]
    faces: int | None
    mean_nme: float | None
    newest: bool
    pinned: bool


def list_versions(root: Path) -> list[Version]:
    """List the finished versions in the order they were finished, then the unfinished ones."""
    store, listed = Store(root), read_dataset(root)
    finished = [_finished(store, name, listed) for name in listed["versions"]]
    left = [name for name in store.begun() if name not in listed["versions"]]
    return finished + [_describe(name, store.read_configuration(name), listed, ()) for name in left]


def _finished(store: Store, name: str, listed: Mapping[str, Any]) -> Version:
    dataset = open_dataset(store.root, name)
    errors = dataset.index["nme"].dropna()
    behind = [entry["version"] for entry in dataset.manifest.get("lineage", [])]
    mean = float(errors.mean()) if len(errors) else None
    return _describe(name, dataset.manifest["configuration"], listed, behind, len(dataset), mean)


def _describe(
    name: str,
    configuration: Mapping[str, Any],
    listed: Mapping[str, Any],
    behind: Collection[str],
    faces: int | None = None,
    mean_nme: float | None = None,
) -> Version:
    asked = configuration.get(REGENERATED) or {"parent": None, "from": None, "only": [], "manifests": {}}
    return Version(
        name=name,
        parent=asked["parent"],
        origin=asked["from"],
        only=tuple(asked["only"]),
        builds_on=tuple(dict.fromkeys((*behind, *asked["manifests"]))),
        networks={role: model and model["name"] for role, model in configuration["models"].items()},
        faces=faces,
        mean_nme=mean_nme,
        newest=name == listed["newest"],
        pinned=name in listed.get("pinned", []),
    )


def free_name(store: Store) -> str:
    """Return the name of the next version: "v" and a number above that of every version that there is or was.

    Deleted versions count where something still names them: rows in `made_by`, lineages in their manifests.
    """
    listed = read_dataset(store.root)
    names = {*listed["versions"], *(path.name for path in store.root.glob("annotations/*"))}
    for name, asked in listed.get("lineage", {}).items():
        names |= {name, asked["parent"], *asked.get("manifests", {})}
    for version in listed["versions"]:
        if store.manifest_file(version).is_file():
            names |= {entry["version"] for entry in store.read_manifest(version).get("lineage", [])}
    numbers = [int(name[1:]) for name in names if re.fullmatch(r"v[0-9]{1,9}", name)]
    return f"v{max([1, *numbers]) + 1}"


def render_versions(versions: list[Version]) -> str:
    """Return the list as text."""
    lines = [f"{'version':<12} {'faces':>8} {'mean NME':>8}  {'builds on':<12} networks"]
    for version in versions:
        faces = "begun" if version.faces is None else str(version.faces)
        nme = "-" if version.mean_nme is None else f"{100 * version.mean_nme:.2f} %"
        marks = [word for word, holds in (("newest", version.newest), ("pinned", version.pinned)) if holds]
        asked = [f"from {version.origin}" if version.origin else "", *version.only]
        rest = ", ".join(filter(None, [*filter(None, version.networks.values()), *asked, *map(str.upper, marks)]))
        lines.append(f"{version.name:<12} {faces:>8} {nme:>8}  {version.parent or '-':<12} {rest}")
    return "\n".join(lines)


def pin(root: Path, name: str) -> None:
    """Protect a version from deletion."""
    with exclusive(_existing(root)):
        listed = read_dataset(root)
        _check_listed(root, name, listed)
        _write(root, listed, pinned=sorted({*listed.get("pinned", []), name}))


def unpin(root: Path, name: str) -> None:
    """Allow a pinned version to be deleted again."""
    with exclusive(_existing(root)):
        listed = read_dataset(root)
        if name not in listed.get("pinned", []):
            raise ConfigurationError(f"{root}: version {name!r} is not pinned")
        _write(root, listed, pinned=[other for other in listed["pinned"] if other != name])


def delete(root: Path, name: str, *, force: bool = False) -> None:
    """Delete a version with its subsets and galleries; pictures stay.

    A pinned version is never deleted; the last one, or one that others build on, only with `force`. The version is
    taken off the list first, then its folders are renamed, then removed: killed at any moment, it is whole or not
    listed, and the next run of this or of a build removes the rest.
    """
    with exclusive(_existing(root)):
        store = Store(root)
        remove_partial(root)
        listed = read_dataset(root)
        folders = [path for path in _folders(store, name) if path.exists()] if is_safe_name(name) else []
        if name in listed["versions"]:
            _check_deletable(root, name, listed, force=force)
            _unlist(root, name, listed)
        elif not folders:
            _check_listed(root, name, listed)
        for path in folders:
            inside(root, path)
            doomed = path.rename(path.with_name(path.name + TEMPORARY))
            shutil.rmtree(doomed)
        _describe_newest(store)


def _folders(store: Store, name: str) -> list[Path]:
    # Annotations first; the rest depends on them.
    return [store.version(name), store.root / "subsets" / name, store.root / "galleries" / name]


def _check_deletable(root: Path, name: str, listed: Mapping[str, Any], *, force: bool) -> None:
    if name in listed.get("pinned", []):
        raise ConfigurationError(f"{root}: version {name} is pinned; unpin it first")
    if force:
        return
    if listed["versions"] == [name]:
        raise ConfigurationError(f"{root}: {name} is the last version; --force deletes it all the same")
    heirs = [version.name for version in list_versions(root) if name in version.builds_on]
    if heirs:
        raise ConfigurationError(
            f"{root}: {', '.join(heirs)} built on {name}; --force deletes it all the same: finished versions stay whole"
        )


def _unlist(root: Path, name: str, listed: Mapping[str, Any]) -> None:
    versions = [other for other in listed["versions"] if other != name]
    lineage = {other: asked for other, asked in listed.get("lineage", {}).items() if other != name}
    newest = listed["newest"] if listed["newest"] != name else next(reversed(versions), None)
    _write(root, listed, versions=versions, newest=newest, **({"lineage": lineage} if "lineage" in listed else {}))


def _describe_newest(store: Store) -> None:
    """Write the card of the version that is the newest now."""
    card = store.root / "DATASET_CARD.md"
    if read_dataset(store.root)["newest"] is None:
        card.unlink(missing_ok=True)
        return
    newest = open_dataset(store.root)
    write_card(store, newest.index, newest.manifest)


def _existing(root: Path) -> Path:
    """Check that there is a data set before a lock file is written there."""
    read_dataset(root)
    return root


def _check_listed(root: Path, name: str, listed: Mapping[str, Any]) -> None:
    if name not in listed["versions"]:
        raise DatasetError(f"{root}: no version {name!r}; it has {', '.join(listed['versions']) or 'none'}")


def _write(root: Path, listed: Mapping[str, Any], **changes: Any) -> None:
    write_dataset(Store(root), {**listed, **changes})

"""Annotates the faces of a data set again: a new version of its annotations, whose pictures stay as they are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal, get_args

from ls3dw.building.options import SAMPLE, BuildOptions
from ls3dw.building.pipeline import Build, Report, model_records
from ls3dw.building.plan import Part, Plan, SourcePlan, make_plan
from ls3dw.building.prestart import Prestart
from ls3dw.building.rewrite import Rewriter, Selected
from ls3dw.building.selection import failures_of, select
from ls3dw.building.stored import StoredMedia
from ls3dw.core.files import read_json, sha256_file
from ls3dw.dataset.open import Dataset, open_dataset
from ls3dw.dataset.store import REGENERATED, ShardRecord, Store, read_dataset
from ls3dw.dataset.versions import free_name
from ls3dw.errors import ConfigurationError
from ls3dw.models.weights.zoo import BUNDLED, DEFAULT_2D, DEFAULT_3D, DEFAULT_DEPTH, read_contract
from ls3dw.sources import SOURCES

Origin = Literal["stored", "sources"]

_INHERITED: Final = ("limit", "shard_size", "subsets")
"""What decides which faces there are: taken from the parent, so that the versions share their pictures."""


@dataclass(frozen=True)
class RegenerateOptions(BuildOptions):
    """What `ls3dw regenerate` was asked for, with what it takes from its parent; `settle` makes them.

    origin: where the pictures come from; only: the faces that are annotated again, as in `selection`, all if
    empty; parent: the version whose rows are kept for the others.
    """

    origin: Origin = "stored"
    only: tuple[str, ...] = ()
    parent: str = field(default="", kw_only=True)

    def _choice_faults(self) -> list[str]:
        faults = super()._choice_faults()
        if self.origin not in get_args(Origin):
            faults.append(f"from {self.origin!r}: expected one of {', '.join(get_args(Origin))}")
        if self.origin == "stored" and self.decode == "reference":
            faults.append("decode 'reference' crops to whole pixels of the source's picture: add --from sources")
        return faults

    def _root_faults(self) -> list[str]:
        return super()._root_faults() if self.origin == "sources" else []


def settle(dataset: Path, given: Mapping[str, Any]) -> RegenerateOptions:
    """Return the options for what was asked for. given: fields of `RegenerateOptions`, without what is inherited.

    Without a name, a version that was begun with the same, or the newest if it is just that, is gone on with; else
    it is the next free one of v2, v3, ... Without a parent, it is the newest version.
    """
    store = Store(dataset)
    listed = read_dataset(dataset)
    wanted = {key: value for key, value in given.items() if value is not None and value not in ((), {})}
    name, parent = wanted.pop("version_name", None), wanted.pop("parent", None)
    unfinished = [version for version in store.begun() if version not in listed["versions"]]
    begun = _begun(store, [name] if name else [listed["newest"], *unfinished])
    for version, known in begun.items():
        if known[REGENERATED]["parent"] in listed["versions"] and parent in (None, known[REGENERATED]["parent"]):
            options = _inherit(store, {**wanted, "parent": known[REGENERATED]["parent"], "version_name": version})
            if name or configuration(store, options, _models(options)) == known:
                return options
    chosen = open_dataset(dataset, parent).version
    if name in listed["versions"]:
        raise ConfigurationError(
            f"{dataset}: version {name} is there already and does not build on {chosen}; choose another --version-name"
        )
    return _inherit(store, {**wanted, "parent": chosen, "version_name": name or free_name(store)})


def _begun(store: Store, versions: list[str]) -> dict[str, dict[str, Any]]:
    """Return the configurations of those versions that were begun and build on another."""
    files = {version: store.configuration_file(version) for version in versions if version}
    known = {version: read_json(path) for version, path in files.items() if path.is_file()}
    return {version: values for version, values in known.items() if isinstance(values, dict) and REGENERATED in values}


def _inherit(store: Store, values: dict[str, Any]) -> RegenerateOptions:
    """Complete the options with what the parent was made from."""
    parent = open_dataset(store.root, values["parent"])
    known = parent.manifest["configuration"]
    values = _as_parent(known, values) | values | {key: known[key] for key in _INHERITED}
    rows = select(parent.index, values.get("only", ()), lambda version: open_dataset(store.root, version).index)
    sources = tuple(parent.index.loc[rows, "source"].unique())
    # A subset of a source that is not opened would be taken for a mistake.
    there = set(parent.index.loc[parent.index["source"].isin(sources), "subset"])
    values["subsets"] = tuple(subset for subset in known["subsets"] if subset in there)
    values["sources"] = (SAMPLE,) if known["data"] == "embedded sample" else sources
    return RegenerateOptions(out=store.root, **values)


def _as_parent(known: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return how the parent was annotated, for what was not asked for; points as published say nothing of that."""
    if known["annotations"] == "published":
        return {}
    options = {f"model_{role}": model for role, model in known["models"].items() if f"model_{role}" not in values}
    weights = {option: _bundled(option, model) for option, model in options.items()}
    return {"decode": known["decode"], "flip": known["flip"], "guidance": known["guidance"], **weights}


def _bundled(option: str, model: Mapping[str, Any] | None) -> str:
    """Return the name of weights that a version was made with; a file's place is not recorded."""
    if model is None:
        return "none"
    name: str = model["name"]
    if name not in BUNDLED or read_contract(name).sha256 != model["sha256"]:
        flag = option.replace("_", "-")
        raise ConfigurationError(f"the parent's {name} ({model['sha256'][:12]}...) is not bundled: name it by --{flag}")
    return name


def _models(options: BuildOptions) -> dict[str, Any]:
    depth = None if options.model_depth == "none" else read_contract(options.model_depth or DEFAULT_DEPTH)
    contracts = read_contract(options.model_2d or DEFAULT_2D), read_contract(options.model_3d or DEFAULT_3D), depth
    return model_records(contracts)


def configuration(store: Store, options: RegenerateOptions, models: Mapping[str, Any]) -> dict[str, Any]:
    """Return what decides the content of the version: the parent's configuration with what was asked for in it.

    The manifests of the versions it takes rows or failures from are part of it, by their SHA-256.
    """
    used = sorted({options.parent, *failures_of(options.only)})
    return {
        **open_dataset(store.root, options.parent).manifest["configuration"],
        "annotations": options.annotations,
        "decode": options.decode,
        "flip": options.flip,
        "guidance": options.guidance,
        "models": dict(models),
        REGENERATED: {
            "parent": options.parent,
            "from": options.origin,
            "only": sorted(options.only),
            "manifests": {version: sha256_file(store.manifest_file(version)) for version in used},
        },
    }


class Regeneration(Build):
    """One run of `ls3dw regenerate`: a build whose faces are those of the parent version."""

    options: RegenerateOptions

    def __init__(self, options: RegenerateOptions, ahead: Prestart | None = None) -> None:
        super().__init__(options, ahead)

    def record(self, models: dict[str, Any]) -> dict[str, Any]:
        """Return what decides the content of the version."""
        return configuration(self.store, self.options, models)

    def planned(self) -> Plan:
        """List the shards with faces to annotate again that are not finished yet."""
        done = {(record.source, record.name) for record in self.store.markers(self.options.version_name)}
        selected = {key: ids for key, ids in self.selected.items() if key not in done}
        todo = [record for record in self.records if (record.source, record.name) in selected]
        if self.options.origin == "stored":
            return Plan(list(_stored_plans(self.store, todo, selected, self.options.shard_size)), [])
        # The parent's own plan: every part with the shards it came to, checked to be as large as it was.
        plan = make_plan(replace(self.options, version_name=self.options.parent), self.store)
        return Plan([_source_plan(source, todo, selected) for source in plan.sources], [])

    def writer(self, plan: Plan) -> Rewriter:
        """Return what lays the new rows over those of the parent."""
        version, parent = self.options.version_name, self.options.parent
        return Rewriter(self.store, version, self.configuration, parent, self.records, self.selected)

    def annotate(self, plan: Plan, report: Report) -> None:
        """Copy the shards that stay as they are, and make the others."""
        writer = self.writer(plan)
        writer.carry_over()
        super().annotate(plan, report)
        writer.check_whole()

    @cached_property
    def parent(self) -> Dataset:
        return open_dataset(self.store.root, self.options.parent)

    @cached_property
    def records(self) -> list[ShardRecord]:
        """The parent's shards."""
        return list(self.store.markers(self.options.parent))

    @cached_property
    def selected(self) -> Selected:
        """The faces to annotate again, by shard."""
        index = self.parent.index
        rows = select(index, self.options.only, lambda version: open_dataset(self.store.root, version).index)
        shards = index[rows].groupby(["source", "shard"], sort=False)["id"]
        return {(str(source), str(shard)): frozenset(ids) for (source, shard), ids in shards}


def _stored_plans(
    store: Store, records: list[ShardRecord], selected: Selected, shard_size: int
) -> Iterator[SourcePlan]:
    for name in dict.fromkeys(record.source for record in records):
        parts = [
            Part(
                media=StoredMedia(
                    name=record.part,
                    start=record.number * shard_size,
                    source=name,
                    path=store.faces(name, record.name),
                    expected=record.written,
                ),
                name=record.part,
                units=len(selected[name, record.name]),
                limit=None,
                done=frozenset(),
                complete=False,
                selected=selected[name, record.name],
            )
            for record in records
            if record.source == name
        ]
        yield SourcePlan(name, SOURCES[name].annotation_kind, "pictures", [], parts)


def _source_plan(source: SourcePlan, todo: list[ShardRecord], selected: Selected) -> SourcePlan:
    """Keep of a source's plan what has faces to annotate again."""
    parts = []
    for part in source.parts:
        own = [r for r in todo if (r.source, r.part) == (source.name, part.name) and r.number in part.done]
        if own:
            ids = frozenset[str]().union(*(selected[record.source, record.name] for record in own))
            left = part.done - {record.number for record in own}
            parts.append(replace(part, units=len(ids), done=left, complete=False, selected=ids))
    return replace(source, counts=[], parts=parts)

"""Annotates the faces of a data set again: a new version of its annotations; the pictures stay as they are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal, get_args

from ls3dw.building.options import SAMPLE, BuildOptions
from ls3dw.building.pipeline import Begin, Pipeline, Report, make_version, model_records
from ls3dw.building.plan import BuildPlan, PartPlan, SourcePlan, make_plan
from ls3dw.building.prestart import Prestart
from ls3dw.building.rewrite import Selected, ShardRewriter
from ls3dw.building.selection import failures_of, select
from ls3dw.building.stored import StoredMedia
from ls3dw.building.write import VersionFiles
from ls3dw.core.files import read_json, sha256_file
from ls3dw.dataset.open import Dataset, open_dataset
from ls3dw.dataset.store import REGENERATED, ShardRecord, Store, check_version, read_dataset
from ls3dw.dataset.versions import free_name
from ls3dw.errors import ConfigurationError
from ls3dw.models.weights.zoo import (
    BUNDLED,
    DEFAULT_2D,
    DEFAULT_3D,
    DEFAULT_DEPTH,
    KINDS_2D,
    KINDS_3D,
    KINDS_DEPTH,
    read_contract,
)
from ls3dw.sources import SOURCES

Origin = Literal["stored", "sources"]

_INHERITED: Final = ("limit", "shard_size", "subsets")
"""Options that decide which faces there are: taken from the parent, so that the versions share their pictures."""


@dataclass(frozen=True)
class RegenerateOptions:
    """What `ls3dw regenerate` was asked for, with what it takes from its parent; `resolve_options` makes them.

    build: how faces are annotated and where; origin: where the pictures come from; only: the faces to annotate again,
    as in `selection`, all if empty; parent: the version whose rows the others keep.
    """

    build: BuildOptions
    origin: Origin
    only: tuple[str, ...]
    parent: str

    def __post_init__(self) -> None:
        if self.origin not in get_args(Origin):
            raise ConfigurationError(f"from {self.origin!r}: expected one of {', '.join(get_args(Origin))}")
        if self.origin == "stored" and self.build.decode == "reference":
            raise ConfigurationError(
                "decode 'reference' crops to whole pixels of the source's picture: add --from sources"
            )


def resolve_options(dataset: Path, given: Mapping[str, Any]) -> RegenerateOptions:
    """Complete the given options. given: fields of `RegenerateOptions` and `BuildOptions` by name, without `build`.

    Without a name, takes a version that was begun with the same options, or the newest if it was made with them; else
    the next free name. Without a parent, takes the newest version. The rest comes from the parent.
    """
    store = Store(dataset)
    listed = read_dataset(dataset)
    wanted = {key: value for key, value in given.items() if value is not None and value not in ((), {})}
    name, parent = wanted.pop("version_name", None), wanted.pop("parent", None)
    unfinished = [version for version in store.begun() if version not in listed["versions"]]
    begun = _begun(store, [name] if name else [listed["newest"], *unfinished])
    for version, known in begun.items():
        if known[REGENERATED]["parent"] in listed["versions"] and parent in (None, known[REGENERATED]["parent"]):
            options = _inherit(store, known[REGENERATED]["parent"], {**wanted, "version_name": version})
            if name or configuration(store, options, _models(options.build)) == known:
                return options
    chosen = open_dataset(dataset, parent).version
    if name in listed["versions"]:
        raise ConfigurationError(
            f"{dataset}: version {name} is there already and does not build on {chosen}; choose another --version-name"
        )
    return _inherit(store, chosen, {**wanted, "version_name": name or free_name(store)})


def _begun(store: Store, versions: list[str]) -> dict[str, dict[str, Any]]:
    """Return the configurations of those of the versions that build on another."""
    files = {version: store.configuration_file(version) for version in versions if version}
    known = {version: read_json(path) for version, path in files.items() if path.is_file()}
    return {version: values for version, values in known.items() if isinstance(values, dict) and REGENERATED in values}


def _inherit(store: Store, parent_name: str, given: Mapping[str, Any]) -> RegenerateOptions:
    """Complete the options with what the parent was made from."""
    parent = open_dataset(store.root, parent_name)
    known = parent.manifest["configuration"]
    own = {"origin": "stored", "only": ()} | {key: given[key] for key in ("origin", "only") if key in given}
    values = {key: value for key, value in given.items() if key not in own}
    values |= {key: known[key] for key in _INHERITED}
    # A parent of published points was not annotated by networks.
    if known["annotations"] != "published":
        values = _parent_networks(known, values) | values
    rows = select(parent.index, own["only"], lambda version: open_dataset(store.root, version).index)
    sources = tuple(parent.index.loc[rows, "source"].unique())
    # Sources that are not opened must not miss their subsets.
    there = set(parent.index.loc[parent.index["source"].isin(sources), "subset"])
    values["subsets"] = tuple(subset for subset in known["subsets"] if subset in there)
    values["sources"] = (SAMPLE,) if known["data"] == "embedded sample" else sources
    if own["origin"] == "stored":
        # No source is opened.
        values.setdefault("root", store.root)
    return RegenerateOptions(BuildOptions(out=store.root, **values), parent=parent_name, **own)


def _parent_networks(known: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return how the parent was annotated, for the networks that were not given."""
    options = {f"model_{role}": model for role, model in known["models"].items() if f"model_{role}" not in values}
    weights = {option: _bundled(option, model) for option, model in options.items()}
    return {"decode": known["decode"], "flip": known["flip"], "guidance": known["guidance"], **weights}


def _bundled(option: str, model: Mapping[str, Any] | None) -> str:
    """Return the name of weights that a version was made with; the path of a file is not recorded."""
    if model is None:
        return "none"
    name: str = model["name"]
    if name not in BUNDLED or read_contract(name).sha256 != model["sha256"]:
        flag = option.replace("_", "-")
        raise ConfigurationError(f"the parent's {name} ({model['sha256'][:12]}...) is not bundled: name it by --{flag}")
    return name


def _models(options: BuildOptions) -> dict[str, Any]:
    depth = None if options.model_depth == "none" else read_contract(options.model_depth or DEFAULT_DEPTH, KINDS_DEPTH)
    contracts = (
        read_contract(options.model_2d or DEFAULT_2D, KINDS_2D),
        read_contract(options.model_3d or DEFAULT_3D, KINDS_3D),
        depth,
    )
    return model_records(contracts)


def configuration(store: Store, options: RegenerateOptions, models: Mapping[str, Any]) -> dict[str, Any]:
    """Return what decides the content of the version: the parent's configuration with the options in it.

    The versions it takes rows or failures from are part of it, by the SHA-256 of their manifests.
    """
    used = sorted({options.parent, *failures_of(options.only)})
    return {
        **open_dataset(store.root, options.parent).manifest["configuration"],
        "annotations": options.build.annotations,
        "decode": options.build.decode,
        "flip": options.build.flip,
        "guidance": options.build.guidance,
        "models": dict(models),
        REGENERATED: {
            "parent": options.parent,
            "from": options.origin,
            "only": sorted(options.only),
            "manifests": {version: sha256_file(store.manifest_file(version)) for version in used},
        },
    }


class Regeneration:
    """One run of `ls3dw regenerate`: annotates faces of the parent version again, and does nothing twice.

    prestart: processes that were started for its networks, if any.
    """

    def __init__(self, options: RegenerateOptions, prestart: Prestart | None = None) -> None:
        self.options = options
        self.version = options.build.version_name
        self.store = Store(options.build.out)
        self.pipeline = Pipeline(options.build, prestart)
        self.configuration = configuration(self.store, options, self.pipeline.models)

    def plan(self) -> BuildPlan:
        """List the unfinished shards that have faces to annotate again; writes nothing."""
        check_version(self.store, self.version, self.configuration)
        done = {(record.source, record.name) for record in self.store.markers(self.version)}
        selected = {key: ids for key, ids in self.selected.items() if key not in done}
        todo = [record for record in self.records if (record.source, record.name) in selected]
        if self.options.origin == "stored":
            return BuildPlan(list(_stored_plans(self.store, todo, selected, self.options.build.shard_size)), [])
        # The parent's own plan: every part with its shards, checked to be as large as it was.
        plan = make_plan(self.options.build, self.store, self.options.parent)
        return BuildPlan([_source_plan(source, todo, selected) for source in plan.sources], [])

    def run(self, begin: Begin, report: Report) -> list[ShardRecord]:
        """Annotate; begin, report: as in `Build.run`."""

        def annotate(plan: BuildPlan) -> None:
            files = VersionFiles(self.store, self.version, self.configuration)
            rewriter = ShardRewriter(files, self.options.parent, self.records, self.selected)
            rewriter.copy_unchanged()
            self.pipeline.run(plan, rewriter.add, report)
            rewriter.check_complete()

        return make_version(self.store, self.version, self.configuration, self.plan, begin, annotate)

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
            PartPlan(
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
    """Reduce the plan of a source to the parts with faces to annotate again."""
    parts = []
    for part in source.parts:
        own = [r for r in todo if (r.source, r.part) == (source.name, part.name) and r.number in part.done]
        if own:
            ids = frozenset[str]().union(*(selected[record.source, record.name] for record in own))
            left = part.done - {record.number for record in own}
            parts.append(replace(part, units=len(ids), done=left, complete=False, selected=ids))
    return replace(source, counts=[], parts=parts)

"""Plans a build: the parts of every source, and the shards of them that are not finished yet."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ls3dw.building.fingerprint import difference
from ls3dw.building.options import SAMPLE, BuildOptions
from ls3dw.building.prepare import DecodeTask
from ls3dw.core.files import dump_json, safe_name
from ls3dw.core.resources import folder
from ls3dw.core.sample import Media
from ls3dw.dataset.store import ShardRecord, Store, read_dataset
from ls3dw.errors import ConfigurationError, DatasetError
from ls3dw.sources import LS3DW, Count, Source, open_source


@dataclass(frozen=True)
class PartPlan:
    """A media, and how much of it is wanted and done.

    name: of its part of the source, safe in a path; done: numbers of finished shards; selected: ids of the faces to
    annotate again, in a version that builds on another; None: all.
    """

    media: Media
    name: str
    units: int
    limit: int | None
    done: frozenset[int]
    complete: bool
    selected: frozenset[str] | None = None


@dataclass(frozen=True)
class SourcePlan:
    """What is there of a source, and what is left to do. counted: the unit of `counts`, such as pictures."""

    name: str
    annotation_kind: str
    counted: str
    counts: list[Count]
    parts: list[PartPlan]

    @property
    def units(self) -> int:
        return sum(part.units for part in self.parts)


@dataclass(frozen=True)
class BuildPlan:
    """All sources of a build, and the finished shards of its version."""

    sources: list[SourcePlan]
    records: list[ShardRecord]

    @property
    def units(self) -> int:
        return sum(source.units for source in self.sources)

    def tasks(self, options: BuildOptions, chunk_size: int) -> list[DecodeTask]:
        """Return the decoding tasks of unfinished parts, the longest first, so that none is left alone at the end."""
        pending = [(source.name, part) for source in self.sources for part in source.parts if not part.complete]
        pending.sort(key=lambda entry: -entry[1].units)
        return [
            DecodeTask(
                source=source,
                part=part.name,
                media=part.media,
                expected=part.units,
                shard_size=options.shard_size,
                chunk_size=chunk_size,
                decode=options.decode,
                done=part.done,
                limit=part.limit,
                selected=part.selected,
            )
            for source, part in pending
        ]


def make_plan(options: BuildOptions, store: Store, version: str) -> BuildPlan:
    """List the sources and compare them with the shards that the version has."""
    records = list(store.markers(version))
    # Without a finished version the files' content is compared too: that reads all of them again.
    finished = store.dataset_file.exists() and version in read_dataset(store.root)["versions"]
    done: dict[tuple[str, str], list[ShardRecord]] = {}
    for record in records:
        done.setdefault((record.source, record.part), []).append(record)
    opened = list(_open_sources(options))
    _check_subsets(options, opened)
    return BuildPlan([_plan_source(source, options, done, content=not finished) for source in opened], records)


def _open_sources(options: BuildOptions) -> Iterator[Source]:
    if SAMPLE in options.sources:
        for name in LS3DW:
            yield open_source(name, folder("embedded"))
    else:
        for name in dict.fromkeys(options.sources):
            yield open_source(name, options.root_of(name))


def _check_subsets(options: BuildOptions, sources: list[Source]) -> None:
    unknown = sorted(name for name in set(options.subsets) if not any(source.matching([name]) for source in sources))
    if unknown:
        known = {subset for source in sources for subset in source.subsets}
        raise ConfigurationError(
            f"no subset {', '.join(unknown)} in these sources; choose from {', '.join(sorted(known))}"
        )


def _plan_source(
    source: Source, options: BuildOptions, done: dict[tuple[str, str], list[ShardRecord]], *, content: bool
) -> SourcePlan:
    wanted = source.matching(options.subsets) if options.subsets else None
    media = source.media(wanted, options.shard_size) if wanted != [] else []
    parts: list[PartPlan] = []
    planned: set[tuple[str, int]] = set()
    left = options.limit
    for entry in media:
        if left is not None and left <= 0:
            break
        name = safe_name(entry.name)
        own = [record for record in done.get((source.name, name), []) if _holds(entry, record, options.shard_size)]
        parts.append(_plan_part(source.name, entry, name, left, own))
        for known in {dump_json(dict(record.fingerprint)): record for record in own if record.fingerprint}.values():
            assert known.fingerprint is not None
            if change := difference(known.fingerprint, entry, content=content):
                raise _changed(f"{source.name}/{name}", f"{change}, since {known.name} was written")
        planned |= {(name, record.number) for record in own}
        left = None if left is None else left - parts[-1].units
    for (origin, name), records in done.items():
        for record in records if origin == source.name else ():
            if (name, record.number) not in planned:
                raise _changed(f"{source.name}/{name}", f"the pictures of {record.name} are no longer there")
    return SourcePlan(source.name, source.annotation_kind, source.counted, source.report(), parts)


def _holds(media: Media, record: ShardRecord, shard_size: int) -> bool:
    """Whether a shard of the part is from this media: a group of pictures is one shard, a video is all of them."""
    return media.start is None or media.start // shard_size == record.number


def _plan_part(source: str, media: Media, name: str, left: int | None, records: list[ShardRecord]) -> PartPlan:
    units = media.expected if left is None else min(left, media.expected)
    for record in records:
        if record.expected != units:
            raise _changed(
                f"{source}/{name}", f"had {record.expected} faces when {record.name} was written and has {units} now"
            )
    return PartPlan(
        media=media,
        name=name,
        units=units,
        limit=None if left is None else units,
        done=frozenset(record.number for record in records),
        complete=any(record.last for record in records),
    )


def _changed(where: str, detail: str) -> DatasetError:
    return DatasetError(f"{where}: {detail}; the source changed since: choose another --out")

"""What a build returns, counts and paths; and what it would do, as text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ls3dw.building.pipeline import Build
from ls3dw.building.plan import BuildPlan
from ls3dw.building.regenerate import Regeneration
from ls3dw.dataset.open import Dataset, open_dataset
from ls3dw.dataset.summary import network_names, render_summary, summarise
from ls3dw.sources import Count


@dataclass(frozen=True)
class SourceCounts:
    """Faces of one source: read = written + dropped. dropped: number by reason; mean_nme: a fraction, or None."""

    read: int
    written: int
    dropped: Mapping[str, int]
    mean_nme: float | None


@dataclass(frozen=True)
class BuildReport:
    """A finished version of a data set.

    path: the data set's folder; parent: the version it builds on, None for a build; annotated: faces that the networks
    annotated for this version; gallery: page of the contact sheets; drops: table of what was left out and why;
    timing: seconds of each stage, as text.
    """

    path: Path
    version: str
    versions: tuple[str, ...]
    parent: str | None
    faces: int
    annotated: int
    sources: Mapping[str, SourceCounts]
    gallery: Path
    drops: Path
    timing: str
    summary: Mapping[str, Any]

    @classmethod
    def of(cls, run: Build | Regeneration) -> BuildReport:
        """Read the counts of the version that a build has finished."""
        dataset = open_dataset(run.store.root, run.version)
        summary = summarise(dataset)
        parent = None
        annotated = len(dataset)
        if isinstance(run, Regeneration):
            parent = run.options.parent
            summary["made_again"] = annotated = sum(len(ids) for ids in run.selected.values())
        return cls(
            path=dataset.store.root,
            version=dataset.version,
            versions=dataset.versions,
            parent=parent,
            faces=len(dataset),
            annotated=annotated,
            sources={name: SourceCounts(**counts) for name, counts in summary["sources"].items()},
            gallery=Path(summary["gallery"]),
            drops=dataset.store.drops_file(dataset.version),
            timing=run.pipeline.timing(),
            summary=summary,
        )

    @property
    def read(self) -> int:
        """Pictures and frames read."""
        return sum(counts.read for counts in self.sources.values())

    @property
    def written(self) -> int:
        """Faces written."""
        return sum(counts.written for counts in self.sources.values())

    @property
    def dropped(self) -> int:
        """Pictures, frames and files left out; `drops` has the reason of each."""
        return sum(sum(counts.dropped.values()) for counts in self.sources.values())

    def open(self) -> Dataset:
        """Open the data set at this version."""
        return open_dataset(self.path, self.version)

    def __str__(self) -> str:
        text = render_summary(dict(self.summary))
        if self.parent is None:
            return text
        return f"{text}\nparent     {self.parent}; {self.annotated} of {self.faces} faces annotated again"


def differing_counts(plan: BuildPlan) -> Iterator[str]:
    """Yield a line for each subset whose number of pictures or videos is not the published one."""
    for source in plan.sources:
        for count in source.counts:
            if note := _difference(count):
                yield f"{source.name} {count.subset}: {count.found} {source.counted} found{note}"


def describe_build(run: Build) -> str:
    """Describe what a build would read, with what, and what is left to do."""
    lines = []
    for source in run.plan().sources:
        lines += [
            f"{source.name:<10} {count.subset:<14} {count.found:>7} {source.counted} found{_difference(count)}"
            for count in source.counts
        ]
        left = sum(not part.complete for part in source.parts)
        lines.append(f"{source.name:<10} {source.units} pictures or frames, {left} of {len(source.parts)} parts left")
    return "\n".join([*lines, *_equipment(run)])


def describe_regeneration(run: Regeneration) -> str:
    """Describe which faces would be annotated again, with what, and what is left to do."""
    options = run.options
    again = sum(len(ids) for ids in run.selected.values())
    lines = [
        f"{source.name:<10} {source.units} faces left to annotate again, in {len(source.parts)} parts"
        for source in run.plan().sources
    ]
    lines += [
        f"faces      {again} of {len(run.parent)} again; the others keep their rows of {options.parent}",
        f"pictures   from the {'sources' if options.origin == 'sources' else 'stored faces'}; none is written",
    ]
    return "\n".join([*lines, *_equipment(run)])


def _equipment(run: Build | Regeneration) -> list[str]:
    return [
        f"networks   {network_names(run.configuration['models'])}",
        f"devices    {', '.join(run.pipeline.devices)}",
        f"output     {run.store.root}, version {run.version}; nothing was written",
    ]


def _difference(count: Count) -> str:
    if count.expected is None or count.expected == count.found:
        return ""
    return f", {count.expected} were published"

"""One call for a build or a regeneration, from plain options to a report."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ls3dw.building.options import SAMPLE, BuildOptions, make_options, read_pipeline
from ls3dw.building.prestart import Prestart
from ls3dw.core.progress import OnProgress, Progress
from ls3dw.errors import ConfigurationError, OptionError

# torch comes with these: they are imported after the GPUs' processes have started.
if TYPE_CHECKING:
    from ls3dw.building.pipeline import Build
    from ls3dw.building.plan import BuildPlan
    from ls3dw.building.prepare import Chunk
    from ls3dw.building.regenerate import RegenerateOptions, Regeneration
    from ls3dw.building.report import BuildReport

ALL: Final = "*"
"""In a mapping of sources to folders: every source that is not named."""

logger = logging.getLogger("ls3dw")


def run_build(given: Mapping[str, Any], progress: OnProgress | None = None) -> BuildReport:
    """Build with the options of `ls3dw.build` that were given."""
    options = build_options(given)
    with _prestarted(options.gpu, idle=options.annotations == "published") as prestart:
        from ls3dw.building.pipeline import Build

        return _finish(Build(options, prestart), progress, notes=options.sources != (SAMPLE,))


def plan_build(given: Mapping[str, Any]) -> str:
    """Describe what `run_build` would read and what is left to do. Writes nothing."""
    from ls3dw.building.pipeline import Build
    from ls3dw.building.report import describe_build

    return describe_build(Build(build_options(given)))


def run_regeneration(dataset: Path, given: Mapping[str, Any], progress: OnProgress | None = None) -> BuildReport:
    """Regenerate with the options of `ls3dw.regenerate` that were given."""
    with _prestarted(str(given.get("gpu", "auto")), idle=False) as prestart:
        from ls3dw.building.regenerate import Regeneration

        return _finish(Regeneration(regenerate_options(dataset, given), prestart), progress, notes=False)


def plan_regeneration(dataset: Path, given: Mapping[str, Any]) -> str:
    """Describe which faces `run_regeneration` would annotate again, and with what. Writes nothing."""
    from ls3dw.building.regenerate import Regeneration
    from ls3dw.building.report import describe_regeneration

    return describe_regeneration(Regeneration(regenerate_options(dataset, given)))


def build_options(given: Mapping[str, Any]) -> BuildOptions:
    """Join the options of a pipeline file with those given, which count more."""
    plain = _folders(given)
    for ours, theirs in (("source", "sources"), ("subset", "subsets")):
        if ours in plain:
            plain[theirs] = plain.pop(ours)
    pipeline = plain.pop("pipeline", None)
    if pipeline is not None:
        return make_options(read_pipeline(Path(pipeline)) | plain)
    try:
        return make_options(plain)
    except ConfigurationError as error:
        raise OptionError(str(error)) from error


def regenerate_options(dataset: Path, given: Mapping[str, Any]) -> RegenerateOptions:
    """Complete the options with those of the parent version."""
    from ls3dw.building.regenerate import resolve_options

    plain = _folders(given)
    if isinstance(plain.get("only"), str):
        plain["only"] = (plain["only"],)
    try:
        return resolve_options(dataset, plain)
    except ConfigurationError as error:
        raise OptionError(str(error)) from error


def _folders(given: Mapping[str, Any]) -> dict[str, Any]:
    """Split `root` into the folder of all sources and those of single ones; an id of a GPU may be a number."""
    plain = dict(given)
    root = plain.pop("root", None)
    if isinstance(root, Mapping):
        plain["roots"] = {name: folder for name, folder in root.items() if name != ALL}
        root = root.get(ALL)
    if root is not None:
        plain["root"] = root
    if "gpu" in plain:
        plain["gpu"] = str(plain["gpu"])
    return plain


@contextmanager
def _prestarted(gpu: str, *, idle: bool) -> Iterator[Prestart]:
    """Start the GPUs' processes before torch is imported here, so that both import it at the same time."""
    # Threads that wait by spinning would take the cores from decoding and writing; read when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    with Prestart("none" if idle else gpu) as prestart:
        yield prestart


def _finish(run: Build | Regeneration, progress: OnProgress | None, *, notes: bool) -> BuildReport:
    """Run a build and report on the version it made. notes: log counts that differ from the published ones."""
    from ls3dw.building.report import BuildReport, differing_counts

    done = total = 0

    def begin(plan: BuildPlan) -> None:
        nonlocal done, total
        for note in differing_counts(plan) if notes else ():
            logger.warning("note: %s", note)
        done, total = sum(min(record.read, record.expected) for record in plan.records), plan.units
        if progress:
            progress(Progress(done, total))

    def report(chunk: Chunk) -> None:
        nonlocal done
        done += chunk.read
        if progress:
            progress(Progress(done, total, f"{chunk.source}/{chunk.part}"))

    run.run(begin, report)
    return BuildReport.of(run)

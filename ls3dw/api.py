"""The front door: the commands of `ls3dw` as functions, with the same option names.

Options that are None mean what they mean on the command line when left out. Every function raises an `Ls3dwError`
whose text says what is wrong, where, and what to do.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar

from ls3dw.errors import ConfigurationError, OptionError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ls3dw.building.options import BuildOptions
    from ls3dw.building.pipeline import Build
    from ls3dw.building.plan import BuildPlan
    from ls3dw.building.prepare import Chunk
    from ls3dw.building.prestart import Prestart
    from ls3dw.building.regenerate import RegenerateOptions, Regeneration
    from ls3dw.building.report import BuildReport

T = TypeVar("T")

StrPath: TypeAlias = str | Path

ALL = "*"
"""In a mapping of sources to folders: every source that is not named."""

logger = logging.getLogger("ls3dw")


@dataclass(frozen=True)
class Progress:
    """How far a command is. done, total: pictures and frames, or faces; where: the source and part just finished."""

    done: int
    total: int
    where: str = ""


OnProgress: TypeAlias = Callable[[Progress], None]


def build(
    source: str | Sequence[str] | None = None,
    root: StrPath | Mapping[str, StrPath] | None = None,
    out: StrPath | None = None,
    *,
    subset: str | Sequence[str] | None = None,
    limit: int | None = None,
    annotations: Literal["network", "published"] | None = None,
    model_2d: StrPath | None = None,
    model_3d: StrPath | None = None,
    model_depth: StrPath | None = None,
    guidance: Literal["predicted", "annotated"] | None = None,
    decode: Literal["subpixel", "reference"] | None = None,
    flip: bool | None = None,
    gpu: str | int | None = None,
    engine: Literal["fast", "eager", "compiled", "plain"] | None = None,
    batch: int | None = None,
    workers: int | None = None,
    shard_size: int | None = None,
    pipeline: StrPath | None = None,
    version_name: str | None = None,
    progress: OnProgress | None = None,
) -> BuildReport:
    """Turn sources into a data set. Run again, it finishes what is missing and does nothing twice.

    The smallest call builds the embedded sample; with a data set on disk, name it and its folder:

        report = ls3dw.build()
        report = ls3dw.build("aflw2000", "AFLW2000", out="ds", gpu=0)
        report = ls3dw.build(["300w", "menpo"], {"300w": "/data/300W", "menpo": "/data/Menpo"})
        face = report.open()[0]

    Args:
        source: 300w, 300vw, menpo, aflw2000, ls3dw, 300wlp, heads or sample; a name, a comma list or a sequence.
        root: folder of the sources, or a mapping from source to folder ("*": all that are not named).
        out: folder of the data set (default ls3dw-data): new, empty, or begun by the same call.
        subset: only these subsets of the sources, or those whose names begin so.
        limit: at most this many pictures or frames of each source.
        annotations: "network", or "published" for the sources' own 3D points; then no network runs.
        model_2d, model_3d, model_depth: a zoo name or a weights file; None: bundled; "none" for no depth.
        guidance: what guides the 2D-to-3D FAN: "predicted" 2D points, or the source's own ("annotated").
        decode: "subpixel", or "reference": crop and decoding of the published code, to whole pixels.
        flip: average the 2D heatmaps with those of the mirrored picture (default True).
        gpu: "auto", "none", an id or a comma list of ids.
        engine: how networks run: "fast", "eager", "compiled" or "plain" (float32, as they are).
        batch: faces in a network pass on a GPU. workers: decoding processes. shard_size: pictures a shard.
        pipeline: YAML file with these options; arguments count more.
        version_name: of the annotations (default v1, or published).
        progress: called with a `Progress` after each group of faces, on any thread.

    Returns:
        Counts and paths of the finished version. What could not be used is counted in `report.dropped`.

    Raises:
        ConfigurationError: options that do not fit together, or an `out` made with other options.
        SourceError: a folder that is not laid out as the source is.
        DeviceError, ModelError, DatasetError: a GPU, weights file or data set that cannot be used.
    """
    options = _build_options(_given(locals()))
    with _prestarted(options.gpu, idle=options.annotations == "published") as prestart:
        from ls3dw.building.options import SAMPLE
        from ls3dw.building.pipeline import Build

        return _finish(Build(options, prestart), progress, notes=options.sources != (SAMPLE,))


def plan_build(**options: Any) -> str:
    """Describe what `build` with these options would read and what is left to do. Writes nothing."""
    from ls3dw.building.pipeline import Build
    from ls3dw.building.report import describe_build

    return describe_build(Build(_build_options(options)))


def regenerate(
    dataset: StrPath,
    *,
    model_2d: StrPath | None = None,
    model_3d: StrPath | None = None,
    model_depth: StrPath | None = None,
    guidance: Literal["predicted", "annotated"] | None = None,
    decode: Literal["subpixel", "reference"] | None = None,
    flip: bool | None = None,
    gpu: str | int | None = None,
    engine: Literal["fast", "eager", "compiled", "plain"] | None = None,
    batch: int | None = None,
    workers: int | None = None,
    origin: Literal["stored", "sources"] | None = None,
    root: StrPath | Mapping[str, StrPath] | None = None,
    only: str | Sequence[str] | None = None,
    parent: str | None = None,
    version_name: str | None = None,
    progress: OnProgress | None = None,
) -> BuildReport:
    """Annotate the faces of a data set again: a new version of the annotations, and not a byte of a picture.

        report = ls3dw.regenerate("ds", model_3d="better.safetensors", only="source:300vw")

    Run again, it finishes the version that it began.

    Args:
        dataset: folder of the data set.
        model_2d ... workers: as in `build`; None: as the parent version was made.
        origin: take pictures that are "stored" in the data set (default), or the originals in the "sources".
        root: folder of the sources, for `origin="sources"`.
        only: source:NAME, subset:SOURCE/NAME or failures:VERSION; one or several. The other rows are the parent's.
        parent: version to build on (default: the newest). version_name: of the new one (default: the next free).
        progress: as in `build`.

    Returns:
        Counts and paths of the new version; `report.annotated` faces were annotated again.
    """
    given = _regenerate_options(_given(locals()))
    with _prestarted(given.get("gpu", "auto"), idle=False) as prestart:
        from ls3dw.building.regenerate import Regeneration

        return _finish(Regeneration(_resolve(dataset, given), prestart), progress, notes=False)


def plan_regenerate(dataset: StrPath, **options: Any) -> str:
    """Describe which faces `regenerate` with these options would annotate again, and with what. Writes nothing."""
    from ls3dw.building.regenerate import Regeneration
    from ls3dw.building.report import describe_regeneration

    return describe_regeneration(Regeneration(_resolve(dataset, _regenerate_options(options))))


@dataclass(frozen=True)
class SubsetReport:
    """A subset that was drawn. path: its table in the data set; details: how it was drawn, as in the table's head."""

    path: Path
    details: Mapping[str, Any]


def subset(
    dataset: StrPath,
    kind: Literal["pose-balanced", "balanced"],
    *,
    version: str | None = None,
    name: str | None = None,
    **options: Any,
) -> SubsetReport:
    """Draw a subset of a data set into subsets/<version>/<name>.parquet: ids and how they were drawn.

    Args:
        dataset: folder of the data set. version: of the annotations (default: the newest).
        kind: "pose-balanced", rare poses more often (PDB of the Wing loss paper), with the options of `PoseBalance`:
            bins, component, mode, seed; or "balanced", LS3D-W Balanced with equal thirds of |yaw|, with the options of
            `BalancedOptions`: total, seed, video_share, failure, residual, near, gap.
        name: of the subset (default: `kind`).
    """
    from ls3dw.dataset.open import open_dataset
    from ls3dw.dataset.subsets.balanced import BalancedOptions
    from ls3dw.dataset.subsets.pose_balanced import PoseBalance
    from ls3dw.dataset.subsets.produce import write_balanced, write_pose_balanced

    opened = open_dataset(dataset, version)
    if kind == "balanced":
        return SubsetReport(*write_balanced(opened, _made(BalancedOptions, options), name or kind))
    if kind == "pose-balanced":
        return SubsetReport(*write_pose_balanced(opened, _made(PoseBalance, options), name or kind))
    raise OptionError(f"subset {kind!r}: expected pose-balanced or balanced")


@dataclass(frozen=True)
class SplitReport:
    """A split for training. train, held_out: tables of the two sides; details: counts by source and options."""

    train: Path
    held_out: Path
    details: Mapping[str, Any]


def split(
    dataset: StrPath,
    *,
    version: str | None = None,
    share: float = 0.1,
    seed: int = 0,
    near: int = 8,
    official_300vw: bool = False,
    same: StrPath | Sequence[tuple[str, str]] | None = None,
    name: str = "split",
) -> SplitReport:
    """Split a data set for training: no video, picture or near-duplicate is on both sides.

    Args:
        dataset: folder of the data set. version: of the annotations (default: the newest).
        share: of each source's faces to hold out.
        near: bits in which perceptual hashes of one picture may differ.
        official_300vw: hold out the videos of categories A, B and C.
        same: pairs of ids of one picture, or a .csv file of them.
        name: of the subsets NAME-train and NAME-held-out.
    """
    from ls3dw.dataset.open import open_dataset
    from ls3dw.dataset.subsets.lists import read_pairs
    from ls3dw.dataset.subsets.produce import write_split
    from ls3dw.dataset.subsets.split import SplitOptions

    pairs = read_pairs(Path(same)) if isinstance(same, str | Path) else list(same or ())
    (train, held_out), details = write_split(
        open_dataset(dataset, version), SplitOptions(share, seed, near, official_300vw), pairs, name
    )
    return SplitReport(train, held_out, details)


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that were given, of a function's arguments."""
    return {name: value for name, value in values.items() if value is not None and name not in ("progress", "dataset")}


def _made(kind: type[T], options: Mapping[str, Any]) -> T:
    """Make an options dataclass of keyword arguments."""
    known = [entry.name for entry in fields(kind)]  # type: ignore[arg-type]  # always a dataclass
    if unknown := sorted(options.keys() - set(known)):
        raise OptionError(f"unknown option {', '.join(unknown)}; expected some of {', '.join(known)}")
    return kind(**options)


def _folders(given: dict[str, Any]) -> dict[str, Any]:
    """Split `root` into the folder of all sources and those of single ones; an id of a GPU may be a number."""
    root = given.pop("root", None)
    if isinstance(root, Mapping):
        given["roots"] = {name: folder for name, folder in root.items() if name != ALL}
        given |= {"root": root[ALL]} if ALL in root else {}
    elif root is not None:
        given["root"] = root
    if "gpu" in given:
        given["gpu"] = str(given["gpu"])
    return given


def _build_options(given: Mapping[str, Any]) -> BuildOptions:
    """Join the options of a pipeline file with those given, which count more."""
    from ls3dw.building.options import make_options, read_pipeline

    plain = _folders(dict(given))
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


def _regenerate_options(given: Mapping[str, Any]) -> dict[str, Any]:
    plain = _folders(dict(given))
    if isinstance(plain.get("only"), str):
        plain["only"] = (plain["only"],)
    return plain


def _resolve(dataset: StrPath, given: Mapping[str, Any]) -> RegenerateOptions:
    from ls3dw.building.regenerate import resolve_options

    try:
        return resolve_options(Path(dataset), given)
    except ConfigurationError as error:
        raise OptionError(str(error)) from error


@contextmanager
def _prestarted(gpu: str, *, idle: bool) -> Iterator[Prestart]:
    """Start the GPUs' processes before torch is imported here, so that both import it at the same time."""
    # Threads that wait by spinning would take the cores from decoding and writing; read when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from ls3dw.building.prestart import Prestart

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

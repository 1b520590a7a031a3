"""The front door: the commands of `ls3dw` as functions, with the same option names.

Options that are None mean what they mean on the command line when left out. Every function raises an `Ls3dwError`
whose text says what is wrong, where, and what to do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from ls3dw.core.options import keyword_options
from ls3dw.core.progress import Progress
from ls3dw.errors import OptionError

if TYPE_CHECKING:
    from ls3dw.building.report import BuildReport
    from ls3dw.core.progress import OnProgress
    from ls3dw.dataset.exporters import ExportReport
    from ls3dw.dataset.subsets.produce import SplitReport, SubsetReport
    from ls3dw.dataset.verify import Verification
    from ls3dw.evaluation.diff import DiffReport
    from ls3dw.evaluation.run import EvaluationReport
    from ls3dw.synth.write import HeadsReport
    from ls3dw.training.run import TrainReport

StrPath: TypeAlias = str | Path


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
        model_2d: a zoo name or a weights file (default: bundled).
        model_3d: the same, of a 2D-to-3D FAN or a 3D-FAN.
        model_depth: the same, of a depth network; "none" for no depth.
        guidance: what guides the 2D-to-3D FAN: "predicted" 2D points, or the source's own ("annotated").
        decode: "subpixel", or "reference": crop and decoding of the published code, to whole pixels.
        flip: average the 2D heatmaps with those of the mirrored picture (default True).
        gpu: "auto", "none", an id or a comma list of ids.
        engine: how networks run: "fast", "eager", "compiled" or "plain" (float32, as they are).
        batch: faces in a network pass on a GPU.
        workers: decoding processes; 0 decodes in this one.
        shard_size: pictures or frames a shard.
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
    given = _given(locals())
    from ls3dw.building.run import run_build

    return run_build(given, progress)


def plan_build(**options: Any) -> str:
    """Describe what `build` with these options would read and what is left to do. Writes nothing."""
    from ls3dw.building.run import plan_build

    return plan_build(options)


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
        model_2d: this and the other options of networks are those of `build`; left out, as the parent was made.
        origin: take pictures that are "stored" in the data set (default), or the originals in the "sources".
        root: folder of the sources, for `origin="sources"`.
        only: source:NAME, subset:SOURCE/NAME or failures:VERSION; one or several. The other rows are the parent's.
        parent: version to build on (default: the newest).
        version_name: of the new version (default: the next free).
        progress: as in `build`.

    Returns:
        Counts and paths of the new version; `report.annotated` faces were annotated again.
    """
    given = _given(locals())
    from ls3dw.building.run import run_regeneration

    return run_regeneration(Path(dataset), given, progress)


def plan_regenerate(dataset: StrPath, **options: Any) -> str:
    """Describe which faces `regenerate` with these options would annotate again, and with what. Writes nothing."""
    from ls3dw.building.run import plan_regeneration

    return plan_regeneration(Path(dataset), options)


def evaluate(dataset: StrPath, *, progress: OnProgress | None = None, **options: Any) -> EvaluationReport:
    """Score landmarks against the sources' own points or a version: NME, AUC, failures, with 95 % intervals.

        report = ls3dw.evaluate("ds", predictions="mine=mine.npz", out="report")
        print(report.render())

    Args:
        dataset: folder of the data set.
        options: fields of `ls3dw.evaluation.run.EvaluateOptions`: version, predictions (one or several), against,
            points, normaliser, threshold, seed, temporal, out; for an ablation also ablation, model_2d, model_3d, gpu,
            limit.
        progress: as in `build`; of an ablation.

    Returns:
        The scores, `.to_dict()` and `.render()` of them, and the files written to `out`.
    """
    from ls3dw.evaluation.run import EvaluateOptions, run_evaluation

    plain = dict(options)
    for name in ("version", "predictions", "model_2d", "model_3d"):
        if isinstance(plain.get(name), str | Path):
            plain[name] = (str(plain[name]),)
    if plain.get("out") is not None:
        plain["out"] = Path(plain["out"])
    return run_evaluation(
        dataset,
        keyword_options(EvaluateOptions, plain),
        lambda done, total: progress(Progress(done, total)) if progress else None,
    )


def diff(
    dataset: StrPath, before: str, after: str, *, moved: float = 0.25, top: int = 12, gallery: bool = True
) -> DiffReport:
    """Compare two versions of a data set: what moved by source, yaw and landmark group, and against the own points.

    Args:
        dataset: folder of the data set.
        before: name of a version.
        after: name of another version.
        moved: mean move, in pixels of the 256-pixel crop, from which a face counts as moved.
        top: faces listed of each kind of change.
        gallery: write plots and a page of the faces that changed most to galleries/<after>/diff-<before>.

    Returns:
        The comparison, `.to_dict()` and `.render()` of it, and `.gallery`, its page.
    """
    from ls3dw.evaluation.diff import run_diff
    from ls3dw.review.pairs import write_pairs

    report = run_diff(dataset, before, after, moved=moved, top=top)
    return replace(report, gallery=write_pairs(report)) if gallery else report


def verify(dataset: StrPath, *, version: str | None = None) -> Verification:
    """Check that every byte of a data set is as it was written, and that index, counts and shards agree.

    Args:
        dataset: folder of the data set.
        version: only this one (default: all).

    Returns:
        `.files` that were checked, and `.faults`: empty if all is well.
    """
    from ls3dw.dataset.verify import verify as run_verification

    return run_verification(Path(dataset), version)


def export(
    dataset: StrPath,
    format: str,  # noqa: A002 - the option's name
    out: StrPath,
    *,
    version: str | None = None,
    source: str | Sequence[str] = (),
    round: bool = False,  # noqa: A002 - the option's name
) -> ExportReport:
    """Write a version of a data set in the layout of others: kept pictures, and landmarks in their pixels.

    Args:
        dataset: folder of the data set.
        version: of the annotations (default: the newest).
        format: ls3d-w, as LS3D-W was released; or menpo, LJSON files.
        out: a new folder.
        source: only faces of these sources.
        round: whole pixels, truncated as in the release (ls3d-w only).
    """
    from ls3dw.dataset.exporters import FORMATS, ExportOptions
    from ls3dw.dataset.open import open_dataset

    if format not in FORMATS:
        raise OptionError(f"format {format!r}: expected one of {', '.join(FORMATS)}")
    sources = (source,) if isinstance(source, str) else tuple(source)
    return FORMATS[format](open_dataset(dataset, version), Path(out), ExportOptions(sources, round))


def train(
    pipeline: StrPath,
    *,
    out: StrPath | None = None,
    gpu: str | int = "auto",
    resume: bool = False,
    restart: bool = False,
    set: Mapping[str, Any] | None = None,  # noqa: A002 - the option's name
    stop: Callable[[], bool] = lambda: False,
) -> TrainReport:
    """Train the networks of a pipeline file and export them. Run again, it goes on from the last checkpoint.

        report = ls3dw.train("pipelines/train_2dfan.yaml", set={"minutes": 10, "data.0.pool": 8192})

    Args:
        pipeline: YAML file with the fields of `ls3dw.training.TrainOptions`.
        out: folder of the run (default ls3dw-train/<name>).
        gpu: "auto", "none", or an id.
        resume: fail if there is no checkpoint.
        restart: begin anew, and remove what an earlier run wrote.
        set: changes of the pipeline's options, by dotted name.
        stop: asked after each step; True saves a checkpoint and ends the run.

    Returns:
        `.models`, the weights files by name; `.results`, the figures of the last validation; `.folder`, `.steps`.
    """
    from ls3dw.training import read_options, run_training

    options = read_options(Path(pipeline), set)
    folder = None if out is None else Path(out)
    return run_training(options, out=folder, gpu=str(gpu), resume=resume, restart=restart, stop=stop)


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
        dataset: folder of the data set.
        version: of the annotations (default: the newest).
        kind: "pose-balanced", rare poses more often (PDB of the Wing loss paper), with the options of `PoseBalance`:
            bins, component, mode, seed; or "balanced", LS3D-W Balanced with equal thirds of |yaw|, with the options of
            `BalancedOptions`: total, seed, video_share, failure, residual, near, gap.
        name: of the subset (default: `kind`).
    """
    from ls3dw.dataset.open import open_dataset
    from ls3dw.dataset.subsets.balanced import BalancedOptions
    from ls3dw.dataset.subsets.pose_balanced import PoseBalance
    from ls3dw.dataset.subsets.produce import SubsetReport, write_balanced, write_pose_balanced

    opened = open_dataset(dataset, version)
    if kind == "balanced":
        return SubsetReport(*write_balanced(opened, keyword_options(BalancedOptions, options), name or kind))
    if kind == "pose-balanced":
        return SubsetReport(*write_pose_balanced(opened, keyword_options(PoseBalance, options), name or kind))
    raise OptionError(f"subset {kind!r}: expected pose-balanced or balanced")


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
        dataset: folder of the data set.
        version: of the annotations (default: the newest).
        share: of each source's faces to hold out.
        near: bits in which perceptual hashes of one picture may differ.
        official_300vw: hold out the videos of categories A, B and C.
        same: pairs of ids of one picture, or a .csv file of them.
        name: of the subsets NAME-train and NAME-held-out.
    """
    from ls3dw.dataset.open import open_dataset
    from ls3dw.dataset.subsets.lists import read_pairs
    from ls3dw.dataset.subsets.produce import SplitReport, write_split
    from ls3dw.dataset.subsets.split import SplitOptions

    pairs = read_pairs(Path(same)) if isinstance(same, str | Path) else list(same or ())
    (train, held_out), details = write_split(
        open_dataset(dataset, version), SplitOptions(share, seed, near, official_300vw), pairs, name
    )
    return SplitReport(train, held_out, details)


def render_heads(
    folder: StrPath,
    *,
    count: int = 64,
    seed: int = 0,
    layout: Literal["heads", "300w-lp"] = "heads",
    degrade: bool = True,
    backgrounds: StrPath | None = None,
    gpu: str | int = "auto",
    progress: OnProgress | None = None,
) -> HeadsReport:
    """Render heads with exact landmarks into a folder: pictures of 448 x 448 pixels with annotations.

    Run again, it writes what is missing; a larger `count` adds heads. Same seed, same files on the CPU.

    Args:
        folder: new, empty, or begun by the same call.
        count: how many heads.
        seed: of all that is drawn.
        layout: "heads", to build with `source="heads"`, or "300w-lp", for `source="300wlp"`.
        degrade: with occluders, blur, noise and JPEG.
        backgrounds: folder of pictures to put behind the heads, beside the built-in patterns.
        gpu: "auto", "none", or an id.
        progress: as in `build`; counts heads.

    Returns:
        `.folder`, `.count` heads in it, and `.written`, those written by this call.
    """
    from ls3dw.synth import render_heads as render

    return render(
        Path(folder),
        count=count,
        seed=seed,
        layout=layout,
        degraded=degrade,
        backgrounds=None if backgrounds is None else Path(backgrounds),
        gpu=str(gpu),
        progress=lambda done, total: progress(Progress(done, total)) if progress else None,
    )


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that were given, of a function's arguments."""
    return {name: value for name, value in values.items() if value is not None and name not in ("progress", "dataset")}

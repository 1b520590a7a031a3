"""`ls3dw evaluate`: scores versions and other methods, or runs an ablation, and writes the results."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from ls3dw.core.metrics import FAILURE
from ls3dw.core.normalisers import Normaliser
from ls3dw.dataset.open import Dataset, open_dataset
from ls3dw.errors import ConfigurationError
from ls3dw.evaluation.ablation_report import ablation_dict, render_ablation, write_ablation
from ls3dw.evaluation.ablations import Ablation, AblationOptions, Networks, Result, run_ablation
from ls3dw.evaluation.measure import (
    ANNOTATION,
    EvaluationProtocol,
    Kind,
    MethodErrors,
    Truth,
    measure_predictions,
    measure_version,
    read_truth,
)
from ls3dw.evaluation.predictions import read_predictions
from ls3dw.evaluation.report import Report, render_report, write_motion, write_report
from ls3dw.evaluation.scores import Evaluation, tabulate
from ls3dw.evaluation.temporal import VideoMotion, draw_motion, motion_table, render_motion, summarise_motion
from ls3dw.models.annotator import Annotator
from ls3dw.models.inference.device import one_device

Progress = Callable[[int, int], None]
"""Called with the number of faces that are done and of all."""


@dataclass(frozen=True)
class EvaluateOptions:
    """Options of `ls3dw evaluate`, by the names of the command line.

    version: whose landmarks are scored, the newest if empty; predictions: files of other methods, `[NAME=]FILE`;
    against: `annotation` or a version; points: `2d`, `3d`, or what each `source` annotates; threshold: of AUC and
    failures, a fraction; temporal: also judge videos; ablation: run networks (model_2d, model_3d, gpu) on the faces
    instead, at most `limit`; out: folder for tables and plots.
    """

    version: tuple[str, ...] = ()
    predictions: tuple[str, ...] = ()
    against: str = ANNOTATION
    points: Kind = "source"
    normaliser: Normaliser = "box"
    threshold: float = FAILURE
    seed: int = 0
    temporal: bool = False
    ablation: Ablation | None = None
    model_2d: tuple[str, ...] = ()
    model_3d: tuple[str, ...] = ()
    gpu: str = "auto"
    limit: int | None = None
    out: Path | None = None

    def __post_init__(self) -> None:
        compared = self.against != ANNOTATION or self.points != "source" or self.predictions
        if self.ablation and (self.temporal or compared or len(self.version) > 1):
            raise ConfigurationError(
                "an --ablation runs networks and scores 2D and 3D points: it takes no --predictions, --against,"
                " --points or --temporal"
            )
        if not self.ablation and (self.model_2d or self.model_3d or self.limit):
            raise ConfigurationError("--model-2d, --model-3d and --limit belong to an --ablation")
        counts = {len(self.model_2d) or 1, len(self.model_3d) or 1}
        if counts - {1, max(counts)}:
            raise ConfigurationError(
                f"{len(self.model_2d)} --model-2d and {len(self.model_3d)} --model-3d; give as many of both, or one of"
                " one"
            )
        names = [*self.version, *(name or str(path) for name, path in map(_named, self.predictions))]
        if len(set(names)) < len(names):
            raise ConfigurationError(f"two methods of one name among {', '.join(names)}; use --predictions NAME=FILE")


@dataclass(frozen=True)
class EvaluationReport:
    """Results of `run_evaluation`.

    methods: tables of each method, None for an ablation; motion: by method and video, with `temporal`; results: of an
    ablation; files: written to `out`.
    """

    dataset: Dataset
    options: EvaluateOptions
    methods: Report | None = None
    motion: list[VideoMotion] = field(default_factory=list)
    results: list[Result] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)

    @property
    def evaluations(self) -> list[Evaluation]:
        """The scores of each method."""
        return list(self.methods.evaluations) if self.methods else []

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values for JSON."""
        if self.methods is None:
            assert self.options.ablation
            return ablation_dict(self.dataset, self.options.ablation, _ablation_options(self.options), self.results)
        motion = {"temporal": [asdict(row) for row in self.motion]} if self.options.temporal else {}
        return self.methods.to_dict() | motion

    def render(self) -> str:
        """Return the tables as text, in per cent."""
        if self.methods is None:
            assert self.options.ablation
            return render_ablation(self.options.ablation, self.results)
        motion = f"\n\nover time\n{render_motion(self.motion)}" if self.options.temporal else ""
        return render_report(self.methods) + motion


def run_evaluation(
    dataset: str | Path, options: EvaluateOptions, progress: Progress = lambda done, total: None
) -> EvaluationReport:
    """Evaluate a data set; with `options.out`, write tables, plots and failures there. progress: of an ablation."""
    opened = open_dataset(dataset, options.version[0] if options.version else None)
    return _ablate(opened, options, progress) if options.ablation else _compare(opened, options)


def _compare(dataset: Dataset, options: EvaluateOptions) -> EvaluationReport:
    protocol = EvaluationProtocol(options.against, options.points, options.normaliser, options.threshold, options.seed)
    truth = read_truth(dataset, protocol)
    measured = _measure(dataset, truth, protocol, options)
    report = Report(dataset, protocol, truth, measured, [tabulate(dataset, truth, one, protocol) for one in measured])
    files = write_report(report, options.out) if options.out else []
    if not options.temporal:
        return EvaluationReport(dataset, options, report, files=files)
    table = motion_table(dataset, truth, measured)
    motion = summarise_motion(table)
    if options.out:
        files += write_motion(table, [asdict(row) for row in motion], options.out)
        files += draw_motion(table, options.out / "temporal")
    return EvaluationReport(dataset, options, report, motion, files=files)


def _measure(
    dataset: Dataset, truth: Truth, protocol: EvaluationProtocol, options: EvaluateOptions
) -> list[MethodErrors]:
    """Measure the named versions, or the newest if nothing is named; then the other methods."""
    versions = options.version or (() if options.predictions else (None,))
    measured = [measure_version(dataset, truth, protocol, version) for version in versions]
    for name, path in map(_named, options.predictions):
        measured.append(measure_predictions(dataset, truth, read_predictions(path), name))
    return measured


def _named(text: str) -> tuple[str | None, Path]:
    """Split NAME=FILE; the path of an existing file may contain '='."""
    name, equals, rest = str(text).partition("=")
    return (name, Path(rest)) if equals and name and not Path(text).exists() else (None, Path(text))


def _ablation_options(options: EvaluateOptions) -> AblationOptions:
    return AblationOptions(options.limit, options.normaliser, options.threshold, options.seed)


def _ablate(dataset: Dataset, options: EvaluateOptions, progress: Progress) -> EvaluationReport:
    assert options.ablation
    networks, chosen = _networks(options), _ablation_options(options)
    total = min(len(dataset), chosen.limit or len(dataset)) * len(networks)
    done = 0

    def count(faces: int) -> None:
        nonlocal done
        done += faces
        progress(done, total)

    results = run_ablation(dataset, options.ablation, networks, chosen, count)
    files = write_ablation(dataset, options.ablation, chosen, results, options.out) if options.out else []
    return EvaluationReport(dataset, options, results=results, files=files)


def _networks(options: EvaluateOptions) -> Networks:
    """Pair the n-th 2D with the n-th 3D network; one, or the bundled one, serves all of the other kind."""
    models_2d, models_3d = options.model_2d or (None,), options.model_3d or (None,)
    count = max(len(models_2d), len(models_3d))
    device = str(one_device(options.gpu))
    networks = {}
    for model_2d, model_3d in zip(
        models_2d * (count // len(models_2d)), models_3d * (count // len(models_3d)), strict=True
    ):
        name = " + ".join(Path(model).stem for model in (model_2d, model_3d) if model) or "bundled"
        networks[name] = partial(Annotator, model_2d, model_3d, "none", device=device)
    return networks

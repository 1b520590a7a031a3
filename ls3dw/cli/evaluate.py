"""`ls3dw evaluate`."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from ls3dw.evaluation.ablations import Ablation, Networks
    from ls3dw.evaluation.measure import Measured, Question
    from ls3dw.evaluation.report import Report

# Those of the library, whose import would make --help slow; a test holds them together.
NORMALISERS = ("box", "interocular", "interpupil", "outer-eye", "diagonal", "face-size")
ABLATIONS = ("yaw", "noise", "resolution", "size", "roll")


@click.command()
@click.argument("dataset", type=click.Path(path_type=Path))
@click.option(
    "--version", "versions", multiple=True, metavar="NAME", help="A version's landmarks (repeatable). [default: newest]"
)
@click.option(
    "--predictions",
    multiple=True,
    metavar="[NAME=]FILE",
    help="Another method's landmarks: .npz, .t7, or a folder of .pts or .t7 files (repeatable).",
)
@click.option(
    "--against",
    default="annotation",
    show_default=True,
    metavar="NAME",
    help="annotation, or a version to compare with.",
)
@click.option(
    "--points",
    type=click.Choice(["source", "2d", "3d"]),
    default="source",
    show_default=True,
    help="Visible contour, projected 3D points, or what each source annotates.",
)
@click.option("--normaliser", type=click.Choice(NORMALISERS), default="box", show_default=True)
@click.option("--threshold", type=click.FloatRange(0.001, 1), default=0.07, show_default=True)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of intervals and box noise.")
@click.option("--temporal", is_flag=True, help="Also judge videos: jitter, jumps, lost faces.")
@click.option(
    "--ablation",
    type=click.Choice(ABLATIONS),
    help="Run networks on the faces instead: by yaw, with shaken boxes, reduced, or of several sizes.",
)
@click.option("--model-2d", "models_2d", multiple=True, metavar="NAME", help="Of an ablation (repeatable).")
@click.option("--model-3d", "models_3d", multiple=True, metavar="NAME", help="Of an ablation (repeatable).")
@click.option("--gpu", default="auto", show_default=True, help="Of an ablation: auto, none, or the number of a GPU.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Of an ablation: faces at most.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Folder for tables, plots, failures.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def evaluate(
    dataset: Path, ablation: Ablation | None, temporal: bool, out: Path | None, as_json: bool, **options: Any
) -> None:
    """Score landmarks against the sources' own points or a version: NME, AUC, failures, with 95 % intervals.

    Several methods go into one table and one plot. With --out DIR it writes evaluation.json, scores.csv,
    landmarks.csv, ced.png and .svg, failures.parquet and .json; an ablation writes its own four files.
    """
    if ablation:
        compared = options["against"] != "annotation" or options["points"] != "source" or options["predictions"]
        if temporal or compared or len(options["versions"]) > 1:
            raise click.UsageError(
                "an --ablation runs networks and scores 2D and 3D points: it takes no --predictions, --against,"
                " --points or --temporal"
            )
        _ablate(dataset, ablation, options, out, as_json)
        return
    if options["models_2d"] or options["models_3d"] or options["limit"]:
        raise click.UsageError("--model-2d, --model-3d and --limit belong to an --ablation")
    _compare(dataset, options, temporal, out, as_json)


def _compare(path: Path, options: dict[str, Any], temporal: bool, out: Path | None, as_json: bool) -> None:
    from ls3dw.evaluation.report import write_report
    from ls3dw.evaluation.temporal import draw_motion, motion_table, summarise_motion

    report = _report(path, options)
    values = report.to_dict()
    files = write_report(report, out) if out else []
    if temporal:
        table = motion_table(report.dataset, report.truth, report.measured)
        motion = summarise_motion(table)
        values["temporal"] = [asdict(row) for row in motion]
        if out:
            from ls3dw.evaluation.report import write_motion

            files += [*write_motion(table, values["temporal"], out), *draw_motion(table, out / "temporal")]
    if as_json:
        click.echo(json.dumps(values, indent=1))
        return
    click.echo(_text(report))
    if temporal:
        from ls3dw.evaluation.temporal import render_motion

        click.echo(f"\nover time\n{render_motion(motion)}")
    _list(files)


def _report(path: Path, options: dict[str, Any]) -> Report:
    from ls3dw.dataset import open_dataset
    from ls3dw.evaluation.evaluate import tabulate
    from ls3dw.evaluation.measure import Question, read_truth
    from ls3dw.evaluation.report import Report

    question = Question(
        options["against"], options["points"], options["normaliser"], options["threshold"], options["seed"]
    )
    versions = options["versions"]
    dataset = open_dataset(path, versions[0] if versions else None)
    truth = read_truth(dataset, question)
    measured = _measure(options, dataset, truth, question)
    return Report(dataset, question, truth, measured, [tabulate(dataset, truth, one, question) for one in measured])


def _measure(options: dict[str, Any], dataset: Any, truth: Any, question: Question) -> list[Measured]:
    """Measure the versions that are named, or the newest where nothing is; then the other methods."""
    from ls3dw.evaluation.measure import measure_predictions, measure_version
    from ls3dw.evaluation.predictions import read_predictions

    versions = options["versions"] or (() if options["predictions"] else (None,))
    measured = [measure_version(dataset, truth, question, version) for version in versions]
    for text in options["predictions"]:
        name, path = _named(text)
        measured.append(measure_predictions(dataset, truth, read_predictions(path), name))
    names = [one.method for one in measured]
    if len(set(names)) < len(names):
        raise click.UsageError(f"two methods of one name among {', '.join(names)}; use --predictions NAME=FILE")
    return measured


def _named(text: str) -> tuple[str | None, Path]:
    """Split NAME=FILE; a path that is there may have '=' in it."""
    name, equals, rest = text.partition("=")
    return (name, Path(rest)) if equals and name and not Path(text).exists() else (None, Path(text))


def _text(report: Report) -> str:
    from ls3dw.evaluation.evaluate import render_parts, render_scores
    from ls3dw.evaluation.measure import ANNOTATION
    from ls3dw.evaluation.paper import beside_paper, render_beside

    question = report.question
    against = "the sources' own points" if question.against == ANNOTATION else f"version {question.against}"
    parts = []
    for evaluation in report.evaluations:
        head = f"{evaluation.method} against {against}; per cent by {question.normaliser}"
        parts.append(f"{head}; failures above {100 * question.threshold:g} %\n\n{render_scores(evaluation.scores)}")
        parts.append(render_parts(evaluation.parts))
        if paper := render_beside(beside_paper(report.dataset, evaluation)):
            parts.append(paper)
        if evaluation.unknown:
            parts.append(f"{evaluation.unknown} predictions are of faces that are not in the data set")
    return "\n\n".join(parts)


def _ablate(path: Path, ablation: Ablation, options: dict[str, Any], out: Path | None, as_json: bool) -> None:
    from ls3dw.dataset import open_dataset
    from ls3dw.evaluation.ablation_report import ablation_dict, render_ablation, write_ablation
    from ls3dw.evaluation.ablations import AblationOptions, run_ablation

    dataset = open_dataset(path, options["versions"][0] if options["versions"] else None)
    chosen = AblationOptions(options["limit"], options["normaliser"], options["threshold"], options["seed"])
    networks = _networks(options)
    faces = min(len(dataset), chosen.limit or len(dataset)) * len(networks)
    with click.progressbar(length=faces, label="faces", file=sys.stderr, hidden=not sys.stderr.isatty()) as bar:
        results = run_ablation(dataset, ablation, networks, chosen, bar.update)
    files = write_ablation(dataset, ablation, chosen, results, out) if out else []
    if as_json:
        click.echo(json.dumps(ablation_dict(dataset, ablation, chosen, results), indent=1))
        return
    click.echo(render_ablation(ablation, results))
    _list(files)


def _networks(options: dict[str, Any]) -> Networks:
    """Pair the networks: the n-th of 2D with the n-th of 3D; one, or the bundled one, serves all of the other kind."""
    from functools import partial

    from ls3dw.annotator import Annotator
    from ls3dw.models.device import one_device

    flat, deep = options["models_2d"] or (None,), options["models_3d"] or (None,)
    count = max(len(flat), len(deep))
    if {len(flat), len(deep)} - {1, count}:
        raise click.UsageError(
            f"{len(flat)} --model-2d and {len(deep)} --model-3d; give as many of both, or one of one"
        )
    device = str(one_device(options["gpu"]))
    networks = {}
    for model_2d, model_3d in zip(flat * (count // len(flat)), deep * (count // len(deep)), strict=True):
        name = " + ".join(Path(model).stem for model in (model_2d, model_3d) if model) or "bundled"
        networks[name] = partial(Annotator, model_2d, model_3d, "none", device=device)
    return networks


def _list(files: list[Path]) -> None:
    if files:
        click.echo("\nwritten\n" + "\n".join(f"  {file}" for file in files))

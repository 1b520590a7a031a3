"""`ls3dw evaluate`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from ls3dw.cli.options import json_option
from ls3dw.cli.progress import Bar

# Copies of the library's: importing it would make --help slow. A test compares them.
NORMALISERS = ("box", "interocular", "interpupil", "outer-eye", "diagonal", "face-size")
ABLATIONS = ("yaw", "noise", "resolution", "size", "roll")


@click.command()
@click.argument("dataset", type=click.Path(path_type=Path))
@click.option("--version", multiple=True, metavar="NAME", help="A version's landmarks (repeatable). [default: newest]")
@click.option(
    "--predictions",
    multiple=True,
    metavar="[NAME=]FILE",
    help="Another method's landmarks: .npz, .t7, or a folder of .pts, .t7 or .ljson files (repeatable).",
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
@click.option("--model-2d", multiple=True, metavar="NAME", help="Of an ablation (repeatable).")
@click.option("--model-3d", multiple=True, metavar="NAME", help="Of an ablation (repeatable).")
@click.option("--gpu", default="auto", show_default=True, help="Of an ablation: auto, none, or the number of a GPU.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Of an ablation: faces at most.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Folder for tables, plots, failures.")
@json_option
def evaluate(dataset: Path, as_json: bool, **options: Any) -> None:
    """Score landmarks against the sources' own points or a version: NME, AUC, failures, with 95 % intervals.

    Several methods go into one table and one plot. With --out DIR it writes evaluation.json, scores.csv,
    landmarks.csv, ced.png and .svg, failures.parquet and .json; an ablation writes its own four files.
    """
    import ls3dw

    with Bar("faces") as bar:
        report = ls3dw.evaluate(dataset, **options, progress=bar)
    if as_json:
        click.echo(json.dumps(report.to_dict(), indent=1))
        return
    click.echo(report.render())
    if report.files:
        click.echo("\nwritten\n" + "\n".join(f"  {file}" for file in report.files))

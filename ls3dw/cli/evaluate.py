"""`ls3dw evaluate`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click


@click.command()
@click.argument("dataset", type=click.Path(path_type=Path))
@click.option("--version", metavar="NAME", help="A version of the annotations. [default: the newest]")
@click.option(
    "--predictions",
    type=click.Path(path_type=Path),
    help="Another method's landmarks: .npz, .t7, or a folder of .pts or .t7 files.",
)
@click.option("--threshold", type=click.FloatRange(0, 1, min_open=True), default=0.07, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def evaluate(dataset: Path, version: str | None, predictions: Path | None, threshold: float, as_json: bool) -> None:
    """Score landmarks against the sources' own points: NME by sqrt(w h) of their box, AUC, failures."""
    from ls3dw.dataset import open_dataset
    from ls3dw.evaluate import evaluate as score
    from ls3dw.evaluate import render_scores
    from ls3dw.predictions import read_predictions

    opened = open_dataset(dataset, version)
    read = read_predictions(predictions) if predictions else None
    result = score(opened, read, threshold)
    if as_json:
        click.echo(json.dumps({"dataset": str(dataset), "version": opened.version, **asdict(result)}, indent=1))
        return
    click.echo(f"{result.method} against the sources' own points; per cent; failures above {100 * threshold:g} %\n")
    click.echo(render_scores(result.scores))
    if result.unknown:
        click.echo(f"\n{result.unknown} predictions are of faces that are not in the data set")

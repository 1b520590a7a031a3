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
    from ls3dw.evaluate import errors_of, render_scores, scores
    from ls3dw.predictions import read_predictions

    opened = open_dataset(dataset, version)
    read = read_predictions(predictions) if predictions else None
    rows = scores(opened, errors_of(opened, read), threshold)
    method = read.origin if read else f"version {opened.version}"
    if as_json:
        result = {
            "dataset": str(dataset),
            "method": method,
            "threshold": threshold,
            "scores": [asdict(row) for row in rows],
        }
        click.echo(json.dumps(result, indent=1))
    else:
        click.echo(f"{method} against the sources' own points; per cent; failures above {100 * threshold:g} %\n")
        click.echo(render_scores(rows))

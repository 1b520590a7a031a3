"""`ls3dw info`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from ls3dw.cli.options import json_option, version_option


@click.command()
@click.argument("dataset", type=click.Path(path_type=Path))
@version_option
@json_option
def info(dataset: Path, version: str | None, as_json: bool) -> None:
    """Say what a data set holds: sources, counts, drops, errors, networks."""
    from ls3dw.dataset.open import open_dataset
    from ls3dw.dataset.summary import render_summary, summarise

    summary = summarise(open_dataset(dataset, version))
    click.echo(json.dumps(summary, indent=1) if as_json else render_summary(summary))

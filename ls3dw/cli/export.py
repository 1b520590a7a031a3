"""`ls3dw export`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from ls3dw.cli.options import json_option, version_option


@click.command()
@click.argument("dataset", type=click.Path(path_type=Path))
@click.option(
    "--format",
    type=click.Choice(["ls3d-w", "menpo"]),
    required=True,
    help="ls3d-w: as LS3D-W was released, .t7 files; menpo: .ljson files for menpo.",
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="A new folder.")
@version_option
@click.option("--source", multiple=True, metavar="NAME", help="Only faces of this source (repeatable).")
@click.option("--round", is_flag=True, help="Of ls3d-w: whole pixels, truncated as in the release.")
@json_option
def export(dataset: Path, as_json: bool, **options: Any) -> None:
    """Write a version of a data set in the layout of others: the kept pictures, and landmarks in their pixels.

    \b
    ls3dw export ls3dw-data --format ls3d-w --out LS3D-W
    ls3dw export ls3dw-data --format menpo --out for-menpo
    """
    import ls3dw

    done = ls3dw.export(dataset, **options)
    if as_json:
        click.echo(json.dumps(asdict(done), indent=1, default=str))
        return
    click.echo(f"{done.written} faces of version {done.version} written to {done.out}")
    for name, count in done.left_out.items():
        click.echo(f"{count} of {name} left out: no place in this format")

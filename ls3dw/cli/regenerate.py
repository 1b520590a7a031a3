"""`ls3dw regenerate`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from ls3dw.cli.options import join_roots, network_options
from ls3dw.cli.progress import Bar


@click.command()
@click.argument("dataset", type=click.Path(path_type=Path))
@network_options(inherited=True)
@click.option(
    "--from",
    "origin",
    type=click.Choice(["stored", "sources"]),
    default="stored",
    show_default=True,
    help="Where pictures come from: those that are kept, or the originals, under --root.",
)
@click.option(
    "--root",
    multiple=True,
    metavar="[NAME=]DIR",
    help="Folder of the sources, or of the source NAME (repeatable).",
)
@click.option(
    "--only",
    multiple=True,
    metavar="WHAT",
    help="source:300vw, subset:300vw/b, or failures:v1, the faces with an NME above 7 % in a version (repeatable: all"
    " of them). The other rows are the parent's. [default: every face]",
)
@click.option("--parent", metavar="NAME", help="The version to build on. [default: the newest]")
@click.option("--version-name", metavar="NAME", help="Name of the new version. [default: the next free of v2, v3, ...]")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def regenerate(dataset: Path, root: tuple[str, ...], dry_run: bool, as_json: bool, **given: Any) -> None:
    """Annotate the faces of DATASET again: a new version of the annotations, and not a byte of a picture.

    Run again, it finishes what is missing of the version that it began and does nothing twice.

    \b
    ls3dw regenerate ds --model-3d better.safetensors
    ls3dw regenerate ds --only source:300vw --only failures:v1
    ls3dw regenerate ds --from sources --root /data
    """
    import ls3dw

    given |= {"root": join_roots(root)} if root else {}
    if dry_run:
        click.echo(ls3dw.plan_regenerate(dataset, **given))
        return
    with Bar("faces") as bar:
        report = ls3dw.regenerate(dataset, **given, progress=bar)
    click.echo(json.dumps(report.summary, indent=1) if as_json else str(report))

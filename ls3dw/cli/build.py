"""`ls3dw build`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from ls3dw.cli.options import join_roots, network_options
from ls3dw.cli.progress import Bar


@click.command()
@click.option(
    "--source",
    multiple=True,
    metavar="NAME",
    help="300w, 300vw, menpo, aflw2000, ls3dw, 300wlp, heads or sample (repeatable, or a list). [default: sample]",
)
@click.option(
    "--root",
    multiple=True,
    metavar="[NAME=]DIR",
    help="Folder of the sources, or of the source NAME (repeatable).",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("ls3dw-data"),
    show_default=True,
    help="The data set's folder.",
)
@click.option(
    "--subset",
    multiple=True,
    metavar="NAME",
    help="Only this subset of the sources, or those whose names begin with it (repeatable).",
)
@click.option("--limit", type=int, help="At most this many pictures or frames of each source.")
@click.option(
    "--annotations",
    type=click.Choice(["network", "published"]),
    default="network",
    show_default=True,
    help="published: the sources' own points (of ls3dw, aflw2000) as they are; no network runs.",
)
@network_options(inherited=False)
@click.option("--shard-size", type=int, default=256, show_default=True, help="Pictures or frames a shard.")
@click.option(
    "--pipeline",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Options from a YAML file; those given here count more.",
)
@click.option("--version-name", metavar="NAME", help="Of the annotations. [default: v1, or published]")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@click.option("-v", "--verbose", is_flag=True, help="Say how long each stage took, and what the build waited for.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
@click.pass_context
def build(ctx: click.Context, /, dry_run: bool, verbose: bool, as_json: bool, **given: Any) -> None:
    """Turn sources into a data set. Run again, it finishes what is missing and does nothing twice.

    \b
    ls3dw build                                          the embedded sample
    ls3dw build --source aflw2000 --root AFLW2000 --out ds
    ls3dw build --source 300vw,menpo --root /data --gpu 0
    ls3dw build --source ls3dw --root LS3D-W --annotations published
    """
    import ls3dw

    typed = {name: given[name] for name in given if ctx.get_parameter_source(name) is not ParameterSource.DEFAULT}
    for name in ("source", "subset"):
        if name in typed:
            typed[name] = [part.strip() for entry in typed[name] for part in entry.split(",")]
    if "root" in typed:
        typed["root"] = join_roots(typed["root"])
    if dry_run:
        click.echo(ls3dw.plan_build(**typed))
        return
    with Bar("faces") as bar:
        report = ls3dw.build(**typed, progress=bar)
    if verbose:
        click.echo(report.timing, err=True)
    click.echo(json.dumps(report.summary, indent=1) if as_json else str(report))

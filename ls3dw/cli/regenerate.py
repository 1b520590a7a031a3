"""`ls3dw regenerate`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ls3dw.cli.options import network_options, split_roots
from ls3dw.cli.progress import Progress

if TYPE_CHECKING:
    from ls3dw.building.regenerate import Regeneration


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
    "roots",
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
def regenerate(dataset: Path, roots: tuple[str, ...], dry_run: bool, as_json: bool, **given: Any) -> None:
    """Annotate the faces of DATASET again: a new version of the annotations, and not a byte of a picture.

    Run again, it finishes what is missing of the version that it began and does nothing twice.

    \b
    ls3dw regenerate ds --model-3d better.safetensors
    ls3dw regenerate ds --only source:300vw --only failures:v1
    ls3dw regenerate ds --from sources --root /data
    """
    # Threads that wait by spinning would take the cores from decoding and writing; read when torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from ls3dw.building.prestart import Prestart
    from ls3dw.errors import ConfigurationError

    with Prestart("none" if dry_run else given["gpu"]) as ahead:
        # torch comes with it.
        from ls3dw.building.regenerate import Regeneration, settle

        try:
            options = settle(dataset, given | split_roots(roots))
        except ConfigurationError as error:
            raise click.UsageError(str(error)) from error
        run = Regeneration(options, ahead)
        if dry_run:
            _print_plan(run)
            return
        with Progress(quiet=True) as progress:
            run.run(progress.begin, progress.report)
    _print_summary(run, as_json)


def _print_plan(run: Regeneration) -> None:
    """Say which faces are annotated again, with what, and what is left to do."""
    options = run.options
    for source in run.plan().sources:
        click.echo(f"{source.name:<10} {source.units} faces left to annotate again, in {len(source.parts)} parts")
    again = sum(len(ids) for ids in run.selected.values())
    click.echo(f"faces      {again} of {len(run.parent)} again; the others keep their rows of {options.parent}")
    click.echo(f"pictures   from the {'sources' if options.origin == 'sources' else 'stored faces'}; none is written")
    click.echo(f"networks   {', '.join(model['name'] for model in run.configuration['models'].values() if model)}")
    click.echo(f"devices    {', '.join(run.devices)}")
    click.echo(f"output     {options.out}, version {options.version_name}; nothing was written")


def _print_summary(run: Regeneration, as_json: bool) -> None:
    from ls3dw.dataset.open import open_dataset
    from ls3dw.dataset.summary import render_summary, summarise

    summary = summarise(open_dataset(run.options.out, run.options.version_name))
    summary["made_again"] = sum(len(ids) for ids in run.selected.values())
    if as_json:
        click.echo(json.dumps(summary, indent=1))
        return
    click.echo(render_summary(summary))
    click.echo(f"parent     {run.options.parent}; {summary['made_again']} of {summary['faces']} faces annotated again")

"""`ls3dw build`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from ls3dw.cli.options import network_options, split_roots
from ls3dw.cli.progress import Progress, difference

if TYPE_CHECKING:
    from ls3dw.building.options import BuildOptions
    from ls3dw.building.pipeline import Build
    from ls3dw.building.plan import Plan


@click.command()
@click.option(
    "--source",
    "sources",
    multiple=True,
    metavar="NAME",
    help="300w, 300vw, menpo, aflw2000, ls3dw, 300wlp, heads or sample (repeatable, or a list). [default: sample]",
)
@click.option(
    "--root",
    "roots",
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
    "subsets",
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
def build(
    ctx: click.Context, /, dry_run: bool, verbose: bool, as_json: bool, pipeline: Path | None, **given: Any
) -> None:
    """Turn sources into a data set. Run again, it finishes what is missing and does nothing twice.

    \b
    ls3dw build                                          the embedded sample
    ls3dw build --source aflw2000 --root AFLW2000 --out ds
    ls3dw build --source 300vw,menpo --root /data --gpu 0
    ls3dw build --source ls3dw --root LS3D-W --annotations published
    """
    # Threads that wait by spinning would take the cores from decoding and writing; read when torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from ls3dw.building.options import SAMPLE
    from ls3dw.building.prestart import Prestart

    options = _options(ctx, pipeline, given)
    idle = dry_run or options.annotations == "published"
    with Prestart("none" if idle else options.gpu) as ahead:
        # torch comes with it.
        from ls3dw.building.pipeline import Build

        run = Build(options, ahead)
        if dry_run:
            _print_plan(run, run.plan())
            return
        with Progress(quiet=run.options.sources == (SAMPLE,)) as progress:
            run.run(progress.begin, progress.report)
    if verbose:
        click.echo(run.timing(), err=True)
    _print_summary(run, as_json)


def _options(ctx: click.Context, pipeline: Path | None, given: dict[str, Any]) -> BuildOptions:
    """Join the pipeline's options with those of the command line, which count more."""
    from ls3dw.building.options import make_options, read_pipeline
    from ls3dw.errors import ConfigurationError

    typed = {name: given[name] for name in given if ctx.get_parameter_source(name) is not ParameterSource.DEFAULT}
    for name in ("sources", "subsets"):
        if name in typed:
            typed[name] = [part.strip() for entry in typed[name] for part in entry.split(",")]
    if "roots" in typed:
        typed |= split_roots(typed.pop("roots"))
    if pipeline is not None:
        return make_options(read_pipeline(pipeline) | typed)
    try:
        return make_options(typed)
    except ConfigurationError as error:
        raise click.UsageError(str(error)) from error


def _print_plan(run: Build, plan: Plan) -> None:
    """Say what is there, what differs from the published counts, and what is left to do."""
    from ls3dw.dataset.summary import network_names

    for source in plan.sources:
        for count in source.counts:
            click.echo(
                f"{source.name:<10} {count.subset:<14} {count.found:>7} {source.counted} found{difference(count)}"
            )
        open_parts = [part for part in source.parts if not part.complete]
        click.echo(
            f"{source.name:<10} {source.units} pictures or frames, {len(open_parts)} of {len(source.parts)} parts left"
        )
    click.echo(f"networks   {network_names(run.configuration['models'])}")
    click.echo(f"devices    {', '.join(run.devices)}")
    click.echo(f"output     {run.options.out}, version {run.options.version_name}; nothing was written")


def _print_summary(run: Build, as_json: bool) -> None:
    """Print found, written and dropped by reason, and the mean NME against the sources' own points."""
    from ls3dw.dataset.open import open_dataset
    from ls3dw.dataset.summary import render_summary, summarise

    dataset = open_dataset(run.options.out, run.options.version_name)
    summary = summarise(dataset)
    click.echo(json.dumps(summary, indent=1) if as_json else render_summary(summary))

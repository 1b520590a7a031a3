"""`ls3dw subset`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from ls3dw.cli.options import json_option, version_option


@click.group()
@click.argument("dataset", type=click.Path(path_type=Path))
@version_option
@click.pass_context
def subset(ctx: click.Context, dataset: Path, version: str | None) -> None:
    """Draw a subset of DATASET into subsets/<version>/<name>.parquet: ids and how they were drawn, no pictures."""
    ctx.obj = (dataset, version)


@subset.command("pose-balanced", short_help="Poses balanced by their principal component (PDB).")
@click.option("--bins", type=click.IntRange(1), default=9, show_default=True, help="Equal bins of |projection|.")
@click.option("--component", type=click.IntRange(0), default=0, show_default=True, help="0: the strongest.")
@click.option(
    "--mode",
    type=click.Choice(["repeat", "thin", "weight"]),
    default="repeat",
    show_default=True,
    help="Repeat rare faces, leave out common ones, or give each a weight to be drawn by.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of what is thinned out.")
@click.option("--name", default="pose-balanced", show_default=True)
@json_option
@click.pass_obj
def pose_balanced(opened: tuple[Path, str | None], /, name: str, as_json: bool, **options: Any) -> None:
    """Balance poses as in the Wing loss paper (PDB), for training; with a histogram of before and after."""
    import ls3dw

    dataset, version = opened
    drawn = ls3dw.subset(dataset, "pose-balanced", version=version, name=name, **options)
    path, report = drawn.path, drawn.details
    if as_json:
        click.echo(json.dumps({"file": str(path), **report}, indent=1))
        return
    click.echo(f"{'|projection|':>20} {'faces':>8} {'after':>10}")
    edges = report["edges"]
    for low, high, before, after in zip(edges, edges[1:], report["before"], report["after"], strict=False):
        click.echo(f"{low:>9.3f} to {high:<8.3f} {before:>7} {after:>10.1f}")
    click.echo(f"{path}: {report['faces']} faces, {report['left out']} left out for missing points")


@subset.command(short_help="LS3D-W Balanced: as many faces of each third of |yaw|.")
@click.option("--total", type=int, default=7200, show_default=True, help="Faces, a third in each bin.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option(
    "--video-share", type=float, default=0.05, show_default=True, help="What one video may have of the total."
)
@click.option("--failure", type=float, default=0.07, show_default=True, help="Leave out faces with a larger NME.")
@click.option("--residual", type=float, default=0.2, show_default=True, help="Leave out faces whose pose fits worse.")
@click.option("--near", type=int, default=8, show_default=True, help="Bits in which hashes of one picture may differ.")
@click.option("--gap", type=int, default=64, show_default=True, help="Frames between two of a video, to begin with.")
@click.option("--name", default="balanced", show_default=True)
@json_option
@click.pass_obj
def balanced(opened: tuple[Path, str | None], /, name: str, as_json: bool, **options: Any) -> None:
    """Draw LS3D-W Balanced: equal numbers with |yaw| in [0, 30], (30, 60] and (60, 90]."""
    import ls3dw
    from ls3dw.dataset.subsets.produce import render_balanced

    dataset, version = opened
    drawn = ls3dw.subset(dataset, "balanced", version=version, name=name, **options)
    if as_json:
        click.echo(json.dumps({"file": str(drawn.path), **drawn.details}, indent=1))
    else:
        click.echo(render_balanced(dict(drawn.details)))
        click.echo(f"{drawn.path}")

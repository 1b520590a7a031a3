"""`ls3dw bench`."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import click

from ls3dw.cli.options import json_option


@click.command()
@click.option("--gpu", default="auto", show_default=True, metavar="ID", help="auto, none, or an id such as 0.")
@click.option("--model-2d", metavar="MODEL", help="2D-FAN: a zoo name or a .safetensors file. [default: bundled]")
@click.option("--model-3d", metavar="MODEL", help="2D-to-3D FAN, or a 3D-FAN. [default: bundled]")
@click.option("--model-depth", metavar="MODEL", help="Depth network, or none. [default: bundled]")
@click.option("--batch", type=click.IntRange(1), help="Faces a network pass on a GPU; fixed on the CPU. [default: 128]")
@click.option("--workers", type=click.IntRange(0), help="Decoding processes of the build. [default: as of ls3dw build]")
@click.option(
    "--engine",
    type=click.Choice(["fast", "eager", "compiled", "plain"]),
    default="fast",
    show_default=True,
    help="As of ls3dw build; a large build on a GPU is as fast as compiled.",
)
@click.option("--seconds", type=click.FloatRange(0), default=0.5, show_default=True, help="For each stage, about.")
@click.option(
    "--against",
    type=click.Choice(["face-alignment", "face-alignment-compiled"]),
    help="Also time this package, on the same pictures, boxes and weights; compiling takes minutes.",
)
@json_option
def bench(as_json: bool, **given: Any) -> None:
    """Time every stage of a build and the whole on this machine, and say what bounds it.

    Each stage runs again and again; the table has its median run and its best. What other programs do at the same
    time takes from both.

    \b
    ls3dw bench
    ls3dw bench --gpu 0 --model-2d FILE --model-3d FILE --model-depth FILE
    ls3dw bench --gpu 0 --against face-alignment
    ls3dw bench --json > speed.json
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from ls3dw.building.bench.run import BenchOptions, run_bench
    from ls3dw.building.bench.table import render

    options = BenchOptions(**given)
    report = run_bench(options, _show)
    click.echo(json.dumps(report.to_dict(), indent=1) if as_json else render(report))


def _show(stage: str) -> None:
    """Print the stage that is being timed, on a terminal."""
    if sys.stderr.isatty():
        click.echo(f"\r\033[K{stage} ...", nl=False, err=True)

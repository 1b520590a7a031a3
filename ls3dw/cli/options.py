"""What several commands share: options, and how facts are printed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
version_option = click.option("--version", metavar="NAME", help="A version of the annotations. [default: the newest]")


def network_options(*, inherited: bool) -> Callable[[F], F]:
    """Add the options that say how faces are annotated.

    inherited: without them, a version is made like its parent; else by the bundled networks.
    """

    def choice(name: str, values: tuple[str, str], text: str) -> Callable[[F], F]:
        default = None if inherited else values[0]
        return click.option(name, type=click.Choice(values), default=default, show_default=True, help=text + as_parent)

    as_parent = " [default: as its parent]" if inherited else ""
    bundled = as_parent or " [default: bundled]"
    options = [
        click.option("--model-2d", metavar="MODEL", help="2D-FAN: a zoo name or a file of weights." + bundled),
        click.option("--model-3d", metavar="MODEL", help="2D-to-3D FAN, or a 3D-FAN." + bundled),
        click.option("--model-depth", metavar="MODEL", help="Depth network, or none." + bundled),
        choice(
            "--guidance",
            ("predicted", "annotated"),
            "What guides the 2D-to-3D FAN: predicted 2D points, or the source's own where it has all 68.",
        ),
        choice("--decode", ("subpixel", "reference"), "reference: the published crop and decoding, to whole pixels."),
        click.option(
            "--flip/--no-flip",
            default=None if inherited else True,
            show_default=not inherited,
            help="Average the 2D heatmaps with the mirrored picture's." + as_parent,
        ),
        click.option(
            "--gpu", default="auto", show_default=True, metavar="IDS", help="auto, none, or ids such as 0 or 0,1."
        ),
        click.option(
            "--engine",
            type=click.Choice(["fast", "eager", "compiled", "plain"]),
            default="fast",
            show_default=True,
            help="How networks run. fast: on a GPU compiled once many faces have passed; compiled: before the first,"
            " on a CPU by OpenVINO; plain: as they are, in float32. Landmarks differ by rounding.",
        ),
        click.option(
            "--batch",
            type=int,
            help="Faces a network pass on a GPU; fixed on the CPU. [default: 128, for many faces 256]",
        ),
        click.option(
            "--workers",
            type=int,
            help="Decoding processes; 0 decodes in this one. [default: cores - 1 less one a GPU, or 1 without]",
        ),
    ]

    def add(command: F) -> F:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def print_facts(facts: Mapping[str, Any], as_json: bool) -> None:
    """Print names and values, one a line, or as JSON."""
    if as_json:
        click.echo(json.dumps(facts, indent=1))
        return
    for key, value in facts.items():
        click.echo(f"{key:<18} {json.dumps(value) if isinstance(value, dict | list) else value}")


def join_roots(entries: tuple[str, ...]) -> Path | dict[str, Path]:
    """Turn --root entries into the folder of all sources, or a mapping from sources ("*": the others) to folders."""
    from ls3dw.sources import SOURCES

    named, common = {}, []
    for entry in entries:
        name, equals, folder = entry.partition("=")
        if equals and name in SOURCES:
            named[name] = Path(folder)
        else:
            common.append(Path(entry))
    if len(common) > 1:
        raise click.UsageError(f"--root: {' and '.join(map(str, common))} are both for all sources; write NAME=DIR")
    if named:
        return named | ({"*": common[0]} if common else {})
    return common[0]

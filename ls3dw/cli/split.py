"""`ls3dw split`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from ls3dw.cli.options import json_option, version_option

_DRAW = "draw"
_NOT_A_DATASET = ("check", "-h", "--help")


class _DrawsByDefault(click.Group):
    """Takes `ls3dw split DATASET` for `ls3dw split draw DATASET`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in (_DRAW, *_NOT_A_DATASET):
            args = [_DRAW, *args]
        return super().parse_args(ctx, args)


_SAME = click.option(
    "--same",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="A .csv of pairs of ids of one picture.",
)
_NEAR = click.option(
    "--near", type=int, default=8, show_default=True, help="Bits in which hashes of one picture may differ."
)


@click.group(cls=_DrawsByDefault)
def split() -> None:
    """Split DATASET for training, or check two lists: no video, picture or near-duplicate on both sides.

    `ls3dw split DATASET` is `ls3dw split draw DATASET`.
    """


@split.command(_DRAW, short_help="Split DATASET in train and held-out.")
@click.argument("dataset", type=click.Path(path_type=Path))
@version_option
@click.option("--share", type=float, default=0.1, show_default=True, help="Of each source's faces to hold out.")
@click.option("--seed", type=int, default=0, show_default=True)
@_NEAR
@click.option("--official-300vw", is_flag=True, help="Hold out the videos of categories A, B and C.")
@_SAME
@click.option("--name", default="split", show_default=True, help="Of the subsets NAME-train and NAME-held-out.")
@json_option
def draw(dataset: Path, version: str | None, same: Path | None, name: str, as_json: bool, **options: Any) -> None:
    """Write subsets/<version>/NAME-train.parquet and NAME-held-out.parquet."""
    import ls3dw

    drawn = ls3dw.split(dataset, version=version, same=same, name=name, **options)
    files, report = [str(drawn.train), str(drawn.held_out)], drawn.details
    if as_json:
        click.echo(json.dumps({"files": files, **report}, indent=1))
        return
    for source, count in report["faces by source"].items():
        held = report["held out by source"].get(source, 0)
        click.echo(f"{source:<12} {count:>8} faces, {held:>7} held out ({100 * held / count:.1f} %)")
    click.echo("\n".join(files))


@split.command()
@click.argument("first", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.argument("second", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--dataset", type=click.Path(path_type=Path), help="Where the faces' hashes are, for near-duplicates.")
@version_option
@_NEAR
@_SAME
@json_option
@click.pass_context
def check(
    ctx: click.Context,
    first: Path,
    second: Path,
    dataset: Path | None,
    version: str | None,
    near: int,
    same: Path | None,
    as_json: bool,
) -> None:
    """Say what two lists of ids (.parquet, .csv or .txt) share. Exit 1 if anything."""
    from ls3dw.dataset.open import open_dataset
    from ls3dw.dataset.subsets.leaks import find_leaks, render_leaks
    from ls3dw.dataset.subsets.lists import read_ids, read_pairs

    index = open_dataset(dataset, version).index if dataset else None
    leaks = find_leaks(read_ids(first), read_ids(second), index, near, read_pairs(same) if same else [])
    if as_json:
        click.echo(json.dumps({"counts": leaks.counts, **asdict(leaks)}, indent=1))
    else:
        click.echo(render_leaks(leaks))
    if leaks.found:
        if not as_json:
            click.echo(f"Error: {first} and {second} share faces; split them again with ls3dw split", err=True)
        ctx.exit(1)

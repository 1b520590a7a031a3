"""`ls3dw synth`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from ls3dw.synth.write import Layout


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--count", type=click.IntRange(min=1), default=64, show_default=True, help="How many heads.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Same seed, same heads.")
@click.option("--layout", type=click.Choice(["heads", "300w-lp"]), default="heads", show_default=True)
@click.option("--degrade/--clean", "degraded", default=True, show_default=True, help="Blur, noise, JPEG, occluders.")
@click.option(
    "--backgrounds",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Folder of pictures to put behind the heads, beside the patterns.",
)
@click.option("--gpu", default="auto", show_default=True, help="auto, none, or the number of a GPU.")
def synth(
    folder: Path, count: int, seed: int, layout: Layout, degraded: bool, backgrounds: Path | None, gpu: str
) -> None:
    """Render heads with exact landmarks into FOLDER.

    Pictures of 448 x 448 pixels, of which the networks' crop takes about 280, and what `ls3dw build --source heads
    --root FOLDER` reads; with --layout 300w-lp files as those of 300W-LP, for --source 300wlp. Run again, it writes
    what is missing; with a larger --count it adds heads.
    """
    from ls3dw.synth import render_heads

    with click.progressbar(length=count, label="heads", file=sys.stderr, hidden=not sys.stderr.isatty()) as bar:
        report = render_heads(
            folder,
            count=count,
            seed=seed,
            layout=layout,
            degraded=degraded,
            backgrounds=backgrounds,
            gpu=gpu,
            progress=lambda done, _: bar.update(done - bar.pos),
        )
    click.echo(f"{report.count} heads in {report.folder}")

"""`ls3dw diff`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from ls3dw.cli.options import json_option


@click.command()
@click.argument("dataset", type=click.Path(path_type=Path))
@click.argument("before", metavar="V1")
@click.argument("after", metavar="V2")
@click.option(
    "--moved",
    type=click.FloatRange(min=0),
    default=0.25,
    show_default=True,
    help="Mean move, in pixels of the 256-pixel crop, from which a face counts as moved.",
)
@click.option("--top", type=click.IntRange(min=0), default=12, show_default=True, help="Faces shown of each kind.")
@click.option("--gallery/--no-gallery", default=True, show_default=True, help="Write plots and a page of pairs.")
@json_option
def diff(dataset: Path, before: str, after: str, moved: float, top: int, gallery: bool, as_json: bool) -> None:
    """Say what moved from version V1 to V2: by source, yaw and landmark group, and against the sources' own points.

    Plots and a page of the faces that changed most go to galleries/V2/diff-V1 in the data set.
    """
    import ls3dw

    report = ls3dw.diff(dataset, before, after, moved=moved, top=top, gallery=gallery)
    click.echo(json.dumps(report.to_dict(), indent=1) if as_json else report.render())

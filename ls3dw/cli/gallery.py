"""`ls3dw gallery`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from ls3dw.cli.options import json_option, version_option


@click.command()
@click.argument("dataset", type=click.Path(path_type=Path))
@click.option(
    "--show",
    "shows",
    multiple=True,
    metavar="WHAT",
    help="worst, failures, confidence, disagreement, pose, jumps, changed:VERSION, drops, broken or random; repeatable,"
    " a gallery each. [default: worst, unless there is a --sheet]",
)
@click.option("--source", "sources", multiple=True, metavar="NAME", help="Only faces of this source (repeatable).")
@click.option("--subset", "subsets", multiple=True, metavar="NAME", help="Only faces of this subset (repeatable).")
@click.option("--yaw", multiple=True, metavar="BIN", help="Only faces with |yaw| of 0-30, 30-60 or 60-90 (repeatable).")
@click.option("--limit", type=click.IntRange(1), default=1000, show_default=True, help="Faces of a gallery at most.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the random sample.")
@click.option("--full/--no-full", default=True, help="With or without the pictures at full size.")
@click.option("--sheet", type=click.Path(path_type=Path), help="Write the eight worst of each source: .png or .pdf.")
@version_option
@json_option
def gallery(
    dataset: Path,
    shows: tuple[str, ...],
    sources: tuple[str, ...],
    subsets: tuple[str, ...],
    yaw: tuple[str, ...],
    limit: int,
    seed: int,
    full: bool,
    sheet: Path | None,
    version: str | None,
    as_json: bool,
) -> None:
    """Write pages on which people judge faces; they open from disk, and what they decide comes back as decisions.json.

    \b
    ls3dw gallery ls3dw-data --show worst --show jumps
    ls3dw gallery ls3dw-data --show changed:v1 --source 300vw --yaw 60-90
    ls3dw gallery ls3dw-data --sheet worst.pdf
    """
    from ls3dw.dataset.open import open_dataset
    from ls3dw.review.gallery.choose import GalleryOptions
    from ls3dw.review.gallery.writer import write_gallery
    from ls3dw.review.sheets import write_worst

    wanted = dict.fromkeys(shows or (() if sheet else ("worst",)))
    requests = [GalleryOptions(show, sources, subsets, yaw, limit, seed) for show in wanted]
    opened = open_dataset(dataset, version)
    drawn = write_worst(opened, sheet) if sheet else []
    done = [write_gallery(opened, request, full) for request in requests]
    if as_json:
        found = [{"page": str(g.page), "faces": g.faces, "total": g.total, "bytes": g.size} for g in done]
        report = {"dataset": str(dataset), "version": opened.version, "galleries": found}
        click.echo(json.dumps(report | {"sheet": sheet and str(sheet), "sheet_sources": drawn}, indent=1))
        return
    for written in done:
        more = f" of {written.total}" if written.total > written.faces else ""
        click.echo(f"{written.page}  {written.faces}{more} faces, {written.size / 1e6:.1f} MB")
    if sheet:
        click.echo(f"{sheet}  the worst of {', '.join(drawn)}")

"""`ls3dw versions`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from ls3dw.cli.options import json_option


@click.command()
@click.argument("dataset", type=click.Path(path_type=Path))
@click.argument("action", required=False, type=click.Choice(["pin", "unpin", "delete"]))
@click.argument("name", required=False)
@click.option("--force", is_flag=True, help="Delete even the last version, or one that others build on.")
@json_option
def versions(dataset: Path, action: str | None, name: str | None, force: bool, as_json: bool) -> None:
    """List the versions of DATASET, or pin, unpin or delete the version NAME.

    \b
    ls3dw versions ds
    ls3dw versions ds pin v1
    ls3dw versions ds delete v2

    A pinned version cannot be deleted. A pin does not change which version opens: that is the newest, or the one
    that is named. A deleted version takes its subsets and galleries with it; pictures always stay.
    """
    from ls3dw.dataset import versions as library

    if action and not name:
        raise click.UsageError(f"{action}: name the version")
    if force and action != "delete":
        raise click.UsageError("--force is for delete")
    if action == "pin":
        library.pin(dataset, str(name))
    elif action == "unpin":
        library.unpin(dataset, str(name))
    elif action == "delete":
        library.delete(dataset, str(name), force=force)
    listed = library.list_versions(dataset)
    click.echo(json.dumps([asdict(one) for one in listed], indent=1) if as_json else library.render_versions(listed))

"""`ls3dw audit`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import click

from ls3dw.cli.options import json_option


@click.group()
def audit() -> None:
    """What people decided on galleries (ls3dw gallery), as versions of the data set."""


@audit.command()
@click.argument("dataset", type=click.Path(path_type=Path))
@click.argument("files", type=click.Path(path_type=Path), nargs=-1, required=True, metavar="DECISIONS.JSON...")
@click.option("--version", metavar="NAME", help="The version to build on. [default: the newest]")
@click.option("--version-name", metavar="NAME", help="Of the new version. [default: the next of v2, v3, ...]")
@click.option(
    "--resolve",
    type=click.Choice(["latest", "reject"]),
    help="Where people differ, the latest verdict counts, or the strictest. [default: refuse]",
)
@click.option("--dry-run", is_flag=True, help="Say what would change and on what people differ; write nothing.")
@json_option
def apply(
    dataset: Path,
    files: tuple[Path, ...],
    version: str | None,
    version_name: str | None,
    resolve: Literal["latest", "reject"] | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Make a version without the faces that were rejected; pictures and shards stay as they are.

    Decisions of several people are merged, with those that the version has already; later versions keep them.

    \b
    ls3dw audit apply ls3dw-data ada.json grace.json --resolve reject
    """
    from dataclasses import asdict

    from ls3dw.building.audit import apply as make
    from ls3dw.building.audit import plan, render_conflicts

    if dry_run:
        planned = plan(dataset, files, version, resolve)
        audit, conflicts = planned.audit, render_conflicts(planned.audit)
        settled = audit.resolve is not None or not audit.conflicts
        if as_json:
            differ = [[asdict(decision) for decision in found] for found in audit.conflicts]
            leaves = planned.rejected if settled else None
            click.echo(
                json.dumps({"decisions": len(audit.decisions), "conflicts": differ, "rejects": leaves}, indent=1)
            )
            return
        click.echo(f"{len(audit.decisions)} decisions, {len(audit.conflicts)} faces on which people differ")
        click.echo(conflicts, nl=bool(conflicts))
        if settled:
            click.echo(f"{len(planned.rejected)} faces of version {planned.parent.version} would leave its index")
        return
    done = make(dataset, files, version, version_name, resolve)
    if as_json:
        report = {"dataset": str(dataset), "version": done.version, "parent": done.parent, "rejected": done.rejected}
        click.echo(json.dumps(report | {"subsets": done.subsets, "audit": done.audit.summary()}, indent=1))
        return
    if done.version == done.parent:
        click.echo(f"version {done.version} has all of these decisions already")
        return
    click.echo(f"version {done.version}: version {done.parent} without {done.rejected} faces that were rejected")
    for verdict, number in done.audit.summary()["verdicts"].items():
        click.echo(f"{number:>8}  {verdict}")
    for name, lost in done.subsets.items():
        click.echo(f"subset {name}: {lost} faces fewer; draw it again to fill its bins")

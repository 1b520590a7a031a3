"""`ls3dw verify`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from ls3dw.cli.options import json_option, version_option


@click.command()
@click.argument("dataset", type=click.Path(path_type=Path))
@version_option
@json_option
@click.pass_context
def verify(ctx: click.Context, dataset: Path, version: str | None, as_json: bool) -> None:
    """Check that every byte is as it was written, and that index, counts and shards agree. Exit 1 if not."""
    from ls3dw.dataset.verify import verify as check

    files, faults = check(dataset, version)
    if as_json:
        click.echo(json.dumps({"files": files, "faults": [asdict(fault) for fault in faults]}, indent=1))
    else:
        for fault in faults:
            click.echo(f"{fault.path}: {fault.problem}")
        click.echo(f"{files} files checked, {len(faults)} faults")
    if faults:
        if not as_json:
            click.echo(
                f"Error: {dataset} is not as it was written; build the named shards again or get a copy", err=True
            )
        ctx.exit(1)

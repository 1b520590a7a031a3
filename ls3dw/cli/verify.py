"""`ls3dw verify`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from ls3dw.cli.options import json_option


@click.command()
@click.argument("dataset", type=click.Path(path_type=Path))
@click.option("--version", "version", metavar="NAME", help="Only this version of the annotations. [default: all]")
@json_option
@click.pass_context
def verify(ctx: click.Context, dataset: Path, version: str | None, as_json: bool) -> None:
    """Check that every byte is as it was written, and that index, counts and shards agree. Exit 1 if not."""
    import ls3dw

    done = ls3dw.verify(dataset, version=version)
    if as_json:
        faults = [asdict(fault) for fault in done.faults]
        click.echo(json.dumps({"files": done.files, "faults": faults, "notes": done.notes}, indent=1))
    else:
        for fault in done.faults:
            click.echo(f"{fault.path}: {fault.problem}")
        for note in done.notes:
            click.echo(f"note: {note}", err=True)
        click.echo(f"{done.files} files checked, {len(done.faults)} faults")
    if done.faults:
        if not as_json:
            click.echo(f"Error: {dataset} {_ADVICE[any(fault.kind == 'damaged' for fault in done.faults)]}", err=True)
        ctx.exit(1)


_ADVICE = {
    True: "is not as it was written; build the named shards again or get a copy",
    False: "could not be read whole, which says nothing about its bytes; check disk and permissions, then try again",
}

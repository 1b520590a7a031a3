"""`ls3dw sample`."""

from __future__ import annotations

import shutil
from pathlib import Path

import click


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
def sample(folder: Path) -> None:
    """Write the embedded sample into FOLDER: rendered faces as 300W, 300VW, Menpo and AFLW2000, in real layouts."""
    from ls3dw.core.resources import folder as resource
    from ls3dw.errors import ConfigurationError

    if folder.is_dir() and any(folder.iterdir()):
        raise ConfigurationError(f"{folder}: not empty; choose a new folder")
    shutil.copytree(resource("embedded"), folder, dirs_exist_ok=True)
    for path in sorted(folder.iterdir()):
        click.echo(path)

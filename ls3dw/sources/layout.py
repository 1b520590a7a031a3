"""Finds a data set by its layout, in the given folder or one level deeper."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from ls3dw.core.files import is_system_file
from ls3dw.errors import SourceError


def existing_folder(name: str, root: str | Path) -> Path:
    """Return the absolute root of source `name`; raises SourceError if it is missing or empty."""
    folder = Path(root).absolute()
    if not folder.is_dir():
        raise SourceError(
            f"{name}: {folder} is not a folder; name the data set's, with --root {name}=DIR or, for training, as the"
            " root of its stream (--set data.0.root=DIR)"
        )
    if not visible(folder):
        raise SourceError(f"{name}: {folder} is empty; unpack the data set there or pass --root {name}=DIR")
    return folder


def visible(folder: Path) -> list[Path]:
    """List a folder, sorted, without the files of operating systems (`.DS_Store`, `._x`, `__MACOSX`, ...)."""
    try:
        return sorted(path for path in folder.iterdir() if not is_system_file(path.name))
    except OSError as error:
        raise SourceError(f"{folder}: cannot be listed ({error.strerror}); check its permissions") from error


def find(root: Path, fits: Callable[[Path], bool], hint: str) -> Path | None:
    """Return the folder that `fits`: root, or else one directly in it; None if there is none.

    Of several, the one whose name begins with `hint`. Raises SourceError if that leaves several.
    """
    if fits(root):
        return root
    # Folders that may not be listed (lost+found and the like) cannot be the data set.
    folders = [path for path in visible(root) if path.is_dir() and os.access(path, os.R_OK | os.X_OK)]
    found = [path for path in folders if fits(path)]
    named = [path for path in found if path.name.lower().startswith(hint.lower())]
    if len(found) > 1 and len(named) == 1:
        found = named
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise SourceError(f"{root}: {names} could each be the data set; pass one of them as the root")
    return found[0] if found else None


def has_files(folder: Path, suffix: str) -> bool:
    """Return whether a file with this suffix, in any letter case, lies directly in the folder."""
    return any(path.suffix.lower() == suffix for path in visible(folder))


def wrong_layout(name: str, root: Path, expected: str) -> SourceError:
    """Return the error for a folder without the data set."""
    return SourceError(
        f"{name}: nothing of the data set in {root}; expected {expected} there or one folder deeper;"
        f" pass the right folder as --root {name}=DIR"
    )

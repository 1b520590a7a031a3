"""Writes a gallery's folder whole or not at all."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ls3dw.core.files import is_safe_name
from ls3dw.dataset.gate import inside
from ls3dw.dataset.open import Dataset
from ls3dw.dataset.records import seal_folder
from ls3dw.errors import ConfigurationError


@contextmanager
def new_gallery(dataset: Dataset, name: str) -> Iterator[Path]:
    """Yield a new folder that becomes galleries/<version>/<name>, with SHA256SUMS, unless an error is raised."""
    if not is_safe_name(name):
        raise ConfigurationError(f"gallery name {name!r}: expected letters, digits, '.', '_', '+' and '-'")
    folder = dataset.store.gallery(dataset.version, name)
    inside(dataset.store.root, folder.parent)
    folder.parent.mkdir(parents=True, exist_ok=True)
    # A random name: two runs at once must not write into one folder.
    work = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        new = work / "new"
        new.mkdir()
        yield new
        seal_folder(new)
        if folder.is_symlink():
            folder.unlink()
        elif folder.exists():
            folder.rename(work / "old")
        new.rename(folder)
    finally:
        shutil.rmtree(work)

"""Files that are whole or not there: temporary name, fsync, rename. And their hashes, and the lock on a data set."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from ls3dw.errors import DatasetError, Ls3dwError

TEMPORARY = ".partial"
LOCK = ".lock"

_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,127}")


def is_safe_name(name: str) -> bool:
    """Say whether `name` can be one component of a path that ls3dw writes."""
    return _SAFE_NAME.fullmatch(name) is not None and ".." not in name and not name.endswith(TEMPORARY)


def safe_name(name: str) -> str:
    """Return `name`, or where it cannot be part of a path a spelling that can, and that other names do not share."""
    if is_safe_name(name):
        return name
    letters = re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_")[:40]
    return f"x{letters}-{sha256(name.encode('utf-8', 'surrogatepass'))[:12]}"


SYSTEM_FILES: Final = frozenset(
    {".ds_store", "__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "system volume information"}
    | {".spotlight-v100", ".trashes", ".fseventsd", ".temporaryitems", ".appledouble", ".directory", "@eadir"}
    | {"lost+found"}
)
"""Names, in lower case, that macOS, Windows, Linux desktops and network drives write into folders on their own."""


def is_system_file(name: str) -> bool:
    """Tell whether an operating system wrote a file or folder of this name: those above, `._x` and `.nfs...`."""
    return name.lower() in SYSTEM_FILES or name.startswith(("._", ".nfs"))


def folded(name: str) -> str:
    """Return a name in one Unicode form and case, to find names that differ only in these."""
    return name.lower() if name.isascii() else unicodedata.normalize("NFC", name).casefold()


def sha256(data: bytes | memoryview) -> str:
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def dump_json(value: Any) -> bytes:
    """Encode as JSON that is the same for the same value: sorted keys, UTF-8, no NaN."""
    return (json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def read_json(path: Path, error_kind: type[Ls3dwError] = DatasetError) -> Any:
    """Read a JSON file that ls3dw wrote; an error of that kind when it is missing or damaged."""
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise error_kind(f"{path}: cannot be read ({error.strerror}); expected a file that ls3dw wrote") from error
    except ValueError as error:
        raise error_kind(f"{path}: damaged, not JSON ({error}); make it or get it again") from error


def write_atomic(path: Path, data: bytes | memoryview) -> None:
    """Write a file so that after a crash at any moment it is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + TEMPORARY)
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException as error:
        partial.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_partial(folder: Path) -> None:
    """Remove what an interrupted run left half-written under `folder`."""
    for partial in sorted(folder.rglob(f"*{TEMPORARY}")):
        if partial.is_dir():
            shutil.rmtree(partial)
        else:
            partial.unlink(missing_ok=True)  # perhaps it was in such a folder


@contextlib.contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold the data set in `folder` for one build; the system lets go of it when the process ends, however it ends."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DatasetError(
                f"{folder}: in use by another ls3dw process; wait for it to end or choose another --out"
            ) from error
        yield

"""Writes files whole or not at all, reads JSON, hashes, and locks a data set for one writer."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import logging
import os
import re
import secrets
import shutil
import stat
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from ls3dw.errors import DatasetError, Ls3dwError

log = logging.getLogger(__name__)

TEMPORARY: Final = ".partial"
LOCK: Final = ".lock"

MAX_JSON: Final = 256 << 20
"""Largest JSON file that is read, bytes: decisions of five people on each of 230,000 faces."""

_NO_LOCKS: Final = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)
"""What `flock` fails with on file systems without locks."""

_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,127}")

_OURS = re.compile(r".*\.[0-9a-f]{16}\.partial", re.DOTALL)
"""Names that `write_atomic` gives."""

_OURS_BEFORE = re.compile(r".+\.(h5|json|parquet|md|png|jpg|html|js|css|mat|csv)\.partial", re.DOTALL)
"""Names that it gave in folders of a data set up to version 0.1."""

_OUR_FOLDERS: Final = ("annotations", "subsets", "galleries")
"""Where folders are renamed to end in `TEMPORARY` before they are deleted."""


def is_safe_name(name: object) -> bool:
    """Return whether `name` can be one component of a path that ls3dw writes."""
    if not isinstance(name, str) or _SAFE_NAME.fullmatch(name) is None:
        return False
    return ".." not in name and not name.endswith(TEMPORARY)


def safe_name(name: str) -> str:
    """Return `name` if it can be part of a path, else a unique spelling that can."""
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
    """Encode as JSON, the same bytes for the same value: sorted keys, UTF-8, no NaN."""
    return (json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def read_json(path: Path, error_kind: type[Ls3dwError] = DatasetError) -> Any:
    """Read a JSON file of at most `MAX_JSON` bytes; raise `error_kind` if it is missing or damaged."""
    try:
        status = path.stat()
        if stat.S_ISREG(status.st_mode) and status.st_size > MAX_JSON:
            raise error_kind(f"{path}: {status.st_size} bytes; expected at most {MAX_JSON}")
        return json.loads(path.read_bytes())
    except OSError as error:
        raise error_kind(f"{path}: cannot be read ({error.strerror}); expected a file that ls3dw wrote") from error
    except RecursionError as error:
        raise error_kind(f"{path}: damaged, nested too deeply; make it or get it again") from error
    except ValueError as error:
        if isinstance(error, Ls3dwError):
            raise
        raise error_kind(f"{path}: damaged, not JSON ({error}); make it or get it again") from error


def write_atomic(path: Path, data: bytes | memoryview) -> None:
    """Write a file so that after a crash at any moment it is there whole or not at all.

    The bytes go to a new file with a random name, which then takes the place of `path`: a symbolic link there is
    replaced, never followed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_path(path)
    try:
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException as error:
        partial.unlink(missing_ok=True)
        if isinstance(error, OSError) and (error.filename is None or error.filename == str(partial)):
            error.filename = str(path)
        raise
    _sync_folder(path.parent)


def partial_path(path: Path) -> Path:
    """Return a new random name beside `path`, for what will take its place."""
    # File systems allow 255 bytes, and the random part takes 25.
    stem = path.name if len(os.fsencode(path.name)) <= 230 else ""
    return path.with_name(f"{stem}.{secrets.token_hex(8)}{TEMPORARY}")


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_partial(folder: Path) -> None:
    """Remove half-written files that an interrupted run left under `folder`.

    Only regular files with names of `write_atomic`, and folders that were being deleted; never through links. In
    `folder` itself a user's `thesis.partial` stays.
    """
    for parent, folders, files in os.walk(folder, followlinks=False):
        at = Path(parent)
        place = at.relative_to(folder).parts
        for name in files:
            ours = _OURS.fullmatch(name) or (place and _OURS_BEFORE.fullmatch(name))
            if ours and stat.S_ISREG((at / name).lstat().st_mode):
                (at / name).unlink(missing_ok=True)
        if place and place[0] in _OUR_FOLDERS:
            for name in [name for name in folders if name.endswith(TEMPORARY) and not (at / name).is_symlink()]:
                folders.remove(name)
                shutil.rmtree(at / name)


@contextlib.contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold the folder for one process that writes; the system releases it when the process ends.

    Where the file system has no locks (NFS without lockd, some FUSE), warns and goes on without one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with os.fdopen(os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666), "a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DatasetError(
                f"{folder}: in use by another ls3dw process; wait for it to end or choose another --out"
            ) from error
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            log.warning(
                "%s: this file system has no locks (%s); do not run a second ls3dw that writes here: both would write"
                " the same files, and faces could be lost",
                folder,
                error.strerror,
            )
        yield

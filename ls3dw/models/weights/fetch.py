"""Downloads published weights: resumes, checks, tries mirrors in order."""

from __future__ import annotations

import fcntl
import http
import http.client
import json
import os
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final
from urllib.parse import urlsplit

from ls3dw.core.files import TEMPORARY, sha256_file
from ls3dw.errors import ModelError
from ls3dw.models.weights.cache import PublishedWeights
from ls3dw.models.weights.formats import LARGEST

CHUNK: Final = 2**17
TRIES: Final = 4
"""Tries of one address when transfers break off or stall."""

Report = Callable[[int, int | None], None]
"""Progress callback: bytes so far, bytes in all or None."""


@dataclass(frozen=True)
class FetchOptions:
    """mirrors: addresses of folders (http, https, file), tried before the published ones; timeout: seconds without a
    byte; pause: seconds before the next try, doubled each time."""

    mirrors: Sequence[str] = ()
    offline: bool = False
    timeout: float = 30.0
    pause: float = 1.0


class _BrokenOffError(Exception):
    """A transfer that may be resumed."""


class _RefusedError(Exception):
    """An address that does not have the file."""


def fetch(item: PublishedWeights, options: FetchOptions, report: Report = lambda done, total: None) -> Path:
    """Return the published file in the cache; download it, or the rest of it, first.

    Raises `ModelError` when no address has it with the published checksum.
    """
    target = item.download
    if target.is_file():
        return _checked(item, target)
    addresses = [url for url in _addresses(item, options) if url.startswith("file:") or not options.offline]
    if not addresses:
        raise ModelError(f"{item.name}: {target} is not there, and --offline forbids the network; put the file there")
    target.parent.mkdir(parents=True, exist_ok=True)
    faults = []
    with _alone(target) as partial:
        for url in addresses:
            try:
                _get(item, url, partial, options, report)
                _take_over(item, partial)
                return target
            except _RefusedError as error:
                faults.append(f"{url}: {error}")
    advice = "check the connection, name a --mirror, or put the file into " + str(target.parent)
    raise ModelError(f"{item.name}: not fetched. {'; '.join(faults)}. What to do: {advice}")


def _addresses(item: PublishedWeights, options: FetchOptions) -> Iterator[str]:
    for folder in (*options.mirrors, *item.urls):
        if urlsplit(folder).scheme not in ("http", "https", "file"):
            raise ModelError(f"mirror {folder!r}: expected an address that begins with https://, http:// or file://")
        yield folder if folder.endswith(f"/{item.file}") else f"{folder.rstrip('/')}/{item.file}"


def _checked(item: PublishedWeights, path: Path) -> Path:
    """Check a fetched file; delete a damaged one, so that the next fetch gets it again."""
    try:
        item.check(sha256_file(path), path)
    except ModelError as error:
        path.unlink()
        raise ModelError(f"{error}: the damaged file is deleted, fetch once more") from None
    return path


def _take_over(item: PublishedWeights, partial: Path) -> None:
    """Rename a complete download, or delete it when its checksum is wrong."""
    try:
        item.check(sha256_file(partial), "the download")
    except ModelError as error:
        _forget(partial)
        raise _RefusedError(f"{error}; deleted") from None
    partial.replace(item.download)
    _notes(partial).unlink(missing_ok=True)


@contextmanager
def _alone(target: Path) -> Iterator[Path]:
    """Lock the download against other processes; the system unlocks it when this one ends."""
    with target.with_name(f".{target.name}.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ModelError(f"{target}: another process is fetching it; wait for it to end") from None
        yield target.with_name(target.name + TEMPORARY)


def _get(item: PublishedWeights, url: str, partial: Path, options: FetchOptions, report: Report) -> None:
    """Download `url` to `partial`, resuming if possible."""
    pause = options.pause
    for attempt in range(1, TRIES + 1):
        try:
            return _transfer(url, partial, item.sha256 is not None, options.timeout, report)
        except _BrokenOffError as error:
            if attempt == TRIES:
                raise _RefusedError(f"{error}, {TRIES} times; what came is kept") from None
        time.sleep(pause)
        pause *= 2
    return None


def _transfer(url: str, partial: Path, checked: bool, timeout: float, report: Report) -> None:
    """Make one request and write its body. checked: the file has a checksum. Raises the errors above."""
    request = urllib.request.Request(url, headers={"User-Agent": "ls3dw", **_resume(url, partial, checked)})
    with _network(timeout, partial), urllib.request.urlopen(request, timeout=timeout) as answer:
        start, total = _place(answer, partial)
        _note(url, answer, total, partial)
        with partial.open("r+b" if start else "wb") as file:
            file.truncate(start)
            file.seek(start)
            _copy(answer, file, total, report)
            file.flush()
            os.fsync(file.fileno())


def _copy(answer: Any, file: BinaryIO, total: int | None, report: Report) -> None:
    report(file.tell(), total)
    # read1 returns what has arrived, so nothing is lost in a stall.
    while chunk := answer.read1(CHUNK):
        file.write(chunk)
        done = file.tell()
        if done > LARGEST or (total is not None and done > total):
            raise _RefusedError(f"sends more than {min(total or LARGEST, LARGEST)} bytes")
        report(done, total)
    if total is not None and file.tell() < total:
        raise _BrokenOffError(f"broke off after {file.tell()} of {total} bytes")


@contextmanager
def _network(timeout: float, partial: Path) -> Iterator[None]:
    """Turn network errors into `_BrokenOffError` (try again) or `_RefusedError`."""
    try:
        yield
    except urllib.error.HTTPError as error:
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            # The partial file is longer than the server's: another file.
            _forget(partial)
            raise _BrokenOffError("has nothing past what is here") from error
        if error.code >= http.HTTPStatus.INTERNAL_SERVER_ERROR or error.code == http.HTTPStatus.TOO_MANY_REQUESTS:
            raise _BrokenOffError(f"{error.code} {error.reason}") from error
        raise _RefusedError(f"{error.code} {error.reason}") from error
    except TimeoutError as error:
        raise _BrokenOffError(f"no byte for {timeout:g} s") from error
    except (http.client.HTTPException, ConnectionError, ssl.SSLError) as error:
        raise _BrokenOffError(f"broke off ({type(error).__name__})") from error
    except urllib.error.URLError as error:
        raise _unreached(error.reason, timeout) from error


def _unreached(reason: Any, timeout: float) -> Exception:
    if isinstance(reason, TimeoutError):
        return _BrokenOffError(f"no answer for {timeout:g} s")
    if isinstance(reason, ConnectionResetError):
        return _BrokenOffError("connection reset")
    return _RefusedError(str(reason))


def _resume(url: str, partial: Path, checked: bool) -> dict[str, str]:
    """Return headers that request the rest, if a mix of two files would be noticed by the server's validator or the
    checksum. Otherwise delete the partial file."""
    notes = _read_notes(partial)
    size = partial.stat().st_size if partial.is_file() else 0
    validator = notes.get("validator")
    if size == 0 or notes.get("url") != url or url.startswith("file:") or not (validator or checked):
        _forget(partial)
        return {}
    return {"Range": f"bytes={size}-"} | ({"If-Range": validator} if validator else {})


def _place(answer: Any, partial: Path) -> tuple[int, int | None]:
    """Return the offset of the body and the file's length; without support for ranges the offset is 0."""
    length = answer.headers.get("Content-Length")
    length = int(length) if length and length.isdigit() else None
    if getattr(answer, "status", None) != http.HTTPStatus.PARTIAL_CONTENT:
        return 0, length
    have = partial.stat().st_size if partial.is_file() else 0
    unit, _, span = answer.headers.get("Content-Range", "").partition(" ")
    place, _, total = span.partition("/")
    before = _read_notes(partial).get("total", total)
    if unit != "bytes" or place.partition("-")[0] != str(have) or not total.isdigit() or total != before:
        _forget(partial)
        raise _BrokenOffError(f"sent another part than was asked for ({span or 'unnamed'})")
    return have, int(total)


def _note(url: str, answer: Any, total: int | None, partial: Path) -> None:
    """Save the validator of the file, for resuming later."""
    tag = answer.headers.get("ETag", "")
    notes = {"url": url, "validator": tag if tag and not tag.startswith("W/") else answer.headers.get("Last-Modified")}
    if total is not None:
        notes["total"] = str(total)
    _notes(partial).write_text(json.dumps(notes), encoding="utf-8")


def _notes(partial: Path) -> Path:
    return partial.with_name(partial.name + ".json")


def _read_notes(partial: Path) -> dict[str, Any]:
    try:
        notes = json.loads(_notes(partial).read_bytes())
    except (OSError, ValueError):
        return {}
    return notes if isinstance(notes, dict) else {}


def _forget(partial: Path) -> None:
    partial.unlink(missing_ok=True)
    _notes(partial).unlink(missing_ok=True)

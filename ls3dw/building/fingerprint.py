"""Recognises a source that changed while a build was interrupted."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping
from typing import Any

from ls3dw.core.sample import Media


def fingerprint(media: Media, *, content: bool = True) -> dict[str, Any]:
    """Return number, bytes and SHA-256 of the names and sizes of a media's files, and of their content if asked for.

    Folders do not count, so that a source may move. Of a file that cannot be read only name and size count: reading its
    unit reports it.
    """
    names, whole = hashlib.sha256(), hashlib.sha256()
    number = nbytes = 0
    for path in media.files():
        size = path.stat().st_size if path.is_file() else 0
        if content and size:
            with contextlib.suppress(OSError), path.open("rb") as file:
                whole.update(hashlib.file_digest(file, "sha256").digest())
        names.update(f"{path.name}\0{size}\0".encode(errors="surrogateescape"))
        number, nbytes = number + 1, nbytes + size
    known = {"files": number, "bytes": nbytes, "names": names.hexdigest()}
    return known | ({"content": whole.hexdigest()} if content else {})


def difference(known: Mapping[str, Any], media: Media, *, content: bool) -> str:
    """Describe how a media's files differ from a fingerprint; empty if they do not. content: compare that too."""
    now = fingerprint(media, content=content)
    if all(known[key] == value for key, value in now.items()):
        return ""
    if (known["files"], known["bytes"]) != (now["files"], now["bytes"]):
        return f"had {known['files']} files of {known['bytes']} bytes, has {now['files']} of {now['bytes']} bytes now"
    what = "content" if known["names"] == now["names"] else "names or sizes"
    return f"the {what} of its {now['files']} files changed"

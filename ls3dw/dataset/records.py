"""SHA-256 of the files that no manifest lists: subsets, galleries, the card. The lists are in the form of sha256sum."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal

from ls3dw.core.files import sha256, sha256_file, write_atomic
from ls3dw.errors import DatasetError

SUMS_SUFFIX: Final = ".sha256"
"""subsets/<version>/<name>.sha256: of the files of one subset."""

SUMS: Final = "SHA256SUMS"
"""galleries/<version>/<name>/SHA256SUMS: of all other files in the folder."""

_LINE: Final = re.compile(r"([0-9a-f]{64})  ([A-Za-z0-9][A-Za-z0-9._+-]*(?:/[A-Za-z0-9][A-Za-z0-9._+-]*)*)")

_SEAL_HEAD: Final = b"<!-- SHA-256 of the text above: "
_SEAL_TAIL: Final = b" -->\n"
_SEAL_SIZE: Final = len(_SEAL_HEAD) + 64 + len(_SEAL_TAIL)

Seal = Literal["whole", "damaged", "none"]


def dump_sums(digests: Mapping[str, str]) -> bytes:
    """Encode digests by relative path, as `sha256sum --check` reads them."""
    return "".join(f"{digest}  {name}\n" for name, digest in sorted(digests.items())).encode()


def read_sums(path: Path) -> dict[str, str]:
    """Read digests by relative path; `DatasetError` where a byte is not as `dump_sums` writes it."""
    data = path.read_bytes()
    lines = [_LINE.fullmatch(line) for line in data.decode("ascii", "replace").split("\n")[:-1]]
    digests = {line[2]: line[1] for line in lines if line}
    if dump_sums(digests) != data or any(".." in name for name in digests):
        raise DatasetError(f"{path}: damaged, not a list of SHA-256 as ls3dw writes it; make its files again")
    return digests


def seal_folder(folder: Path) -> None:
    """Write SHA256SUMS for all files below a folder."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != SUMS)
    digests = {path.relative_to(folder).as_posix(): sha256_file(path) for path in files}
    write_atomic(folder / SUMS, dump_sums(digests))


def seal_text(text: str) -> bytes:
    """Encode a Markdown text with a comment at its end that holds its SHA-256."""
    data = text.encode()
    return data + _SEAL_HEAD + sha256(data).encode() + _SEAL_TAIL


def check_seal(data: bytes) -> Seal:
    """Compare a text with the SHA-256 at its end; "none" if an older ls3dw wrote it without one."""
    text, seal = data[:-_SEAL_SIZE], data[-_SEAL_SIZE:]
    if seal == _SEAL_HEAD + sha256(text).encode() + _SEAL_TAIL:
        return "whole"
    # A damaged seal still looks like one.
    alike = sum(one == other for one, other in zip(seal, _SEAL_HEAD, strict=False))
    return "damaged" if alike > len(_SEAL_HEAD) // 2 else "none"

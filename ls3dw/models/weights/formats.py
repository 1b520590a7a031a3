"""Reads the tensors of a weights file; the format is found by content, not by name. No code of a file is run."""

from __future__ import annotations

import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor

from ls3dw.errors import Ls3dwError, ModelError
from ls3dw.models.weights import torch7
from ls3dw.models.weights.pth import read_pth, unwrap

LARGEST: Final = 2**31
"""Bytes of a weights file; a FAN of four stacks has 96 MB."""

LARGEST_HEADER: Final = 2**22
"""Bytes of a safetensors header, which takes up to twenty times as much memory once parsed; a large FAN has 100 kB."""


@dataclass(frozen=True)
class Weights:
    """Tensors by key. format: for people; network: class and arguments, if the file has them."""

    format: str
    tensors: dict[str, Tensor]
    network: Mapping[str, Any] = field(default_factory=dict)


def read_weights(path: Path) -> Weights:
    """Read a state dict (`.pth`, `.pth.tar`, `.pt`), TorchScript, safetensors or Torch7 file.

    Prefixes of wrappers (`module.` and others) are removed from the keys; `format` names them.
    """
    head = read_head(path)
    if _is_safetensors(head):
        found = Weights("safetensors", parse_safetensors(path.read_bytes(), path))
    elif head[:2] == b"\x1f\x8b" or head[257:262] == b"ustar":
        found = _read_tar(path)
    elif path.suffix == ".t7":
        found = _read_torch7(path)
    else:
        file = read_pth(path)
        found = Weights(file.format, file.tensors)
    prefix, keys = unwrap(found.tensors)
    note = f", keys under {prefix!r}" if prefix else ""
    return Weights(found.format + note, {key: found.tensors[old] for key, old in keys.items()}, found.network)


def read_head(path: Path) -> bytes:
    """Return the first 512 bytes; `ModelError` for a file that is too large, or has too large a safetensors header."""
    size = path.stat().st_size
    if size > LARGEST:
        raise ModelError(f"{path}: {size} bytes, expected at most {LARGEST}; this is no weights file of ls3dw")
    with path.open("rb") as file:
        head = file.read(512)
    if _is_safetensors(head) and (header := int.from_bytes(head[:8], "little")) > min(LARGEST_HEADER, size):
        raise ModelError(
            f"{path}: damaged, not a safetensors file: a safetensors header of {header} bytes, expected at most"
            f" {min(LARGEST_HEADER, size)}; get it again"
        )
    return head


def _is_safetensors(head: bytes) -> bool:
    return head[8:9] == b"{" and head[:2] not in (b"PK", b"\x1f\x8b") and head[257:262] != b"ustar"


def parse_safetensors(data: bytes, where: object) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file whose head `read_head` has checked."""
    try:
        return load_safetensors(data)
    except (SafetensorError, LookupError, ValueError, TypeError, RuntimeError, OverflowError) as error:
        raise ModelError(f"{where}: damaged, not a safetensors file ({error!s:.100}); get it again") from error


def _read_tar(path: Path) -> Weights:
    """Read the one Torch7 file of a tar archive, by way of a temporary file: no member's name is used for writing."""
    try:
        with tarfile.open(path) as archive, tempfile.NamedTemporaryFile(suffix=".t7") as copy:
            member = _torch7_member(archive, path)
            source = archive.extractfile(member)
            while source is not None and (chunk := source.read(2**20)):
                copy.write(chunk)
            copy.flush()
            try:
                found = _read_torch7(Path(copy.name))
            except Ls3dwError as error:
                named = str(error).replace(copy.name, f"{path} ({member.name:.80})")
                raise ModelError(named) from error
    except (tarfile.TarError, EOFError, ValueError, OSError) as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(f"{path}: damaged, the tar archive cannot be read ({error!s:.100}); get it again") from error
    return Weights(f"{found.format} in a tar archive", found.tensors, found.network)


def _torch7_member(archive: tarfile.TarFile, path: Path) -> tarfile.TarInfo:
    found = []
    total = 0
    for member in archive:
        # Sizes are added up header by header, so that an endless compressed archive ends here.
        total += member.size
        if total > LARGEST:
            raise ModelError(f"{path}: unpacks to more than {LARGEST} bytes; this is no weights file of ls3dw")
        if member.isreg() and member.name.endswith(".t7") and not Path(member.name).name.startswith("."):
            found.append(member)
    if len(found) != 1:
        raise ModelError(f"{path}: a tar archive with {len(found)} .t7 files, expected one")
    return found[0]


def _read_torch7(path: Path) -> Weights:
    found = torch7.read(path)
    return Weights("Torch7", dict(found.state), found.network)

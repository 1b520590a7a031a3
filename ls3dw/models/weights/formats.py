"""Reads the tensors of a weights file, whatever its format; the content tells it, not the name."""

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
from ls3dw.models.weights.pth import read_pth

LARGEST: Final = 2**31
"""Bytes of a weights file; a FAN of four stacks has 96 MB."""

MOST_HEADER: Final = 1 << 22
"""Bytes of a safetensors header, which takes many times its size to parse; a thousand tensors need 100 kB."""


@dataclass(frozen=True)
class Weights:
    """Tensors by their keys. format: in words; network: class and arguments, where the file says them."""

    format: str
    tensors: dict[str, Tensor]
    network: Mapping[str, Any] = field(default_factory=dict)


def read_weights(path: Path) -> Weights:
    """Read a state dict (`.pth`, `.pth.tar`, `.pt`), TorchScript, safetensors, or Torch7 file, without running code."""
    size = path.stat().st_size
    if size > LARGEST:
        raise ModelError(f"{path}: {size} bytes, expected at most {LARGEST}")
    with path.open("rb") as file:
        head = file.read(512)
    header = int.from_bytes(head[:8], "little")
    if head[8:9] == b"{" and header < size:
        if header > MOST_HEADER:
            raise ModelError(f"{path}: a safetensors header of {header} bytes, expected at most {MOST_HEADER}")
        return _read_safetensors(path)
    if head[:2] == b"\x1f\x8b" or head[257:262] == b"ustar":
        return _read_tar(path)
    if path.suffix == ".t7":
        return _read_torch7(path)
    found = read_pth(path)
    return Weights(found.format, found.tensors)


def _read_safetensors(path: Path) -> Weights:
    try:
        return Weights("safetensors", load_safetensors(path.read_bytes()))
    except (SafetensorError, LookupError, ValueError, TypeError, RuntimeError, OverflowError) as error:
        raise ModelError(f"{path}: damaged, not a safetensors file ({error!s:.100}); get it again") from error


def _read_tar(path: Path) -> Weights:
    """Read the one Torch7 file in a tar archive. It goes to a temporary file: nothing is written by a member's name."""
    try:
        with tarfile.open(path) as archive, tempfile.NamedTemporaryFile(suffix=".t7") as copy:
            member = _torch7_member(archive, path)
            source = archive.extractfile(member)
            while source is not None and (chunk := source.read(2**20)):
                copy.write(chunk)
            copy.flush()
            found = _read_copy(Path(copy.name), f"{path} ({member.name:.80})")
    except (tarfile.TarError, EOFError, ValueError, OSError) as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(f"{path}: damaged, the tar archive cannot be read ({error!s:.100}); get it again") from error
    return Weights(f"{found.format} in a tar archive", found.tensors, found.network)


def _read_copy(copy: Path, where: str) -> Weights:
    """Read a temporary copy; an error speaks of the file that the user knows."""
    try:
        return _read_torch7(copy)
    except Ls3dwError as error:
        raise ModelError(str(error).replace(str(copy), where)) from error


def _torch7_member(archive: tarfile.TarFile, path: Path) -> tarfile.TarInfo:
    found = []
    total = 0
    for member in archive:
        # Headers are read one after the other, so that a compressed endless archive ends here.
        total += member.size
        if total > LARGEST:
            raise ModelError(f"{path}: unpacks to more than {LARGEST} bytes")
        if member.isreg() and member.name.endswith(".t7") and not Path(member.name).name.startswith("."):
            found.append(member)
    if len(found) != 1:
        raise ModelError(f"{path}: a tar archive with {len(found)} .t7 files, expected one")
    return found[0]


def _read_torch7(path: Path) -> Weights:
    from ls3dw.models.weights import torch7

    found = torch7.read(path)
    return Weights("Torch7", dict(found.state), found.network)

"""Reads the tensors of PyTorch's own files without unpickling: archives (since 1.6), TorchScript, and older streams."""

from __future__ import annotations

import io
import math
import mmap
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from ls3dw.core.formats.pickle_reader import PickledObject, StorageNote, TensorNote, read_pickle
from ls3dw.errors import ModelError

MAGIC: Final = 0x1950A86A20F9469CFC6C
"""The first pickle of a file by `torch.save` before version 1.6."""

VERSION: Final = 1001

UNDER: Final = ("state_dict", "model_state_dict", "model", "network", "net")
"""Where training checkpoints keep the state dict."""

MOST_DEPTH: Final = 64
"""Levels of modules in a TorchScript archive; a FAN has five."""

DTYPES: Final[dict[str, torch.dtype]] = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


@dataclass(frozen=True)
class PthFile:
    """What a file by PyTorch holds: its format in words, and its state dict."""

    format: str
    tensors: dict[str, Tensor]


def read_pth(path: Path) -> PthFile:
    """Read a file by `torch.save` or `torch.jit.save`; `ModelError` when it is damaged or needs code to be run."""
    with path.open("rb") as file:
        # By its first bytes: zipfile.is_zipfile lets errors of a damaged directory through.
        if file.read(4) == b"PK\x03\x04":
            return _read_archive(path)
        if path.stat().st_size == 0:
            raise ModelError(f"{path}: empty; get the file again")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _read_stream(data, str(path))


def _read_archive(path: Path) -> PthFile:
    try:
        with zipfile.ZipFile(path) as archive:
            return _from_archive(_Members(archive, path))
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError, LookupError, EOFError, OSError) as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(f"{path}: damaged, the archive cannot be read ({error!s:.100}); get it again") from error


class _Members:
    """The members of an archive by `torch.save`, whose sizes are checked before memory is taken for them."""

    def __init__(self, archive: zipfile.ZipFile, path: Path) -> None:
        self._archive = archive
        self.path = path
        self._length = path.stat().st_size
        roots = [name for name in archive.namelist() if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(roots) != 1:
            raise ModelError(f"{path}: a zip archive without one data.pkl, so not weights by PyTorch")
        self.folder = roots[0].removesuffix("data.pkl")

    def has(self, name: str) -> bool:
        return any(member.startswith(self.folder + name) for member in self._archive.namelist())

    def read(self, name: str) -> bytes:
        member = self._archive.NameToInfo.get(self.folder + name)
        if member is None:
            raise ModelError(f"{self.path}: damaged, {name[:80]!r} is missing; get it again")
        if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
            raise ModelError(f"{self.path}: {name[:80]!r} is compressed; PyTorch writes it as it stands")
        if member.header_offset + member.file_size > self._length:
            raise ModelError(f"{self.path}: damaged, {name[:80]!r} reaches past its end; get it again")
        return self._archive.read(member)


def _from_archive(members: _Members) -> PthFile:
    where = str(members.path)
    if members.has("byteorder") and members.read("byteorder") != b"little":
        raise ModelError(f"{where}: written on a big-endian machine; save it again on another")
    script = members.has("constants.pkl")
    root = read_pickle(io.BytesIO(members.read("data.pkl")), where, script).root
    notes = _of_modules(root, where) if script else _of_tables(root, where)
    kind = "TorchScript archive" if script else "PyTorch archive"
    return PthFile(kind, _tensors(notes, lambda storage: members.read(f"data/{storage.key}"), where))


def _read_stream(data: mmap.mmap, where: str) -> PthFile:
    """Read a file of the form before 1.6: magic number, version, system, root, keys, the storages in that order."""
    if data[:1] != b"\x80":
        raise ModelError(f"{where}: not a weights file; expected .pth, .pth.tar, .pt, .zip, .safetensors or .t7")
    if read_pickle(data, where).root != MAGIC:
        raise ModelError(f"{where}: a pickle that torch.save did not write; save the network's state_dict() with it")
    if read_pickle(data, where).root != VERSION:
        raise ModelError(f"{where}: another version of PyTorch's old format than {VERSION}; save it again")
    system = read_pickle(data, where).root
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise ModelError(f"{where}: written on a big-endian machine; save it again on another")
    body, keys = read_pickle(data, where), read_pickle(data, where).root
    places = _places(data.tell(), keys, body.storages, where)
    notes = _of_tables(body.root, where)
    return PthFile("PyTorch file of the old form", _tensors(notes, lambda note: _cut(data, places, note, where), where))


def _places(start: int, keys: Any, storages: dict[str, StorageNote], where: str) -> dict[str, int]:
    """Find where each storage lies: one after the other in the order of the keys, eight bytes before each."""
    places = {}
    for key in keys if isinstance(keys, list) else [None]:
        if not isinstance(key, str) or key not in storages:
            raise ModelError(f"{where}: damaged, its list of storages is another than its tensors'; get it again")
        places[key] = start
        start += 8 + _bytes_of(storages[key], where)
    return places


def _cut(data: mmap.mmap, places: dict[str, int], note: StorageNote, where: str) -> bytes:
    start = places.get(note.key, len(data))
    length = _bytes_of(note, where)
    if start + 8 + length > len(data) or int.from_bytes(data[start : start + 8], "little") != note.count:
        raise ModelError(f"{where}: cut short or damaged at storage {note.key[:40]!r}; get it again")
    return data[start + 8 : start + 8 + length]


def _bytes_of(note: StorageNote, where: str) -> int:
    if note.dtype not in DTYPES:
        raise ModelError(f"{where}: a tensor of type {note.dtype[:40]!r}; expected one of {', '.join(DTYPES)}")
    return note.count * DTYPES[note.dtype].itemsize


def _of_tables(root: Any, where: str) -> dict[str, TensorNote]:
    """Find the state dict: the root itself, or what a training checkpoint keeps it under."""
    if not isinstance(root, dict):
        raise ModelError(f"{where}: holds no table of tensors; save the network's state_dict() and import that")
    if not any(isinstance(value, TensorNote) for value in root.values()):
        inside = [root[name] for name in UNDER if isinstance(root.get(name), dict)]
        if not inside:
            raise ModelError(f"{where}: no tensors at its head, nor under {' or '.join(UNDER)}")
        root = inside[0]
    for key, value in root.items():
        if not isinstance(key, str) or not isinstance(value, TensorNote):
            raise ModelError(f"{where}: {str(key)[:80]!r} is no tensor; expected a state dict of tensors alone")
    return dict(root)


def _of_modules(root: Any, where: str) -> dict[str, TensorNote]:
    """Collect the tensors of a tree of TorchScript modules under their dotted names."""
    notes: dict[str, TensorNote] = {}
    seen: set[int] = set()
    left: list[tuple[str, Any]] = [("", root)]
    while left:
        prefix, module = left.pop()
        if id(module) in seen or not isinstance(module, PickledObject) or not isinstance(module.state, dict):
            continue
        seen.add(id(module))
        for name, value in module.state.items():
            if isinstance(value, TensorNote):
                notes[f"{prefix}{name}"] = value
            elif prefix.count(".") < MOST_DEPTH:
                left.append((f"{prefix}{name}.", value))
    if not notes:
        raise ModelError(f"{where}: a TorchScript archive without parameters (frozen?); import the state dict instead")
    return notes


def _tensors(notes: dict[str, TensorNote], read: Callable[[StorageNote], bytes], where: str) -> dict[str, Tensor]:
    """Read the tensors, each storage once."""
    storages: dict[str, Tensor] = {}
    tensors = {}
    for name, note in notes.items():
        storage = note.storage
        if storage.key not in storages:
            storages[storage.key] = _read_storage(storage, read, where)
        tensors[name] = _view(storages[storage.key], note, f"{where}: {name[:80]!r}")
    return tensors


def _read_storage(note: StorageNote, read: Callable[[StorageNote], bytes], where: str) -> Tensor:
    length = _bytes_of(note, where)
    data = read(note)
    if len(data) != length:
        raise ModelError(f"{where}: damaged, storage {note.key[:40]!r} has {len(data)} bytes, expected {length}")
    dtype = DTYPES[note.dtype]
    return torch.frombuffer(bytearray(data), dtype=dtype) if data else torch.empty(0, dtype=dtype)


def _view(storage: Tensor, note: TensorNote, where: str) -> Tensor:
    """Copy a tensor out of its storage."""
    offset = note.offset + (note.storage.view[0] if note.storage.view else 0)
    # A stride of 0 could make a tensor of any size from one number.
    if math.prod(note.size) > len(storage):
        raise ModelError(f"{where} is {note.size}, more numbers than its storage has ({len(storage)})")
    last = offset + sum((size - 1) * stride for size, stride in zip(note.size, note.stride, strict=True))
    if 0 not in note.size and last >= len(storage):
        raise ModelError(f"{where} reaches past its storage ({last} of {len(storage)}); get the file again")
    return storage.as_strided(note.size, note.stride, offset).clone(memory_format=torch.contiguous_format)

"""Reads tensors of PyTorch files without unpickling: archives (since 1.6), TorchScript, and older streams."""

from __future__ import annotations

import io
import math
import mmap
import re
import zipfile
from collections.abc import Callable, Iterable
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
"""Usual keys of the state dict in a training checkpoint, the likeliest first."""

AVERAGED: Final = ("ema", "ema_model", "model_ema", "module_ema", "averaged_model", "shadow")
"""Usual names of the moving average of the weights."""

WRAPPED: Final = re.compile(rf"(?:(?:module|_orig_mod|model|online_model|network|net|{'|'.join(AVERAGED)})\.)*")
"""Prefixes that DataParallel, torch.compile, Lightning and averaging put before the keys of a network."""

FIRST: Final = "conv1.weight"
"""Key that both FAN and the depth network have."""

LARGEST_SHARE: Final = 2
"""Most bytes of all tensors, in sizes of their file: tensors may share storages, but not without end."""

MOST_DEPTH: Final = 64
"""Levels of modules in a TorchScript archive; a FAN has five."""

MOST_TABLES: Final = 1000
"""Tables of a checkpoint that are searched for a state dict, down to four levels."""

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
    """State dict of a PyTorch file. format: for people."""

    format: str
    tensors: dict[str, Tensor]


def read_pth(path: Path) -> PthFile:
    """Read a file by `torch.save` or `torch.jit.save`; `ModelError` when it is damaged or needs code to be run."""
    with path.open("rb") as file:
        # Not zipfile.is_zipfile, which raises for some damaged files.
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
    """Members of an archive by `torch.save`; sizes are checked before anything is read."""

    def __init__(self, archive: zipfile.ZipFile, path: Path) -> None:
        self._archive = archive
        self.path = path
        self.size = self._left = path.stat().st_size
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
        if member.header_offset + member.file_size > self.size:
            raise ModelError(f"{self.path}: damaged, {name[:80]!r} reaches past its end; get it again")
        self._left -= member.file_size
        if self._left < 0:
            raise ModelError(f"{self.path}: its members overlap: they have more than its {self.size} bytes")
        return self._archive.read(member)


def _from_archive(members: _Members) -> PthFile:
    where = str(members.path)
    if members.has("byteorder") and members.read("byteorder") != b"little":
        raise ModelError(f"{where}: written on a big-endian machine; save it again on another")
    script = members.has("constants.pkl")
    root = read_pickle(io.BytesIO(members.read("data.pkl")), where, script).root
    under, notes = ("", _of_modules(root, where)) if script else _of_tables(root, where)
    format_ = ("TorchScript archive" if script else "PyTorch archive") + under
    _check_sizes(notes, members.size, where)
    return PthFile(format_, _tensors(notes, lambda storage: members.read(f"data/{storage.key}"), where))


def _read_stream(data: mmap.mmap, where: str) -> PthFile:
    """Read the form of before 1.6: magic number, version, system, root, keys, storages in order of the keys."""
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
    under, notes = _of_tables(body.root, where)
    _check_sizes(notes, len(data), where)
    tensors = _tensors(notes, lambda note: _cut(data, places, note, where), where)
    return PthFile(f"PyTorch file of the old form{under}", tensors)


def _places(start: int, keys: Any, storages: dict[str, StorageNote], where: str) -> dict[str, int]:
    """Find where each storage begins: in the order of the keys, each after eight bytes with its length."""
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
    return note.count * _itemsize(note, where)


def _itemsize(note: StorageNote, where: str) -> int:
    if note.dtype not in DTYPES:
        raise ModelError(f"{where}: a tensor of type {note.dtype[:40]!r}; expected one of {', '.join(DTYPES)}")
    return DTYPES[note.dtype].itemsize


def unwrap(keys: Iterable[str]) -> tuple[str, dict[str, str]]:
    """Take the prefixes of wrappers off the keys of a state dict: (prefix, plain key -> key).

    Of several networks the averaged one is taken. Keys with other prefixes than the network's are left out.
    """
    groups: dict[str, dict[str, str]] = {}
    for key in keys:
        match = WRAPPED.match(key)
        prefix = match.group() if match else ""
        groups.setdefault(prefix, {})[key.removeprefix(prefix)] = key
    networks = [prefix for prefix, group in groups.items() if FIRST in group]
    if not networks:
        return "", {key: key for group in groups.values() for key in group.values()}
    prefix = max(networks, key=lambda prefix: (_averaged(prefix.split(".")), -len(prefix)))
    return prefix, groups[prefix]


def _averaged(names: Iterable[str]) -> bool:
    return any(name in AVERAGED or re.search(r"(^|_)ema(_|$)", name) for name in names)


def _of_tables(root: Any, where: str) -> tuple[str, dict[str, TensorNote]]:
    """Find the state dict in a checkpoint: (", under ..." where it is not the root, tensors).

    The averaged weights come first, then the usual names, then the upper levels.
    """
    if not isinstance(root, dict):
        raise ModelError(f"{where}: holds no table of tensors; save the network's state_dict() and import that")
    tables = _tables(root)
    if not tables:
        raise ModelError(f"{where}: no tensors at its head, nor under {' or '.join(UNDER)}")
    networks = [path for path, notes in tables.items() if FIRST in unwrap(notes)[1]]

    def rank(path: tuple[str, ...]) -> tuple[bool, int, int]:
        named = UNDER.index(path[-1]) if path and path[-1] in UNDER else len(UNDER)
        return (not (_averaged(path) or _averaged(unwrap(tables[path])[0].split("."))), named, len(path))

    ranked = sorted(networks, key=rank) or sorted(tables, key=lambda path: -len(tables[path]))
    if len(networks) > 1 and rank(ranked[0]) == rank(ranked[1]):
        names = " and ".join(repr("/".join(path)[:40]) for path in ranked[:2])
        raise ModelError(f"{where}: networks under {names}; save the state_dict() of one and import that")
    path = ranked[0]
    return (f", under {'/'.join(path)[:80]!r}" if path else "", tables[path])


def _tables(root: dict[Any, Any]) -> dict[tuple[str, ...], dict[str, TensorNote]]:
    """Return the tensors with names of the root and of the tables in it, by their path."""
    found: dict[tuple[str, ...], dict[str, TensorNote]] = {}
    seen: set[int] = set()
    waiting: list[tuple[tuple[str, ...], dict[Any, Any]]] = [((), root)]
    while waiting and len(seen) < MOST_TABLES:
        path, table = waiting.pop(0)
        if id(table) in seen:
            continue
        seen.add(id(table))
        named = {key: value for key, value in table.items() if isinstance(key, str)}
        if notes := {key: value for key, value in named.items() if isinstance(value, TensorNote)}:
            found[path] = notes
        if len(path) < 4:
            waiting += [((*path, key), value) for key, value in named.items() if isinstance(value, dict)]
    return found


def _of_modules(root: Any, where: str) -> dict[str, TensorNote]:
    """Collect the tensors of a tree of TorchScript modules by their dotted names."""
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


def _check_sizes(notes: dict[str, TensorNote], size: int, where: str) -> None:
    """Refuse tensors that need much more memory than their file has bytes: all may be views of one storage."""
    total = sum(math.prod(note.size) * _itemsize(note.storage, where) for note in notes.values())
    if total > LARGEST_SHARE * size:
        raise ModelError(
            f"{where}: tensors of {total} bytes in a file of {size}, more numbers than its storages have; get it again"
        )


def _tensors(notes: dict[str, TensorNote], read: Callable[[StorageNote], bytes], where: str) -> dict[str, Tensor]:
    """Read the tensors; each storage is read once."""
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
    # Strides of 0 could make a tensor of any size.
    if math.prod(note.size) > len(storage):
        raise ModelError(f"{where} is {note.size}, more numbers than its storage has ({len(storage)})")
    last = offset + sum((size - 1) * stride for size, stride in zip(note.size, note.stride, strict=True))
    if 0 not in note.size and last >= len(storage):
        raise ModelError(f"{where} reaches past its storage ({last} of {len(storage)}); get the file again")
    return storage.as_strided(note.size, note.stride, offset).clone(memory_format=torch.contiguous_format)

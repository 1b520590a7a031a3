"""Imports weights of other formats into the cache: `models/NAME.safetensors` with its contract."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ls3dw.core.files import is_safe_name
from ls3dw.errors import ModelError
from ls3dw.models.networks.fan import Pooling
from ls3dw.models.weights.cache import PublishedWeights, imported_path, named_like, published
from ls3dw.models.weights.contract import Contract, Kind
from ls3dw.models.weights.convert import convert, name_of
from ls3dw.models.weights.zoo import BUNDLED, halved, parameters, read_contract, store


@dataclass(frozen=True)
class Imported:
    """The weights file that an import made, with its contract; format: of the source, for people."""

    path: Path
    contract: Contract
    format: str
    parameters: int

    def to_dict(self) -> dict[str, Any]:
        return self.contract.to_dict() | {"file": str(self.path), "parameters": self.parameters}


@dataclass(frozen=True)
class ImportOptions:
    """kind, name, pooling: None for those of the published file of that name, or what the file itself tells.

    half: store float16; replace: overwrite other weights that were imported under this name.
    """

    kind: Kind | None = None
    name: str | None = None
    pooling: Pooling | None = None
    half: bool = False
    replace: bool = False


def import_weights(file: Path, options: ImportOptions) -> Imported:
    """Convert a weights file into `models/NAME.safetensors` of the cache, with its contract.

    Raises `ModelError` for a file of another shape, kind or checksum, or one that needs code to be run.
    """
    if not file.is_file():
        raise ModelError(f"{file}: not a file")
    known = published().get(options.name) if options.name else named_like(file)
    name = options.name or (known.name if known else name_of(file))
    if not is_safe_name(name) or name in BUNDLED or name == "none":
        raise ModelError(
            f"{name!r:.80}: not to be had as a name; choose another with --name (letters, digits, . _ + -)"
        )
    made = convert(file, (options.kind,) if options.kind else (), name, options.pooling, known)
    target = imported_path(name)
    kept = read_contract(target).source.get("sha256") if target.exists() and not options.replace else None
    if kept not in (None, made.contract.source["sha256"]):
        raise ModelError(f"{name}: other weights were imported under this name; choose another --name, or --replace")
    tensors = {key: halved(key, value) if options.half else value for key, value in made.tensors.items()}
    return Imported(target, store(tensors, target, made.contract), made.format, parameters(made.network))


def install(item: PublishedWeights) -> Imported:
    """Import a fetched published file under its name."""
    return import_weights(item.download, ImportOptions(name=item.name))

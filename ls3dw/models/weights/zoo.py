"""Finds, loads, lists and saves weights: bundled and imported ones by name, others by file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import save as save_safetensors
from torch import Tensor, nn

from ls3dw.core.files import dump_json, is_safe_name, read_json, sha256, write_atomic
from ls3dw.core.resources import folder
from ls3dw.errors import ModelError
from ls3dw.models.weights.cache import PublishedWeights, imported_names, imported_path, named_like, published
from ls3dw.models.weights.contract import Contract, Kind, build_empty, check_finite, check_tensors
from ls3dw.models.weights.convert import Converted, convert
from ls3dw.models.weights.formats import parse_safetensors, read_head

BUNDLED: Final[dict[str, str]] = {
    "fan-2d-small": "2D-FAN: 2 stacks, 128 channels",
    "fan-2d-to-3d-small": "2D-to-3D FAN: 2 stacks, 128 channels",
    "depth-small": "depth network: 11 bottlenecks, width 24",
    "wing": "2D, CNN-6/7 of half width: coordinates, for slow processors",
    "fan-2d-light": "2D-FAN: 2 stacks, 64 channels",
    "fan-2d-to-3d-light": "2D-to-3D FAN: 2 stacks, 64 channels",
    "depth-light": "depth network: 6 bottlenecks, width 16",
}
"""The networks in the package, each `bundled/<name>.safetensors` with its `.json`."""

STATISTICS: Final = ("running_mean", "running_var")
"""Endings of the names of batch norms' statistics."""

LARGEST_CONTRACT: Final = 2**20
"""Bytes of a contract; those of the package have 2 kB."""

DEFAULT_2D: Final = "fan-2d-small"
DEFAULT_3D: Final = "fan-2d-to-3d-small"
DEFAULT_DEPTH: Final = "depth-small"

KINDS_2D: Final[tuple[Kind, ...]] = ("2d",)
KINDS_3D: Final[tuple[Kind, ...]] = ("2d-to-3d", "3d")
KINDS_DEPTH: Final[tuple[Kind, ...]] = ("depth",)
"""Kinds that the options `--model-2d`, `--model-3d` and `--model-depth` take."""


@dataclass(frozen=True)
class Model:
    """A network in eval mode, on the CPU, in float32, and the contract of its weights."""

    network: nn.Module
    contract: Contract


def weights_path(spec: str | Path) -> Path:
    """Return the weights file of a bundled name, an imported name or a path, in this order; `ModelError` for none."""
    name, path = str(spec), Path(spec)
    if name in BUNDLED:
        return folder("bundled") / f"{name}.safetensors"
    if is_safe_name(name) and imported_path(name).is_file():
        return imported_path(name)
    if path.is_file():
        return path
    if name in published():
        raise ModelError(f"model {name!r}: published, but not fetched; run ls3dw models fetch {name}")
    imported = imported_names()
    also = f", the imported {', '.join(imported)}" if imported else ""
    fetch = f", nor, once fetched, the published {', '.join(published())}"
    raise ModelError(f"model {name!r}: neither a file nor one of the bundled {', '.join(BUNDLED)}{also}{fetch}")


def load(spec: str | Path, kinds: tuple[Kind, ...] = ()) -> Model:
    """Load weights of a zoo name, or of a file in any format that `models import` takes.

    kinds: what the network may predict, empty for anything. Raises `ModelError` where the checksum, the kind or a shape
    is not as the contract says.
    """
    path = weights_path(spec)
    if path.suffix == ".safetensors":
        network, tensors, contract = _read_own(path, kinds)
    else:
        made = _convert(path, kinds)
        network, tensors, contract = made.network, made.tensors, _sign(made)
    network.load_state_dict({key: widened(value) for key, value in tensors.items()}, strict=True, assign=True)
    return Model(network.eval().requires_grad_(False), contract)


def read_contract(spec: str | Path, kinds: tuple[Kind, ...] = ()) -> Contract:
    """Return the contract of weights; kinds: as in `load`. Files of other formats are converted to find it."""
    path = weights_path(spec)
    if path.suffix == ".safetensors":
        return _read_json(path)
    status = path.stat()
    return _converted_contract(path, kinds, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=8)
def _converted_contract(path: Path, kinds: tuple[Kind, ...], size: int, changed: int) -> Contract:
    return _sign(_convert(path, kinds))


def _convert(path: Path, kinds: tuple[Kind, ...]) -> Converted:
    return convert(path, kinds, known=named_like(path))


def _sign(made: Converted) -> Contract:
    """Return the contract with the SHA-256 that the file would have if it were imported."""
    return replace(made.contract, sha256=sha256(_encode(made.tensors)))


def _read_own(path: Path, kinds: tuple[Kind, ...]) -> tuple[nn.Module, dict[str, Tensor], Contract]:
    contract = _read_json(path)
    if kinds and contract.kind not in kinds:
        raise ModelError(f"{path}: gives {contract.kind!r} landmarks; expected {' or '.join(kinds)}")
    read_head(path)
    data = path.read_bytes()
    digest = sha256(data)
    if digest != contract.sha256:
        raise ModelError(f"{path}: SHA-256 {digest[:12]}..., expected {contract.sha256[:12]}...; get the file again")
    tensors = parse_safetensors(data, path)
    network = build_empty(contract, str(path.with_suffix(".json")))
    check_tensors(network, tensors, path)
    return network, tensors, contract


def _read_json(weights: Path) -> Contract:
    path = weights.with_suffix(".json")
    if not path.is_file():
        raise ModelError(
            f"{path}: missing; weights need their contract beside them (kind, network, SHA-256):"
            f" copy it too, or import {weights.name} by ls3dw models import --kind"
        )
    if (size := path.stat().st_size) > LARGEST_CONTRACT:
        raise ModelError(f"{path}: {size} bytes, expected at most {LARGEST_CONTRACT}; not the contract of weights")
    try:
        return Contract.from_dict(read_json(path, ModelError), str(path))
    except RecursionError as error:
        raise ModelError(f"{path}: nested too deeply; not the contract of weights") from error


def save(network: nn.Module, path: Path, contract: Contract) -> Contract:
    """Write weights as float16 safetensors with their contract; return it with the SHA-256 filled in."""
    return store({key: halved(key, value) for key, value in network.state_dict().items()}, path, contract)


def halved(key: str, value: Tensor) -> Tensor:
    """Return a tensor in float16, except statistics of batch norms: variances exceed its range."""
    return value.half() if value.is_floating_point() and not key.endswith(STATISTICS) else value


def widened(value: Tensor) -> Tensor:
    """Return a copy of a file's tensor in the type that networks have."""
    return value.to(torch.float32 if value.is_floating_point() else value.dtype, copy=True)


def store(tensors: Mapping[str, Tensor], path: Path, contract: Contract) -> Contract:
    """Write tensors unchanged, otherwise as `save`; `ModelError` for values that are not finite."""
    check_finite(tensors, path)
    data = _encode(tensors)
    signed = replace(contract, sha256=sha256(data))
    # The contract first: weights without one are useless.
    write_atomic(path.with_suffix(".json"), dump_json(signed.to_dict()))
    write_atomic(path, data)
    return signed


def _encode(tensors: Mapping[str, Tensor]) -> bytes:
    return save_safetensors({key: value.contiguous().cpu() for key, value in tensors.items()})


def parameters(network: nn.Module) -> int:
    """Count the parameters."""
    return sum(parameter.numel() for parameter in network.parameters())


def calibrate(network: nn.Module, inputs: Tensor) -> None:
    """Set the batch norms of random weights by `inputs`, so that activations stay of order one (for benchmarks)."""
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    network.train()
    with torch.no_grad():
        network(inputs)
    network.eval()


def catalogue() -> list[dict[str, Any]]:
    """List all weights with a name. `status`: bundled, imported, fetched (not imported) or published."""
    held = [(name, "bundled") for name in BUNDLED] + [(name, "imported") for name in imported_names()]
    entries = []
    for name, status in held:
        path = weights_path(name)
        facts = {"status": status, "bytes": path.stat().st_size, "file": str(path)}
        entries.append(read_contract(name).to_dict() | facts)
    taken = {entry["name"] for entry in entries}
    return entries + [_describe_published(item) for item in published().values() if item.name not in taken]


def describe(spec: str) -> dict[str, Any]:
    """Check the weights of a name or file and return their facts; of published ones not fetched, what is known."""
    if spec in published() and spec not in imported_names():
        return _describe_published(published()[spec])
    model = load(spec)
    return model.contract.to_dict() | {"parameters": parameters(model.network), "file": str(weights_path(spec))}


def _describe_published(item: PublishedWeights) -> dict[str, Any]:
    known = {
        "name": item.name,
        "title": item.title,
        "kind": item.kind,
        "network": dict(item.network),
        "pooling": item.pooling,
        "format": item.format,
        "file": item.file,
        "sha256": item.sha256,
        "urls": list(item.urls),
        "licence": item.licence,
        "homepage": item.homepage,
        "status": "fetched" if item.download.is_file() else "published",
    }
    return {key: value for key, value in known.items() if value is not None}

"""Finds and loads weights: bundled and imported ones by name, others by file. Only safetensors, never a pickle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor, nn

from ls3dw.core.files import dump_json, is_safe_name, read_json, sha256, write_atomic
from ls3dw.core.resources import folder
from ls3dw.errors import ModelError
from ls3dw.models.weights.cache import imported_names, imported_path, published
from ls3dw.models.weights.contract import Contract, Kind

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
"""What the names of a batch norm's statistics end with."""

DEFAULT_2D: Final = "fan-2d-small"
DEFAULT_3D: Final = "fan-2d-to-3d-small"
DEFAULT_DEPTH: Final = "depth-small"


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
    if not path.is_file():
        raise ModelError(_unknown(name))
    if path.suffix != ".safetensors":
        raise ModelError(
            f"{path}: not a .safetensors file; make it one with ls3dw models import {path.name} --kind ..."
        )
    return path


def _unknown(name: str) -> str:
    if name in published():
        return f"model {name!r}: published, but not fetched; run ls3dw models fetch {name}"
    imported = imported_names()
    also = f", the imported {', '.join(imported)}" if imported else ""
    fetch = f", nor, once fetched, the published {', '.join(published())}"
    return f"model {name!r}: neither a file nor one of the bundled {', '.join(BUNDLED)}{also}{fetch}"


def read_contract(spec: str | Path) -> Contract:
    """Read the contract of weights without reading the weights."""
    path = weights_path(spec).with_suffix(".json")
    if not path.is_file():
        raise ModelError(f"{path}: missing; weights need their contract beside them (kind, network, SHA-256)")
    return Contract.from_dict(read_json(path, ModelError), str(path))


def load(spec: str | Path, kinds: tuple[Kind, ...] = ()) -> Model:
    """Load a bundled name or a file. kinds: what the network may give; empty: anything.

    Raises `ModelError` when the checksum, the kind or a shape is another than the contract says.
    """
    path = weights_path(spec)
    contract = read_contract(spec)
    if kinds and contract.kind not in kinds:
        raise ModelError(f"{path}: gives {contract.kind!r} landmarks; expected {' or '.join(kinds)}")
    data = path.read_bytes()
    digest = sha256(data)
    if digest != contract.sha256:
        raise ModelError(f"{path}: SHA-256 {digest[:12]}..., expected {contract.sha256[:12]}...; get the file again")
    try:
        tensors = load_safetensors(data)
    except SafetensorError as error:
        raise ModelError(f"{path}: not a safetensors file ({error}); get the file again") from error
    network = build(contract, str(path.with_suffix(".json")))
    check_shapes(network, tensors, path)
    check_finite(tensors, path)
    network.load_state_dict({key: widened(value) for key, value in tensors.items()}, strict=True, assign=True)
    return Model(network.eval().requires_grad_(False), contract)


def build(contract: Contract, where: str) -> nn.Module:
    """Make the network of a contract without memory; `ModelError` begins with `where`.

    Random weights, which others replace, would take half of the time that loading does.
    """
    try:
        with torch.device("meta"):
            return contract.build()
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise ModelError(f"{where}: network {dict(contract.network)!r}: {error}") from error


def check_shapes(network: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Raise `ModelError` with the first keys and shapes that differ, and how many there are."""
    wanted = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    found = {key: tuple(value.shape) for key, value in tensors.items()}
    faults = [f"{key} missing" for key in wanted if key not in found]
    faults += [f"{key} not known" for key in found if key not in wanted]
    faults += [
        f"{key} is {found[key]}, expected {shape}" for key, shape in wanted.items() if found.get(key, shape) != shape
    ]
    if faults:
        raise ModelError(f"{path}: weights of another network: {'; '.join(faults[:4])} ({len(faults)} in all)")


def check_finite(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Raise `ModelError` with the first key whose values are infinite or no numbers."""
    broken = [key for key, value in tensors.items() if not _is_finite(value)]
    if broken:
        raise ModelError(f"{path}: {broken[0]} holds values that are not finite ({len(broken)} such tensors in all)")


def _is_finite(value: Tensor) -> bool:
    # A sum takes a sixteenth of the time. That of finite numbers is finite too, unless it overflows.
    return bool(value.sum(dtype=torch.float32).isfinite() or value.isfinite().all())


def save(network: nn.Module, path: Path, contract: Contract) -> Contract:
    """Write weights as float16 safetensors with their contract beside them; return it with the SHA-256 filled in."""
    return store({key: halved(key, value) for key, value in network.state_dict().items()}, path, contract)


def halved(key: str, value: Tensor) -> Tensor:
    """Return a tensor of a network in float16, but statistics of batch norms: variances grow beyond its range."""
    return value.half() if value.is_floating_point() and not key.endswith(STATISTICS) else value


def widened(value: Tensor) -> Tensor:
    """Return a copy of a file's tensor, in the type that networks have."""
    return value.to(torch.float32 if value.is_floating_point() else value.dtype, copy=True)


def store(tensors: Mapping[str, Tensor], path: Path, contract: Contract) -> Contract:
    """Write tensors as they are, otherwise as `save`; `ModelError` for values that are not finite."""
    check_finite(tensors, path)
    data = save_safetensors({key: value.contiguous().cpu() for key, value in tensors.items()})
    signed = Contract(**{**contract.to_dict(), "sha256": sha256(data)})
    # The contract goes first: weights without one could be neither used nor known for what they are.
    write_atomic(path.with_suffix(".json"), dump_json(signed.to_dict()))
    write_atomic(path, data)
    return signed


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def calibrate(network: nn.Module, inputs: Tensor) -> None:
    """Set the batch norms of random weights from `inputs`, so that activations stay of order one (for benchmarks)."""
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    network.train()
    with torch.no_grad():
        network(inputs)
    network.eval()

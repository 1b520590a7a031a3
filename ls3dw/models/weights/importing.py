"""Takes weights of other formats into the cache: reads their tensors, checks every shape, writes safetensors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, get_args

import torch
from torch import Tensor

from ls3dw.core.files import is_safe_name, sha256_file
from ls3dw.errors import ModelError
from ls3dw.models.networks.fan import Pooling
from ls3dw.models.networks.heatmaps import PUBLISHED_STD
from ls3dw.models.weights.cache import Published, imported_path, named_like, published
from ls3dw.models.weights.contract import CHANNELS_OF, CLASS_OF, Contract, Kind
from ls3dw.models.weights.formats import read_weights
from ls3dw.models.weights.zoo import (
    BUNDLED,
    build,
    check_finite,
    check_shapes,
    halved,
    parameters,
    read_contract,
    store,
)

GUIDANCE_STD: Final[dict[Kind, float]] = {"2d": 0.0, "3d": 0.0, "2d-to-3d": 1.0, "depth": PUBLISHED_STD}
"""Gaussians that published weights are guided by. 2d-to-3d: as the paper says; depth: as the published code draws."""

MOST_BLOCKS: Final = 200
MOST_FEATURES: Final = 2048
"""Larger networks than anyone's; a damaged file may ask for any size."""


@dataclass(frozen=True)
class Imported:
    """What an import made: the weights file with its contract, and what was found in the source."""

    path: Path
    contract: Contract
    format: str
    parameters: int

    def to_dict(self) -> dict[str, Any]:
        return self.contract.to_dict() | {"file": str(self.path), "parameters": self.parameters}


@dataclass(frozen=True)
class ImportOptions:
    """kind, name, pooling: None: of the published file of that name, or for the pooling what the file itself says.

    half: store float16; replace: take the place of other weights that were imported under this name.
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
    digest = sha256_file(file)
    if known is not None:
        known.check(digest, file)
    kind = _kind(file, options, known)
    name = options.name or (known.name if known else _name_of(file))
    target = _target(name, digest, options.replace)
    weights = read_weights(file)
    tensors = tidy(weights.tensors, str(file))
    network = dict(weights.network) or infer(tensors, str(file))
    check_kind(kind, network["class"], tensors, str(file))
    if network["class"] == "FAN":
        network["pooling"] = options.pooling or (known and known.pooling) or network.get("pooling", "avg")
    contract = Contract(
        name=name,
        kind=kind,
        network=network,
        sha256="",
        guidance_std=GUIDANCE_STD[kind],
        licence=known.licence if known else "unknown",
        origin=f"{known.title}, {known.homepage}" if known else f"imported from {file.name}",
        source={"file": file.name, "format": weights.format, "sha256": digest},
    )
    empty = build(contract, str(file))
    check_shapes(empty, tensors, file)
    check_finite(tensors, file)
    ordered = {key: _stored(key, tensors[key], options.half) for key in empty.state_dict()}
    return Imported(target, store(ordered, target, contract), weights.format, parameters(empty))


def install(item: Published) -> Imported:
    """Import a fetched published file under its name."""
    return import_weights(item.download, ImportOptions(name=item.name))


def tidy(tensors: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """Take off what wraps the keys (`module.`), and fill in the counters that old PyTorch did not write."""
    wrapped = all(key.startswith("module.") for key in tensors)
    plain = {key.removeprefix("module.") if wrapped else key: value for key, value in tensors.items()}
    for key in list(plain):
        if key.endswith("running_var"):
            plain.setdefault(key.removesuffix("running_var") + "num_batches_tracked", torch.tensor(0))
    if not plain:
        raise ModelError(f"{where}: holds no tensors")
    return plain


def infer(tensors: Mapping[str, Tensor], where: str) -> dict[str, Any]:
    """Infer the network's class and arguments from its tensors."""
    first = tensors.get("conv1.weight")
    if first is None or first.ndim != 4:
        raise ModelError(
            f"{where}: weights of another network: no conv1.weight (first is {next(iter(tensors))[:80]!r})"
        )
    width, channels = first.shape[:2]
    blocks = [_count(tensors, rf"layer{stage}\.(\d+)\.") for stage in range(1, 5)]
    stacks = _count(tensors, r"m(\d+)\.")
    last = tensors.get("conv_last0.weight")
    features = 4 * width if last is None or last.ndim != 4 else last.shape[0]
    if max(4 * width, features) > MOST_FEATURES or max(sum(blocks), stacks) > MOST_BLOCKS:
        raise ModelError(f"{where}: {features} features, {stacks} stacks, blocks {blocks}: not a network of ls3dw")
    if "fc.weight" in tensors:
        return {"class": "DepthNet", "layers": blocks, "width": width}
    network = {"class": "FAN", "stacks": stacks, "features": features, "in_channels": channels}
    return network if features == 4 * width else network | {"stem": width}


def check_kind(kind: Kind, found: str, tensors: Mapping[str, Tensor], where: str) -> None:
    """Raise `ModelError` when a network of this class and these input channels cannot be of that kind."""
    channels = tensors["conv1.weight"].shape[1]
    if (found, channels) != (CLASS_OF[kind], CHANNELS_OF[kind]):
        fits = [other for other in get_args(Kind) if (CLASS_OF[other], CHANNELS_OF[other]) == (found, channels)]
        advice = f", try --kind {' or '.join(fits)}" if fits else ""
        raise ModelError(
            f"{where}: a {found} with {channels} input channels; kind {kind!r} is a {CLASS_OF[kind]} with"
            f" {CHANNELS_OF[kind]}{advice}"
        )


def _count(tensors: Mapping[str, Tensor], pattern: str) -> int:
    found = (re.match(pattern, key) for key in tensors)
    return len({match.group(1) for match in found if match})


def _kind(file: Path, options: ImportOptions, known: Published | None) -> Kind:
    kind: Kind | None = options.kind or (known.kind if known else None)
    if kind is None:
        raise ModelError(f"{file}: its tensors do not say what they predict; add --kind {', '.join(get_args(Kind))}")
    if known is not None and kind != known.kind:
        raise ModelError(f"{file}: published as kind {known.kind!r}, not {kind!r}")
    return kind


def _name_of(file: Path) -> str:
    name = re.sub(r"(\.(pth|pt|tar|gz|zip|t7|safetensors|bin))+$", "", file.name.lower())
    return re.sub(r"[^a-z0-9._+-]+", "-", name).strip("-.") or "weights"


def _target(name: str, digest: str, replace: bool) -> Path:
    if not is_safe_name(name) or name in BUNDLED or name == "none":
        raise ModelError(
            f"{name!r:.80}: not to be had as a name; choose another with --name (letters, digits, . _ + -)"
        )
    target = imported_path(name)
    if target.exists() and not replace and read_contract(target).source.get("sha256") != digest:
        raise ModelError(f"{name}: other weights were imported under this name; choose another --name, or --replace")
    return target


def _stored(key: str, tensor: Tensor, half: bool) -> Tensor:
    if not tensor.is_floating_point():
        return tensor.to(torch.int64)
    single = tensor.float() if tensor.dtype == torch.float64 else tensor
    return halved(key, single) if half else single

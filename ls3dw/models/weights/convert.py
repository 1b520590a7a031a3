"""Turns weights of other formats into ours, in memory: keys, network, kind and every shape are checked."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, get_args

import torch
from torch import Tensor, nn

from ls3dw.core.files import sha256_file
from ls3dw.errors import ModelError
from ls3dw.models.networks.fan import Pooling
from ls3dw.models.networks.heatmaps import PUBLISHED_STD
from ls3dw.models.weights.cache import PublishedWeights
from ls3dw.models.weights.contract import (
    CHANNELS_OF,
    CLASS_OF,
    GUIDANCE_STD,
    Contract,
    Kind,
    build_empty,
    check_tensors,
)
from ls3dw.models.weights.formats import read_weights

MOST_BLOCKS: Final = 200
MOST_FEATURES: Final = 2048
"""Limits far above any published network: a damaged file may ask for any size."""


@dataclass(frozen=True)
class Converted:
    """contract: without SHA-256; network: on the meta device; tensors: in the order of its state dict."""

    contract: Contract
    network: nn.Module
    tensors: dict[str, Tensor]
    format: str


def convert(
    file: Path,
    kinds: tuple[Kind, ...] = (),
    name: str = "",
    pooling: Pooling | None = None,
    known: PublishedWeights | None = None,
) -> Converted:
    """Read a file of any format. kinds: what the network may predict, empty for all; known: the published weights that
    the file must be; pooling: None for what the file or `known` says, else average.

    Raises `ModelError` for a file of another shape, kind or checksum, or one that needs code to be run.
    """
    where = str(file)
    digest = sha256_file(file)
    if known is not None:
        known.check(digest, file)
        if kinds and known.kind not in kinds:
            raise ModelError(f"{file}: published as kind {known.kind!r}, not {' or '.join(map(repr, kinds))}")
        kinds = (known.kind,)
    weights = read_weights(file)
    tensors = _with_counters(weights.tensors, where)
    network = dict(weights.network) or infer(tensors, where)
    kind = find_kind(kinds, network["class"], tensors, where)
    if network["class"] == "FAN":
        network["pooling"] = pooling or (known and known.pooling) or network.get("pooling", "avg")
    contract = Contract(
        name=name or (known.name if known else name_of(file)),
        kind=kind,
        network=network,
        sha256="",
        # The published depth network was trained with wider Gaussians than the paper says.
        guidance_std=PUBLISHED_STD if kind == "depth" else GUIDANCE_STD[kind],
        licence=known.licence if known else "unknown",
        origin=f"{known.title}, {known.homepage}" if known else f"imported from {file.name}",
        source={"file": file.name, "format": weights.format, "sha256": digest},
    )
    empty = build_empty(contract, where)
    check_tensors(empty, tensors, file)
    ordered = {key: _as_stored(tensors[key]) for key in empty.state_dict()}
    return Converted(contract, empty, ordered, weights.format)


def name_of(file: Path) -> str:
    """Make a name for weights from a file's."""
    name = re.sub(r"(\.(pth|pt|tar|gz|zip|t7|safetensors|bin))+$", "", file.name.lower())
    return re.sub(r"[^a-z0-9._+-]+", "-", name).strip("-.") or "weights"


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


def find_kind(kinds: tuple[Kind, ...], class_: str, tensors: Mapping[str, Tensor], where: str) -> Kind:
    """Return the kind of a network by its class and input channels; `ModelError` where none or several fit."""
    channels = tensors["conv1.weight"].shape[1]
    fitting = [kind for kind in get_args(Kind) if (CLASS_OF[kind], CHANNELS_OF[kind]) == (class_, channels)]
    wanted: list[Kind] = [kind for kind in fitting if kind in (kinds or fitting)]
    if len(wanted) == 1:
        return wanted[0]
    found = f"{where}: a {class_} with {channels} input channels"
    if wanted:
        raise ModelError(f"{found} may be of kind {' or '.join(wanted)}: add --kind (in Python: kinds)")
    expected = " or ".join(
        f"{kind!r} is a {CLASS_OF[kind]} with {CHANNELS_OF[kind]}" for kind in kinds or get_args(Kind)
    )
    advice = f", try --kind {' or '.join(fitting)}" if fitting else ""
    raise ModelError(f"{found}; kind {expected}{advice}")


def _count(tensors: Mapping[str, Tensor], pattern: str) -> int:
    found = (re.match(pattern, key) for key in tensors)
    return len({match.group(1) for match in found if match})


def _with_counters(tensors: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """Add the counters of batch norms, which old versions of PyTorch did not write."""
    if not tensors:
        raise ModelError(f"{where}: holds no tensors")
    norms = [key.removesuffix("running_var") for key in tensors if key.endswith("running_var")]
    return {f"{norm}num_batches_tracked": torch.tensor(0) for norm in norms} | dict(tensors)


def _as_stored(tensor: Tensor) -> Tensor:
    if not tensor.is_floating_point():
        return tensor.to(torch.int64)
    return tensor.float() if tensor.dtype == torch.float64 else tensor

"""Networks of the published size that compute the same as the bundled small ones: to compare speed at that size, and
landmarks of real faces."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ls3dw.models import Contract
from ls3dw.models.weights.contract import Kind
from ls3dw.models.weights.zoo import DEFAULT_2D, DEFAULT_3D, DEFAULT_DEPTH, load, read_contract, save

FAN_4: Final = {"class": "FAN", "stacks": 4, "features": 256, "pooling": "avg"}
PUBLISHED: Final[dict[Kind, dict[str, Any]]] = {
    "2d": FAN_4,
    "2d-to-3d": FAN_4,
    "depth": {"class": "DepthNet", "layers": [3, 8, 36, 3], "width": 64},
}
"""The published networks, as in contracts."""

SMALL: Final[dict[Kind, str]] = {"2d": DEFAULT_2D, "2d-to-3d": DEFAULT_3D, "depth": DEFAULT_DEPTH}


def full_size(kind: Kind, given: str | Path | None, scratch: Path) -> Path | str:
    """Return the given weights if they have the published size, else widened ones, saved in `scratch`."""
    if given is not None and given != "none" and is_full_size(kind, read_contract(given, (kind,))):
        return given
    small = load(SMALL[kind])
    contract = Contract(f"{small.contract.name}-wide", kind, PUBLISHED[kind], "", small.contract.guidance_std)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        network = contract.build()
    widen(small.network.state_dict(), network, kind)
    path = scratch / f"{contract.name}.safetensors"
    save(network, path, contract)
    return path


def is_full_size(kind: Kind, contract: Contract) -> bool:
    """Whether these are weights of a published network of that kind."""
    shapes = {key: value.shape for key, value in _on_meta(contract).items()}
    wanted = Contract("", kind, PUBLISHED[kind], "", contract.guidance_std)
    pooling = contract.network.get("pooling", "avg")
    return contract.kind == kind and pooling == "avg" and shapes == {k: v.shape for k, v in _on_meta(wanted).items()}


def _on_meta(contract: Contract) -> dict[str, Tensor]:
    with torch.device("meta"):
        return contract.build().state_dict()


def widen(small: Mapping[str, Tensor], network: nn.Module, kind: Kind) -> None:
    """Make a published network compute the same as a small one, by placing its channels among the wider ones.

    network: FAN or DepthNet with random weights, here or in another package that has the published keys.
    """
    place = _first if kind == "depth" else _between
    wide = network.state_dict()
    for key, value in wide.items():
        _copy_into(key, value, small.get(_narrow(key)), place)
    network.load_state_dict(wide)
    network.eval()


def _narrow(key: str) -> str:
    """Return the tensor of two stacks to use for one of four: the second stack is repeated, with nothing in between."""
    for name in ("m", "top_m_", "conv_last", "bn_end", "l"):
        for stack in (2, 3):
            if key.startswith(f"{name}{stack}."):
                return key.replace(f"{name}{stack}.", f"{name}1.", 1)
    return key


def _between(small: int, wide: int) -> NDArray[np.intp]:
    """Every other channel: that keeps the parts of a concatenation in their places."""
    return np.arange(small) * (wide // small)


def _first(small: int, wide: int) -> NDArray[np.intp]:
    return np.arange(small)


def _copy_into(key: str, wide: Tensor, small: Tensor | None, place: Callable[[int, int], NDArray[np.intp]]) -> None:
    if small is None:
        # Blocks that the small network does not have add nothing.
        if key.startswith(("bl", "al")) or "bn3." in key:
            wide.fill_(1 if key.endswith("running_var") else 0)
        return
    if wide.ndim == 0:
        return
    rows = place(small.shape[0], wide.shape[0])
    if wide.ndim == 1:
        wide[rows] = small.to(wide.dtype)
        return
    # Other channels may read those of the small network, but not the reverse.
    wide *= 0.1
    wide[rows] = 0
    columns = place(small.shape[1], wide.shape[1])
    wide[np.ix_(rows, columns)] = small.to(wide.dtype)

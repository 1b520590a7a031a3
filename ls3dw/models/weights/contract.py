"""Describes weights: the JSON contract beside each safetensors file, and checks that tensors fit it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal, get_args

import torch
from torch import Tensor, nn

from ls3dw.core.geometry import CROP_SIZE
from ls3dw.core.markup import POINTS
from ls3dw.errors import ModelError
from ls3dw.models.networks.depth import DepthNet
from ls3dw.models.networks.fan import FAN
from ls3dw.models.networks.wing import COORDINATE_NETWORKS, Cascade

Kind = Literal["2d", "3d", "2d-to-3d", "depth"]
"""2d: visible contour; 3d: projected 3D points from RGB alone; 2d-to-3d: the same, guided by 2D points; depth: z."""

RGB: Final = 3
GUIDED: Final = RGB + POINTS
CLASS_OF: Final[dict[Kind, str]] = {"2d": "FAN", "3d": "FAN", "2d-to-3d": "FAN", "depth": "DepthNet"}
"""Published network class of each kind."""

COORDINATES: Final = (*COORDINATE_NETWORKS, "Cascade")
CLASSES_OF: Final[dict[Kind, tuple[str, ...]]] = {
    "2d": ("FAN", *COORDINATES),
    "3d": ("FAN", *COORDINATES),
    "2d-to-3d": ("FAN",),
    "depth": ("DepthNet",),
}
"""Allowed network classes of each kind."""

CHANNELS_OF: Final[dict[Kind, int]] = {"2d": RGB, "3d": RGB, "2d-to-3d": GUIDED, "depth": GUIDED}
"""Input channels of each kind."""

GUIDANCE_STD: Final[dict[Kind, float]] = {"2d": 0.0, "3d": 0.0, "2d-to-3d": 1.0, "depth": 2.0}
"""Std in crop pixels of the guiding Gaussians for new networks, as in the paper. `Contract.guidance_std` has the value
that a network was trained with."""

NETWORKS: Final[dict[str, type[nn.Module]]] = {
    "FAN": FAN,
    "DepthNet": DepthNet,
    **COORDINATE_NETWORKS,
    "Cascade": Cascade,
}
MARKUP: Final = "ibug-68"
CROP_RULE: Final = "published: centre raised by 0.12 h, side 200 (w + h) / 195"


@dataclass(frozen=True)
class Contract:
    """Facts needed to use a weights file.

    network: class name and arguments; guidance_std: std in crop pixels of the guiding Gaussians, 0 for none;
    convention: whose 68 points it gives, such as `300w`, `aflw2000-3d` or `merl-rav`; sha256: of the safetensors file;
    source: the imported file, if any.
    """

    name: str
    kind: Kind
    network: Mapping[str, Any]
    sha256: str
    guidance_std: float = 0.0
    input_size: int = CROP_SIZE
    crop_rule: str = CROP_RULE
    markup: str = MARKUP
    convention: str = "unknown"
    licence: str = "unknown"
    trained_on: str = "unknown"
    origin: str = "unknown"
    figures: Mapping[str, Any] = field(default_factory=dict)
    source: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, values: Any, where: str) -> Contract:
        """Check and build; `ModelError` lists every fault."""
        if not isinstance(values, dict):
            raise ModelError(f"{where}: expected a JSON object that describes the weights")
        known = cls.__dataclass_fields__
        faults = [f"unknown key {key!r}" for key in values if key not in known]
        faults += [f"missing key {key!r}" for key in ("name", "kind", "network", "sha256") if key not in values]
        if not faults:
            faults += _value_faults(values)
        if faults:
            raise ModelError(f"{where}: {'; '.join(faults)}")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def build(self) -> nn.Module:
        """Make the network with random weights."""
        arguments = {"in_channels": CHANNELS_OF[self.kind]} if self.network["class"] == "FAN" else {}
        arguments |= {key: value for key, value in self.network.items() if key != "class"}
        return NETWORKS[self.network["class"]](**arguments)


def _value_faults(values: dict[str, Any]) -> list[str]:
    kind, network = values["kind"], values["network"]
    wanted: dict[str, Any] = {"input_size": CROP_SIZE, "crop_rule": CROP_RULE, "markup": MARKUP}
    faults = [
        f"{key} {values[key]!r}, expected {value!r}" for key, value in wanted.items() if values.get(key, value) != value
    ]
    faults += [
        f"{key} {values[key]!r}, expected text"
        for key in ("name", "sha256", "convention")
        if not isinstance(values.get(key, ""), str)
    ]
    faults += [
        f"{key} {values[key]!r}, expected an object"
        for key in ("figures", "source")
        if not isinstance(values.get(key, {}), dict)
    ]
    if kind not in get_args(Kind):
        return [*faults, f"kind {kind!r}, expected one of {', '.join(get_args(Kind))}"]
    if not isinstance(network, dict) or network.get("class") not in CLASSES_OF[kind]:
        classes = " or ".join(map(repr, CLASSES_OF[kind]))
        faults.append(f"network {network!r}, expected an object with class {classes} for kind {kind!r}")
    elif "in_channels" in network and network["in_channels"] != CHANNELS_OF[kind]:
        faults.append(f"in_channels {network['in_channels']!r}, expected {CHANNELS_OF[kind]} for kind {kind!r}")
    std = values.get("guidance_std", 0.0)
    guided = CHANNELS_OF[kind] > RGB
    if not isinstance(std, int | float) or not (0 < std < CROP_SIZE if guided else std == 0):
        faults.append(f"guidance_std {std!r}, expected {'more than 0' if guided else '0'} for kind {kind!r}")
    return faults


def build_empty(contract: Contract, where: str) -> nn.Module:
    """Make the network on the meta device; `ModelError` begins with `where`.

    Random weights, which are replaced anyway, would take half of the loading time.
    """
    try:
        with torch.device("meta"):
            return contract.build()
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise ModelError(f"{where}: network {dict(contract.network)!r}: {error}") from error


def check_tensors(network: nn.Module, tensors: Mapping[str, Tensor], where: object) -> None:
    """Raise `ModelError` where keys or shapes differ from the network's, or values are not finite."""
    wanted = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    found = {key: tuple(value.shape) for key, value in tensors.items()}
    faults = [f"{key} missing" for key in wanted if key not in found]
    faults += [f"{key} not known" for key in found if key not in wanted]
    faults += [
        f"{key} is {found[key]}, expected {shape}" for key, shape in wanted.items() if found.get(key, shape) != shape
    ]
    if faults:
        raise ModelError(f"{where}: weights of another network: {'; '.join(faults[:4])} ({len(faults)} in all)")
    check_finite(tensors, where)


def check_finite(tensors: Mapping[str, Tensor], where: object) -> None:
    """Raise `ModelError` where values are infinite or NaN."""
    broken = [key for key, value in tensors.items() if not _is_finite(value)]
    if broken:
        raise ModelError(f"{where}: {broken[0]} holds values that are not finite ({len(broken)} such tensors in all)")


def _is_finite(value: Tensor) -> bool:
    # A sum is 16 times faster; it may overflow for finite values, so check again.
    return bool(value.sum(dtype=torch.float32).isfinite() or value.isfinite().all())

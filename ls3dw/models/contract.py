"""What must be known of a weights file to use it right: the JSON that lies beside each safetensors file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from torch import nn

from ls3dw.errors import ModelError
from ls3dw.geometry import CROP_SIZE
from ls3dw.markup import POINTS
from ls3dw.models.coordinates import COORDINATE_NETWORKS, Cascade
from ls3dw.models.depth import DepthNet
from ls3dw.models.fan import FAN

Kind = Literal["2d", "3d", "2d-to-3d", "depth"]
"""2d: visible contour; 3d: projected 3D points from RGB alone; 2d-to-3d: the same, guided by 2D points; depth: z."""

RGB = 3
GUIDED = RGB + POINTS
CLASS_OF: dict[Kind, str] = {"2d": "FAN", "3d": "FAN", "2d-to-3d": "FAN", "depth": "DepthNet"}
COORDINATES = (*COORDINATE_NETWORKS, "Cascade")
CLASSES_OF: dict[Kind, tuple[str, ...]] = {
    "2d": ("FAN", *COORDINATES),
    "3d": ("FAN", *COORDINATES),
    "2d-to-3d": ("FAN",),
    "depth": ("DepthNet",),
}
"""The classes that a kind may have; `CLASS_OF` has the published ones."""

CHANNELS_OF: dict[Kind, int] = {"2d": RGB, "3d": RGB, "2d-to-3d": GUIDED, "depth": GUIDED}

NETWORKS: dict[str, type[nn.Module]] = {"FAN": FAN, "DepthNet": DepthNet, **COORDINATE_NETWORKS, "Cascade": Cascade}
MARKUP = "ibug-68"
CROP_RULE = "published: centre raised by 0.12 h, side 200 (w + h) / 195"


@dataclass(frozen=True)
class Contract:
    """kind: what the network gives; network: class name and arguments; guidance_std: std in crop pixels of the
    Gaussians that guide it (0: none); convention: whose 68 points it gives (`merl-rav`, `300w`, `aflw2000-3d`, as
    `bundled/placement.json` has them, or other data's); sha256: of the safetensors file; source: what it was imported
    from, if it was."""

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
        """Check and build; `ModelError` names every fault at once."""
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
        """Make the network, with random weights."""
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

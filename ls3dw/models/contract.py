"""What must be known of a weights file to use it right: the JSON that lies beside each safetensors file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from torch import nn

from ls3dw.errors import ModelError
from ls3dw.geometry import CROP_SIZE
from ls3dw.models.depth import DepthNet
from ls3dw.models.fan import FAN

Kind = Literal["2d", "3d", "2d-to-3d", "depth"]
"""2d: visible contour; 3d: projected 3D points from RGB alone; 2d-to-3d: the same, guided by 2D points; depth: z."""

NETWORKS: dict[str, type[nn.Module]] = {"FAN": FAN, "DepthNet": DepthNet}
CROP_RULE = "published: centre raised by 0.12 h, side 200 (w + h) / 195"


@dataclass(frozen=True)
class Contract:
    """kind: what the network gives; network: class name and arguments; guidance_std: std in crop pixels of the
    Gaussians that guide it (0: none); sha256: of the safetensors file."""

    name: str
    kind: Kind
    network: Mapping[str, Any]
    sha256: str
    guidance_std: float = 0.0
    input_size: int = CROP_SIZE
    crop_rule: str = CROP_RULE
    markup: str = "ibug-68"
    licence: str = "unknown"
    trained_on: str = "unknown"
    origin: str = "unknown"
    figures: Mapping[str, Any] = field(default_factory=dict)

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
        arguments = dict(self.network)
        return NETWORKS[arguments.pop("class")](**arguments)


def _value_faults(values: dict[str, Any]) -> list[str]:
    faults = []
    if values["kind"] not in get_args(Kind):
        faults.append(f"kind {values['kind']!r}, expected one of {', '.join(get_args(Kind))}")
    network = values["network"]
    if not isinstance(network, dict) or network.get("class") not in NETWORKS:
        faults.append(f"network {network!r}, expected an object whose class is one of {', '.join(NETWORKS)}")
    if values.get("input_size", CROP_SIZE) != CROP_SIZE:
        faults.append(f"input_size {values['input_size']!r}, expected {CROP_SIZE}")
    if values.get("crop_rule", CROP_RULE) != CROP_RULE:
        faults.append(f"crop_rule {values['crop_rule']!r}, expected {CROP_RULE!r}")
    return faults

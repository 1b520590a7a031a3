"""The networks, their weights, and what lies between points and heatmaps."""

from ls3dw.models.contract import Contract
from ls3dw.models.depth import DepthNet
from ls3dw.models.fan import FAN
from ls3dw.models.zoo import Model, load

__all__ = ["FAN", "Contract", "DepthNet", "Model", "load"]

"""Networks, their weights and their inference: from pictures to landmarks."""

from ls3dw.models.networks.depth import DepthNet
from ls3dw.models.networks.fan import FAN
from ls3dw.models.networks.wing import CNN6, CNN7, Cascade, ResNet50
from ls3dw.models.weights.contract import Contract
from ls3dw.models.weights.zoo import Model, load

__all__ = ["CNN6", "CNN7", "FAN", "Cascade", "Contract", "DepthNet", "Model", "ResNet50", "load"]

"""Applies the first convolution of a network to a picture and a guide."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ls3dw.models import kernels
from ls3dw.models.inference.policy import Policy
from ls3dw.models.networks.guidance import Guide, draw, even, respond
from ls3dw.models.weights.contract import RGB


class FirstConv:
    """The first convolution of a network: RGB is laid out, the guide's channels never are.

    float32 on a CPU and for guided networks, where responses to many points are summed; it is a small part of the work.
    fused: add the guide by a GPU kernel, which needs no wider type.
    """

    def __init__(self, conv: nn.Conv2d, policy: Policy, fused: bool = False) -> None:
        guided = conv.in_channels > RGB
        self._result_dtype = policy.dtype
        self._dtype = policy.dtype if fused or (policy.on_gpu and not guided) else torch.float32
        self._channels = even(RGB) if policy.on_gpu else RGB
        padding = (0, 0, 0, 0, 0, self._channels - RGB)
        weight = F.pad(conv.weight[:, :RGB], padding).to(self._dtype)
        self._weight = weight.contiguous(memory_format=torch.channels_last)
        self._guide_weight, self._fused = conv.weight[:, RGB:], fused
        if fused and guided:
            self._guide_weight = kernels.pack_guide_weight(self._guide_weight).to(policy.dtype)
        self._bias = None if conv.bias is None else conv.bias.to(self._dtype)
        self._stride, self._padding = conv.stride[0], int(conv.padding[0])

    def __call__(self, crops: Tensor, guide: Guide | None) -> Tensor:
        """(N, 3, 256, 256) -> (N, C, 128, 128), channels last, in the network's type."""
        rgb = draw(crops, None, self._dtype, self._channels)
        maps = F.conv2d(rgb, self._weight, self._bias, self._stride, self._padding)
        if guide is not None and self._fused:
            kernels.add_guide(maps, self._guide_weight, guide)
        elif guide is not None:
            respond(maps, self._guide_weight, guide, self._stride, self._padding)
        return maps.to(self._result_dtype)

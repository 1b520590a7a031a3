"""The first convolution of a network, whose input is a picture and a guide."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ls3dw.models.inference.policy import Policy
from ls3dw.models.networks.guidance import Guide, draw, even, respond
from ls3dw.models.weights.contract import RGB


class First:
    """The first convolution of a network, for RGB that is drawn and a guide that is not.

    In float32 on a CPU and for guided networks, where answers to many points are summed; it is a small part of the
    work. fused: sum them in a kernel of our own, which needs no wider type around it.
    """

    def __init__(self, conv: nn.Conv2d, policy: Policy, fused: bool = False) -> None:
        guided = conv.in_channels > RGB
        self._then = policy.dtype
        self._dtype = policy.dtype if fused or (policy.on_gpu and not guided) else torch.float32
        self._channels = even(RGB) if policy.on_gpu else RGB
        padding = (0, 0, 0, 0, 0, self._channels - RGB)
        weight = F.pad(conv.weight[:, :RGB], padding).to(self._dtype)
        self._weight = weight.contiguous(memory_format=torch.channels_last)
        self._guided, self._fused = conv.weight[:, RGB:], fused
        if fused and guided:
            from ls3dw.models.kernels.elementwise import pack_guided

            self._guided = pack_guided(self._guided).to(policy.dtype)
        self._bias = None if conv.bias is None else conv.bias.to(self._dtype)
        self._stride, self._padding = conv.stride[0], int(conv.padding[0])

    def __call__(self, crops: Tensor, guide: Guide | None) -> Tensor:
        """(N, 3, 256, 256) -> (N, C, 128, 128), channels last, in the type of the network."""
        rgb = draw(crops, None, self._dtype, self._channels)
        maps = F.conv2d(rgb, self._weight, self._bias, self._stride, self._padding)
        if guide is not None:
            self._add(maps, guide)
        return maps.to(self._then)

    def _add(self, maps: Tensor, guide: Guide) -> None:
        if not self._fused:
            respond(maps, self._guided, guide, self._stride, self._padding)
            return
        from ls3dw.models.kernels.elementwise import add_guide

        add_guide(maps, self._guided, guide)

"""Runs networks on fused kernels: FANs on our own, depth networks on cuDNN's, a batch of each as one CUDA graph."""

from __future__ import annotations

import copy
import logging
from functools import cache
from typing import Final, Protocol

import torch
from torch import Tensor, nn

from ls3dw.models.inference.core_threads import through_lanes
from ls3dw.models.inference.cuda_graph import Captured
from ls3dw.models.inference.first_conv import First
from ls3dw.models.inference.folding import FoldedBottleneck, FoldedDepth, folded
from ls3dw.models.inference.policy import Policy
from ls3dw.models.kernels.available import has_kernels
from ls3dw.models.networks.depth import DepthNet
from ls3dw.models.networks.fan import FAN
from ls3dw.models.networks.guidance import Guide

log = logging.getLogger(__name__)

LEAST: Final = 16
"""Channels that Triton's matrix products take."""

ONE, NONE = (1, 1), (0, 0)
"""Strides, paddings and dilations."""


def fusable(network: nn.Module, policy: Policy) -> bool:
    """Say whether fused kernels can run a network: where there are any, and channels that suit them."""
    if not (policy.fused and policy.narrow and has_kernels(policy.device)):
        return False
    if isinstance(network, DepthNet):
        # All its channels are multiples of these; tensor cores take eight at a time.
        return network.conv1.out_channels % 8 == 0 and _cudnn_fuses(policy.device, policy.dtype)
    convs = [module for module in network.modules() if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3)]
    channels = {count for conv in convs for count in (conv.in_channels, conv.out_channels)}
    return isinstance(network, FAN) and all(count >= LEAST and count.bit_count() == 1 for count in channels)


@cache
def _cudnn_fuses(device: torch.device, dtype: torch.dtype) -> bool:
    """Try out convolutions with bias, residual and ReLU; where there are none that will do, say so.

    What is not a number has to stay so: a ReLU that made 0 of it would hide that float16 has overflowed.
    """
    bias, x, weight = torch.ones(16), torch.full((1, 16, 4, 4), torch.nan), torch.ones(16, 16, 1, 1)
    x, weight = (tensor.to(device, dtype, memory_format=torch.channels_last) for tensor in (x, weight))
    rest = (bias.to(device, dtype), ONE, NONE, ONE, 1)
    try:
        found = (
            torch.cudnn_convolution_relu(x, weight, *rest),
            torch.cudnn_convolution_add_relu(x, weight, x, 1.0, *rest),
        )
        reason = "" if all(bool(each.isnan().all()) for each in found) else "its ReLU hides what is not a number"
    # What a backend raises has no class of its own.
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0]
    if reason:
        log.info("cuDNN does not fuse here (%s): the depth network is compiled instead", reason)
    return not reason


class Body(Protocol):
    """A network from the result of its first convolution on. first: that convolution."""

    first: nn.Conv2d

    def __call__(self, maps: Tensor) -> Tensor: ...


class FusedRunner:
    """Runs a FAN or a depth network: first convolution, guide, body and heatmaps are one graph a batch size."""

    def __init__(self, network: FAN | DepthNet, policy: Policy) -> None:
        self._policy = policy
        self._body: Body = FanBody(network, policy) if isinstance(network, FAN) else DepthBody(network, policy)
        self._first = First(self._body.first, policy, fused=True)
        self._graphs: dict[tuple[int, bool, float], Captured] = {}

    def __call__(self, crops: Tensor, guide: Guide | None = None, flip: bool = False) -> Tensor:
        def run(part: slice) -> Tensor:
            inputs = (crops[part],) if guide is None else (crops[part], guide.points[part], guide.profiles[part])
            reach = 0.0 if guide is None else guide.reach
            key = (len(inputs[0]), flip, reach)
            if key not in self._graphs:
                self._graphs[key] = self._capture(inputs, reach, flip)
            return self._graphs[key](*inputs)

        # Triton's kernels go to the current device, whatever their tensors are on.
        with torch.cuda.device(self._policy.device):
            # Joining copies: a graph writes its next result to the same place.
            return through_lanes(run, len(crops), self._policy.rows or len(crops), self._policy.lanes)

    def _capture(self, inputs: tuple[Tensor, ...], reach: float, flip: bool) -> Captured:
        from ls3dw.models.kernels.launch import rehearse

        rehearse(lambda: self._pass(inputs, reach, flip))
        return Captured(lambda *given: self._pass(given, reach, flip), inputs)

    def _pass(self, inputs: tuple[Tensor, ...], reach: float, flip: bool) -> Tensor:
        from ls3dw.models.kernels.elementwise import lay_out

        crops, *guided = inputs
        guide = Guide(guided[0], guided[1], reach) if guided else None
        output = self._body(self._first(crops, guide))
        if output.ndim == 2:
            return output
        heatmaps = torch.empty(output.shape, device=output.device)
        lay_out(output, heatmaps, mirrored=False)
        if flip:
            lay_out(self._body(self._first(crops.flip(-1), None)), heatmaps, mirrored=True)
        return heatmaps


class FanBody:
    """A FAN on kernels of our own."""

    def __init__(self, network: FAN, policy: Policy) -> None:
        from ls3dw.models.inference.fused_fan import FusedFAN

        # Folded on the CPU: each of the many kernels that it takes would have to be loaded first.
        self._network = FusedFAN(network, dtype=policy.dtype, device=policy.device)
        self.first = copy.deepcopy(network.conv1).to(policy.device)
        # What is fused takes its result without the bias.
        self.first.bias = None

    def __call__(self, maps: Tensor) -> Tensor:
        return self._network.body(maps)


class DepthBody:
    """A depth network on convolutions of cuDNN's that add bias and residual and apply ReLU themselves."""

    def __init__(self, network: DepthNet, policy: Policy) -> None:
        made = folded(network, policy.dtype).to(policy.device)
        assert isinstance(made, FoldedDepth)
        self._network, self.first = made, made.first

    def __call__(self, maps: Tensor) -> Tensor:
        # Triton is there only with CUDA.
        from ls3dw.models.kernels.elementwise import max_pool_relu

        x = max_pool_relu(maps)
        for block in self._network.blocks:
            assert isinstance(block, FoldedBottleneck)
            x = bottleneck(block, x)
        return self._network.leave(x)


def bottleneck(block: FoldedBottleneck, x: Tensor) -> Tensor:
    """Apply a block by cuDNN."""
    y = conv_relu(conv_relu(x, block.conv1), block.conv2)
    last = block.conv3
    return torch.cudnn_convolution_add_relu(
        y, last.weight, block.downsample(x), 1.0, last.bias, ONE, NONE, ONE, last.groups
    )


def conv_relu(x: Tensor, conv: nn.Conv2d) -> Tensor:
    # Of a 1x1 or 3x3 convolution.
    padding = NONE if conv.kernel_size == ONE else ONE
    return torch.cudnn_convolution_relu(x, conv.weight, conv.bias, conv.stride, padding, ONE, conv.groups)

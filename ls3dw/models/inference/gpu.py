"""Runs networks on fused GPU kernels, one CUDA graph a batch size: FANs on ours, depth networks on cuDNN's."""

from __future__ import annotations

import copy
import logging
from functools import cache
from typing import Final, Protocol

import torch
from torch import Tensor, nn

from ls3dw.models import kernels
from ls3dw.models.inference.core_threads import run_in_parts
from ls3dw.models.inference.cuda_graph import CapturedCall
from ls3dw.models.inference.first_conv import FirstConv
from ls3dw.models.inference.folding import FoldedBottleneck, FoldedDepth, fold_network
from ls3dw.models.inference.fused_fan import FusedFAN
from ls3dw.models.inference.policy import Policy
from ls3dw.models.networks.depth import DepthNet
from ls3dw.models.networks.fan import FAN
from ls3dw.models.networks.guidance import Guide

log = logging.getLogger(__name__)

FEWEST_CHANNELS: Final = 16
"""Fewest channels of Triton's matrix products."""

ONE, NONE = (1, 1), (0, 0)
"""Strides, paddings and dilations."""


def fusable(network: nn.Module, policy: Policy) -> bool:
    """Return whether fused kernels can run a network: the policy wants them, they run here, the channels fit."""
    if not (policy.compiled and policy.narrow and kernels.triton_available(policy.device)):
        return False
    if isinstance(network, DepthNet):
        # Tensor cores take eight channels at a time, and all counts are multiples of the first.
        return network.conv1.out_channels % 8 == 0 and _cudnn_fuses(policy.device, policy.dtype)
    convs = [module for module in network.modules() if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3)]
    channels = {count for conv in convs for count in (conv.in_channels, conv.out_channels)}
    return isinstance(network, FAN) and all(count >= FEWEST_CHANNELS and count.bit_count() == 1 for count in channels)


@cache
def _cudnn_fuses(device: torch.device, dtype: torch.dtype) -> bool:
    """Try convolutions with bias, residual and ReLU, and log why if they cannot be used.

    NaN must stay NaN: a ReLU that turned it into 0 would hide float16 overflows.
    """
    bias, x, weight = torch.ones(16), torch.full((1, 16, 4, 4), torch.nan), torch.ones(16, 16, 1, 1)
    x, weight = (tensor.to(device, dtype, memory_format=torch.channels_last) for tensor in (x, weight))
    rest = (bias.to(device, dtype), ONE, NONE, ONE, 1)
    try:
        found = (
            torch.cudnn_convolution_relu(x, weight, *rest),
            torch.cudnn_convolution_add_relu(x, weight, x, 1.0, *rest),
        )
        reason = "" if all(bool(each.isnan().all()) for each in found) else "its ReLU hides NaN"
    # Backends raise no more specific class.
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0]
    if reason:
        log.info("cuDNN does not fuse here (%s): the depth network runs unfused", reason)
    return not reason


class Body(Protocol):
    """A network after its first convolution. first: that convolution."""

    first: nn.Conv2d

    def __call__(self, maps: Tensor) -> Tensor: ...


class FusedRunner:
    """Runs a FAN or a depth network: first convolution, guide, body and heatmaps are one graph a batch size."""

    def __init__(self, network: FAN | DepthNet, policy: Policy) -> None:
        self._policy = policy
        self._body: Body = FanBody(network, policy) if isinstance(network, FAN) else DepthBody(network, policy)
        self._first = FirstConv(self._body.first, policy, fused=True)
        self._graphs: dict[tuple[int, bool, float], CapturedCall] = {}

    def __call__(self, crops: Tensor, guide: Guide | None = None, flip: bool = False) -> Tensor:
        reach = 0.0 if guide is None else guide.reach

        def run(part: slice) -> Tensor:
            inputs = (crops[part],) if guide is None else (crops[part], guide.points[part], guide.profiles[part])
            key = (len(inputs[0]), flip, reach)
            if key not in self._graphs:
                kernels.compile_ahead(lambda: self._pass(inputs, reach, flip))
                self._graphs[key] = CapturedCall(lambda *given: self._pass(given, reach, flip), inputs)
            return self._graphs[key](*inputs)

        # Triton launches on the current device, wherever the tensors are.
        with torch.cuda.device(self._policy.device):
            # Concatenating copies: the next run of a graph overwrites its result.
            return run_in_parts(run, len(crops), self._policy.rows or len(crops), self._policy.threads)

    def _pass(self, inputs: tuple[Tensor, ...], reach: float, flip: bool) -> Tensor:
        crops, *guided = inputs
        guide = Guide(guided[0], guided[1], reach) if guided else None
        output = self._body(self._first(crops, guide))
        if output.ndim == 2:
            return output
        heatmaps = torch.empty(output.shape, device=output.device)
        kernels.write_heatmaps(output, heatmaps, mirrored=False)
        if flip:
            kernels.write_heatmaps(self._body(self._first(crops.flip(-1), None)), heatmaps, mirrored=True)
        return heatmaps


class FanBody:
    """A FAN on our own kernels."""

    def __init__(self, network: FAN, policy: Policy) -> None:
        # Folded on the CPU: on the GPU its many kernels would have to be loaded first.
        self._network = FusedFAN(network, dtype=policy.dtype, device=policy.device)
        self.first = copy.deepcopy(network.conv1).to(policy.device)
        # The fused network adds the bias itself.
        self.first.bias = None

    def __call__(self, maps: Tensor) -> Tensor:
        return self._network.body(maps)


class DepthBody:
    """A depth network on cuDNN's convolutions that add bias and residual and apply ReLU."""

    def __init__(self, network: DepthNet, policy: Policy) -> None:
        made = fold_network(network, policy.dtype).to(policy.device)
        assert isinstance(made, FoldedDepth)
        self._network, self.first = made, made.first

    def __call__(self, maps: Tensor) -> Tensor:
        x = kernels.max_pool_relu(maps)
        for block in self._network.blocks:
            assert isinstance(block, FoldedBottleneck)
            x = bottleneck(block, x)
        return self._network.leave(x)


def bottleneck(block: FoldedBottleneck, x: Tensor) -> Tensor:
    """Apply a block by cuDNN."""
    y = _conv_relu(_conv_relu(x, block.conv1), block.conv2)
    last = block.conv3
    assert isinstance(last, nn.Conv2d)
    return torch.cudnn_convolution_add_relu(
        y, last.weight, block.downsample(x), 1.0, last.bias, ONE, NONE, ONE, last.groups
    )


def _conv_relu(x: Tensor, conv: nn.Conv2d) -> Tensor:
    # A 1x1 or 3x3 convolution.
    padding = NONE if conv.kernel_size == ONE else ONE
    return torch.cudnn_convolution_relu(x, conv.weight, conv.bias, conv.stride, padding, ONE, conv.groups)

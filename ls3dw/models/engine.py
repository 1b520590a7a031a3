"""Runs networks: as `Policy` says on a device, with RGB and a guide in, and the last heatmaps or the depths out."""

from __future__ import annotations

import copy
from importlib.util import find_spec
from typing import Final, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ls3dw.models.contract import RGB
from ls3dw.models.depth import DepthNet
from ls3dw.models.engine_compile import compile_parts
from ls3dw.models.engine_fold import Folded, folded
from ls3dw.models.engine_lanes import in_lane, through_lanes
from ls3dw.models.engine_policy import Policy
from ls3dw.models.fan import FAN
from ls3dw.models.guidance import Guide, draw, even, respond

LEAST: Final = 16
"""Channels that Triton's matrix products take."""


class Runner(Protocol):
    """A network on a device."""

    def __call__(self, crops: Tensor, guide: Guide | None = None) -> Tensor:
        """crops: (N, 3, 256, 256) float32 in [0, 1] -> (N, 68, 64, 64) or (N, 68) float32; guide: of guided ones."""
        ...


def prepare(network: nn.Module, policy: Policy) -> Runner:
    """Make a network in eval mode, on the CPU in float32, ready to run. It stays as it is if it is folded."""
    if policy.fused and policy.on_gpu and policy.narrow and isinstance(network, FAN) and fusable(network):
        return FusedRunner(network, policy)
    if policy.folded and isinstance(network, FAN | DepthNet):
        return FoldedRunner(network, policy)
    return PlainRunner(network, policy)


def fusable(network: FAN) -> bool:
    """Say whether our own kernels can run a network: with Triton, and channels that it can tile."""
    convs = [module for module in network.modules() if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3)]
    channels = {count for conv in convs for count in (conv.in_channels, conv.out_channels)}
    return find_spec("triton") is not None and all(count >= LEAST and count.bit_count() == 1 for count in channels)


class PlainRunner:
    """Runs a network as it stands, in float32: any with the plain engine, those that give coordinates with all."""

    def __init__(self, network: nn.Module, policy: Policy) -> None:
        self._policy = policy
        self._network = network.to(policy.device)
        if policy.folded and not policy.on_gpu:
            # Half the time of a small convolution goes to bringing channels together, and a pooling is slow without.
            self._network = copy.deepcopy(network).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def __call__(self, crops: Tensor, guide: Guide | None = None) -> Tensor:
        channels = RGB + (0 if guide is None else guide.profiles.shape[1])

        def run(part: slice) -> Tensor:
            some = crops[part]
            output = self._network(some if guide is None else draw(some, guide[part], crops.dtype, channels))
            last: Tensor = output[-1] if isinstance(output, list) else output
            return last.float()

        return through_lanes(run, len(crops), self._policy.rows or len(crops), self._policy.lanes)


class FusedRunner:
    """Runs a FAN on kernels of our own."""

    def __init__(self, network: FAN, policy: Policy) -> None:
        from ls3dw.models.fused import FusedFAN

        self._policy = policy
        network = copy.deepcopy(network).to(policy.device)
        # As a graph: launching two hundred kernels takes Python as long as a batch of 128 takes the GPU.
        self._network = FusedFAN(network, dtype=policy.dtype, graph=True)
        # What is fused takes its result without the bias.
        network.conv1.bias = None
        self._first = First(network.conv1, policy)

    def __call__(self, crops: Tensor, guide: Guide | None = None) -> Tensor:
        def run(part: slice) -> Tensor:
            maps = self._first(crops[part], None if guide is None else guide[part])
            # A copy: the graph writes its next result to the same place.
            return self._network.body(maps).to(torch.float32, copy=True)

        # Triton's kernels go to the current device, whatever their tensors are on.
        with torch.cuda.device(self._policy.device):
            return through_lanes(run, len(crops), self._policy.rows or len(crops), self._policy.lanes)


class FoldedRunner:
    """Runs a folded network."""

    def __init__(self, network: FAN | DepthNet, policy: Policy) -> None:
        self._policy = policy
        self._network: Folded = folded(network, policy.dtype).to(policy.device)
        self._first = First(self._network.first, policy)
        self._to_compile = policy.compiled

    def __call__(self, crops: Tensor, guide: Guide | None = None) -> Tensor:
        rows = self._policy.rows or len(crops)
        if self._to_compile:
            self._to_compile = False
            maps = self._first(crops[:rows], None if guide is None else guide[:rows])
            in_lane(lambda: compile_parts(self._network, maps), self._policy.lanes)

        def run(part: slice) -> Tensor:
            output: Tensor = self._network.body(self._first(crops[part], None if guide is None else guide[part]))
            return output.float()

        return through_lanes(run, len(crops), rows, self._policy.lanes)


class First:
    """The first convolution of a network, for RGB that is drawn and a guide that is not.

    In float32 on a CPU and for guided networks, where answers to many points are summed; it is a small part of the
    work.
    """

    def __init__(self, conv: nn.Conv2d, policy: Policy) -> None:
        guided = conv.in_channels > RGB
        self._then = policy.dtype
        self._dtype = policy.dtype if policy.on_gpu and not guided else torch.float32
        self._channels = even(RGB) if policy.on_gpu else RGB
        padding = (0, 0, 0, 0, 0, self._channels - RGB)
        weight = F.pad(conv.weight[:, :RGB], padding).to(self._dtype)
        self._weight = weight.contiguous(memory_format=torch.channels_last)
        self._guided = conv.weight[:, RGB:]
        self._bias = None if conv.bias is None else conv.bias.to(self._dtype)
        self._stride, self._padding = conv.stride[0], int(conv.padding[0])

    def __call__(self, crops: Tensor, guide: Guide | None) -> Tensor:
        """(N, 3, 256, 256) -> (N, C, 128, 128), channels last, in the type of the network."""
        rgb = draw(crops, None, self._dtype, self._channels)
        maps = F.conv2d(rgb, self._weight, self._bias, self._stride, self._padding)
        if guide is not None:
            respond(maps, self._guided, guide, self._stride, self._padding)
        return maps.to(self._then)

"""Runs networks: as `Policy` says on a device, with RGB and a guide in, and the last heatmaps or the depths out."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor, nn

from ls3dw.models.inference.compiling import compile_parts
from ls3dw.models.inference.core_threads import in_lane, through_lanes
from ls3dw.models.inference.first_conv import First
from ls3dw.models.inference.folding import Folded, folded
from ls3dw.models.inference.gpu import FusedRunner, fusable
from ls3dw.models.inference.packing import pack, packable
from ls3dw.models.inference.policy import Policy
from ls3dw.models.networks.depth import DepthNet
from ls3dw.models.networks.fan import FAN
from ls3dw.models.networks.guidance import Guide, draw
from ls3dw.models.networks.heatmaps import with_mirrored
from ls3dw.models.weights.contract import RGB


class Runner(Protocol):
    """A network on a device."""

    def __call__(self, crops: Tensor, guide: Guide | None = None, flip: bool = False) -> Tensor:
        """crops: (N, 3, 256, 256) float32 in [0, 1] -> (N, 68, 64, 64) or (N, 68) float32; guide: of guided ones.

        flip: average heatmaps with the mirrored picture's.
        """
        ...


def prepare(network: nn.Module, policy: Policy) -> Runner:
    """Make a network in eval mode, on the CPU in float32, ready to run. It stays as it is if it is folded."""
    if isinstance(network, FAN | DepthNet) and fusable(network, policy):
        return FusedRunner(network, policy)
    if policy.folded and isinstance(network, FAN | DepthNet):
        if policy.compiled and not policy.on_gpu:
            # It takes two seconds to import.
            from ls3dw.models.inference.openvino import OpenVinoRunner

            return OpenVinoRunner(network, policy)
        return FoldedRunner(network, policy)
    return PlainRunner(network, policy)


class PlainRunner:
    """Runs a network as it stands, in float32: any with the plain engine, those that give coordinates with all."""

    def __init__(self, network: nn.Module, policy: Policy) -> None:
        self._policy = policy
        self._network = network.to(policy.device)
        if policy.folded and not policy.on_gpu:
            # Half the time of a small convolution goes to bringing channels together, and a pooling is slow without.
            self._network = copy.deepcopy(network).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            # Linear layers sum in another order for several pictures.
            self._policy = replace(policy, rows=1)

    def __call__(self, crops: Tensor, guide: Guide | None = None, flip: bool = False) -> Tensor:
        if flip:
            return with_mirrored(self, crops)

        channels = RGB + (0 if guide is None else guide.profiles.shape[1])

        def run(part: slice) -> Tensor:
            some = crops[part]
            output = self._network(some if guide is None else draw(some, guide[part], crops.dtype, channels))
            last: Tensor = output[-1] if isinstance(output, list) else output
            return last.float()

        return through_lanes(run, len(crops), self._policy.rows or len(crops), self._policy.lanes)


class FoldedRunner:
    """Runs a folded network."""

    def __init__(self, network: FAN | DepthNet, policy: Policy) -> None:
        self._policy = policy
        self._network: Folded = folded(network, policy.dtype).to(policy.device)
        self._first = First(self._network.first, policy)
        self._to_compile = policy.compiled
        if packable(policy):
            maps = self._first(torch.zeros(policy.rows or 1, RGB, 256, 256), None)
            in_lane(lambda: pack(self._network, maps), policy.lanes)

    def __call__(self, crops: Tensor, guide: Guide | None = None, flip: bool = False) -> Tensor:
        if flip:
            return with_mirrored(self, crops)

        rows = self._policy.rows or len(crops)
        if self._to_compile:
            self._to_compile = False
            maps = self._first(crops[:rows], None if guide is None else guide[:rows])
            compile_parts(self._network, maps)

        def run(part: slice) -> Tensor:
            output: Tensor = self._network.body(self._first(crops[part], None if guide is None else guide[part]))
            return output.float()

        return through_lanes(run, len(crops), rows, self._policy.lanes)

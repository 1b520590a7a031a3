"""Runs networks as a `Policy` says: RGB and a guide in, the last heatmaps or depths out."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor, nn

from ls3dw.models.inference.core_threads import run_in_parts, run_in_thread
from ls3dw.models.inference.first_conv import FirstConv
from ls3dw.models.inference.folding import Folded, fold_network, pack, packable
from ls3dw.models.inference.gpu import FusedRunner, fusable
from ls3dw.models.inference.policy import Policy
from ls3dw.models.networks.depth import DepthNet
from ls3dw.models.networks.fan import FAN
from ls3dw.models.networks.guidance import Guide, draw
from ls3dw.models.networks.heatmaps import with_mirrored
from ls3dw.models.weights.contract import RGB


class Runner(Protocol):
    """A network on a device."""

    def __call__(self, crops: Tensor, guide: Guide | None = None, flip: bool = False) -> Tensor:
        """crops: (N, 3, 256, 256) float32 in [0, 1] -> (N, 68, 64, 64) or (N, 68) float32; guide: for guided networks.

        flip: average heatmaps with the mirrored picture's.
        """
        ...


def prepare(network: nn.Module, policy: Policy) -> Runner:
    """Prepare a network in eval mode, on the CPU in float32, for running. Folding leaves the given one unchanged."""
    if isinstance(network, FAN | DepthNet) and policy.folded:
        if fusable(network, policy):
            return FusedRunner(network, policy)
        if policy.compiled and not policy.on_gpu:
            # Importing OpenVINO takes two seconds.
            from ls3dw.models.inference.openvino import OpenVinoRunner

            return OpenVinoRunner(network, policy)
        return FoldedRunner(network, policy)
    return PlainRunner(network, policy)


class PlainRunner:
    """Runs a network unchanged in float32: any with the plain engine, coordinate networks with all."""

    def __init__(self, network: nn.Module, policy: Policy) -> None:
        self._policy = policy
        self._network = network.to(policy.device)
        if policy.folded and not policy.on_gpu:
            # Twice as fast for small convolutions and for pooling.
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

        return run_in_parts(run, len(crops), self._policy.rows or len(crops), self._policy.threads)


class FoldedRunner:
    """Runs a folded network."""

    def __init__(self, network: FAN | DepthNet, policy: Policy) -> None:
        self._policy = policy
        self._network: Folded = fold_network(network, policy.dtype).to(policy.device)
        self._first = FirstConv(self._network.first, policy)
        if packable(policy):
            maps = self._first(torch.zeros(policy.rows or 1, RGB, 256, 256), None)
            run_in_thread(lambda: pack(self._network, maps), policy.threads)

    def __call__(self, crops: Tensor, guide: Guide | None = None, flip: bool = False) -> Tensor:
        if flip:
            return with_mirrored(self, crops)

        def run(part: slice) -> Tensor:
            output: Tensor = self._network.body(self._first(crops[part], None if guide is None else guide[part]))
            return output.float()

        return run_in_parts(run, len(crops), self._policy.rows or len(crops), self._policy.threads)

"""The arithmetic of a network: multiplications with an addition (MAC) of its convolutions and linear layers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ls3dw.core.geometry import CROP_SIZE
from ls3dw.models.weights.contract import CHANNELS_OF, COORDINATES, Contract


def network_macs(contract: Contract) -> int:
    """Count those of a contract's network for one picture of 256x256, whatever the weights and the way it is run.

    Without the last layer of networks that give coordinates, which is not called as a module: 0.2 % of a CNN-6.
    """
    # Those resample their crop with matrices that must be there; they are small.
    with torch.device("cpu" if contract.network["class"] in COORDINATES else "meta"):
        network = contract.build().eval()
        return count_macs(network, torch.empty(1, CHANNELS_OF[contract.kind], CROP_SIZE, CROP_SIZE))


def count_macs(network: nn.Module, inputs: Tensor) -> int:
    """Run a network on `inputs` and count. On the device "meta" nothing is computed."""
    counts: list[int] = []
    hooks = [
        module.register_forward_hook(_counter(counts))
        for module in network.modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    ]
    try:
        with torch.no_grad():
            network(inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return sum(counts)


def _counter(counts: list[int]) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
    def count(module: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
        # Each value of the output is a row of the weights times as many values of the input.
        weight = module.get_parameter("weight")
        counts.append(output.numel() * weight[0].numel())

    return count

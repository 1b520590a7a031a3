"""The networks of a run: building, initial weights, input."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ls3dw.core.markup import POINTS
from ls3dw.errors import ConfigurationError, ModelError
from ls3dw.models.networks.depth import DepthNet
from ls3dw.models.networks.guidance import EVEN, draw, even, gaussian_guide
from ls3dw.models.networks.heatmaps import draw_gaussians
from ls3dw.models.networks.wing import Cascade, CoordinateNet
from ls3dw.models.weights.contract import CHANNELS_OF, GUIDANCE_STD, RGB, Contract, Kind
from ls3dw.models.weights.zoo import load
from ls3dw.synth.rng import hash_seed
from ls3dw.training.network_options import CASCADE, NetworkOptions
from ls3dw.training.objective.losses import DEPTH_UNIT


@dataclass(frozen=True)
class TrainedNetwork:
    """A network in training, or its average. Depth is in units of `DEPTH_UNIT` px here, in px in exported weights."""

    name: str
    options: NetworkOptions
    network: nn.Module

    @property
    def kind(self) -> Kind:
        return self.options.kind

    @property
    def is_second_stage(self) -> bool:
        """Whether it is stage two of a cascade, which needs points to straighten its crops."""
        return self.options.stage == 2

    @property
    def image_only(self) -> bool:
        """Whether it needs no points beside the picture."""
        return CHANNELS_OF[self.kind] == RGB and not self.is_second_stage


class PaddedConv2d(nn.Conv2d):
    """A convolution of input with empty channels at the end, which make their number a multiple of eight."""

    def forward(self, x: Tensor) -> Tensor:
        weight = F.pad(self.weight, (0, 0, 0, 0, 0, x.shape[1] - self.in_channels))
        return F.conv2d(x, weight, self.bias, self.stride, self.padding)


def contract_of(name: str, options: NetworkOptions, **more: Any) -> Contract:
    """Make the contract of a network's weights; more: fields beside name, kind and network."""
    values = {"name": name, "kind": options.kind, "network": dict(options.network), "sha256": ""}
    return Contract.from_dict(values | {"guidance_std": GUIDANCE_STD[options.kind]} | more, f"networks.{name}")


def make_networks(options: Mapping[str, NetworkOptions], seed: int, device: torch.device) -> dict[str, TrainedNetwork]:
    """Build the networks on a device, in training mode; raises one `ConfigurationError` for all faults."""
    made, faults = {}, []
    for name, entry in options.items():
        try:
            made[name] = TrainedNetwork(name, entry, _prepare(_make(name, entry, seed), device))
        except (ModelError, TypeError, ValueError) as error:
            faults.append(f"networks.{name}: {error}")
    if faults:
        raise ConfigurationError("; ".join(faults))
    return made


def _make(name: str, options: NetworkOptions, seed: int) -> nn.Module:
    # Weights are initialised from torch's global generator, so it is seeded for each network and restored.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(hash_seed(seed, "weights", name))
        network = contract_of(name, options).build()
    if options.init != "random":
        model = load(options.init, (options.kind,))
        try:
            network.load_state_dict(model.network.state_dict(), strict=True)
        except RuntimeError as error:
            raise ModelError(
                f"init {options.init}: weights of another network ({str(error).splitlines()[-1]})"
            ) from error
        scale_depth(network, 1 / DEPTH_UNIT)
    return network


def load_guide(model: str | None, device: torch.device) -> TrainedNetwork | None:
    """Load the 2D network whose predictions guide others; it is not trained."""
    if model is None:
        return None
    try:
        loaded = load(model, ("2d",))
    except ModelError as error:
        raise ConfigurationError(f"guidance.model: {error}") from error
    options = NetworkOptions("2d", dict(loaded.contract.network))
    return TrainedNetwork(loaded.contract.name, options, _prepare(loaded.network, device).eval())


def make_cascades(
    options: Mapping[str, tuple[str, str]], networks: Mapping[str, TrainedNetwork]
) -> dict[str, TrainedNetwork]:
    """Join networks to cascades, which share their weights."""
    made = {}
    for name, stages in options.items():
        first, second = (networks[stage] for stage in stages)
        assert isinstance(first.network, CoordinateNet)
        assert isinstance(second.network, CoordinateNet)
        network = {"class": CASCADE, "first": dict(first.options.network), "second": dict(second.options.network)}
        cascade = Cascade(first.network, second.network).eval()
        made[name] = TrainedNetwork(name, NetworkOptions(first.kind, network), cascade)
    return made


def scale_depth(network: nn.Module, factor: float) -> None:
    """Multiply the output of a depth network; leave other networks as they are."""
    if isinstance(network, DepthNet):
        with torch.no_grad():
            network.fc.weight.mul_(factor)
            network.fc.bias.mul_(factor)


def _prepare(network: nn.Module, device: torch.device) -> nn.Module:
    first = network.get_submodule("conv1")
    assert isinstance(first, nn.Conv2d)
    if first.in_channels % EVEN and first.in_channels > EVEN and device.type == "cuda":
        padded = PaddedConv2d(
            first.in_channels,
            first.out_channels,
            first.kernel_size[0],
            stride=first.stride[0],
            padding=int(first.padding[0]),
            bias=first.bias is not None,
        )
        padded.load_state_dict(first.state_dict())
        network.add_module("conv1", padded)
    network.train().to(device)
    if device.type == "cuda":
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network


def network_input(images: Tensor, guide: Tensor | None, kind: Kind) -> Tensor:
    """Join the input of a network: RGB (B, 3, 256, 256), and if guided a Gaussian for each point of `guide` (B, 68, 2).

    A NaN gives an empty channel. On a GPU the result has the dtype of autocast and one more empty channel.
    """
    if guide is None:
        return images
    std = GUIDANCE_STD[kind]
    if images.device.type == "cpu":
        return torch.cat((images, draw_gaussians(guide, std)), dim=1)
    dtype = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else images.dtype
    return draw(images, gaussian_guide(guide, std), dtype, even(RGB + POINTS))

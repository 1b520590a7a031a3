"""One step of all networks on one batch: losses, gradients, weights. On a GPU captured once and replayed."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ls3dw.core.geometry import CROP_SIZE
from ls3dw.core.markup import POINTS
from ls3dw.models.inference.cuda_graph import capture
from ls3dw.models.networks.wing import CoordinateNet
from ls3dw.models.weights.contract import Kind
from ls3dw.training.data.batch import Batch
from ls3dw.training.distributed import Group, average_gradients
from ls3dw.training.networks import Trained, network_input
from ls3dw.training.objective.losses import coordinate_loss
from ls3dw.training.objective.optimizers import make_optimizer, set_rate
from ls3dw.training.objective.targets import (
    depth_loss,
    depth_targets,
    heatmap_loss,
    heatmap_targets,
    known_points,
)
from ls3dw.training.options import TargetOptions, TrainOptions

WARM_UPS: Final = 3
"""Steps before the capture, in which cuDNN chooses its algorithms, the allocator finds its sizes, and processes that
train together connect."""


@dataclass(frozen=True)
class Inputs:
    """A batch and the points that guide: (B, 68, 2) crop pixels, true ones with errors, NaN where unknown."""

    images: Tensor
    landmarks_2d: Tensor
    landmarks_3d: Tensor
    guides: Mapping[str, Tensor]
    """Of each network that needs points."""

    def tensors(self) -> list[Tensor]:
        return [self.images, self.landmarks_2d, self.landmarks_3d, *(self.guides[name] for name in sorted(self.guides))]


def guided_by(batch: Batch, kind: Kind) -> Tensor:
    """Return the true points (B, 68, 2) that guide a network of this kind, or straighten its crops."""
    return batch.landmarks_2d if kind in ("2d", "2d-to-3d") else batch.landmarks_3d[..., :2]


def loss_of(trained: Trained, inputs: Inputs, targets: Mapping[str, Tensor], options: TargetOptions) -> Tensor:
    """Run one network and compare what it gives with what it shall give."""
    guide = inputs.guides.get(trained.name)
    if isinstance(trained.network, CoordinateNet):
        truth = inputs.landmarks_2d if trained.kind == "2d" else inputs.landmarks_3d[..., :2]
        return coordinate_loss(trained.network, inputs.images, truth, guide, trained.options)
    output = trained.network(network_input(inputs.images, guide, trained.kind))
    if trained.kind == "depth":
        return depth_loss(output, depth_targets(inputs.landmarks_3d))
    landmarks = inputs.landmarks_2d if trained.kind == "2d" else inputs.landmarks_3d[..., :2]
    known = known_points(landmarks)
    if guide is not None:
        # A face without any 2D point cannot be guided: it teaches nothing here.
        known = known & known_points(guide).any(dim=1, keepdim=True)
    return heatmap_loss(output, targets["2d" if trained.kind == "2d" else "3d"], known, options.weight)


class Step:
    """Takes steps. The networks and optimizers keep their tensors for good, and so do the inputs on a GPU, so that the
    whole step can be captured as one CUDA graph: launching its thousands of small kernels one by one would take longer
    than running them."""

    def __init__(self, options: TrainOptions, networks: Mapping[str, Trained], group: Group) -> None:
        self.options = options
        self.networks = networks
        self.group = group
        self.optimizers: dict[str, Optimizer] = {
            name: make_optimizer(trained.network.parameters(), options.optimizer, group.device)
            for name, trained in networks.items()
        }
        self.losses = torch.zeros(len(networks), device=group.device)
        """Losses of the last step, in the order of the networks."""
        self._inputs: Inputs | None = None
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, inputs: Inputs, rate: float) -> None:
        """Take one step at this learning rate."""
        for name, optimizer in self.optimizers.items():
            set_rate(optimizer, rate * self.networks[name].options.rate)
        if self._graph is None or self._inputs is None:
            self._take(inputs)
            return
        for mine, value in zip(self._inputs.tensors(), inputs.tensors(), strict=True):
            mine.copy_(value)
        self._graph.replay()

    def backward(self, inputs: Inputs) -> Tensor:
        """Compute the losses (networks,) and leave the gradients of their means over all processes."""
        targets = self._targets(inputs)
        losses = []
        # One network after the other: the activations of only one are kept at a time.
        for trained in self.networks.values():
            with self._precision():
                loss = loss_of(trained, inputs, targets, self.options.targets)
            loss.backward()  # type: ignore[no-untyped-call]
            losses.append(loss.detach())
        if self.group.world > 1:
            average_gradients(self._parameters(), self.group.world)
        return torch.stack(losses)

    def capture(self, inputs: Inputs) -> None:
        """Capture the step for inputs of these shapes. It changes weights and state: put them back afterwards."""
        self.release()
        self._inputs = Inputs(
            inputs.images.clone(memory_format=torch.channels_last),
            inputs.landmarks_2d.clone(),
            inputs.landmarks_3d.clone(),
            {name: guide.clone() for name, guide in inputs.guides.items()},
        )
        mine = self._inputs

        def warm_up() -> None:
            self._take(mine)
            self._clear()

        self._graph, _ = capture(lambda: self._take(mine, clear=False), self.group.device, WARM_UPS, warm_up)

    def release(self) -> None:
        """Give the graph back: NCCL does not end a process group before all graphs that it is part of are gone."""
        if self._graph is not None:
            torch.cuda.synchronize(self.group.device)
            self._graph.reset()
            self._graph = None

    def _take(self, inputs: Inputs, clear: bool = True) -> None:
        if clear:
            self._clear()
        self.losses.copy_(self.backward(inputs))
        for name, optimizer in self.optimizers.items():
            if self.options.optimizer.clip:
                nn.utils.clip_grad_norm_(self.networks[name].network.parameters(), self.options.optimizer.clip)
            optimizer.step()

    def _clear(self) -> None:
        for optimizer in self.optimizers.values():
            optimizer.zero_grad(set_to_none=True)

    def _parameters(self) -> list[nn.Parameter]:
        return [parameter for trained in self.networks.values() for parameter in trained.network.parameters()]

    def _targets(self, inputs: Inputs) -> dict[str, Tensor]:
        """Draw each kind of target once for all networks."""
        kinds = {trained.kind for trained in self.networks.values() if not trained.options.coordinates}
        std = self.options.targets.std
        targets = {}
        if "2d" in kinds:
            targets["2d"] = heatmap_targets(inputs.landmarks_2d, std)
        if kinds & {"3d", "2d-to-3d"}:
            targets["3d"] = heatmap_targets(inputs.landmarks_3d[..., :2], std)
        return targets

    def _precision(self) -> contextlib.AbstractContextManager[object]:
        if self.options.precision == "fp32":
            return contextlib.nullcontext()
        # Without the cache: it would keep weights of before the capture.
        return torch.autocast(self.group.device.type, torch.bfloat16, cache_enabled=False)


def empty_inputs(batch: int, networks: Mapping[str, Trained], device: torch.device) -> Inputs:
    """Make inputs of the right shapes, for the capture."""
    return Inputs(
        torch.rand(batch, 3, CROP_SIZE, CROP_SIZE, device=device),
        torch.rand(batch, POINTS, 2, device=device) * CROP_SIZE,
        torch.rand(batch, POINTS, 3, device=device) * CROP_SIZE,
        {
            name: torch.rand(batch, POINTS, 2, device=device) * CROP_SIZE
            for name, trained in networks.items()
            if not trained.alone
        },
    )

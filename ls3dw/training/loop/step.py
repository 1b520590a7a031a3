"""One training step of all networks on one batch; on a GPU a CUDA graph, captured once and replayed."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ls3dw.core.geometry import CROP_SIZE
from ls3dw.core.markup import POINTS
from ls3dw.models.inference.cuda_graph import capture
from ls3dw.models.networks.wing import CoordinateNet
from ls3dw.training.data.feed import StepInputs
from ls3dw.training.distributed import ProcessGroup, average_gradients
from ls3dw.training.networks import TrainedNetwork, network_input
from ls3dw.training.objective.losses import (
    coordinate_loss,
    depth_loss,
    depth_targets,
    heatmap_loss,
    heatmap_targets,
    known_points,
)
from ls3dw.training.objective.optimizers import make_optimizer, set_rate
from ls3dw.training.options import TargetOptions, TrainOptions

WARM_UPS: Final = 3
"""Steps before the capture: cuDNN chooses algorithms, the allocator grows, NCCL connects."""


def loss_of(
    trained: TrainedNetwork, inputs: StepInputs, targets: Mapping[str, Tensor], options: TargetOptions
) -> Tensor:
    """Run one network and return its loss."""
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
        # Faces without any guiding point are left out.
        known = known & known_points(guide).any(dim=1, keepdim=True)
    return heatmap_loss(output, targets["2d" if trained.kind == "2d" else "3d"], known, options.weight)


class TrainStep:
    """Takes training steps.

    Networks, optimizers and, on a GPU, inputs keep their tensors, so that the step can be captured as one CUDA graph:
    launching its thousands of small kernels one by one takes longer than running them.
    """

    def __init__(self, options: TrainOptions, networks: Mapping[str, TrainedNetwork], group: ProcessGroup) -> None:
        self.options = options
        self.networks = networks
        self.group = group
        self.optimizers: dict[str, Optimizer] = {
            name: make_optimizer(trained.network.parameters(), options.optimizer, group.device)
            for name, trained in networks.items()
        }
        self.losses = torch.zeros(len(networks), device=group.device)
        """Losses of the last step, in the order of the networks."""
        self._inputs: StepInputs | None = None
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, inputs: StepInputs, rate: float) -> None:
        """Take one step at this learning rate."""
        for name, optimizer in self.optimizers.items():
            set_rate(optimizer, rate * self.networks[name].options.rate)
        if self._graph is None or self._inputs is None:
            self._take(inputs)
            return
        for mine, value in zip(self._inputs.tensors(), inputs.tensors(), strict=True):
            mine.copy_(value)
        self._graph.replay()

    def backward(self, inputs: StepInputs) -> Tensor:
        """Return the losses (networks,); leave gradients averaged over all processes in the parameters."""
        targets = self._targets(inputs)
        losses = []
        # One network after the other, to keep the activations of one at a time.
        for trained in self.networks.values():
            with self._precision():
                loss = loss_of(trained, inputs, targets, self.options.targets)
            loss.backward()  # type: ignore[no-untyped-call]
            losses.append(loss.detach())
        if self.group.world > 1:
            average_gradients(self._parameters(), self.group.world)
        return torch.stack(losses)

    def capture(self, inputs: StepInputs) -> None:
        """Capture the step for inputs of these shapes. This changes weights and state: restore them afterwards."""
        self.release()
        self._inputs = StepInputs(
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
        """Free the graph: NCCL cannot end a process group that is part of one."""
        if self._graph is not None:
            torch.cuda.synchronize(self.group.device)
            self._graph.reset()
            self._graph = None

    def _take(self, inputs: StepInputs, clear: bool = True) -> None:
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

    def _targets(self, inputs: StepInputs) -> dict[str, Tensor]:
        """Draw each kind of heatmap once for all networks."""
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
        # No cache: it would hold weights from before the capture.
        return torch.autocast(self.group.device.type, torch.bfloat16, cache_enabled=False)


def empty_inputs(batch: int, networks: Mapping[str, TrainedNetwork], device: torch.device) -> StepInputs:
    """Make random inputs of the right shapes, for the capture."""
    return StepInputs(
        torch.rand(batch, 3, CROP_SIZE, CROP_SIZE, device=device),
        torch.rand(batch, POINTS, 2, device=device) * CROP_SIZE,
        torch.rand(batch, POINTS, 3, device=device) * CROP_SIZE,
        {
            name: torch.rand(batch, POINTS, 2, device=device) * CROP_SIZE
            for name, trained in networks.items()
            if not trained.image_only
        },
    )

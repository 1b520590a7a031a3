"""Several processes on one machine, a GPU each, started by torchrun: what one would do, in parts.

Each process takes its lanes of the batch. Batch norms take their statistics over all processes, and gradients are
averaged, so that N processes take the step that one would take with the whole batch.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ls3dw.errors import ConfigurationError, DeviceError


@dataclass(frozen=True)
class Group:
    """This process among all; `device` is what it computes on."""

    device: torch.device
    rank: int = 0
    world: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes files and says what happens."""
        return self.rank == 0

    def lanes(self, count: int) -> range:
        """Return this process's lanes."""
        if count % self.world:
            raise ConfigurationError(f"lanes {count}: {self.world} processes need a multiple of {self.world}")
        mine = count // self.world
        return range(self.rank * mine, (self.rank + 1) * mine)


def join(gpu: str) -> Group:
    """Choose the device, and meet the other processes where torchrun has started several. gpu: auto, none or an id."""
    world, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    device = _device(gpu, int(os.environ.get("LOCAL_RANK", "0")) if world > 1 else 0)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if world > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return Group(device, rank, world)


def leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def _device(gpu: str, local_rank: int) -> torch.device:
    if gpu == "none":
        return torch.device("cpu")
    found = torch.cuda.device_count()
    if gpu == "auto":
        return torch.device("cuda", local_rank) if found else torch.device("cpu")
    if not (gpu.isascii() and gpu.isdigit()):
        raise ConfigurationError(f"gpu {gpu!r}: expected auto, none, or an id such as 0; for several use torchrun")
    if int(gpu) + local_rank >= found:
        raise DeviceError(f"cuda:{gpu}: this machine shows {found} CUDA devices; use --gpu none or another id")
    return torch.device("cuda", int(gpu) + local_rank)


def average_gradients(parameters: Iterable[nn.Parameter], world: int) -> None:
    """Bring the gradients of all processes to their mean, in one message."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    flat /= world
    start = 0
    for gradient in gradients:
        gradient.copy_(flat[start : start + gradient.numel()].view(gradient.shape))
        start += gradient.numel()


class JoinedBatchNorm2d(nn.BatchNorm2d):
    """Batch norm over all processes on any device; torch's own synchronised one knows CUDA only."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.momentum is not None
        moments = torch.stack((x.mean(dim=(0, 2, 3)), x.square().mean(dim=(0, 2, 3))))
        moments = _sum_over_processes(moments) / dist.get_world_size()
        mean, variance = moments[0], moments[1] - moments[0].square()
        with torch.no_grad():
            count = x.numel() / x.shape[1] * dist.get_world_size()
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)
            if self.num_batches_tracked is not None:
                self.num_batches_tracked += 1
        scale = self.weight * torch.rsqrt(variance + self.eps)
        normed: Tensor = x * scale[:, None, None] + (self.bias - mean * scale)[:, None, None]
        return normed


class _SumOverProcesses(torch.autograd.Function):
    """The sum of a tensor over all processes; each one's gradient is the sum of all gradients of the sum."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        dist.all_reduce(total)
        return total


def _sum_over_processes(x: Tensor) -> Tensor:
    total: Tensor = _SumOverProcesses.apply(x)  # type: ignore[no-untyped-call]
    return total


def join_norms(network: nn.Module, group: Group) -> nn.Module:
    """Let the batch norms of a network take their statistics over all processes; their names and weights stay."""
    if group.world == 1:
        return network
    if group.device.type == "cuda":
        joined: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
        return joined
    for module in network.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = JoinedBatchNorm2d  # the same parameters and buffers, another forward
    return network


def as_single(network: nn.Module) -> nn.Module:
    """Turn the norms back, in a copy that one process uses alone; in eval mode all kinds compute the same."""
    for module in network.modules():
        if isinstance(module, JoinedBatchNorm2d):
            module.__class__ = nn.BatchNorm2d  # type: ignore[assignment]
    return network

"""Training on several GPUs of one machine, one process each, started by torchrun.

Each process takes its slices of the batch. Batch norms use statistics over all processes and gradients are averaged, so
N processes take the same step as one process with the whole batch.
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
class ProcessGroup:
    """The processes of a run: this one's device and rank, and their number."""

    device: torch.device
    rank: int = 0
    world: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and logs."""
        return self.rank == 0

    def slices(self, count: int) -> range:
        """Return which of the batch's `count` slices belong to this process."""
        if count % self.world:
            raise ConfigurationError(f"slices {count}: {self.world} processes need a multiple of {self.world}")
        mine = count // self.world
        return range(self.rank * mine, (self.rank + 1) * mine)


def join_group(gpu: str) -> ProcessGroup:
    """Choose the device, and connect the processes that torchrun started. gpu: auto, none or an id."""
    world, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    device = _device(gpu, int(os.environ.get("LOCAL_RANK", "0")) if world > 1 else 0)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if world > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return ProcessGroup(device, rank, world)


def leave_group() -> None:
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
    """Average the gradients over all processes, in one message."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    joined = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(joined)
    joined /= world
    start = 0
    for gradient in gradients:
        gradient.copy_(joined[start : start + gradient.numel()].view(gradient.shape))
        start += gradient.numel()


class SyncedBatchNorm2d(nn.BatchNorm2d):
    """Batch norm over all processes on any device; torch's SyncBatchNorm needs CUDA."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.momentum is not None
        moments = torch.stack((x.mean(dim=(0, 2, 3)), x.square().mean(dim=(0, 2, 3))))
        total: Tensor = _SumOverProcesses.apply(moments)  # type: ignore[no-untyped-call]
        mean, square = total / dist.get_world_size()
        variance = square - mean.square()
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
    """The sum of a tensor over all processes; its gradient is the sum of their gradients."""

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


def sync_norms(network: nn.Module, group: ProcessGroup) -> nn.Module:
    """Let batch norms use statistics over all processes; names and weights stay."""
    if group.world == 1:
        return network
    if group.device.type == "cuda":
        synced: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
        return synced
    for module in network.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SyncedBatchNorm2d  # same parameters and buffers, another forward
    return network


def unsync_norms(network: nn.Module) -> nn.Module:
    """Undo `sync_norms` in a copy that one process uses; SyncBatchNorm stays, as eval mode computes the same."""
    for module in network.modules():
        if isinstance(module, SyncedBatchNorm2d):
            module.__class__ = nn.BatchNorm2d  # type: ignore[assignment]
    return network

"""Torch devices: from the option `--gpu`, and the cores that torch uses beside them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

from ls3dw.errors import DeviceError


def devices(gpu: str) -> list[str]:
    """Turn auto, none or ids such as 0,1 into names of torch devices; `check_device` checks that they exist."""
    if gpu == "none" or (gpu == "auto" and not torch.cuda.is_available()):
        return ["cpu"]
    if gpu == "auto":
        return ["cuda:0"]
    ids = [number.strip() for number in gpu.split(",")]
    if not all(number.isascii() and number.isdigit() for number in ids):
        raise DeviceError(f"gpu {gpu!r}: expected auto, none, or ids such as 0 or 0,1")
    return [f"cuda:{number}" for number in dict.fromkeys(map(int, ids))]


def one_device(gpu: str) -> torch.device:
    """Turn auto, none or one id into an existing device."""
    names = devices(gpu)
    if len(names) > 1:
        raise DeviceError(f"gpu {gpu!r}: this command uses one; give one id")
    return check_device(names[0])


def using(device: torch.device) -> AbstractContextManager[None]:
    """Make a GPU the current one of this thread: streams and pinned memory depend on it."""
    context: AbstractContextManager[None] = torch.cuda.device(device) if device.type == "cuda" else nullcontext()
    return context


def leave_cores() -> None:
    """Let torch use one core, in a process that drives a GPU while the other cores decode.

    On busy cores, threads that wait for each other took half a minute to load networks.
    """
    torch.set_num_threads(1)


@contextmanager
def on_one_core() -> Iterator[None]:
    """Let torch use one core for a while: loading networks is as fast, and four times faster beside busy processes."""
    threads = torch.get_num_threads()
    leave_cores()
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def check_device(name: str) -> torch.device:
    """Return the device of that name; `DeviceError` when this machine does not have it."""
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceError(f"device {name!r}: expected cpu, cuda or cuda:0") from error
    if device.type not in ("cpu", "cuda"):
        raise DeviceError(f"device {name!r}: expected cpu, cuda or cuda:0")
    found = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= found:
        raise DeviceError(f"{name}: this machine shows {found} CUDA devices; use --gpu none or another id")
    return device

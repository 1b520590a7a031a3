"""What a rate was measured on: processor, GPU, versions, and the most arithmetic that this machine does."""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch

from ls3dw.building.bench.timing import Clocks

CPU_SIDE: Final = 1536
GPU_SIDE: Final = 8192
"""Of the square matrices whose product is timed: large enough to reach the peak, small enough for a moment."""

NAMED: Final = {"avx512f": "AVX-512", "avx512_bf16": "AVX-512 bf16", "amx_tile": "AMX", "amx_bf16": "AMX bf16"}
"""What a processor can do that networks profit from, by its flag in /proc/cpuinfo."""


@dataclass(frozen=True)
class Machine:
    """device: what runs the networks; precision: of their arithmetic; peak: FLOP/s of a large product in it; load: how
    many processes wanted a core in the minute before, None where the system does not tell."""

    processor: str
    features: tuple[str, ...]
    cores: int
    threads: int
    device: str
    precision: str
    peak: float
    load: float | None
    python: str
    torch: str

    @property
    def busy(self) -> bool:
        """Whether other work took a good part of the cores."""
        return self.load is not None and self.load > self.cores / 4


def describe(device: torch.device, precision: torch.dtype, seconds: float) -> Machine:
    """Describe this machine, and measure its peak for so many seconds."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    processor, flags = _processor()
    return Machine(
        processor=processor,
        features=named_features(flags),
        cores=cores(),
        threads=torch.get_num_threads(),
        device="cpu" if device.type == "cpu" else torch.cuda.get_device_name(device),
        precision=str(precision).removeprefix("torch."),
        peak=measure_peak(device, precision, seconds),
        load=load,
        python=platform.python_version(),
        torch=torch.__version__,
    )


def cores() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def named_features(flags: frozenset[str]) -> tuple[str, ...]:
    """Name what is there of `NAMED`; without flags what torch says, such as AVX2."""
    found = tuple(name for flag, name in NAMED.items() if flag in flags)
    return found or (torch.backends.cpu.get_cpu_capability(),)


def measure_peak(device: torch.device, precision: torch.dtype, seconds: float) -> float:
    """Return the FLOP/s of a large matrix product in its best run."""
    side = CPU_SIDE if device.type == "cpu" else GPU_SIDE
    # Not zeros: multiplying them takes less power, and so runs faster.
    generator = torch.Generator(device).manual_seed(0)
    left, right = (torch.randn(side, side, generator=generator, device=device).to(precision) for _ in range(2))
    return 2 * side**3 / Clocks.of(device).device.measure(lambda: left @ right, 1, seconds).best


def _processor() -> tuple[str, frozenset[str]]:
    """Return the processor's name and flags; no flags where the system does not tell."""
    listed = Path("/proc/cpuinfo")
    if not listed.is_file():
        return platform.processor() or platform.machine(), frozenset()
    lines = (line.partition(":") for line in listed.read_text(encoding="utf-8").splitlines())
    values = {key.strip(): value.strip() for key, _, value in lines}
    return values.get("model name", platform.machine()), frozenset(values.get("flags", "").split())

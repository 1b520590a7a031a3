"""Chooses how networks run on a device: number format, batch parts, folded or compiled."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Final

import torch

log = logging.getLogger(__name__)

ENGINES: Final = ("fast", "eager", "compiled", "plain")
"""fast: the best for the device; eager: folded networks; compiled: on a GPU fused kernels, on a CPU OpenVINO; plain:
unchanged networks in float32, the reference for the others."""

COMPILE_AFTER: Final = 8_000
"""Faces on a GPU for which `fast` compiles: at the start if so many are expected, else after so many. It saves about a
millisecond a face with full-size networks; an H100 was ready for a first FAN after 16 s."""

MOST_THREADS: Final = 8
"""Threads for a batch on a CPU, as many as its faces; further cores help each thread."""

ROWS: Final = {torch.float32: 1, torch.bfloat16: 4}
"""Pictures that a thread takes at a time. In float32 the maps of one picture stay in the caches; with AMX a convolution
is so fast that its call, for which threads wait for Python, takes as long."""


@dataclass(frozen=True)
class Policy:
    """How networks run. dtype: of convolutions; compiled: by OpenVINO on a CPU, on fused kernels on a GPU; rows: most
    pictures at a time, None for all, in each of `threads`."""

    device: torch.device
    dtype: torch.dtype
    folded: bool = True
    compiled: bool = False
    rows: int | None = None
    threads: int = 1

    @property
    def on_gpu(self) -> bool:
        return self.device.type == "cuda"

    @property
    def narrow(self) -> bool:
        """Whether networks run in less than float32."""
        return self.dtype != torch.float32

    @property
    def name(self) -> str:
        """Name of the number format."""
        return str(self.dtype).removeprefix("torch.")

    def of_batch(self, batch: int) -> Policy:
        """Return the policy for batches of one size: CUDA graphs take no other."""
        return replace(self, rows=batch) if self.compiled and self.on_gpu else self

    def compiling(self) -> Policy:
        """Return the policy with compiled networks, for many faces."""
        return replace(self, compiled=True)

    def widened(self) -> Policy:
        """Return the policy in float32."""
        return replace(self, dtype=torch.float32)


def choose(device: torch.device, engine: str) -> Policy:
    """Return the policy of one of `ENGINES` on a device."""
    if engine not in ENGINES:
        raise ValueError(f"engine is {engine!r}; expected one of {', '.join(ENGINES)}")
    if engine == "plain":
        return Policy(device, torch.float32, folded=False)
    compiled = engine == "compiled"
    if device.type == "cuda":
        return Policy(device, torch.float16, compiled=compiled)
    # Each thread has its own pictures: threads that share a small layer wait for each other.
    threads = min(torch.get_num_threads(), MOST_THREADS)
    # Emulated bfloat16 would be slower than float32.
    dtype = torch.bfloat16 if has_bfloat16() else torch.float32
    if compiled and not has_openvino():
        log.info("OpenVINO is not installed (pip install 'ls3dw[openvino]'): the networks run as they are")
        compiled = False
    return Policy(device, dtype, compiled=compiled, rows=ROWS[dtype], threads=threads)


def has_openvino() -> bool:
    return find_spec("openvino") is not None


def has_bfloat16() -> bool:
    """Return whether oneDNN has AVX512-BF16 or AMX here; `_is_mkldnn_bf16_supported` is also true for emulation."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    checks = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(check is not None and check() for check in checks)

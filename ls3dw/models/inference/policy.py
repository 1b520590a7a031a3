"""Which way the networks run on a device: in which number format, in which parts, compiled or not."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Final

import torch

log = logging.getLogger(__name__)

ENGINES: Final = ("fast", "eager", "compiled", "plain")
"""fast: what suits the device; eager: folded networks; compiled: those, compiled before the first face, on a GPU with
fused kernels, on a CPU by OpenVINO; plain: the networks as they are in float32, which the others are held against."""

COMPILE_AFTER: Final = 8_000
"""Faces on a GPU for which `fast` compiles: at the start where so many are expected, else when so many have passed.
With full-size networks it saves about a millisecond a face; an H100 was ready for a first FAN after 16 s."""

MOST_LANES: Final = 8
"""As many as faces in a batch on the CPU; further cores help each lane."""

TOGETHER: Final = {torch.float32: 1, torch.bfloat16: 4}
"""Pictures that a lane takes at a time. A convolution takes AMX so little time that its call, in which other lanes may
have to wait for Python, takes as long; in float32 what counts is that the maps of one picture stay in the caches."""


@dataclass(frozen=True)
class Policy:
    """How networks run. dtype: of their convolutions; compiled: whether they are; fused: whether they run on kernels of
    our own, where there is Triton; rows: pictures that go through at a time at most, in each of `lanes`
    (None: all).
    """

    device: torch.device
    dtype: torch.dtype
    folded: bool = True
    compiled: bool = False
    fused: bool = False
    rows: int | None = None
    lanes: int = 1

    @property
    def on_gpu(self) -> bool:
        return self.device.type == "cuda"

    @property
    def narrow(self) -> bool:
        """Whether float32 holds more than the type that networks run in."""
        return self.dtype != torch.float32

    @property
    def name(self) -> str:
        """Of the number format."""
        return str(self.dtype).removeprefix("torch.")

    def of_batch(self, batch: int) -> Policy:
        """Return the same for batches of a size: compiled parts take no other, the flipped pictures included."""
        return replace(self, rows=batch) if self.compiled and self.on_gpu else self

    def compiling(self) -> Policy:
        """Return the same compiled, for many faces."""
        return replace(self, compiled=True, fused=True)

    def widened(self) -> Policy:
        """Return the same in float32."""
        return replace(self, dtype=torch.float32)


def choose(device: torch.device, engine: str) -> Policy:
    """Choose how one of `ENGINES` runs on a device."""
    if engine not in ENGINES:
        raise ValueError(f"engine is {engine!r}; expected one of {', '.join(ENGINES)}")
    if engine == "plain":
        return Policy(device, torch.float32, folded=False)
    compiled = engine == "compiled"
    if device.type == "cuda":
        return Policy(device, torch.float16, compiled=compiled, fused=compiled)
    # Pictures of its own for each lane: small layers lose nothing to threads that wait for each other.
    lanes, dtype = min(torch.get_num_threads(), MOST_LANES), cpu_dtype()
    if compiled and not has_openvino():
        log.info("OpenVINO is not installed (pip install 'ls3dw[openvino]'): the networks run as they are")
        compiled = False
    return Policy(device, dtype, compiled=compiled, rows=TOGETHER[dtype], lanes=lanes)


def cpu_dtype() -> torch.dtype:
    """Return bfloat16 where the processor multiplies in it, else float32: emulated it would be slower."""
    return torch.bfloat16 if has_bfloat16() else torch.float32


def has_openvino() -> bool:
    return find_spec("openvino") is not None


def has_bfloat16() -> bool:
    """Say whether oneDNN finds AVX512-BF16 or AMX here. Its own `_is_mkldnn_bf16_supported` says yes to emulation."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    checks = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(check is not None and check() for check in checks)

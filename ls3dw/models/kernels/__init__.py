"""GPU kernels in Triton and Gluon. Other rooms use this door alone; Triton is imported at the first use."""

from __future__ import annotations

import logging
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING

import torch

from ls3dw.core.lazy import door

if TYPE_CHECKING:
    from ls3dw.models.kernels.convolutions import TritonOperations
    from ls3dw.models.kernels.elementwise import add_guide, max_pool_relu, pack_guide_weight, write_heatmaps
    from ls3dw.models.kernels.launch import compile_ahead
    from ls3dw.models.kernels.resampling import resample

__all__ = [
    "TritonOperations",
    "add_guide",
    "compile_ahead",
    "max_pool_relu",
    "pack_guide_weight",
    "resample",
    "triton_available",
    "write_heatmaps",
]

_HOMES = {
    "TritonOperations": "convolutions",
    "add_guide": "elementwise",
    "compile_ahead": "launch",
    "max_pool_relu": "elementwise",
    "pack_guide_weight": "elementwise",
    "resample": "resampling",
    "write_heatmaps": "elementwise",
}
__getattr__, __dir__ = door(__name__, _HOMES)

log = logging.getLogger(__name__)


@cache
def triton_available(device: torch.device) -> bool:
    """Return whether the device is a GPU that Triton can compile for; log the reason if it cannot.

    Triton needs a C compiler and Python's headers, which images with CUDA alone do not have.
    """
    if device.type != "cuda" or not find_spec("triton"):
        return False
    from ls3dw.models.kernels.launch import try_compiler

    try:
        with torch.cuda.device(device):
            try_compiler()
    except torch.cuda.OutOfMemoryError:
        # Not the compiler's fault, and it may pass.
        raise
    # A missing or failing compiler and missing headers raise different classes.
    except Exception as error:  # noqa: BLE001 - logged; a fault of the GPU itself comes up again
        reason = f"{type(error).__name__}: {error}".strip().splitlines()[0]
        log.warning("Triton cannot compile here (%s): networks run without our GPU kernels", reason)
        return False
    return True

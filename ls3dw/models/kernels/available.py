"""Whether kernels of our own run on a device."""

from __future__ import annotations

import logging
from functools import cache
from importlib.util import find_spec

import torch

log = logging.getLogger(__name__)


@cache
def has_kernels(device: torch.device) -> bool:
    """Return whether this is a GPU, and Triton can compile for it; where it cannot, say why.

    Triton needs a C compiler and Python's headers, which images with CUDA alone do not have.
    """
    if device.type != "cuda" or not find_spec("triton"):
        return False
    from ls3dw.models.kernels.launch import try_out

    try:
        with torch.cuda.device(device):
            try_out()
    except torch.cuda.OutOfMemoryError:
        # No fault of the compiler's, and not for good.
        raise
    # A compiler that is missing, that fails, or headers that are missing: each is raised as something else.
    except Exception as error:  # noqa: BLE001 - said, and what is wrong with the GPU itself comes up again
        reason = f"{type(error).__name__}: {error}".strip().splitlines()[0]
        log.warning("Triton cannot compile here (%s): kernels of our own are left out", reason)
        return False
    return True

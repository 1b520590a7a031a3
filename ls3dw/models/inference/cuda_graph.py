"""Work on a GPU that is launched as a whole: a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor

WARM_UPS: Final = 2
"""Runs before the capture: the first compiles kernels and chooses cuDNN's algorithms."""


class Captured:
    """Work on tensors of one shape, captured as a CUDA graph: launching its kernels one by one takes a batch's time."""

    def __init__(self, work: Callable[..., Tensor], inputs: tuple[Tensor, ...]) -> None:
        self._inputs = tuple(tensor.clone(memory_format=torch.contiguous_format) for tensor in inputs)
        device = inputs[0].device
        # Captures need work to have run before, and not on the default stream.
        current, stream = torch.cuda.current_stream(device), torch.cuda.Stream(device)  # type: ignore[no-untyped-call, unused-ignore]
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            for _ in range(WARM_UPS):
                work(*self._inputs)
        current.wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        # Other threads of the process may go on using the GPU.
        with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
            self._output = work(*self._inputs)

    def __call__(self, *inputs: Tensor) -> Tensor:
        for kept, given in zip(self._inputs, inputs, strict=True):
            kept.copy_(given)
        self._graph.replay()
        return self._output

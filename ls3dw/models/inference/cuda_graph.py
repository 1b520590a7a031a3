"""Captures work on a GPU as a CUDA graph, so that its kernels are launched together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")

WARM_UPS: Final = 2
"""Runs before the capture: the first compiles kernels and chooses cuDNN's algorithms."""


def capture(
    work: Callable[[], T], device: torch.device, warm_ups: int = WARM_UPS, warm_up: Callable[[], object] | None = None
) -> tuple[torch.cuda.CUDAGraph, T]:
    """Run `warm_up` (None: `work`) some times, then capture `work`; return the graph and its result.

    Replaying the graph writes the same tensors again.
    """
    # Captures need warm-ups, on another stream than the default one.
    current, stream = torch.cuda.current_stream(device), torch.cuda.Stream(device)  # type: ignore[no-untyped-call, unused-ignore]
    stream.wait_stream(current)
    with torch.cuda.stream(stream):
        for _ in range(warm_ups):
            (warm_up or work)()
    current.wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    # Other threads may use the GPU meanwhile; NCCL's watchdog does.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        result = work()
    return graph, result


class CapturedCall:
    """A function of tensors of fixed shapes as a CUDA graph. Each call overwrites the last result."""

    def __init__(self, work: Callable[..., Tensor], inputs: tuple[Tensor, ...]) -> None:
        self._inputs = tuple(tensor.clone(memory_format=torch.contiguous_format) for tensor in inputs)
        self._graph, self._output = capture(lambda: work(*self._inputs), inputs[0].device)

    def __call__(self, *inputs: Tensor) -> Tensor:
        for kept, given in zip(self._inputs, inputs, strict=True):
            kept.copy_(given)
        self._graph.replay()
        return self._output

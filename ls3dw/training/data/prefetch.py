"""Prepares the next step's inputs beside the present step: on a GPU on a stream of its own."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ls3dw.training.loop.step import Inputs


class Prefetch:
    """`start(step)`, then `take()`. On the CPU nothing runs beside: the inputs are made when they are taken."""

    def __init__(self, make: Callable[[int], Inputs], device: torch.device) -> None:
        self._make = make
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        if self._stream is not None:
            self._stream.wait_stream(torch.cuda.current_stream())  # for what renderers and tables were made from
        self._step = 0
        self._ready: Inputs | None = None

    def start(self, step: int) -> None:
        """Begin to make a step's inputs: render, augment, copy to the device."""
        self._step = step
        if self._stream is not None:
            with torch.cuda.stream(self._stream):
                self._ready = self._make(step)

    def take(self) -> Inputs:
        """Return them; work queued from now on waits for them."""
        if self._stream is None:
            return self._make(self._step)
        inputs = self._ready
        assert inputs is not None
        present = torch.cuda.current_stream()
        present.wait_stream(self._stream)
        for tensor in inputs.tensors():
            tensor.record_stream(present)
        return inputs

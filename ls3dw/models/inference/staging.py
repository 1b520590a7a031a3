"""Copies windows to a device while it works: through reused pinned memory, on a separate stream."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import torch
from torch import Tensor

from ls3dw.core.crops import Windows
from ls3dw.core.geometry import Affine
from ls3dw.models.inference.device import using

BUFFERS = 4
"""Pinned buffers: one is filled while others are copied to the device."""


@dataclass(frozen=True)
class StagedWindows:
    """Windows on a device or being copied. pixels: (N, H, W, 3) uint8; to_crop: (N, 2, 3) float64 on the CPU; arrived:
    event of the copy, None if there is none."""

    pixels: Tensor
    to_crop: Tensor
    crop: Affine
    arrived: torch.cuda.Event | None

    def __len__(self) -> int:
        return len(self.crop)

    def rows(self, start: int, stop: int) -> StagedWindows:
        """Return the windows start to stop."""
        return StagedWindows(self.pixels[start:stop], self.to_crop[start:stop], self.crop[start:stop], self.arrived)

    def wait(self) -> Tensor:
        """Make the device's current stream wait for the pixels, and return them."""
        if self.arrived is not None:
            stream = torch.cuda.current_stream(self.pixels.device)
            stream.wait_event(self.arrived)
            self.pixels.record_stream(stream)
        return self.pixels


class Stager:
    """Stages windows on a device; used by one thread at a time."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._free: deque[tuple[Tensor, torch.cuda.Event | None]] = deque()
        self._stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            with using(device):
                self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
                self._free.extend((torch.empty(1, dtype=torch.uint8, pin_memory=True), None) for _ in range(BUFFERS))

    def stage(self, windows: Windows) -> StagedWindows:
        """Start copying windows to the device; waits only for a free buffer."""
        if self._stream is None:
            pixels, to_crop = torch.from_numpy(windows.pixels.array()), torch.from_numpy(windows.to_crop)
            return StagedWindows(pixels, to_crop, windows.crop, None)
        with using(self._device):
            return self._copy(windows, self._stream)

    def _copy(self, windows: Windows, stream: torch.cuda.Stream) -> StagedWindows:
        buffer = self._next_buffer(windows.pixels.nbytes)
        pinned = buffer[: windows.pixels.nbytes].view(windows.pixels.shape)
        windows.pixels.read_into(pinned.numpy())
        # Blocking: waiting for it leaves the core to others.
        arrived = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        with torch.cuda.stream(stream):
            try:
                pixels = pinned.to(self._device, non_blocking=True)
            except torch.cuda.OutOfMemoryError:
                # The caller frees memory when it uses them.
                pixels = pinned.clone()
            arrived.record(stream)
        self._free.append((buffer, arrived))
        to_crop = torch.from_numpy(windows.to_crop).pin_memory()
        return StagedWindows(pixels, to_crop, windows.crop, arrived if pixels.is_cuda else None)

    def _next_buffer(self, size: int) -> Tensor:
        """Return the oldest buffer once its copy has ended, or a new one if it is too small."""
        buffer, copied = self._free.popleft()
        if copied is not None:
            copied.synchronize()
        if len(buffer) < size:
            # Some more than needed: windows of one video differ by some pixels.
            buffer = torch.empty(size + size // 4, dtype=torch.uint8, pin_memory=True)
        return buffer

"""The log of a run: `log.jsonl`, errors of single faces, speed, and TensorBoard if installed."""

from __future__ import annotations

import io
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from ls3dw.core.files import write_atomic
from ls3dw.core.sample import Floats
from ls3dw.review.overlay import Layer, draw_face
from ls3dw.training.distributed import ProcessGroup
from ls3dw.training.validation.sets import ValidationSet
from ls3dw.training.validation.validate import SetErrors

log = logging.getLogger(__name__)
T = TypeVar("T")

LOG = "log.jsonl"
ERRORS = "errors.npz"
SHOWN = 16
"""Faces in a picture of predictions."""


class Monitor:
    """Writes the log of a run from step `step` on.

    Later lines, which a killed run wrote after its last checkpoint, are dropped: the log of a resumed run equals that
    of an uninterrupted one.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / LOG
        kept = [line for line in self._lines() if line["step"] <= step]
        write_atomic(self.path, "".join(json.dumps(line) + "\n" for line in kept).encode())
        self._board: Any = _open_board(folder, step)

    def _lines(self) -> list[dict[str, Any]]:
        """Read the log up to the first broken line; a kill may have cut off the last."""
        lines = []
        if self.path.is_file():
            for text in self.path.read_text(encoding="utf-8").splitlines():
                try:
                    lines.append(json.loads(text))
                except ValueError:
                    break
        return lines

    def write(self, step: int, kind: str, values: Mapping[str, Any]) -> None:
        """Append one line, and add its numbers to the curves."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, "kind": kind, **values}) + "\n")
        if self._board is not None:
            for name, value in _numbers(kind, values):
                self._board.add_scalar(name, value, step)

    def show(self, step: int, name: str, images: Tensor, points: Floats, truth: Floats) -> None:
        """Add a picture of predicted (red) and true (green) points on crops (N, 3, 256, 256) uint8."""
        sheet = draw_sheet(images[:SHOWN].cpu().numpy(), points[:SHOWN], truth[:SHOWN])
        if self._board is not None:
            self._board.add_image(name, sheet, step, dataformats="HWC")

    @property
    def shows(self) -> bool:
        """Whether pictures are shown."""
        return self._board is not None

    def close(self) -> None:
        if self._board is not None:
            self._board.close()


def draw_sheet(images: np.ndarray[Any, Any], points: Floats, truth: Floats) -> np.ndarray[Any, Any]:
    """Draw crops (N, 3, 256, 256) uint8 with points (N, 68, 2) in four columns: (H, W, 3) uint8."""
    tiles = [
        np.asarray(
            draw_face(
                np.ascontiguousarray(image.transpose(1, 2, 0)),
                np.eye(2, 3),
                image.shape[-1],
                [Layer(right.astype(np.float64), (0, 220, 0)), Layer(guess.astype(np.float64), (255, 40, 40))],
            )
        )
        for image, guess, right in zip(images, points, truth, strict=True)
    ]
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % 4)
    return np.concatenate([np.concatenate(tiles[row : row + 4], axis=1) for row in range(0, len(tiles), 4)], axis=0)


def write_errors(folder: Path, errors: Mapping[str, SetErrors], sets: Sequence[ValidationSet]) -> None:
    """Write `errors.npz`: the errors (N,) of each face in the last validation, and its yaw (`yaw/SET`)."""
    arrays: dict[str, Any] = {name: each.errors for name, each in errors.items()}
    arrays |= {f"yaw/{faces.name}": faces.yaw for faces in sets}
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    write_atomic(folder / ERRORS, buffer.getvalue())


def _numbers(kind: str, values: Mapping[str, Any]) -> list[tuple[str, float]]:
    """Flatten nested numbers to `kind/outer/inner`."""
    found: list[tuple[str, float]] = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            found += _numbers(f"{kind}/{name}", value)
        elif isinstance(value, int | float):
            found.append((f"{kind}/{name}", float(value)))
    return found


def _open_board(folder: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        log.warning("no TensorBoard curves: it is not installed (pip install 'ls3dw[train]'); %s has all figures", LOG)
        return None
    return SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)


class StepTimer:
    """Measures images/s and the share of time spent waiting for data.

    The wait is the GPU's idle time between two steps, by CUDA events; on the CPU the time that making the data takes.
    """

    def __init__(self, group: ProcessGroup) -> None:
        self.on_gpu = group.device.type == "cuda"
        self._waits: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []
        self._ended: torch.cuda.Event | None = None
        self._waited = 0.0
        self._steps = 0
        self._since = time.perf_counter()

    def fetch(self, get: Callable[[], T]) -> T:
        """Call `get`, which returns a step's data; on the CPU time the call."""
        start = time.perf_counter()
        got = get()
        if not self.on_gpu:
            self._waited += time.perf_counter() - start
        return got

    def begin(self) -> None:
        """Mark the start of a step's work."""
        if self.on_gpu and self._ended is not None:
            self._waits.append((self._ended, _event()))

    def end(self) -> None:
        """Mark the end of a step's work."""
        self._steps += 1
        if self.on_gpu:
            self._ended = _event()

    def read(self, batch: int) -> dict[str, float]:
        """Return `images_per_s` and `wait` since the last call, and restart."""
        if self.on_gpu:
            torch.cuda.synchronize()
            self._waited = sum(ended.elapsed_time(begun) for ended, begun in self._waits) / 1000
        seconds = max(time.perf_counter() - self._since, 1e-9)
        figures = {"images_per_s": self._steps * batch / seconds, "wait": min(1.0, self._waited / seconds)}
        self.restart()
        return figures

    def restart(self) -> None:
        """Restart, to leave out validation and checkpoints."""
        self._waits.clear()
        self._ended = None
        self._waited = 0.0
        self._steps = 0
        self._since = time.perf_counter()


def _event() -> torch.cuda.Event:
    event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    event.record(torch.cuda.current_stream())
    return event

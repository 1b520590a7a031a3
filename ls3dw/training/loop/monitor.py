"""What a run says: lines of `log.jsonl`, errors of single faces, and TensorBoard where it is installed."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ls3dw.core.files import write_atomic
from ls3dw.core.sample import Floats
from ls3dw.review.overlay import Layer, draw_face
from ls3dw.training.validation.validate import Measured
from ls3dw.training.validation.validation_set import ValidationSet

log = logging.getLogger(__name__)

LOG = "log.jsonl"
ERRORS = "errors.npz"
SHOWN = 16
"""Faces in the picture of predictions, in four columns."""


class Monitor:
    """Writes the log of a run, from step `step` on: what a killed run logged after its last checkpoint is dropped, so
    that the log of a run that went on is that of one that was never killed."""

    def __init__(self, folder: Path, step: int) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / LOG
        kept = [line for line in self._lines() if line["step"] <= step]
        write_atomic(self.path, "".join(json.dumps(line) + "\n" for line in kept).encode())
        self._board: Any = _open_board(folder, step)

    def _lines(self) -> list[dict[str, Any]]:
        """Read the log; its last line may have been cut off by a kill."""
        lines = []
        if self.path.is_file():
            for text in self.path.read_text(encoding="utf-8").splitlines():
                try:
                    lines.append(json.loads(text))
                except ValueError:
                    break
        return lines

    def write(self, step: int, kind: str, values: Mapping[str, Any]) -> None:
        """Append one line, and curves of its numbers."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, "kind": kind, **values}) + "\n")
        if self._board is not None:
            for name, value in _numbers(kind, values):
                self._board.add_scalar(name, value, step)

    def show(self, step: int, name: str, images: Tensor, points: Floats, truth: Floats) -> None:
        """Keep a picture of predicted (red) and true points (green) on crops (N, 3, 256, 256) uint8."""
        sheet = draw_sheet(images[:SHOWN].cpu().numpy(), points[:SHOWN], truth[:SHOWN])
        if self._board is not None:
            self._board.add_image(name, sheet, step, dataformats="HWC")

    @property
    def shows(self) -> bool:
        """Whether pictures go anywhere."""
        return self._board is not None

    def close(self) -> None:
        if self._board is not None:
            self._board.close()


def draw_sheet(images: np.ndarray[Any, Any], points: Floats, truth: Floats) -> np.ndarray[Any, Any]:
    """Draw up to 16 crops (N, 3, 256, 256) uint8 with points (N, 68, 2) in four columns: (H, W, 3) uint8."""
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


def write_errors(folder: Path, measured: Mapping[str, Measured], sets: Sequence[ValidationSet]) -> None:
    """Keep the errors of each face in the last validation, and its yaw (`yaw/SET`): `errors.npz`, (N,) each."""
    arrays: dict[str, Any] = {name: each.errors for name, each in measured.items()}
    arrays |= {f"yaw/{faces.name}": faces.yaw for faces in sets}
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    write_atomic(folder / ERRORS, buffer.getvalue())


def _numbers(kind: str, values: Mapping[str, Any], way: str = "") -> list[tuple[str, float]]:
    """Flatten nested values to curves: `kind/outer/inner`."""
    found: list[tuple[str, float]] = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            found += _numbers(kind, value, f"{way}{name}/")
        elif isinstance(value, int | float):
            found.append((f"{kind}/{way}{name}", float(value)))
    return found


def _open_board(folder: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        log.warning("no TensorBoard curves: it is not installed (pip install 'ls3dw[train]'); %s has all figures", LOG)
        return None
    return SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

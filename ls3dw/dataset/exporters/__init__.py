"""Writes a version of a data set in other layouts. A new format is a module here and a line in `FORMATS`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from ls3dw.dataset.exporters.base import ExportOptions, ExportReport
from ls3dw.dataset.exporters.menpo import export_menpo
from ls3dw.dataset.exporters.release import export_release
from ls3dw.dataset.open import Dataset

__all__ = ["FORMATS", "ExportOptions", "ExportReport"]

FORMATS: Final[dict[str, Callable[[Dataset, Path, ExportOptions], ExportReport]]] = {
    "ls3d-w": export_release,
    "menpo": export_menpo,
}

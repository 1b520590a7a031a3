"""Rebuild LS3D-W: faces with 68 landmarks in 3D, as versioned shards that can be checked and annotated again."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ls3dw import geometry, metrics, models, pose, sources, t7
    from ls3dw.annotations import Annotations
    from ls3dw.annotator import Annotator
    from ls3dw.dataset import Dataset, Face, open_dataset

__version__ = "0.1.0"

__all__ = [
    "Annotations",
    "Annotator",
    "Dataset",
    "Face",
    "__version__",
    "geometry",
    "metrics",
    "models",
    "open_dataset",
    "pose",
    "sources",
    "t7",
]

_HOMES = {
    "Annotations": "annotations",
    "Annotator": "annotator",
    "Dataset": "dataset",
    "Face": "dataset",
    "open_dataset": "dataset",
}


def __getattr__(name: str) -> Any:
    """Import on first use, so that `import ls3dw` and `ls3dw --help` stay quick."""
    if name in _HOMES:
        return getattr(importlib.import_module(f"ls3dw.{_HOMES[name]}"), name)
    if name in __all__:
        return importlib.import_module(f"ls3dw.{name}")
    raise AttributeError(f"module 'ls3dw' has no attribute {name!r}")

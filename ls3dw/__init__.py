"""Rebuild LS3D-W: faces with 68 landmarks in 3D, as versioned shards that can be checked and annotated again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ls3dw.core.lazy import door

if TYPE_CHECKING:
    from ls3dw import models, sources
    from ls3dw.api import (
        build,
        diff,
        evaluate,
        export,
        plan_build,
        plan_regenerate,
        regenerate,
        render_heads,
        split,
        subset,
        train,
        verify,
    )
    from ls3dw.core import geometry, metrics, phash, pose
    from ls3dw.core.annotations import Annotations
    from ls3dw.core.formats import t7
    from ls3dw.dataset.open import Dataset, Face, open_dataset
    from ls3dw.models.annotator import Annotator

__version__ = "0.1.0"

__all__ = [
    "Annotations",
    "Annotator",
    "Dataset",
    "Face",
    "__version__",
    "build",
    "diff",
    "evaluate",
    "export",
    "geometry",
    "metrics",
    "models",
    "open_dataset",
    "phash",
    "plan_build",
    "plan_regenerate",
    "pose",
    "regenerate",
    "render_heads",
    "sources",
    "split",
    "subset",
    "t7",
    "train",
    "verify",
]

_HOMES = {
    "render_heads": "api",
    "evaluate": "api",
    "diff": "api",
    "verify": "api",
    "export": "api",
    "train": "api",
    "build": "api",
    "plan_build": "api",
    "plan_regenerate": "api",
    "regenerate": "api",
    "subset": "api",
    "split": "api",
    "Annotations": "core.annotations",
    "Annotator": "models.annotator",
    "Dataset": "dataset.open",
    "Face": "dataset.open",
    "geometry": "core.geometry",
    "metrics": "core.metrics",
    "models": "models",
    "open_dataset": "dataset.open",
    "phash": "core.phash",
    "pose": "core.pose",
    "sources": "sources",
    "t7": "core.formats.t7",
}
__getattr__, __dir__ = door(__name__, _HOMES)

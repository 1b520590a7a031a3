"""Training of the networks: pipelines, data, objective, loop, validation, export."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ls3dw.core.lazy import door

if TYPE_CHECKING:
    from ls3dw.training.options import TrainOptions, read_options

__all__ = ["TrainOptions", "read_options"]

_HOMES = {"TrainOptions": "options", "read_options": "options"}
__getattr__, __dir__ = door(__name__, _HOMES)

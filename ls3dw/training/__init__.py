"""Training of the networks: pipelines, data, objective, loop, validation, export."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ls3dw.core.lazy import door

if TYPE_CHECKING:
    from ls3dw.training.options import TrainOptions, read_options
    from ls3dw.training.run import TrainPlan, TrainReport, plan_training, run_training

__all__ = ["TrainOptions", "TrainPlan", "TrainReport", "plan_training", "read_options", "run_training"]

_HOMES = {
    "TrainOptions": "options",
    "TrainPlan": "run",
    "TrainReport": "run",
    "plan_training": "run",
    "read_options": "options",
    "run_training": "run",
}
__getattr__, __dir__ = door(__name__, _HOMES)

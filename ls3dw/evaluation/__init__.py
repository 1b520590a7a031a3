"""Scores of landmarks: errors against a truth, tables, curves, ablations, motion, differences between versions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ls3dw.core.lazy import door

if TYPE_CHECKING:
    from ls3dw.evaluation.diff import DiffReport, run_diff
    from ls3dw.evaluation.run import EvaluateOptions, EvaluationReport, run_evaluation

__all__ = ["DiffReport", "EvaluateOptions", "EvaluationReport", "run_diff", "run_evaluation"]

_HOMES = {
    "DiffReport": "diff",
    "EvaluateOptions": "run",
    "EvaluationReport": "run",
    "run_diff": "diff",
    "run_evaluation": "run",
}
__getattr__, __dir__ = door(__name__, _HOMES)

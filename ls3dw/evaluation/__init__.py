"""How good landmarks are: errors against a truth, tables, curves, ablations, motion, differences between versions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ls3dw.core.lazy import door

if TYPE_CHECKING:
    from ls3dw.evaluation.ablations import run_ablation
    from ls3dw.evaluation.diff import compare
    from ls3dw.evaluation.measure import measure_version
    from ls3dw.evaluation.report import Report, write_report

__all__ = ["Report", "compare", "measure_version", "run_ablation", "write_report"]

_HOMES = {
    "Report": "report",
    "compare": "diff",
    "measure_version": "measure",
    "run_ablation": "ablations",
    "write_report": "report",
}
__getattr__, __dir__ = door(__name__, _HOMES)

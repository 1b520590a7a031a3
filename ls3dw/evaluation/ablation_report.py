"""What an ablation leaves behind: its table as text, JSON and CSV, and its plot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from ls3dw.core.files import dump_json, write_atomic
from ls3dw.dataset.open import Dataset
from ls3dw.evaluation.ablations import Ablation, AblationOptions, Result
from ls3dw.evaluation.plots import Line, draw_lines
from ls3dw.evaluation.report import to_csv
from ls3dw.evaluation.scores import Interval

AXES: Final[dict[Ablation, tuple[str, str, float]]] = {
    "yaw": ("by yaw", "|yaw| (degrees)", 1),
    "noise": ("with shaken boxes", "edges of the box moved by up to (% of its side)", 100),
    "resolution": ("by resolution", "height of the face's box (pixels)", 1),
    "roll": ("by roll", "picture turned by (degrees)", 1),
    "size": ("by size of the network", "parameters (millions)", 1),
}
"""Title, label of x, and what its levels are multiplied by."""


def ablation_dict(
    dataset: Dataset, ablation: Ablation, options: AblationOptions, results: Sequence[Result]
) -> dict[str, Any]:
    """Return an ablation for JSON."""
    return {
        "dataset": str(dataset.store.root),
        "version": dataset.version,
        "ablation": ablation,
        "options": asdict(options),
        "results": [asdict(result) for result in results],
    }


def write_ablation(
    dataset: Dataset, ablation: Ablation, options: AblationOptions, results: Sequence[Result], out: Path
) -> list[Path]:
    """Write <ablation>.json, .csv, .png and .svg."""
    values = ablation_dict(dataset, ablation, options, results)
    files = {f"{ablation}.json": dump_json(values), f"{ablation}.csv": to_csv(values["results"])}
    for name, data in files.items():
        write_atomic(out / name, data)
    return [out / name for name in files] + draw_ablation(ablation, results, options.threshold, out / ablation)


def draw_ablation(ablation: Ablation, results: Sequence[Result], threshold: float, out: Path) -> list[Path]:
    """Draw the AUC over the levels, a line a network and kind of points; of sizes, a line a kind. out: no suffix."""
    title, label, zoom = AXES[ablation]
    ticks = {zoom * result.level: result.name for result in results}
    labels = {
        "title": f"AUC {title}",
        "xlabel": label,
        "ylabel": f"AUC up to {100 * threshold:g} % (%)",
        "ylim": (0, 100),
    }
    if ablation in ("yaw", "size"):
        labels["xticklabels"] = list(ticks.values())
    return draw_lines(out, _lines(ablation, results, zoom), labels, list(ticks))


def _lines(ablation: Ablation, results: Sequence[Result], zoom: float) -> list[Line]:
    series: dict[str, list[Result]] = {}
    for result in results:
        points = f"{result.points.upper()} points"
        series.setdefault(points if ablation == "size" else f"{result.network}, {points}", []).append(result)
    named = ablation == "size"
    return [_line(name, sorted(own, key=lambda result: result.level), zoom, named) for name, own in series.items()]


def _line(label: str, results: Sequence[Result], zoom: float, named: bool) -> Line:
    intervals = [result.auc_interval for result in results]
    known = [interval for interval in intervals if interval]
    whole = len(known) == len(intervals)
    return Line(
        label,
        x=[zoom * result.level for result in results],
        y=[100 * result.auc for result in results],
        low=[100 * low for low, _ in known] if whole else None,
        high=[100 * high for _, high in known] if whole else None,
        names=[result.network for result in results] if named else None,
    )


def render_ablation(ablation: Ablation, results: Sequence[Result]) -> str:
    """Return the table as text, in per cent."""
    head = f"{'network':<32} {'points':>6} {ablation:>10} {'faces':>8} {'NME':>7} {'AUC':>7}"
    head += f" {'of 95 %':>16} {'failed':>7} {'change':>7} {'of 95 %':>16}"
    return "\n".join([head, *(_row(result) for result in results)])


def _row(result: Result) -> str:
    figures = f"{100 * result.nme_mean:>7.2f} {100 * result.auc:>7.2f} {_spread(result.auc_interval):>16}"
    figures += f" {100 * result.failure_rate:>7.2f}"
    if result.change is not None:
        figures += f" {100 * result.change:>7.2f} {_spread(result.change_interval):>16}"
    return f"{result.network:<32} {result.points:>6} {result.name:>10} {result.faces:>8} {figures}"


def _spread(interval: Interval | None) -> str:
    return "-" if interval is None else "{:.2f} to {:.2f}".format(*(100 * x for x in interval))

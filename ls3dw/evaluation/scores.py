"""Scores landmarks by source, subset and yaw: NME, AUC and failures, with intervals."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ls3dw.core.metrics import PartErrors, auc_parts, group_errors
from ls3dw.core.pose import YAW_BINS, yaw_bins
from ls3dw.dataset.open import Dataset
from ls3dw.evaluation.bootstrap import mean_intervals
from ls3dw.evaluation.measure import (
    EvaluationProtocol,
    MethodErrors,
    Truth,
    measure_predictions,
    measure_version,
    read_truth,
)
from ls3dw.evaluation.predictions import Predictions

if TYPE_CHECKING:
    import pandas as pd


Interval = tuple[float, float]


@dataclass(frozen=True)
class Score:
    """A row of the table, over faces with ground truth.

    faces: number with an error; missing: number without points of the method; the rest: over `faces`, as fractions.
    Intervals: 95 % bootstrap, resampling whole videos; None with fewer than two independent units.
    z_mean: error of z, relative to its mean, over faces with a true z.
    """

    group: str
    name: str
    faces: int
    missing: int
    nme_mean: float | None = None
    nme_interval: Interval | None = None
    nme_median: float | None = None
    auc: float | None = None
    auc_interval: Interval | None = None
    auc_published: float | None = None
    failures: int | None = None
    failure_rate: float | None = None
    failure_interval: Interval | None = None
    z_mean: float | None = None


@dataclass(frozen=True)
class Evaluation:
    """The scores of one method.

    unknown: number of its faces that the data set does not have; landmarks: errors of each of the 68 over all faces;
    parts: of groups of them.
    """

    method: str
    question: EvaluationProtocol
    unknown: int
    scores: list[Score]
    landmarks: list[PartErrors]
    parts: dict[str, PartErrors]


def evaluate(
    dataset: Dataset, predictions: Predictions | None = None, question: EvaluationProtocol | None = None
) -> Evaluation:
    """Score all faces, then by source, by subset, by the yaw of the version's 3D landmarks, and by source and yaw.

    predictions: landmarks of another method; None: the version's own.
    """
    asked = question or EvaluationProtocol()
    truth = read_truth(dataset, asked)
    if predictions is None:
        measured = measure_version(dataset, truth, asked)
    else:
        measured = measure_predictions(dataset, truth, predictions)
    return tabulate(dataset, truth, measured, asked)


def tabulate(dataset: Dataset, truth: Truth, measured: MethodErrors, question: EvaluationProtocol) -> Evaluation:
    """Make the table from the errors."""
    known, units = truth.known, independent_units(dataset)
    rows = [
        score_faces(group, name, measured, chosen & known, units, question)
        for group, name, chosen in groups(dataset.index)
        if chosen.any()
    ]
    parts = group_errors(measured.landmarks)
    return Evaluation(measured.method, question, measured.unknown, rows, measured.landmarks, parts)


def independent_units(dataset: Dataset) -> NDArray[np.int64]:
    """Number the faces (N,) so that dependent ones, the frames of a video, share a number."""
    index = dataset.index
    units: NDArray[np.int64] = np.arange(len(index), dtype=np.int64)
    frames = np.flatnonzero(index["frame"].to_numpy() > 0)
    videos = index.iloc[frames].groupby(["source", "media"], sort=False).ngroup().to_numpy()
    # Past the numbers of the stills.
    units[frames] = len(index) + videos
    return units


def groups(index: pd.DataFrame) -> Iterator[tuple[str, str, NDArray[np.bool_]]]:
    """Yield the faces (N,) of all groups that a table shows: kind of group, name, which faces."""
    yield "all", "all", np.ones(len(index), dtype=bool)
    source, subset = index["source"].to_numpy(), index["subset"].to_numpy()
    for name in dict.fromkeys(source):
        yield "source", str(name), np.asarray(source == name)
    for name, part in dict.fromkeys(zip(source, subset, strict=True)):
        yield "subset", f"{name}/{part}", np.asarray((source == name) & (subset == part))
    yaw = index["yaw"].to_numpy(dtype=np.float64)
    bins = yaw_bins(yaw) | {f"above {max(high for _, high in YAW_BINS.values()):g}": np.abs(yaw) > 90}
    for name, chosen in bins.items():
        yield "yaw", name, chosen
    for name in dict.fromkeys(source):
        for part, chosen in bins.items():
            yield "source and yaw", f"{name} {part}", chosen & (source == name)


def score_faces(
    group: str,
    name: str,
    measured: MethodErrors,
    chosen: NDArray[np.bool_],
    units: NDArray[np.int64],
    question: EvaluationProtocol,
) -> Score:
    """Score the chosen faces (N,), whose truth is known; units: (N,) of `independent_units`."""
    found = chosen & ~np.isnan(measured.errors)
    missing = int(chosen.sum() - found.sum())
    if not found.any():
        return Score(group, name, 0, missing)
    errors, limit = measured.errors[found], question.threshold
    # All figures but the median are means over faces: one bootstrap serves all.
    exact, published = auc_parts(errors, limit), auc_parts(errors, limit, published=True)
    failed = errors > limit
    spread = mean_intervals(np.stack((errors, exact, failed), axis=1), units[found], seed=question.seed)
    intervals = [(float(low), float(high)) if np.isfinite(low) else None for low, high in spread]
    z = measured.z[found]
    z = z[~np.isnan(z)]
    return Score(
        group=group,
        name=name,
        faces=len(errors),
        missing=missing,
        nme_mean=float(errors.mean()),
        nme_interval=intervals[0],
        nme_median=float(np.median(errors)),
        auc=float(exact.mean()),
        auc_interval=intervals[1],
        auc_published=float(published.mean()),
        failures=int(failed.sum()),
        failure_rate=float(failed.mean()),
        failure_interval=intervals[2],
        z_mean=float(z.mean()) if len(z) else None,
    )


def render_scores(rows: list[Score]) -> str:
    """Return the table as text, in per cent."""
    head = f"{'':<24} {'faces':>8} {'missing':>8} {'NME':>7} {'of 95 %':>14} {'median':>7} {'AUC':>7} {'of 95 %':>14}"
    lines, group = [f"{head} {'as publ.':>8} {'failures':>9} {'z':>7}"], ""
    for row in rows:
        if row.group != group and row.group != "all":
            lines.append(f"by {row.group}")
        group = row.group
        lines.append(f"{row.name:<24} {row.faces:>8} {row.missing:>8} {_percentages(row)}")
    return "\n".join(lines)


def render_parts(parts: dict[str, PartErrors]) -> str:
    """Return the mean error of each part of the face as text, in per cent."""
    named = (f"{name} {100 * part.mean:.2f}" for name, part in parts.items() if part.points)
    return f"by part of the face: {', '.join(named)}"


def _percentages(row: Score) -> str:
    values: dict[str, Any] = asdict(row)
    nme, median, auc, published, z = (
        _percent(values[name]) for name in ("nme_mean", "nme_median", "auc", "auc_published", "z_mean")
    )
    failures = "-" if row.failures is None else str(row.failures)
    spread = (f"{_between(interval):>14}" for interval in (row.nme_interval, row.auc_interval))
    return f"{nme:>7} {next(spread)} {median:>7} {auc:>7} {next(spread)} {published:>8} {failures:>9} {z:>7}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"


def _between(interval: Interval | None) -> str:
    return "-" if interval is None else f"{100 * interval[0]:.2f} - {100 * interval[1]:.2f}"

"""Scores landmarks against the sources' own points: NME, AUC and failures, by source, subset and yaw."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from ls3dw.dataset import Dataset
from ls3dw.errors import DatasetError, PredictionError
from ls3dw.metrics import FAILURE, auc, failure_rate, nme
from ls3dw.predictions import Predictions

if TYPE_CHECKING:
    import pandas as pd

YAW_BINS: Final[dict[str, tuple[float, float]]] = {"0-30": (0, 30), "30-60": (30, 60), "60-90": (60, 90)}
"""Of LS3D-W Balanced, in degrees of |yaw|: [0, 30], (30, 60], (60, 90]."""


@dataclass(frozen=True)
class Score:
    """A row of the table, of faces for which the source has points.

    faces: those with an error; missing: those that the method has no points for; the rest: of `faces`, as fractions.
    """

    group: str
    name: str
    faces: int
    missing: int
    nme_mean: float | None = None
    nme_median: float | None = None
    auc: float | None = None
    auc_published: float | None = None
    failures: int | None = None
    failure_rate: float | None = None


@dataclass(frozen=True)
class Evaluation:
    """What a method's landmarks are worth. unknown: predictions of faces that the data set does not have."""

    method: str
    threshold: float
    unknown: int
    scores: list[Score]


def evaluate(dataset: Dataset, predictions: Predictions | None = None, threshold: float = FAILURE) -> Evaluation:
    """Score all faces, then by source, by subset, by yaw as the version's 3D landmarks have it, and by both.

    predictions: another method's landmarks; None: the version's own, with the errors stored when it was built.
    """
    if not len(dataset):
        raise DatasetError(f"{dataset.store.root}: version {dataset.version} has no faces to score")
    annotation = dataset.column("annotation")
    if predictions is None:
        _check_predicted(dataset)
        method, unknown = f"version {dataset.version}", 0
        errors = dataset.index["nme"].to_numpy(dtype=np.float64)
    else:
        method, unknown = predictions.origin, _unknown(dataset, predictions)
        errors = nme(predictions.take(dataset.index["id"]), annotation)
    annotated = np.isfinite(annotation).all(axis=2).any(axis=1)
    rows = [
        _score(group, name, errors[chosen & annotated], threshold)
        for group, name, chosen in groups(dataset.index)
        if chosen.any()
    ]
    return Evaluation(method, threshold, unknown, rows)


def _check_predicted(dataset: Dataset) -> None:
    if dataset.manifest["configuration"]["annotations"] == "published":
        raise DatasetError(
            f"{dataset.store.root}: version {dataset.version} is the sources' own points, which are what others are"
            " scored against; choose another --version, or --predictions"
        )


def _unknown(dataset: Dataset, predictions: Predictions) -> int:
    """Count the predictions of faces that are not there; PredictionError if that is all of them."""
    unknown = predictions.ids - set(dataset.index["id"])
    if unknown == predictions.ids:
        raise PredictionError(
            f"{predictions.origin}: none of its {len(unknown)} ids is in {dataset.store.root} ({dataset.version});"
            f" it has {min(unknown)!r}, the data set {dataset.index['id'].iloc[0]!r}"
        )
    return len(unknown)


def groups(index: pd.DataFrame) -> Iterator[tuple[str, str, NDArray[np.bool_]]]:
    """Yield the faces (N,) of all groups that a table shows: kind of group, name, which faces."""
    yield "all", "all", np.ones(len(index), dtype=bool)
    source, subset = index["source"].to_numpy(), index["subset"].to_numpy()
    for name in dict.fromkeys(source):
        yield "source", str(name), np.asarray(source == name)
    for name, part in dict.fromkeys(zip(source, subset, strict=True)):
        yield "subset", f"{name}/{part}", np.asarray((source == name) & (subset == part))
    turned = np.abs(index["yaw"].to_numpy(dtype=np.float64))
    bins = {name: (turned > low if low else turned >= low) & (turned <= high) for name, (low, high) in YAW_BINS.items()}
    for name, chosen in bins.items():
        yield "yaw", name, chosen
    for name in dict.fromkeys(source):
        for part, chosen in bins.items():
            yield "source and yaw", f"{name} {part}", chosen & (source == name)


def _score(group: str, name: str, errors: NDArray[np.float64], threshold: float) -> Score:
    found = errors[~np.isnan(errors)]
    missing = len(errors) - len(found)
    if not len(found):
        return Score(group, name, 0, missing)
    return Score(
        group=group,
        name=name,
        faces=len(found),
        missing=missing,
        nme_mean=float(found.mean()),
        nme_median=float(np.median(found)),
        auc=auc(found, threshold),
        auc_published=auc(found, threshold, published=True),
        failures=int((found > threshold).sum()),
        failure_rate=failure_rate(found, threshold),
    )


def render_scores(rows: list[Score]) -> str:
    """Return the table as text, in per cent."""
    head = f"{'':<24} {'faces':>8} {'missing':>8} {'NME':>7} {'median':>7} {'AUC':>7} {'as publ.':>8} {'failures':>9}"
    lines, group = [head], ""
    for row in rows:
        if row.group != group and row.group != "all":
            lines.append(f"by {row.group}")
        group = row.group
        lines.append(f"{row.name:<24} {row.faces:>8} {row.missing:>8} {_percentages(row)}")
    return "\n".join(lines)


def _percentages(row: Score) -> str:
    if row.nme_mean is None:
        return f"{'-':>7} {'-':>7} {'-':>7} {'-':>8} {'-':>9}"
    values: dict[str, Any] = asdict(row)
    numbers = [f"{100 * values[name]:>7.2f}" for name in ("nme_mean", "nme_median", "auc")]
    return " ".join((*numbers, f"{100 * values['auc_published']:>8.2f}", f"{row.failures:>9}"))

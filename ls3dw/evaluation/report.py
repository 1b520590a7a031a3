"""The tables of an evaluation: as text, and as files (JSON, CSV, plots, failures)."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ls3dw.core.files import dump_json, write_atomic
from ls3dw.core.markup import GROUPS
from ls3dw.dataset.open import Dataset
from ls3dw.evaluation.measure import ANNOTATION, EvaluationProtocol, MethodErrors, Truth
from ls3dw.evaluation.paper import compare_with_paper, render_comparison
from ls3dw.evaluation.plots import draw_ced
from ls3dw.evaluation.scores import Evaluation, render_parts, render_scores

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Report:
    """Errors and tables of some methods on one data set, in the same order."""

    dataset: Dataset
    question: EvaluationProtocol
    truth: Truth
    measured: Sequence[MethodErrors]
    evaluations: Sequence[Evaluation]

    def to_dict(self) -> dict[str, Any]:
        """Return all tables and the published figures, without NaN."""
        return {
            "dataset": str(self.dataset.store.root),
            "version": self.dataset.version,
            "question": asdict(self.question),
            "methods": [
                _without_nan(asdict(evaluation))
                | {"paper": [asdict(item) for item in compare_with_paper(self.dataset, evaluation)]}
                for evaluation in self.evaluations
            ],
        }

    @property
    def failures(self) -> pd.DataFrame:
        """The faces above the threshold, worst first: id, method, source, subset, yaw, nme."""
        import pandas as pd

        rows, methods, errors = [np.empty(0, dtype=np.int64)], [], [np.empty(0)]
        for measured in self.measured:
            failed = np.flatnonzero(measured.errors > self.question.threshold)
            failed = failed[np.argsort(-measured.errors[failed], kind="stable")]
            rows.append(failed)
            methods += [measured.method] * len(failed)
            errors.append(measured.errors[failed])
        index = self.dataset.index.iloc[np.concatenate(rows)]
        columns = {"id": index["id"], "method": pd.array(methods, dtype="str"), "source": index["source"]}
        columns |= {"subset": index["subset"], "yaw": index["yaw"], "nme": np.concatenate(errors)}
        return pd.DataFrame(columns).reset_index(drop=True)


def write_report(report: Report, out: Path) -> list[Path]:
    """Write evaluation.json, scores.csv, landmarks.csv, ced.png, ced.svg, failures.parquet and failures.json."""
    values = report.to_dict()
    scores = [{"method": method["method"], **row} for method in values["methods"] for row in method["scores"]]
    failures = report.failures
    files = {
        "evaluation.json": dump_json(values),
        "scores.csv": to_csv(scores),
        "landmarks.csv": to_csv(_landmark_rows(report.evaluations)),
        "failures.parquet": to_parquet(failures),
        "failures.json": dump_json(json.loads(failures.to_json(orient="records", double_precision=15))),
    }
    for name, data in files.items():
        write_atomic(out / name, data)
    return [out / name for name in files] + _draw(report, out)


def render_report(report: Report) -> str:
    """Return the tables of all methods as text, in per cent."""
    protocol = report.question
    against = "the sources' own points" if protocol.against == ANNOTATION else f"version {protocol.against}"
    parts = []
    for evaluation in report.evaluations:
        head = f"{evaluation.method} against {against}; per cent by {protocol.normaliser}"
        parts.append(f"{head}; failures above {100 * protocol.threshold:g} %\n\n{render_scores(evaluation.scores)}")
        parts.append(render_parts(evaluation.parts))
        if paper := render_comparison(compare_with_paper(report.dataset, evaluation)):
            parts.append(paper)
        if evaluation.unknown:
            parts.append(f"{evaluation.unknown} predictions are of faces that are not in the data set")
    return "\n\n".join(parts)


def to_csv(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Encode rows of the same names as CSV; an interval becomes two columns, None an empty cell."""
    buffer = io.StringIO(newline="")
    flat = [_flat(row) for row in rows]
    writer = csv.DictWriter(buffer, list(flat[0]) if flat else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return buffer.getvalue().encode()


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for name, value in row.items():
        if name.endswith("_interval"):
            stem = name.removesuffix("_interval")
            result[f"{stem}_low"], result[f"{stem}_high"] = value or (None, None)
        else:
            result[name] = value
    return result


def to_parquet(table: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    return buffer.getvalue()


def _draw(report: Report, out: Path) -> list[Path]:
    known = {part.method: part.errors for part in report.measured if not np.isnan(part.errors).all()}
    if not known:
        return []
    against = (
        "the sources' own points" if report.question.against == ANNOTATION else f"version {report.question.against}"
    )
    faces = int(report.truth.known.sum())
    title = f"{faces} faces against {against}, NME by {report.question.normaliser}"
    return draw_ced(out / "ced", known, report.question.threshold, title)


def _landmark_rows(evaluations: Sequence[Evaluation]) -> list[dict[str, Any]]:
    group_of = {point: name for name, points in GROUPS.items() for point in points}
    return [
        {"method": evaluation.method, "landmark": number, "group": group_of[number], **_without_nan(asdict(part))}
        for evaluation in evaluations
        for number, part in enumerate(evaluation.landmarks)
    ]


def _without_nan(value: Any) -> Any:
    """Turn NaN, which JSON does not have, into null."""
    if isinstance(value, dict):
        return {key: _without_nan(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(entry) for entry in value]
    return None if isinstance(value, float) and np.isnan(value) else value


def write_motion(table: pd.DataFrame, summary: list[dict[str, Any]], out: Path) -> list[Path]:
    """Write temporal.parquet, a row a method and frame, and temporal.json, the sums."""
    files = {"temporal.parquet": to_parquet(table), "temporal.json": dump_json({"videos": summary})}
    for name, data in files.items():
        write_atomic(out / name, data)
    return [out / name for name in files]

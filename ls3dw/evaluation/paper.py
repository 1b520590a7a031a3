"""Published figures to compare with, each with its source; only those that were found in the paper."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ls3dw.core.metrics import FAILURE
from ls3dw.dataset.open import Dataset
from ls3dw.evaluation.measure import ANNOTATION, EvaluationProtocol
from ls3dw.evaluation.scores import Evaluation

HOW_FAR: Final = '"How far are we from solving the 2D & 3D face alignment problem?", ICCV 2017'


@dataclass(frozen=True)
class PublishedAuc:
    """A published AUC of the 2D-FAN up to 7 %, a fraction, on subsets of a source. row: (group, name) of our table."""

    row: tuple[str, str]
    source: str
    subsets: frozenset[str]
    title: str
    auc: float
    where: str = HOW_FAR


@dataclass(frozen=True)
class PaperComparison:
    """A published figure and ours by the same formula. faces: number of ours."""

    title: str
    published: float
    ours: float
    faces: int
    where: str


PUBLISHED: Final = (
    PublishedAuc(("subset", "300vw/C"), "300vw", frozenset({"C"}), "300-VW category C", 0.641),
    PublishedAuc(("source", "300w"), "300w", frozenset({"indoor", "outdoor"}), "300-W test set", 0.669),
)


def compare_with_paper(dataset: Dataset, evaluation: Evaluation) -> list[PaperComparison]:
    """Return the published figures for rows of the table with the same protocol and faces."""
    question, index = evaluation.question, dataset.index
    if (question.against, question.normaliser, question.threshold) != (ANNOTATION, "box", FAILURE):
        return []
    rows = {(row.group, row.name): row for row in evaluation.scores}
    result = []
    for figure in PUBLISHED if _in_2d(question) else ():
        row = rows.get(figure.row)
        there = set(index.loc[index["source"] == figure.source, "subset"])
        if figure.row[0] == "source" and not there <= figure.subsets:
            continue
        if row and row.auc_published is not None:
            result.append(PaperComparison(figure.title, figure.auc, row.auc_published, row.faces, figure.where))
    return result


def _in_2d(question: EvaluationProtocol) -> bool:
    """Return whether 300-W and 300-VW are scored by their visible contour, which they annotate."""
    return question.points in ("source", "2d")


def render_comparison(found: list[PaperComparison]) -> str:
    """Return the comparison as text."""
    return "\n".join(
        f"{item.title}: published AUC of 2D-FAN {100 * item.published:.1f} % ({item.where});"
        f" here {100 * item.ours:.1f} % on {item.faces} faces"
        for item in found
    )

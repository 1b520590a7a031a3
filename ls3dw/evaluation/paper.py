"""Figures of the papers to stand beside ours, each with its source. Only those that were seen there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ls3dw.core.metrics import FAILURE
from ls3dw.dataset.open import Dataset
from ls3dw.evaluation.evaluate import Evaluation
from ls3dw.evaluation.measure import ANNOTATION, Question

HOW_FAR: Final = '"How far are we from solving the 2D & 3D face alignment problem?", ICCV 2017'


@dataclass(frozen=True)
class PaperFigure:
    """A published AUC of the 2D-FAN up to 7 %, as a fraction, on some subsets of a source; row: of our table."""

    row: tuple[str, str]
    source: str
    subsets: frozenset[str]
    title: str
    auc: float
    where: str = HOW_FAR


@dataclass(frozen=True)
class Beside:
    """A published figure beside ours by the same formula. faces: those of ours."""

    title: str
    published: float
    ours: float
    faces: int
    where: str


PUBLISHED: Final = (
    PaperFigure(("subset", "300vw/C"), "300vw", frozenset({"C"}), "300-VW category C", 0.641),
    PaperFigure(("source", "300w"), "300w", frozenset({"indoor", "outdoor"}), "300-W test set", 0.669),
)


def beside_paper(dataset: Dataset, evaluation: Evaluation) -> list[Beside]:
    """List the papers' figures for rows of the table that ask what the paper asked, of the faces that it asked for."""
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
            result.append(Beside(figure.title, figure.auc, row.auc_published, row.faces, figure.where))
    return result


def _in_2d(question: Question) -> bool:
    """300-W and 300-VW annotate the visible contour."""
    return question.points in ("source", "2d")


def render_beside(found: list[Beside]) -> str:
    """Return the comparison as text."""
    return "\n".join(
        f"{item.title}: published AUC of 2D-FAN {100 * item.published:.1f} % ({item.where});"
        f" here {100 * item.ours:.1f} % on {item.faces} faces"
        for item in found
    )

"""Draws the histogram of a pose-balanced subset, before and after."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from ls3dw.dataset.subsets.pose_balanced import Balanced

_BEFORE: Final = "#9aa5b1"
_AFTER: Final = "#2f6f9f"


def draw_histogram(balanced: Balanced, title: str) -> bytes:
    """Draw the faces of each bin before and after balancing: a PNG file."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.6), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    places = np.arange(len(balanced.counts))
    axes.bar(places - 0.2, balanced.counts, 0.4, color=_BEFORE, label="before")
    axes.bar(places + 0.2, balanced.balanced_counts, 0.4, color=_AFTER, label="after")
    axes.set_xticks(
        places, [f"{low:.3g} to\n{high:.3g}" for low, high in zip(balanced.edges, balanced.edges[1:], strict=False)]
    )
    axes.tick_params(axis="x", labelsize=7)
    axes.set_xlabel("|projection| on the principal component")
    axes.set_ylabel("faces of an epoch")
    axes.set_title(title, fontsize=10, loc="left")
    axes.legend(frameon=False, ncols=2, loc="lower right", bbox_to_anchor=(1, 1))
    axes.spines[["top", "right"]].set_visible(False)
    buffer = io.BytesIO()
    # Without the version of the library, the same faces give the same bytes.
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()

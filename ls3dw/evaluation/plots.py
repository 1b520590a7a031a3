"""Plots of an evaluation as PNG and SVG: the same bytes for the same numbers.

Figures are made without pyplot: no window system, no global state.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from ls3dw.core.files import write_atomic
from ls3dw.core.metrics import auc, ced

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
"""Safe for colour-blind readers; further methods use other lines."""

LINES: Final = ("-", "--", ":", "-.")
STEPS: Final = 800

_STYLE: Any = {
    "svg.hashsalt": "ls3dw",
    "svg.fonttype": "none",
    "font.size": 10,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "figure.dpi": 100,
    # Names of methods may contain dollar signs.
    "text.parse_math": False,
}


@dataclass(frozen=True)
class Line:
    """A line of a plot. low, high: interval or None; reference: drawn in black; names: of its points, or None."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    reference: bool = False
    names: Sequence[str] | None = None


def draw_ced(out: Path, methods: Mapping[str, NDArray[np.float64]], threshold: float, title: str) -> list[Path]:
    """Draw cumulative error distributions up to `threshold`, all methods in one plot; the legend has their AUC.

    methods: name -> errors (N,), NaN left out; out: path without suffix. Returns the files.
    """
    steps = np.linspace(0, threshold, STEPS + 1)
    with _figure() as (figure, axes):
        for number, (name, errors) in enumerate(methods.items()):
            label = f"{name} (AUC {100 * auc(errors, threshold):.1f} %)"
            axes.plot(100 * steps, 100 * ced(errors, steps), label=label, **_look(number))
        axes.set(xlim=(0, 100 * threshold), ylim=(0, 100), xlabel="NME (%)", ylabel="faces (%)", title=title)
        axes.legend(loc="lower right")
        return _save(figure, out)


def draw_lines(out: Path, lines: Sequence[Line], labels: Mapping[str, Any], ticks: Sequence[float]) -> list[Path]:
    """Draw lines with their intervals; labels: of `Axes.set` (title, xlabel, ylabel, ...); ticks: of x."""
    with _figure() as (figure, axes):
        for number, line in enumerate(lines):
            look = _look(number)
            axes.plot(line.x, line.y, marker="o", markersize=4, label=line.label, **look)
            if line.low is not None and line.high is not None:
                axes.fill_between(line.x, line.low, line.high, color=look["color"], alpha=0.15, linewidth=0)
            for x, y, name in zip(line.x, line.y, line.names or (), strict=False):
                axes.annotate(name, (x, y), (0, 6), textcoords="offset points", ha="center", fontsize=8)
        axes.set_xticks(list(ticks))
        axes.set(**labels)
        axes.legend()
        return _save(figure, out)


def draw_over_time(out: Path, panels: Sequence[tuple[str, str, Sequence[Line]]], title: str) -> list[Path]:
    """Draw panels (title, label of y, lines) over one time axis; a NaN interrupts a line."""
    with _figure(rows=len(panels)) as (figure, _):
        for axes, (name, label, lines) in zip(figure.axes, panels, strict=True):
            for number, line in enumerate(lines):
                look = {"color": "black", "linestyle": ":"} if line.reference else _look(number)
                axes.plot(line.x, line.y, linewidth=1, label=line.label, **look)
            axes.set_title(name, fontsize=10, loc="left")
            axes.set(ylabel=label, ylim=(0, None))
            axes.legend(loc="upper right", fontsize=8)
        figure.axes[-1].set_xlabel("frame")
        figure.suptitle(title)
        return _save(figure, out)


def _look(number: int) -> dict[str, Any]:
    """Return colour and line of the n-th method."""
    return {
        "color": COLOURS[number % len(COLOURS)],
        "linestyle": LINES[number // len(COLOURS) % len(LINES)],
    }


@contextmanager
def _figure(rows: int = 1) -> Iterator[tuple[Figure, Axes]]:
    """Make a figure in our style, independent of the user's settings."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        figure = Figure(figsize=(7, 4.6 if rows == 1 else 1.6 + 1.5 * rows), layout="constrained")
        FigureCanvasAgg(figure)
        figure.subplots(rows, 1, sharex=True, squeeze=False)
        yield figure, figure.axes[0]


def _save(figure: Figure, out: Path) -> list[Path]:
    """Write PNG and SVG without date and program version."""
    files = []
    for kind, metadata in (("png", {"Software": None}), ("svg", {"Date": None, "Creator": None})):
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind, metadata=metadata)
        path = out.with_name(f"{out.name}.{kind}")
        write_atomic(path, buffer.getvalue())
        files.append(path)
    return files

"""`ls3dw diff`: compares two versions, and reports as text, plain values and plots."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from ls3dw.core.metrics import FAILURE
from ls3dw.dataset.open import open_dataset
from ls3dw.evaluation.moves import MOVED, Change, Moves, PartMove, changes, compare, most_changed

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Chosen = Mapping[str, NDArray[np.int64]]


@dataclass(frozen=True)
class DiffReport:
    """Differences between two versions. moved: threshold, pixels of the crop; chosen: rows of `moves` of the faces
    that changed most, by kind of change; gallery: the page of pairs, if one was written."""

    dataset: Path
    moves: Moves
    moved: float
    chosen: Chosen
    gallery: Path | None = None

    @property
    def changes(self) -> list[Change]:
        """The table."""
        return changes(self.moves, self.moved)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return report(self.moves, self.chosen, self.moved) | {
            "dataset": str(self.dataset),
            "gallery": self.gallery and str(self.gallery),
        }

    def render(self) -> str:
        """Return the report as text."""
        page = f"\n\ngallery    {self.gallery}" if self.gallery else ""
        return render_diff(self.moves, self.chosen, self.moved) + page


def run_diff(dataset: str | Path, before: str, after: str, *, moved: float = MOVED, top: int = 12) -> DiffReport:
    """Compare two versions of a data set.

    moved: mean move in pixels of the 256-pixel crop from which a face counts as moved; top: faces of each kind of
    change. `review.write_pairs` makes a page of the report.
    """
    moves = compare(open_dataset(dataset, before), open_dataset(dataset, after), moved)
    return DiffReport(Path(dataset), moves, moved, most_changed(moves, top))


def face_values(moves: Moves, row: int) -> dict[str, Any]:
    """Return one face as plain values."""
    before, after = float(moves.nme_before[row]), float(moves.nme_after[row])
    return {
        "id": str(moves.index["id"].iat[row]),
        "yaw": float(moves.index["yaw"].to_numpy()[row]),
        "moved": float(moves.moved[row]),
        "nme_before": before if np.isfinite(before) else None,
        "nme_after": after if np.isfinite(after) else None,
    }


def report(moves: Moves, chosen: Chosen, threshold: float = MOVED) -> dict[str, Any]:
    """Return everything as plain values. chosen: rows of the faces that changed most."""
    return {
        "before": moves.before,
        "after": moves.after,
        "threshold": threshold,
        "faces": len(moves),
        "only_before": moves.only_before,
        "only_after": moves.only_after,
        "depth": _mean(moves.moved_z),
        "changes": [asdict(row) for row in changes(moves, threshold)],
        "landmark_groups": [asdict(part) for part in moves.parts],
        "most_changed": {name: [face_values(moves, int(row)) for row in rows] for name, rows in chosen.items()},
    }


def _mean(values: NDArray[Any]) -> float | None:
    finite = values[np.isfinite(values)]
    return float(finite.mean(dtype=np.float64)) if len(finite) else None


def render_diff(moves: Moves, chosen: Chosen, threshold: float = MOVED) -> str:
    """Return the report as text."""
    head = (
        f"{'':<24} {'faces':>7} {'moved':>7} {'mean':>6} {'median':>6} {'most':>6} {'2D':>6} {'3D':>6} {'of box':>7}"
        f"  {'NME before':>10} {'after':>7} {'better':>7} {'worse':>7} {'failures':>13}"
    )
    lines = [
        f"{moves.before} to {moves.after}: {len(moves)} faces in both"
        + (f", {moves.only_before} only in {moves.before}" if moves.only_before else "")
        + (f", {moves.only_after} only in {moves.after}" if moves.only_after else ""),
        f"distances in pixels of the 256-pixel crop; moved: by more than {threshold:g} on average; NME in per cent",
        "",
        head,
    ]
    group = "all"
    for row in changes(moves, threshold):
        if row.group != group:
            lines.append(f"by {row.group}" + (f", as {moves.before} has it" if row.group == "yaw" else ""))
        group = row.group
        lines.append(_line(row))
    depth = _mean(moves.moved_z)
    lines += ["by landmark group", *map(_part_line, moves.parts)]
    lines += [] if depth is None else ["", f"depth moved by {depth:.3f} on average"]
    for name, rows in chosen.items():
        lines += ["", f"most {name}" if name == "moved" else f"changed most for the {name}"]
        lines += [_face_line(face_values(moves, int(row))) for row in rows] or ["  none"]
    return "\n".join(lines)


def _line(row: Change) -> str:
    distances = " ".join(f"{value:>6.2f}" for value in (row.mean, row.median, row.highest, row.mean_2d, row.mean_3d))
    failures = f"{row.failures_before} -> {row.failures_after}"
    return (
        f"{row.name:<24} {row.faces:>7} {row.moved:>7} {distances} {100 * row.share:>5.2f} %"
        f"  {_percent(row.nme_before):>10} {_percent(row.nme_after):>7} {row.better:>7} {row.worse:>7} {failures:>13}"
    )


def _part_line(part: PartMove) -> str:
    return (
        f"{part.name:<32} {part.moved:>7} {'':>20} {part.mean_2d:>6.2f} {part.mean_3d:>6.2f} {'':>7}"
        f"  {_percent(part.nme_before):>10} {_percent(part.nme_after):>7}"
    )


def _face_line(face: Mapping[str, Any]) -> str:
    errors = f"NME {_percent(face['nme_before'])} -> {_percent(face['nme_after'])}"
    return f"  {face['id']:<40} moved {face['moved']:>6.2f}   {errors}   yaw {face['yaw']:.0f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"


LIMIT: Final = 0.1
"""End of the error curves."""


def plots(moves: Moves) -> dict[str, bytes]:
    """Draw the plots as PNG files: errors of both versions, how far faces moved, and which parts of the face."""
    drawings: dict[str, Callable[[Axes, Moves], None]] = {
        "errors.png": _draw_errors,
        "moved.png": _draw_moved,
        "groups.png": _draw_parts,
    }
    return {name: _png(draw, moves) for name, draw in drawings.items()}


def _png(draw: Callable[[Axes, Moves], None], moves: Moves) -> bytes:
    # Without pyplot, which keeps figures and a backend for the whole process.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    draw(figure.add_subplot(), moves)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _draw_errors(axes: Axes, moves: Moves) -> None:
    both = np.isfinite(moves.nme_before) & np.isfinite(moves.nme_after)
    for name, errors in ((moves.before, moves.nme_before[both]), (moves.after, moves.nme_after[both])):
        if len(errors):
            axes.plot(np.sort(errors) * 100, np.arange(1, len(errors) + 1) / len(errors), label=name)
    axes.axvline(100 * FAILURE, color="0.7", linewidth=1)
    axes.set(xlim=(0, 100 * LIMIT), ylim=(0, 1), xlabel="NME (per cent)", ylabel="share of faces")
    axes.set_title(f"Errors against the sources' own points, {int(both.sum())} faces")
    if both.any():
        axes.legend(loc="lower right")


def _draw_moved(axes: Axes, moves: Moves) -> None:
    source = moves.index["source"].to_numpy()
    edges = np.geomspace(0.01, max(1.0, float(moves.moved.max())), 40)
    names = sorted(set(source))
    # A logarithmic scale has no zero: smaller moves count in the first bin.
    values = [np.maximum(moves.moved[source == name], edges[0]) for name in names]
    axes.hist(values, bins=edges.tolist(), stacked=True, label=names)
    axes.set(xscale="log", xlabel="mean move (pixels of the crop)", ylabel="faces")
    axes.set_title(f"From {moves.before} to {moves.after}")
    axes.legend()


def _draw_parts(axes: Axes, moves: Moves) -> None:
    place = np.arange(len(moves.parts))
    axes.barh(place - 0.2, [part.mean_2d for part in moves.parts], 0.4, label="2D")
    axes.barh(place + 0.2, [part.mean_3d for part in moves.parts], 0.4, label="3D")
    axes.set_yticks(place, [part.name for part in moves.parts])
    axes.invert_yaxis()
    axes.set(xlabel="mean move (pixels of the crop)")
    axes.set_title(f"From {moves.before} to {moves.after}, by landmark group")
    axes.legend()

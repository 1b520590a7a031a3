"""Motion of landmarks in videos: jitter, jumps, and frames where the face is lost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ls3dw.core.geometry import tight_box
from ls3dw.core.metrics import FAILURE, mean_errors
from ls3dw.dataset.open import Dataset
from ls3dw.errors import DatasetError
from ls3dw.evaluation.measure import MethodErrors, Truth
from ls3dw.evaluation.plots import Line, draw_over_time

if TYPE_CHECKING:
    import pandas as pd

JUMP: Final = FAILURE
"""A face jumps if its move between two frames differs from the true one by more than this share of its size."""

OVERLAP: Final = 0.5
"""A face is lost if the boxes of its landmarks and of the true ones overlap (intersection over union) by less, or if it
has no landmarks."""

SHOWN: Final = 3
"""Number of videos in the plot, those with the most jitter."""


@dataclass(frozen=True)
class Motion:
    """Motion in a video of F frames, all (F,). Distances are means over the landmarks, as fractions of the face's size,
    NaN where a neighbouring frame or the truth is missing.

    jitter, jitter_own: acceleration (x[t+1] - 2 x[t] + x[t-1]) of the method and of the truth; jitter_error: of their
    difference, to which slow motion and a constant offset do not add; step, step_own: move from the frame before;
    jump: see `JUMP`; overlap, lost: see `OVERLAP`.
    """

    nme: NDArray[np.float64]
    jitter: NDArray[np.float64]
    jitter_own: NDArray[np.float64]
    jitter_error: NDArray[np.float64]
    step: NDArray[np.float64]
    step_own: NDArray[np.float64]
    jump: NDArray[np.bool_]
    overlap: NDArray[np.float64]
    lost: NDArray[np.bool_]


@dataclass(frozen=True)
class VideoMotion:
    """One method on one video: means over frames, and counts. longest_lost: most lost frames in a row."""

    method: str
    video: str
    frames: int
    nme: float | None
    jitter: float | None
    jitter_own: float | None
    jitter_error: float | None
    jumps: int
    lost: int
    longest_lost: int


def measure_motion(points: ArrayLike, truth: ArrayLike, sizes: ArrayLike, frames: ArrayLike) -> Motion:
    """Measure one video. points, truth: (F, P, 2) image pixels; sizes: (F,); frames: (F,) increasing numbers."""
    moved, own = np.asarray(points, dtype=np.float64), np.asarray(truth, dtype=np.float64)
    size, number = np.asarray(sizes, dtype=np.float64), np.asarray(frames)
    if number.shape != (len(own),) or (np.diff(number) <= 0).any():
        raise ValueError(f"frames {number.shape}: expected ({len(own)},) numbers that rise")
    still = np.zeros_like(own)
    step, step_own, step_error = (_steps(x, number) for x in (moved, own, moved - own))
    jitter, jitter_own, jitter_error = (_accelerations(x, number) for x in (moved, own, moved - own))
    overlap = _overlaps(tight_box(moved), tight_box(own))
    known = np.isfinite(own[..., 0] + own[..., 1]).any(axis=1)
    return Motion(
        nme=mean_errors(moved, own, size),
        jitter=mean_errors(jitter, still, size),
        jitter_own=mean_errors(jitter_own, still, size),
        jitter_error=mean_errors(jitter_error, still, size),
        step=mean_errors(step, still, size),
        step_own=mean_errors(step_own, still, size),
        jump=mean_errors(step_error, still, size) > JUMP,
        overlap=overlap,
        lost=known & ~(overlap >= OVERLAP),
    )


def _steps(points: NDArray[np.float64], frames: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the move from the frame before (F, P, 2), NaN after a gap."""
    out = np.full_like(points, np.nan)
    out[1:] = np.where((np.diff(frames) == 1)[:, None, None], np.diff(points, axis=0), np.nan)
    return out


def _accelerations(points: NDArray[np.float64], frames: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the second difference (F, P, 2) around each frame, NaN beside a gap."""
    step = _steps(points, frames)
    out = np.full_like(points, np.nan)
    out[:-1] = step[1:] - step[:-1]
    return out


def _overlaps(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return intersection over union of boxes (F, 4), (F, 4) -> (F,), NaN without a box."""
    a, b = first.astype(np.float64), second.astype(np.float64)
    sides = np.clip(np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2]), 0, None)
    shared = sides.prod(axis=1)
    union = (a[:, 2:] - a[:, :2]).prod(axis=1) + (b[:, 2:] - b[:, :2]).prod(axis=1) - shared
    ratio: NDArray[np.float64] = np.divide(shared, union, out=np.full(len(a), np.nan), where=union > 0)
    return ratio


def motion_table(dataset: Dataset, truth: Truth, measured: Sequence[MethodErrors]) -> pd.DataFrame:
    """Measure all videos: a row per method and frame, with method, id, video, frame and the fields of `Motion`."""
    import pandas as pd

    parts = []
    for method in measured:
        for video, rows in _videos(dataset):
            frames = dataset.index["frame"].to_numpy()[rows]
            motion = measure_motion(method.points[rows], truth.points[rows], truth.sizes[rows], frames)
            keys = {
                "method": method.method,
                "id": dataset.index["id"].to_numpy()[rows],
                "video": video,
                "frame": frames,
            }
            parts.append(pd.DataFrame(keys | {field.name: getattr(motion, field.name) for field in fields(Motion)}))
    if not parts:
        raise DatasetError(f"{dataset.store.root}: no face of version {dataset.version} is a frame of a video")
    return pd.concat(parts, ignore_index=True)


def _videos(dataset: Dataset) -> Iterator[tuple[str, NDArray[np.int64]]]:
    """Yield each video with its rows in the order of its frames."""
    index = dataset.index
    frames = index[index["frame"] > 0]
    for (source, media), rows in frames.groupby(["source", "media"], sort=False):
        yield f"{source}/{media}", rows.sort_values("frame", kind="stable").index.to_numpy(dtype=np.int64)


def summarise_motion(table: pd.DataFrame) -> list[VideoMotion]:
    """Summarise `motion_table` by method and video."""
    result = []
    for (method, video), rows in table.groupby(["method", "video"], sort=False):
        means = {
            name: float(rows[name].mean()) if rows[name].notna().any() else None
            for name in ("nme", "jitter", "jitter_own", "jitter_error")
        }
        lost = rows["lost"].to_numpy(dtype=bool)
        result.append(
            VideoMotion(
                method=str(method),
                video=str(video),
                frames=len(rows),
                **means,
                jumps=int(rows["jump"].sum()),
                lost=int(lost.sum()),
                longest_lost=_longest(lost),
            )
        )
    return result


def _longest(flags: NDArray[np.bool_]) -> int:
    """Return the length of the longest run of True."""
    ends = np.flatnonzero(np.diff(np.concatenate(([0], flags.astype(np.int8), [0]))))
    return int((ends[1::2] - ends[::2]).max(initial=0))


def render_motion(rows: Sequence[VideoMotion]) -> str:
    """Return the summary as text, in per cent."""
    lines = [f"{'':<40} {'frames':>7} {'NME':>7} {'jitter':>7} {'own':>7} {'of diff.':>8} {'jumps':>6} {'lost':>6}"]
    for row in rows:
        numbers = (row.nme, row.jitter, row.jitter_own, row.jitter_error)
        texts = ["-" if value is None else f"{100 * value:.2f}" for value in numbers]
        name = f"{row.video} {row.method}"
        figures = f"{row.frames:>7} {texts[0]:>7} {texts[1]:>7} {texts[2]:>7} {texts[3]:>8}"
        lines.append(f"{name:<40} {figures} {row.jumps:>6} {row.lost:>6}")
    return "\n".join(lines)


def draw_motion(table: pd.DataFrame, out: Path) -> list[Path]:
    """Draw NME and jitter over time of the videos with the most jitter; out: path without suffix."""
    worst = (
        table.groupby("video", sort=False)["jitter_error"].mean().fillna(0).sort_values(ascending=False, kind="stable")
    )
    panels: list[tuple[str, str, Sequence[Line]]] = []
    for video in worst.index[:SHOWN]:
        rows = table[table["video"] == video]
        methods = list(rows.groupby("method", sort=False))
        own = methods[0][1]
        reference = Line("the truth itself", own["frame"].tolist(), (100 * own["jitter_own"]).tolist(), reference=True)
        for column, label in (("nme", "NME (%)"), ("jitter", "jitter (%)")):
            lines = [Line(str(name), part["frame"].tolist(), (100 * part[column]).tolist()) for name, part in methods]
            panels.append((f"{video}: {label[:-4]}", label, [*lines, reference] if column == "jitter" else lines))
    shown = f"{min(SHOWN, len(worst))} of {len(worst)} videos"
    return draw_over_time(out, panels, f"Over time, per cent of the face's size; {shown}, most jitter first")

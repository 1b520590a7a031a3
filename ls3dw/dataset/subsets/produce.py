"""Draws subsets of an opened data set and writes them into its folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ls3dw.dataset.open import Dataset
from ls3dw.dataset.subsets.balanced import ORIGIN_COLUMNS, BalancedOptions, draw_balanced
from ls3dw.dataset.subsets.lists import check_name, write_subset
from ls3dw.dataset.subsets.plot import draw_histogram
from ls3dw.dataset.subsets.pose_balanced import PoseBalance, balance_by_pose
from ls3dw.dataset.subsets.split import SplitOptions, split

Report = dict[str, Any]


@dataclass(frozen=True)
class SubsetReport:
    """A subset that was drawn. path: its table in the data set; details: how it was drawn, as in the table's head."""

    path: Path
    details: Mapping[str, Any]


@dataclass(frozen=True)
class SplitReport:
    """A split for training. train, held_out: tables of the two sides; details: counts by source, and options."""

    train: Path
    held_out: Path
    details: Mapping[str, Any]


def write_pose_balanced(dataset: Dataset, options: PoseBalance, name: str = "pose-balanced") -> tuple[Path, Report]:
    """Balance by the projected 3D landmarks; write id, bin, projection, repeats, weight, and a histogram as PNG."""
    check_name(dataset, name)
    ids = dataset.index["id"].tolist()
    balanced = balance_by_pose(ids, dataset.column("landmarks_3d")[..., :2], options)
    report: Report = {
        "kind": "pose-balanced",
        "options": asdict(options),
        "edges": balanced.edges.tolist(),
        "before": balanced.counts.tolist(),
        "after": balanced.balanced_counts.tolist(),
        "faces": int((balanced.repeats > 0).sum()),
        "left out": len(ids) - len(balanced.rows),
    }
    kept = balanced.repeats > 0
    columns = {
        "id": np.array(ids, dtype=object)[balanced.rows[kept]],
        "bin": balanced.bin[kept],
        "projection": balanced.projection[kept],
        "repeats": balanced.repeats[kept],
        "weight": balanced.weight[kept],
    }
    title = f"{len(balanced.rows)} faces of {dataset.version}, {options.mode}"
    return write_subset(dataset, name, columns, report, {".png": draw_histogram(balanced, title)}), report


def write_balanced(dataset: Dataset, options: BalancedOptions, name: str = "balanced") -> tuple[Path, Report]:
    """Draw LS3D-W Balanced; each row has picture, frame, box, model and hash of its face.

    <name>-excluded.parquet lists the faces that could not be drawn, with reasons.
    """
    for each in (name, f"{name}-excluded"):
        check_name(dataset, each)
    index = dataset.index
    drawn = draw_balanced(index, options)
    chosen = index.iloc[drawn.rows]
    models = dataset.manifest["configuration"].get("models") or {}
    model = models.get("3d") or {}
    report = drawn.report | {"models": models}
    columns: dict[str, Any] = {"id": chosen["id"].to_numpy(), "bin": np.array(drawn.bin, dtype=object)}
    columns |= {column: chosen[column].to_numpy() for column in ORIGIN_COLUMNS}
    columns |= {
        "pose_residual": chosen["pose_residual"].to_numpy(),
        "phash": chosen["phash"].to_numpy(dtype=np.uint64),
        "model": np.full(len(chosen), model.get("sha256", ""), dtype=object),
        "gap": drawn.gap,
    }
    excluded = sorted(drawn.excluded)
    reasons = {
        "id": index["id"].to_numpy()[excluded],
        "reason": np.array([drawn.excluded[row] for row in excluded], dtype=object),
    }
    write_subset(dataset, f"{name}-excluded", reasons, {"kind": "excluded", "from": name, "options": asdict(options)})
    return write_subset(dataset, name, columns, report), report


def render_balanced(report: Report) -> str:
    """Return the counts of a balanced draw as text."""
    lines = [f"{'|yaw|':<10} {'usable':>8} {'drawn':>8}  by source"]
    for name, usable in report["usable"].items():
        sources = ", ".join(f"{count} {source}" for source, count in report["sources"][name].items())
        lines.append(f"{name:<10} {usable:>8} {report['per bin']:>8}  {sources}")
    lines += [f"left out: {count} {reason}" for reason, count in report["excluded"].items()]
    gaps = ", ".join(f"{count} at {gap}" for gap, count in report["gaps"].items() if gap != "0")
    if gaps:
        lines.append(f"frames of videos, by the gap asked for: {gaps}; {report['alike frames']} may look alike")
    asked = report["options"]["total"]
    if report["complete"]:
        lines.append(f"{report['drawn']} faces, as asked")
    else:
        lines.append(f"{report['drawn']} faces of the {asked} asked for: the most that this version can give equally")
    return "\n".join(lines)


def write_split(
    dataset: Dataset, options: SplitOptions, same: Sequence[tuple[str, str]] = (), name: str = "split"
) -> tuple[list[Path], Report]:
    """Split for training; write <name>-train and <name>-held-out with the group of each face."""
    sides = (f"{name}-train", f"{name}-held-out")
    for side in sides:
        check_name(dataset, side)
    result = split(dataset.index, options, same)
    ids = dataset.index["id"].to_numpy()
    paths = []
    for side, chosen in zip(sides, (~result.held_out, result.held_out), strict=True):
        columns = {"id": ids[chosen], "group": result.group[chosen]}
        paths.append(write_subset(dataset, side, columns, result.report))
    return paths, result.report

"""Makes the table of "Wing Loss" (Feng et al., CVPR 2018) from finished runs: losses against networks, with intervals.

    python benchmarks/wing_table.py ls3dw-train/wing-losses ls3dw-train/wing-losses-balanced

Each run's last validation has the error of every face (errors.npz); the runs must have been validated on the same ones.
Printed for each set of faces, in Markdown: the mean NME in per cent with its 95 % bootstrap interval; how much more
each loss has than Wing on the same faces, and how much more without balancing, with the intervals of these differences;
and the NME by |yaw|.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ls3dw.errors import ConfigurationError
from ls3dw.evaluation.bootstrap import mean_intervals
from ls3dw.files import read_json
from ls3dw.training.validate import YAW_BINS

LOSSES: Final = {"l2": "L2", "l1": "L1", "smooth_l1": "smooth L1", "wing": "Wing"}
"""In the paper's order."""

NAMES: Final = {"CNN6": "CNN-6", "CNN7": "CNN-7", "ResNet50": "ResNet-50", "CNN6/CNN7": "CNN-6/7"}

BALANCED: Final = " + PDB"
"""What the paper calls a row whose faces were balanced by pose."""

Errors = NDArray[np.float64]


@dataclass(frozen=True)
class Cell:
    """One network of one run on one set. row: network and balancing; errors, yaw: (N,), NaN where unknown."""

    faces: str
    row: str
    loss: str
    errors: Errors
    yaw: Errors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("runs", type=Path, nargs="+", help="Folders of runs of train_wing_losses.yaml.")
    cells = [cell for run in parser.parse_args().runs for cell in read_run(run)]
    for faces in dict.fromkeys(cell.faces for cell in cells):
        print_tables([cell for cell in cells if cell.faces == faces], faces)


def read_run(folder: Path) -> Iterator[Cell]:
    """Read what a run measured of its networks for single pictures and of its cascades."""
    configuration: Any = read_json(folder / "configuration.json", ConfigurationError)
    balance = next((stream["balance"] for stream in configuration["data"] if stream["balance"]), 0)
    rows = dict(_rows(configuration))
    with np.load(folder / "errors.npz") as arrays:
        for key in arrays.files:
            faces, _, name = key.partition("/")
            if name in rows:
                row, loss = rows[name]
                title = row + BALANCED if balance else row
                yaw = arrays[f"yaw/{faces}"].astype(np.float64)
                yield Cell(faces, title, loss, arrays[key].astype(np.float64), yaw)


def _rows(configuration: Any) -> Iterator[tuple[str, tuple[str, str]]]:
    """Yield the name of each network and cascade with its row and loss; of a cascade, that of its second stage."""
    networks = configuration["networks"]
    for name, network in networks.items():
        yield name, (NAMES.get(network["network"]["class"], network["network"]["class"]), network["loss"] or "wing")
    for name, stages in configuration["cascades"].items():
        classes = "/".join(networks[stage]["network"]["class"] for stage in stages)
        yield name, (NAMES.get(classes, classes), networks[stages[1]]["loss"] or "wing")


def print_tables(cells: list[Cell], faces: str) -> None:
    if len({len(cell.errors) for cell in cells}) > 1:
        raise ConfigurationError(f"{faces}: the runs were validated on other numbers of faces; compare like with like")
    known = np.logical_and.reduce([np.isfinite(cell.errors) for cell in cells])
    rows = list(dict.fromkeys(cell.row for cell in cells))
    losses = [loss for loss in LOSSES if any(cell.loss == loss for cell in cells)]
    found = {(cell.row, cell.loss): cell for cell in cells}
    wanted = [key for row in rows for loss in losses if (key := (row, loss)) in found]
    # All columns are drawn with the same faces, so that differences have intervals of their own.
    means = {key: 100 * found[key].errors[known] for key in wanted}
    print(f"\n## {faces}: {int(known.sum())} faces\n\nNME in per cent, 95 % interval\n")
    _print(rows, losses, _with_intervals(means))
    more = {key: values - means[key[0], "wing"] for key, values in means.items() if (key[0], "wing") in means}
    others = [loss for loss in losses if loss != "wing"]
    print("\nMore than Wing, points of per cent\n")
    _print(rows, others, _with_intervals({key: values for key, values in more.items() if key[1] != "wing"}))
    gain = {
        key: values - means[twin] for key, values in means.items() if (twin := (key[0] + BALANCED, key[1])) in means
    }
    if gain:
        print("\nMore than with balancing by pose, points of per cent\n")
        _print(list(dict.fromkeys(row for row, _ in gain)), losses, _with_intervals(gain))
    print("\nNME in per cent by |yaw| " + ", ".join(f"{low}-{high}" for low, high in YAW_BINS) + "\n")
    _print(rows, losses, {key: _by_yaw(found[key], known) for key in wanted})


def _with_intervals(columns: dict[tuple[str, str], Errors]) -> dict[tuple[str, str], str]:
    if not columns:
        return {}
    intervals = mean_intervals(np.stack(list(columns.values()), axis=1))
    return {
        key: f"{values.mean():.2f} [{low:.2f}, {high:.2f}]"
        for (key, values), (low, high) in zip(columns.items(), intervals, strict=True)
    }


def _by_yaw(cell: Cell, known: NDArray[np.bool_]) -> str:
    turned = np.abs(cell.yaw)
    last = YAW_BINS[-1]
    shown = []
    for low, high in YAW_BINS:
        chosen = known & (turned >= low) & ((turned < high) | ((low, high) == last))
        shown.append(f"{100 * cell.errors[chosen].mean():.2f}" if chosen.any() else "-")
    return " / ".join(shown)


def _print(rows: list[str], losses: list[str], texts: dict[tuple[str, str], str]) -> None:
    print(f"| network | {' | '.join(LOSSES[loss] for loss in losses)} |")
    print(f"| --- |{' --- |' * len(losses)}")
    for row in rows:
        print(f"| {row} | {' | '.join(texts.get((row, loss), '') for loss in losses)} |")


if __name__ == "__main__":
    main()

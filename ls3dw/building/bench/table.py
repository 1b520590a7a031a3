"""The report as text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from ls3dw.building.bench.against import Rival
from ls3dw.building.bench.bounds import Bound
from ls3dw.building.bench.chain import WHOLE
from ls3dw.building.bench.machine import Machine
from ls3dw.building.bench.run import Report
from ls3dw.building.bench.stages import Row
from ls3dw.building.bench.whole import STEADY

HEAD = ("stage", "faces/s", "ms a face", "at best", "of peak")


def render(report: Report) -> str:
    """Render the whole report."""
    lines = [
        *machine_lines(report.machine),
        _networks(report),
        "",
        *stage_table(report.rows, report.machine.peak),
        "",
        *verdict(report),
    ]
    if report.rival is not None:
        lines += ["", *rival_lines(report.rival, report.row(WHOLE))]
    return "\n".join(lines)


def machine_lines(machine: Machine) -> list[str]:
    features = ", ".join(machine.features)
    lines = [
        f"processor  {machine.processor}, {features}; {machine.cores} cores, {machine.threads} threads",
        f"arithmetic {machine.precision}, {significant(machine.peak / 1e9)} GFLOP/s in a large matrix product",
        f"versions   torch {machine.torch}, Python {machine.python}",
    ]
    if machine.device != "cpu":
        lines.insert(1, f"gpu        {machine.device}")
    if machine.busy:
        lines.append(f"busy       a load of {machine.load:.1f} before this began: rates are lower than they could be")
    return lines


def _networks(report: Report) -> str:
    return f"networks   {', '.join(report.networks)}; {report.batch} faces a batch"


def stage_table(rows: Sequence[Row], peak: float) -> list[str]:
    return table([HEAD, *(_cells(row, peak) for row in rows)])


def _cells(row: Row, peak: float) -> tuple[str, ...]:
    share = row.share(peak)
    figures = significant(row.rate), significant(row.ms), significant(row.best_ms)
    return row.name, *figures, "" if share is None else percent(share)


def table(lines: Sequence[tuple[str, ...]]) -> list[str]:
    """Lay out lines of cells, the first column to the left and figures to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(
            text.rjust(width) if column else text.ljust(width)
            for column, (text, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]


def significant(value: float) -> str:
    """Write a positive number with three digits that count, and all before its point: 12,345, 123, 2.00, 0.0123."""
    return f"{value:,.{max(0, 2 - math.floor(math.log10(value)))}f}"


def percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.1 else f"{100 * share:.1f} %"


def verdict(report: Report) -> list[str]:
    """Say what bounds a build and how far it came."""
    lines = [describe_bound(report.bound, shared=report.busy is None)]
    if report.busy is not None:
        lines.append(f"While it annotates the GPU has work {percent(report.busy)} of the time.")
    steady = [row for row in report.rows if row.name == STEADY]
    lines += [
        f"The build of {report.built} faces did {significant(row.rate)} from its first to its last, "
        f"{percent(row.rate / report.bound.rate)} of that."
        for row in steady
    ]
    return lines


def describe_bound(bound: Bound, *, shared: bool) -> str:
    """shared: the lanes share the cores."""
    others = ", ".join(f"{name} {percent(share)}" for name, share in bound.shares.items() if name != bound.lane)
    what = "of the cores' time" if shared else "busy"
    share = percent(bound.shares[bound.lane])
    return f"A build is bound by {bound.lane}, {share} {what} ({others}): {significant(bound.rate)} faces/s at most."


def rival_lines(rival: Rival, chosen: Row) -> list[str]:
    """Lay out the comparison. chosen: the whole annotator with the networks that the bench was asked for."""
    what = "compiled" if rival.compiled else "not compiled"
    ours = [*rival.ours, replace(chosen, name="ls3dw, networks and batches of the table above")]
    head = ("", "faces/s", "ms a face", "x one", "x batched")
    rows = [
        (
            row.name,
            significant(row.rate),
            significant(row.ms),
            significant(row.rate / rival.one.rate),
            significant(row.rate / rival.batched.rate),
        )
        for row in (rival.one, rival.solid, *rival.many, *ours)
    ]
    return [
        f"face-alignment {rival.version}, {what}, with flip and boxes given; both with the same weights of FAN-4",
        "",
        *table([head, *rows]),
        "",
        f"Landmarks of {rival.compared} faces, 2D: {100 * rival.equal:.2f} % of its coordinates are those of"
        f" --decode reference; at sub-pixel precision ours lie {significant(rival.distance)} px from its whole pixels.",
    ]

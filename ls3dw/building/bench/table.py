"""The report of `ls3dw bench` as text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from ls3dw.building.bench.rival import Rival
from ls3dw.building.bench.run import STEADY, BenchReport, Bound, Machine
from ls3dw.building.bench.stages import WHOLE
from ls3dw.building.bench.timing import Row


def render(report: BenchReport) -> str:
    """Render the whole report."""
    rows = [_cells(row, report.machine.peak) for row in report.rows]
    lines = [
        *machine_lines(report.machine),
        f"networks   {', '.join(report.networks)}; {report.batch} faces a batch",
        "",
        *table([("stage", "faces/s", "ms a face", "at best", "of peak"), *rows]),
        "",
        describe_bound(report.bound, shared=report.busy is None),
    ]
    if report.busy is not None:
        lines.append(f"While it annotates the GPU has work {percent(report.busy)} of the time.")
    lines += [
        f"The build of {report.built} faces did {significant(row.rate)} from its first to its last, "
        f"{percent(row.rate / report.bound.rate)} of that."
        for row in report.rows
        if row.name == STEADY
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


def _cells(row: Row, peak: float) -> tuple[str, ...]:
    share = row.share(peak)
    figures = significant(row.rate), significant(row.ms), significant(row.best_ms)
    return row.name, *figures, "" if share is None else percent(share)


def table(lines: Sequence[tuple[str, ...]]) -> list[str]:
    """Align cells: the first column to the left, figures to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(
            text.rjust(width) if column else text.ljust(width)
            for column, (text, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]


def significant(value: float) -> str:
    """Format a positive number with at least three significant digits: 12,345, 123, 2.00, 0.0123."""
    return f"{value:,.{max(0, 2 - math.floor(math.log10(value)))}f}"


def percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.1 else f"{100 * share:.1f} %"


def describe_bound(bound: Bound, *, shared: bool) -> str:
    """shared: the parts share the cores."""
    others = ", ".join(f"{name} {percent(share)}" for name, share in bound.shares.items() if name != bound.part)
    what = "of the cores' time" if shared else "busy"
    share = percent(bound.shares[bound.part])
    return f"A build is bound by {bound.part}, {share} {what} ({others}): {significant(bound.rate)} faces/s at most."


def rival_lines(rival: Rival, chosen: Row) -> list[str]:
    """Render the comparison. chosen: the whole annotator with the networks that the bench was asked for."""
    how = "compiled" if rival.compiled else "not compiled"
    best = max(row.rate for row in rival.many)
    ours = [*rival.ours, replace(chosen, name="ls3dw, networks and batches of the table above")]
    rows = [
        (row.name, *map(significant, (row.rate, row.ms, row.rate / rival.one.rate, row.rate / best)))
        for row in (rival.one, rival.solid, *rival.many, *ours)
    ]
    return [
        f"face-alignment {rival.version}, {how}, with flip and boxes given; both with the same weights of FAN-4",
        "",
        *table([("", "faces/s", "ms a face", "x one", "x batched"), *rows]),
        "",
        f"Landmarks of {rival.compared} faces, 2D: {100 * rival.equal:.2f} % of its coordinates are those of"
        f" --decode reference; at sub-pixel precision ours lie {significant(rival.distance)} px from its whole pixels.",
    ]

"""`ls3dw train`."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from ls3dw.training import TrainPlan


@click.command()
@click.argument("pipeline", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="The run's folder. [default: ls3dw-train/<name>]")
@click.option("--resume", is_flag=True, help="Go on from the last checkpoint, and fail if there is none.")
@click.option("--restart", is_flag=True, help="Begin anew, and remove what an earlier run left in the folder.")
@click.option("--gpu", default="auto", show_default=True, metavar="ID", help="auto, none, or an id such as 0.")
@click.option("--set", "changes", multiple=True, metavar="NAME=VALUE", help="Change an option of the pipeline.")
@click.option("--dry-run", is_flag=True, help="Check the pipeline, say what it would do, and do nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the last validation's figures as JSON.")
def train(
    pipeline: Path,
    out: Path | None,
    resume: bool,
    restart: bool,
    gpu: str,
    changes: tuple[str, ...],
    dry_run: bool,
    as_json: bool,
) -> None:
    """Train the networks of PIPELINE, a YAML file. Run again, it goes on from the last checkpoint.

    On SIGTERM, as schedulers send it before they kill, it saves a checkpoint and ends.

    \b
    ls3dw train pipelines/train_small.yaml
    ls3dw train pipelines/train_2dfan.yaml --set minutes=10 --set data.0.pool=8192
    torchrun --nproc-per-node 2 -m ls3dw train pipelines/train_full.yaml \\
        --set minutes=null --set steps=60000 --set slices=2
    """
    if resume and restart:
        raise click.UsageError("--resume and --restart: choose one")
    logging.getLogger("ls3dw").setLevel(logging.INFO)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import ls3dw
    from ls3dw.training.options import read_change

    changed = dict(read_change(change) for change in changes)
    if dry_run:
        from ls3dw.training import plan_training, read_options

        _print_plan(plan_training(read_options(pipeline, changed), out=out))
        return
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    report = ls3dw.train(pipeline, out=out, gpu=gpu, resume=resume, restart=restart, set=changed, stop=stop.is_set)
    if report.stopped:
        click.echo(f"stopped after step {report.steps}; run the same command again to go on", err=True)
        sys.exit(128 + signal.SIGTERM)
    if not report.models:  # not the first of several processes
        return
    if as_json:
        click.echo(json.dumps(report.results, indent=1))
        return
    for name, figures in report.results.items():
        figure = "mae" if "mae" in figures else "nme"
        click.echo(f"{name:<36} {figure} {100 * figures[figure]:.2f} %")
    for name, path in report.models.items():
        click.echo(f"{name:<20} {path}")


def _print_plan(plan: TrainPlan) -> None:
    options, steps = plan.options, plan.length.steps
    for number, (stream, count) in enumerate(zip(options.data, plan.counts, strict=True)):
        faces = f"{plan.faces[number]} faces" if number in plan.faces else f"a pool of {stream.pool}"
        click.echo(f"{stream.stream:<10} {count} of {options.batch} a step, {faces}")
    for name, network in options.networks.items():
        click.echo(f"{name:<20} {network.kind}, {dict(network.network)}, from {network.init}")
    for name, stages in options.cascades.items():
        click.echo(f"{name:<20} cascade of {' and '.join(stages)}")
    click.echo(f"length     {steps} steps" if steps else f"length     {options.minutes:g} minutes")
    click.echo(f"output     {plan.folder}; nothing was written")

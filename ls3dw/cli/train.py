"""`ls3dw train`."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from ls3dw.training.distributed import Group
    from ls3dw.training.loop.trainer import Trainer
    from ls3dw.training.options import TrainOptions


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
        --set minutes=null --set steps=60000 --set lanes=2
    """
    if resume and restart:
        raise click.UsageError("--resume and --restart: choose one")
    logging.getLogger("ls3dw").setLevel(logging.INFO)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from ls3dw.training.distributed import join, leave
    from ls3dw.training.options import read_change, read_options

    options = read_options(pipeline, dict(read_change(change) for change in changes))
    folder = out or Path("ls3dw-train") / options.name
    if dry_run:
        _print_plan(options, folder)
        return
    group = join(gpu)
    try:
        _train(options, folder, group, resume, restart, as_json)
    finally:
        leave()


def _train(options: TrainOptions, folder: Path, group: Group, resume: bool, restart: bool, as_json: bool) -> None:
    from ls3dw.training.export import export
    from ls3dw.training.loop.folder import prepare_folder
    from ls3dw.training.loop.trainer import Trainer

    with prepare_folder(folder, options, group, resume, restart):
        trainer = Trainer(options, folder, group)
        signal.signal(signal.SIGTERM, lambda *_: setattr(trainer, "stopping", True))
        results = trainer.run()
        if trainer.stopping:
            click.echo(f"stopped after step {trainer.taken}; run the same command again to go on", err=True)
            sys.exit(128 + signal.SIGTERM)
        if not group.leads:
            return
        contracts = export(trainer.exported, folder / "models", options, trainer.taken, results)
        if as_json:
            click.echo(json.dumps(results, indent=1))
            return
        _print_results(trainer)
        for name in contracts:
            click.echo(f"{name:<20} {folder / 'models' / name}.safetensors")


def _print_plan(options: TrainOptions, folder: Path) -> None:
    from ls3dw.training.data.feed import share_out
    from ls3dw.training.loop.dry import open_all
    from ls3dw.training.objective.schedule import length_of

    files = open_all(options)
    length = length_of(options, sum(map(len, files.values())))
    for number, (stream, count) in enumerate(zip(options.data, share_out(options.batch, options.data), strict=True)):
        faces = f"{len(files[number])} faces" if number in files else f"a pool of {stream.pool}"
        click.echo(f"{stream.stream:<10} {count} of {options.batch} a step, {faces}")
    for name, network in options.networks.items():
        click.echo(f"{name:<20} {network.kind}, {dict(network.network)}, from {network.init}")
    for name, stages in options.cascades.items():
        click.echo(f"{name:<20} cascade of {' and '.join(stages)}")
    click.echo(f"length     {length.steps or '?'} steps" if length.steps else f"length     {options.minutes:g} minutes")
    click.echo(f"output     {folder}; nothing was written")


def _print_results(trainer: Trainer) -> None:
    for name, figures in trainer.results.items():
        what = "mae" if "mae" in figures else "nme"
        click.echo(f"{name:<36} {what} {100 * figures[what]:.2f} %")

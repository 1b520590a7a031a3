"""Training runs: one call that trains, validates and exports, and a dry run."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from ls3dw.core.files import dump_json, exclusive, remove_partial, write_atomic
from ls3dw.errors import ConfigurationError
from ls3dw.synth.shade.background import read_pictures
from ls3dw.training.data.feed import open_files, split_batch
from ls3dw.training.data.heads import open_renderer
from ls3dw.training.distributed import ProcessGroup, join_group, leave_group
from ls3dw.training.export import export
from ls3dw.training.loop import checkpoint
from ls3dw.training.loop.monitor import ERRORS, LOG
from ls3dw.training.loop.trainer import Trainer
from ls3dw.training.networks import load_guide, make_networks
from ls3dw.training.objective.optimizers import RunLength, run_length
from ls3dw.training.options import TrainOptions, config_hash, read_options, recorded, render_options
from ls3dw.training.validation.validate import Figures

CONFIGURATION = "configuration.json"


@dataclass(frozen=True)
class TrainReport:
    """The outcome of a run."""

    folder: Path
    steps: int
    """Steps taken, those before a resume included."""

    stopped: bool
    """Whether it was stopped before its end; run again, it goes on."""

    results: dict[str, Figures]
    """Figures of the last validation, by `set/network` and, for guided networks, `/guidance`."""

    models: dict[str, Path]
    """Exported weights by network; empty for a stopped run and on processes other than the first."""


@dataclass(frozen=True)
class TrainPlan:
    """What a run would do."""

    options: TrainOptions
    folder: Path
    counts: list[int]
    """Faces a step, by stream."""

    faces: dict[int, int]
    """Faces of each file stream, by its number in the pipeline."""

    length: RunLength


def run_training(
    pipeline: TrainOptions | Path | str,
    *,
    out: Path | None = None,
    gpu: str = "auto",
    resume: bool = False,
    restart: bool = False,
    stop: Callable[[], bool] = lambda: False,
) -> TrainReport:
    """Train the networks of a pipeline and export them to `models` in the run's folder.

    Goes on from the last checkpoint in the folder, if there is one. Raises `ConfigurationError` for unusable options or
    a folder with another configuration.

    pipeline: options, or a YAML file with them
    out: the run's folder, by default ls3dw-train/NAME
    gpu: auto, none, or an id; several GPUs need torchrun
    resume: fail if there is no checkpoint to go on from
    restart: begin anew, and remove what an earlier run wrote
    stop: asked after each step; True saves a checkpoint and ends the run
    """
    options = _options(pipeline)
    folder = out or default_folder(options)
    group = join_group(gpu)
    try:
        with prepare_folder(folder, options, group, resume, restart):
            trainer = Trainer(options, folder, group, open_renderer, stop)
            results = trainer.run()
            models: dict[str, Path] = {}
            if group.is_main and not trainer.stopped:
                exported = export(trainer.exported, folder / "models", options, trainer.taken, results)
                models = {name: folder / "models" / f"{name}.safetensors" for name in exported}
            return TrainReport(folder, trainer.taken, trainer.stopped, results, models)
    finally:
        leave_group()


def plan_training(pipeline: TrainOptions | Path | str, *, out: Path | None = None) -> TrainPlan:
    """Check a pipeline by opening everything that a run would open, on the CPU and without writing.

    Raises `ConfigurationError` or another `Ls3dwError` for anything that cannot be opened.
    """
    options = _options(pipeline)
    for stream in options.data:
        if backgrounds := render_options(stream.render).backgrounds:
            read_pictures(backgrounds)
    device = torch.device("cpu")
    make_networks(options.networks, options.seed, device)
    load_guide(options.guidance.model, device)
    faces = {number: len(found) for number, found in open_files(options).items()}
    length = run_length(options, sum(faces.values()))
    return TrainPlan(options, out or default_folder(options), split_batch(options.batch, options.data), faces, length)


def _options(pipeline: TrainOptions | Path | str) -> TrainOptions:
    return pipeline if isinstance(pipeline, TrainOptions) else read_options(Path(pipeline))


def default_folder(options: TrainOptions) -> Path:
    return Path("ls3dw-train") / options.name


@contextlib.contextmanager
def prepare_folder(
    folder: Path, options: TrainOptions, group: ProcessGroup, resume: bool = False, restart: bool = False
) -> Iterator[None]:
    """Lock the folder for one run, and check that it holds the same configuration or none.

    resume: there must be a checkpoint; restart: remove what an earlier run wrote. Only the first process of a group
    does this.
    """
    if not group.is_main:
        yield
        return
    with exclusive(folder):
        if restart:
            _clear(folder)
        found = checkpoint.newest(folder)
        if resume and found is None:
            raise ConfigurationError(f"{folder}: no checkpoint to resume from; leave out --resume to begin")
        if found is not None:
            checkpoint.check_same(found, config_hash(options), folder)
        remove_partial(folder)
        write_atomic(folder / CONFIGURATION, dump_json(recorded(options)))
        yield


def _clear(folder: Path) -> None:
    """Remove the files of a run, and no others."""
    for path in (*folder.glob("step-*.json"), *folder.glob("step-*.safetensors"), folder / LOG, folder / ERRORS):
        path.unlink(missing_ok=True)
    for name in ("tensorboard", "models"):
        if (folder / name).is_dir():
            shutil.rmtree(folder / name)

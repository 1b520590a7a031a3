"""The folder of a run: whose it is, and what may be done with it."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from ls3dw.core.files import dump_json, exclusive, remove_partial, write_atomic
from ls3dw.errors import ConfigurationError
from ls3dw.training.distributed import Group
from ls3dw.training.loop import checkpoint
from ls3dw.training.loop.monitor import ERRORS, LOG
from ls3dw.training.options import TrainOptions, config_hash, recorded

CONFIGURATION = "configuration.json"


@contextlib.contextmanager
def prepare_folder(
    folder: Path, options: TrainOptions, group: Group, resume: bool = False, restart: bool = False
) -> Iterator[None]:
    """Hold the folder for one run, and check that what is in it is of the same configuration.

    resume: there must be a checkpoint; restart: what an earlier run wrote is removed. The other processes of a group
    leave the folder to the first one.
    """
    if not group.leads:
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
    """Remove what a run writes, and nothing else."""
    for path in (*folder.glob("step-*.json"), *folder.glob("step-*.safetensors"), folder / LOG, folder / ERRORS):
        path.unlink(missing_ok=True)
    for name in ("tensorboard", "models"):
        if (folder / name).is_dir():
            shutil.rmtree(folder / name)

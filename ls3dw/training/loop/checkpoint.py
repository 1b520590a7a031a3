"""Checkpoints: all tensors of a run in a safetensors file, and a JSON file written last, which makes it valid.

A run killed at any moment resumes from the last such pair. Random numbers are functions of the step and need no state.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor

from ls3dw.core.files import dump_json, read_json, sha256, write_atomic
from ls3dw.errors import ConfigurationError, ModelError


@dataclass(frozen=True)
class Checkpoint:
    """The description of a checkpoint."""

    step: int
    """Steps taken."""

    seconds: float
    """Training time so far."""

    config: str
    """Hash of the configuration."""

    sha256: str
    """Of the tensors' file."""


def _weights(folder: Path, step: int) -> Path:
    return folder / f"step-{step:09d}.safetensors"


def save(folder: Path, tensors: Mapping[str, Tensor], step: int, seconds: float, config: str, keep: int) -> None:
    """Write a checkpoint and remove all but the last `keep`."""
    data = save_safetensors({name: value.detach().contiguous().cpu().clone() for name, value in tensors.items()})
    path = _weights(folder, step)
    write_atomic(path, data)
    write_atomic(path.with_suffix(".json"), dump_json(asdict(Checkpoint(step, seconds, config, sha256(data)))))
    for old in sorted(folder.glob("step-*.json"))[:-keep]:
        old.unlink()
        old.with_suffix(".safetensors").unlink(missing_ok=True)


def newest(folder: Path) -> Checkpoint | None:
    """Read the description of the last checkpoint, None if there is none."""
    found = sorted(folder.glob("step-*.json"))
    if not found:
        return None
    values: Any = read_json(found[-1], ModelError)
    if not isinstance(values, dict) or values.keys() != Checkpoint.__dataclass_fields__.keys():
        raise ModelError(f"{found[-1]}: not a checkpoint; delete it, and training goes on from the one before")
    return Checkpoint(**values)


def check_same(checkpoint: Checkpoint, config: str, folder: Path) -> None:
    """Raise `ConfigurationError` if a checkpoint is of another configuration."""
    if checkpoint.config != config:
        raise ConfigurationError(
            f"{folder}: holds a run with another configuration; use the same pipeline, another --out, or --restart"
        )


def restore(folder: Path, checkpoint: Checkpoint, tensors: Mapping[str, Tensor]) -> None:
    """Copy a checkpoint's values into these tensors, in place."""
    path = _weights(folder, checkpoint.step)
    if not path.is_file():
        raise ModelError(f"{path}: missing; delete {path.with_suffix('.json').name} to go on from the one before")
    data = path.read_bytes()
    if sha256(data) != checkpoint.sha256:
        raise ModelError(f"{path}: damaged; delete it with its .json, and training goes on from the one before")
    try:
        values = load_safetensors(data)
    except SafetensorError as error:
        raise ModelError(f"{path}: not a safetensors file ({error})") from error
    if values.keys() != tensors.keys():
        raise ModelError(f"{path}: holds other tensors than this run; was it written by another version of ls3dw?")
    copy_into(values, tensors)


def copy_into(values: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
    """Copy values into tensors in place, as a captured step needs."""
    with torch.no_grad():
        for name, tensor in tensors.items():
            tensor.copy_(values[name])

"""Two processes, each with half the slices, take the step that one takes with all of them."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp
from safetensors.torch import load_file, save_file
from torch import Tensor
from training_helpers import CPU, NETWORKS, open_dots, options

from ls3dw.errors import ConfigurationError
from ls3dw.training.data.feed import StepInputs
from ls3dw.training.distributed import ProcessGroup, join_group, leave_group
from ls3dw.training.loop.trainer import Trainer

NAMES = ("flat", "depth")


def gradients(group: ProcessGroup, out: Path) -> dict[str, Tensor]:
    """Return the gradients of the first step, and what the norms have counted."""
    chosen = options(batch=2, slices=2, networks={name: NETWORKS[name] for name in NAMES}, optimizer={"kind": "sgd"})
    trainer = Trainer(chosen, out, group, open_dots)
    inputs = trainer.feed.inputs(0)
    # In double precision: a bias before a batch norm has no gradient but what rounding leaves.
    for trained in trainer.networks.values():
        trained.network.double()
    guides = {name: guide.double() for name, guide in inputs.guides.items()}
    exact = StepInputs(inputs.images.double(), inputs.landmarks_2d, inputs.landmarks_3d, guides)
    trainer.step.backward(exact)
    found: dict[str, Tensor] = {}
    for name, trained in trainer.networks.items():
        for key, parameter in trained.network.named_parameters():
            assert parameter.grad is not None
            found[f"{name}.{key}"] = parameter.grad.clone()
        for key, buffer in trained.network.named_buffers():
            found[f"{name}.{key}"] = buffer.clone()
    return found


def run_rank(rank: int, port: int, folder: str) -> None:
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "RANK": str(rank)}
    group = join_group("none")
    try:
        save_file(gradients(group, Path(folder)), f"{folder}/{rank}.safetensors")
    finally:
        leave_group()


@pytest.mark.slow
def test_two_processes_have_the_gradients_of_one_with_twice_the_batch(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(run_rank, args=(port, str(tmp_path)), nprocs=2)  # type: ignore[no-untyped-call]
    alone = gradients(ProcessGroup(CPU), tmp_path)
    first, second = (load_file(tmp_path / f"{rank}.safetensors") for rank in (0, 1))
    assert first.keys() == alone.keys()
    for name, value in alone.items():
        assert torch.equal(first[name], second[name]), name
        assert first[name].numpy() == pytest.approx(value.numpy(), rel=1e-5, abs=1e-7), name


def test_slices_must_fit_the_processes() -> None:
    assert list(ProcessGroup(CPU, 1, 2).slices(4)) == [2, 3]
    with pytest.raises(ConfigurationError, match="2 processes need a multiple of 2"):
        ProcessGroup(CPU, 0, 2).slices(3)


@pytest.mark.parametrize(("gpu", "said"), [("first", "auto, none"), ("99", "this machine shows")])
def test_devices_that_are_not_there(gpu: str, said: str) -> None:
    with pytest.raises(RuntimeError if gpu == "99" else ConfigurationError, match=said):
        join_group(gpu)

"""Shared by all tests."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

# Threads that wait for each other by spinning take minutes where other work needs the cores too.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    status: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one line that says why it failed: whatever else is on stderr is a note."""
        lines = [line for line in self.err.splitlines() if not line.startswith("note: ")]
        assert len(lines) == 1, self.err
        assert lines[0].startswith("Error: ")
        return lines[0]


Command = Callable[..., Ended]


@pytest.fixture(autouse=True)
def own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep tests away from the weights that the user has imported."""
    monkeypatch.setenv("LS3DW_HOME", str(tmp_path_factory.getbasetemp() / "home"))


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Weights files of tiny random networks: "2d", "3d", the slower guided "2d-to-3d", and "depth"."""
    import torch

    from ls3dw.models import Contract
    from ls3dw.models.weights.zoo import save

    fan: dict[str, Any] = {"class": "FAN", "stacks": 1, "features": 16}
    networks = {
        "2d": (fan, 0.0),
        "3d": (fan, 0.0),
        "2d-to-3d": (fan | {"in_channels": 71}, 1.0),
        "depth": ({"class": "DepthNet", "layers": [1, 1, 1, 1], "width": 4}, 2.0),
    }
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    for kind, (network, std) in networks.items():
        contract = Contract(f"tiny-{kind}", kind, network, "", guidance_std=std)  # type: ignore[arg-type]
        save(contract.build(), folder / f"{kind}.safetensors", contract)
    return {kind: str(folder / f"{kind}.safetensors") for kind in networks}


@pytest.fixture(scope="session")
def quick(tiny_models: dict[str, str]) -> list[str]:
    """Options of the quickest `ls3dw build` there is: no guidance, no depth, the CPU, no processes."""
    models = ["--model-2d", tiny_models["2d"], "--model-3d", tiny_models["3d"], "--model-depth", "none"]
    return [*models, "--gpu", "none", "--workers", "0", "--no-flip"]


@pytest.fixture
def ls3dw(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run the command line in this process: `ls3dw("build", "--out", folder)`."""
    from ls3dw.cli import main

    def run(*words: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["ls3dw", *map(str, words)])
        capsys.readouterr()
        on_ctrl_c = signal.getsignal(signal.SIGINT)
        with pytest.raises(SystemExit) as stop:
            main()
        signal.signal(signal.SIGINT, on_ctrl_c)
        assert isinstance(stop.value.code, int)
        return Ended(stop.value.code, *capsys.readouterr())

    return run


@pytest.fixture(scope="session")
def program() -> list[str]:
    """The words that start the command line in a process of its own."""
    return [sys.executable, "-c", "from ls3dw.cli import main; main()"]


@pytest.fixture(scope="session")
def sample_data(tmp_path_factory: pytest.TempPathFactory, tiny_models: dict[str, str]) -> Path:
    """A data set of the whole embedded sample, with depth and without guidance; only for reading."""
    from ls3dw.building.options import BuildOptions
    from ls3dw.building.pipeline import Build

    options = BuildOptions(
        out=tmp_path_factory.mktemp("sample") / "data",
        model_2d=tiny_models["2d"],
        model_3d=tiny_models["3d"],
        model_depth=tiny_models["depth"],
        gpu="none",
        workers=0,
        flip=False,
    )
    Build(options).run(lambda plan: None, lambda record: None)
    return options.out

"""`ls3dw train`: early errors, Ctrl-C, and going on."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import yaml
from conftest import Command
from training_helpers import open_dots, pipeline

from ls3dw.training import run
from ls3dw.training.loop import trainer


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small pipeline, and the stand-in for the renderer."""
    monkeypatch.setattr(run, "open_renderer", open_dots)
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(pipeline(steps=3, validation={"every": 0, "rendered": 2})))
    return path


def test_train_resume_and_restart(plan: Path, tmp_path: Path, ls3dw: Command) -> None:
    out = tmp_path / "out"
    assert "no checkpoint to resume" in ls3dw("train", plan, "--out", out, "--gpu", "none", "--resume").error
    done = ls3dw("train", plan, "--out", out, "--gpu", "none")
    assert done.status == 0, done.err
    assert "heads/flat" in done.out
    assert (out / "models" / "flat.safetensors").is_file()
    assert (out / "models" / "flat.md").is_file()
    other = ls3dw("train", plan, "--out", out, "--gpu", "none", "--set", "seed=5")
    assert other.status == 1
    assert "another configuration" in other.err
    assert ls3dw("train", plan, "--out", out, "--gpu", "none", "--set", "seed=5", "--restart").status == 0
    assert ls3dw("train", plan, "--resume", "--restart").status == 2


def test_sigterm_saves_a_checkpoint(
    plan: Path, tmp_path: Path, ls3dw: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(trainer.Trainer, "_report", lambda *_: signal.raise_signal(signal.SIGTERM))
    try:
        ended = ls3dw("train", plan, "--out", tmp_path / "out", "--gpu", "none")
    finally:
        signal.signal(signal.SIGTERM, before)
    assert ended.status == 143
    assert "stopped after step 1; run the same command again" in ended.err
    assert [path.name for path in (tmp_path / "out").glob("step-*.json")] == ["step-000000001.json"]
    assert not (tmp_path / "out" / "models").exists()


def test_faults_end_it_in_one_line(plan: Path, tmp_path: Path, ls3dw: Command) -> None:
    assert "not a readable pipeline" in ls3dw("train", tmp_path / "missing.yaml").error
    assert "batch 'x'" in ls3dw("train", plan, "--set", "batch=x").error
    assert "this machine shows" in ls3dw("train", plan, "--out", tmp_path / "o", "--gpu", "99").error
    assert not (tmp_path / "o").exists()


def test_dry_run_writes_nothing(plan: Path, tmp_path: Path, ls3dw: Command) -> None:
    ended = ls3dw("train", plan, "--out", tmp_path / "o", "--dry-run")
    assert ended.status == 0
    assert "heads      4 of 4 a step" in ended.out
    assert "3 steps" in ended.out
    assert not (tmp_path / "o").exists()


def test_a_dry_run_opens_all_that_a_run_would(plan: Path, tmp_path: Path, ls3dw: Command) -> None:
    network = next(iter(yaml.safe_load(plan.read_text())["networks"]))
    for change, fault in {
        f"data.0.render.backgrounds={tmp_path / 'none'}": "not a folder; expected one with pictures",
        f"networks.{network}.init={tmp_path / 'none.safetensors'}": f"networks.{network}: model",
    }.items():
        assert fault in ls3dw("train", plan, "--out", tmp_path / "o", "--dry-run", "--set", change).error

"""Training pipelines: those that travel with ls3dw are right, and every fault of another is named at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from training_helpers import NETWORKS, options, pipeline

from ls3dw.core.resources import folder
from ls3dw.errors import ConfigurationError
from ls3dw.training.objective.optimizers import rate_at, run_length
from ls3dw.training.options import TrainOptions, config_hash, make_options, read_change, read_options

PIPELINES = sorted(folder("pipelines").glob("train_*.yaml"))


@pytest.mark.parametrize("path", PIPELINES, ids=lambda path: path.stem)
def test_pipelines_that_travel_are_right(path: Path) -> None:
    chosen = read_options(path)
    assert chosen.networks
    assert config_hash(chosen) == config_hash(read_options(path))


def faults(values: Any) -> str:
    with pytest.raises(ConfigurationError) as caught:
        make_options(values)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_all_faults_are_named_at_once() -> None:
    values = pipeline(
        bach=3,
        batch="many",
        precision="fp8",
        optimizer={"rate": "1e-3", "kind": "adam", "momentun": 1},
        augment={"scale": [0.5], "flip": "often"},
        data=[{"stream": "tails"}, {"stream": "heads", "pool": 1.5}],
        networks={"flat": {"kind": "2d", "network": [1]}},
    )
    said = faults(values)
    for part in (
        "unknown option bach",
        "batch 'many': expected a whole number",
        "precision 'fp8': expected one of fp32, bf16",
        "optimizer.rate '1e-3': expected a number (YAML wants 1.0e-4",
        "optimizer.kind 'adam': expected one of adamw, rmsprop, sgd",
        "unknown option optimizer.momentun",
        "augment.scale [0.5]: expected a list of 2",
        "augment.flip 'often'",
        "data[0].stream 'tails'",
        "data[1].pool 1.5",
        "networks.flat.network [1]",
    ):
        assert part in said


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"steps": None}, "one of steps, epochs and minutes"),
        ({"minutes": 3}, "one of steps, epochs and minutes"),
        ({"steps": None, "epochs": 2}, "epochs of rendered heads need a length"),
        ({"slices": 3}, "slices that divide"),
        ({"freeze_norms": 1.5}, "freeze_norms 1.5: expected a share of the run"),
        ({"networks": {}}, "at least one network"),
        ({"networks": {"../up": NETWORKS["flat"]}}, "'../up'"),
        ({"networks": {"x": {"kind": "depth", "network": {"class": "FAN"}}}}, "expected class DepthNet"),
        ({"data": [{"stream": "300w", "root": "x"}], "networks": NETWORKS}, "networks.depth: no stream has"),
        ({"data": [{"stream": "300w"}]}, "300w needs its folder"),
        ({"data": [{"stream": "heads", "root": "x"}]}, "no root"),
        ({"data": [{"stream": "heads", "pool": 8, "start": 16}]}, "start <= pool"),
        ({"data": [{"stream": "heads", "render": {"sice": 3, "zoom": "x"}}]}, "render.zoom 'x': expected a number"),
        ({"data": [{"stream": "heads", "render": {"sice": 3}}]}, "unknown option render.sice"),
        ({"data": [{"stream": "heads", "render": {"hat_chance": 2}}]}, "hat_chance 2.0: expected 0 to 1"),
        ({"optimizer": {"schedule": "steps"}}, "drops"),
        ({"optimizer": {"schedule": "steps", "drops": [[3, 0.1], [2, 0.1]]}, "epoch": 9}, "must rise"),
        ({"augment": {"scale": [1.1, 1.2]}}, "around 1"),
        ({"targets": {"std": 0}}, "0 < std"),
        ({"guidance": {"gross": 2}}, "probabilities"),
        ({"guidance": {"predicted": 0.5}}, "go together"),
        ({"guidance": {"model": "fan-2d-small", "predicted": 0.5}}, "which alone it guides"),
        ({"name": "a/b"}, "'a/b'"),
    ],
)
def test_what_cannot_be(changes: dict[str, Any], said: str) -> None:
    assert said in faults(pipeline(**changes))


@pytest.mark.parametrize("values", [None, [1], "text"])
def test_what_is_no_pipeline(values: Any) -> None:
    assert "expected options" in faults(values)


def test_files_that_are_no_pipeline(tmp_path: Path) -> None:
    for name, text in (("a", "a: [1"), ("b", "- 1")):
        (tmp_path / name).write_text(text)
        with pytest.raises(ConfigurationError, match=str(tmp_path / name)):
            read_options(tmp_path / name)
    with pytest.raises(ConfigurationError, match="not a readable pipeline"):
        read_options(tmp_path / "missing")


def test_options_of_the_command_line_replace_those_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(yaml.safe_dump(pipeline()))
    changes = ["optimizer.rate=0.5", "data.0.pool=32", "networks.flat.network.stacks=2", "steps=null", "minutes=2"]
    chosen = read_options(path, dict(read_change(change) for change in changes))
    assert (chosen.optimizer.rate, chosen.data[0].pool, chosen.minutes, chosen.steps) == (0.5, 32, 2.0, None)
    assert chosen.networks["flat"].network["stacks"] == 2
    for change in ("data.9.pool=3", "steps.first=3"):
        with pytest.raises(ConfigurationError):
            read_options(path, dict([read_change(change)]))
    with pytest.raises(ConfigurationError, match="name=value"):
        read_change("steps")


def test_former_names_of_options_are_read(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(yaml.safe_dump(pipeline(settle=0.2, lanes=2)))
    assert (read_options(path).freeze_norms, read_options(path).slices) == (0.2, 2)
    chosen = read_options(path, dict([read_change("settle=0")]))
    assert chosen.freeze_norms == 0
    assert chosen == make_options(pipeline(freeze_norms=0, slices=2))


def rates(chosen: TrainOptions, faces: int, epochs: list[float]) -> list[float]:
    length = run_length(chosen, faces)
    return [rate_at(chosen.optimizer, length, round(epoch * faces / chosen.batch), 0.0) for epoch in epochs]


def test_the_rates_of_the_paper() -> None:
    def read(name: str) -> TrainOptions:
        return read_options(folder("pipelines") / f"train_paper_{name}.yaml")

    for name in ("2dfan", "3dfan"):
        chosen = read(name)
        assert (chosen.optimizer.kind, chosen.batch, chosen.epochs) == ("rmsprop", 10, 40)
        assert rates(chosen, 61220, [0, 14.99, 15, 29.99, 30, 39]) == [1e-4, 1e-4, 1e-5, 1e-5, 1e-6, 1e-6]
        assert run_length(chosen, 61225).steps == 40 * 61225 / 10
        augment = chosen.augment
        assert (augment.rotation, augment.scale, augment.box_noise) == (50, (0.8, 1.2), 0.2)
        assert (chosen.targets.std, chosen.targets.weight) == (1, 0)
    guided = read("2dto3dfan")
    assert rates(guided, 61220, [0])[0] == 1e-3
    assert (guided.augment.rotation, guided.augment.scale) == (70, (0.7, 1.3))


def test_the_cosine_warms_up_and_ends_low() -> None:
    chosen = options(steps=1000, optimizer={"rate": 1.0, "warm_up": 10})
    length = run_length(chosen, 0)
    rate = [rate_at(chosen.optimizer, length, step, 0.0) for step in range(1000)]
    assert rate[0] == pytest.approx(0.1, rel=0.01)
    assert rate[500] == pytest.approx(0.5, abs=0.01)
    assert rate[10:] == sorted(rate[10:], reverse=True)
    assert 0.002 < rate[-1] < 0.01
    timed = options(steps=None, minutes=1, optimizer={"rate": 1.0})
    assert rate_at(timed.optimizer, run_length(timed, 0), 7, 30.0) == pytest.approx(0.5, abs=0.01)

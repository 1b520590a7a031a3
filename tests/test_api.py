"""The front door: commands as functions with the command line's option names."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import click
import pytest
from conftest import Command

import ls3dw
from ls3dw.cli.build import build as build_command
from ls3dw.cli.regenerate import regenerate as regenerate_command
from ls3dw.core.progress import Progress
from ls3dw.errors import ConfigurationError, OptionError, SourceError


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, tiny_models: dict[str, str]) -> Any:
    """Two faces of each source of the sample, annotated by tiny networks, and the progress on the way."""
    seen: list[Progress] = []
    out = tmp_path_factory.mktemp("api") / "ds"
    networks = {"model_2d": tiny_models["2d"], "model_3d": tiny_models["2d-to-3d"], "model_depth": "none"}
    return ls3dw.build(out=out, limit=2, workers=0, gpu="none", **networks, progress=seen.append), seen


def test_a_build_reports_counts_and_paths(built: Any) -> None:
    report, seen = built
    assert (report.read, report.written, report.dropped, report.faces) == (8, 8, 0, 8)
    assert set(report.sources) == {"300w", "300vw", "menpo", "aflw2000"}
    assert report.gallery.is_file()
    assert report.drops.is_file()
    assert (report.version, report.parent, report.annotated) == ("v1", None, 8)
    assert report.open()[0].image.ndim == 3
    assert (seen[0], seen[-1].done) == (Progress(0, 8), 8)
    assert [one.done for one in seen] == sorted(one.done for one in seen)


def test_the_command_prints_the_report(built: Any, request: pytest.FixtureRequest) -> None:
    report, _ = built
    ls3dw_command: Command = request.getfixturevalue("ls3dw")
    printed = ls3dw_command("info", report.path)
    assert printed.out.strip() == str(report)
    assert json.loads(ls3dw_command("info", report.path, "--json").out) == dict(report.summary)


def test_a_second_version(built: Any, tiny_models: dict[str, str]) -> None:
    report, _ = built
    networks = {"model_2d": tiny_models["2d"], "model_3d": tiny_models["3d"], "model_depth": "none"}
    again = ls3dw.regenerate(report.path, only="source:300w", parent="v1", workers=0, gpu="none", **networks)
    assert (again.version, again.parent, again.annotated, again.faces) == ("v2", "v1", 2, 8)
    assert "2 of 8 faces annotated again" in str(again)


def test_subset_and_split(built: Any) -> None:
    report, _ = built
    drawn = ls3dw.subset(report.path, "pose-balanced", version="v1", bins=3)
    assert drawn.path.is_file()
    assert drawn.details["options"]["bins"] == 3
    sides = ls3dw.split(report.path, version="v1", share=0.5)
    assert sides.train.is_file()
    assert sides.held_out.is_file()


def test_evaluation_difference_verification_and_export(built: Any, tmp_path: Path) -> None:
    report, _ = built
    scores = ls3dw.evaluate(report.path, version="v1", out=tmp_path / "scores")
    assert "sources' own points" in scores.render()
    assert (tmp_path / "scores" / "evaluation.json").is_file()
    moved = ls3dw.diff(report.path, "v1", "v1", gallery=False)
    assert moved.gallery is None
    assert moved.to_dict()["faces"] == 8
    assert ls3dw.verify(report.path).faults == []
    written = ls3dw.export(report.path, "ls3d-w", tmp_path / "release", version="v1", source="300w")
    assert (written.written, written.version) == (2, "v1")
    with pytest.raises(OptionError, match="format 'x': expected one of ls3d-w"):
        ls3dw.export(report.path, "x", tmp_path / "other")
    with pytest.raises(OptionError, match="belong to an --ablation"):
        ls3dw.evaluate(report.path, limit=3)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"source": "nope"}, "source 'nope': expected one of"),
        ({"source": "300w"}, "needs its folder"),
        ({"limit": 0}, "limit 0"),
        ({"gpu": "first"}, "gpu 'first'"),
    ],
)
def test_wrong_options(options: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=said):
        ls3dw.build(**options, out=tmp_path / "ds")
    assert not (tmp_path / "ds").exists()


def test_other_errors(tmp_path: Path, built: Any) -> None:
    with pytest.raises(SourceError, match="300w"):
        ls3dw.build("300w", tmp_path, out=tmp_path / "ds")
    with pytest.raises(OptionError, match="unknown option totl"):
        ls3dw.subset(built[0].path, "balanced", totl=3)
    with pytest.raises(ConfigurationError, match="another configuration"):
        ls3dw.build(out=built[0].path, limit=1)


@pytest.mark.parametrize(
    ("function", "command", "apart"),
    [
        (ls3dw.build, build_command, {"dry_run", "verbose", "as_json"}),
        (ls3dw.regenerate, regenerate_command, {"dry_run", "as_json"}),
    ],
)
def test_functions_take_the_options_of_the_command(function: Any, command: click.Command, apart: set[str]) -> None:
    options = {option.name for option in command.params} - apart
    assert set(inspect.signature(function).parameters) - {"progress"} == options


def test_help_is_enough() -> None:
    text = inspect.getdoc(ls3dw.build)
    assert text
    for name in set(inspect.signature(ls3dw.build).parameters):
        assert name in text

"""`run_evaluation` and `run_diff`: the commands as one call each."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import Command

from ls3dw.errors import ConfigurationError
from ls3dw.evaluation import EvaluateOptions, run_evaluation


def test_the_report_is_that_of_the_command(ls3dw: Command, sample_data: Path, tmp_path: Path) -> None:
    report = run_evaluation(sample_data, EvaluateOptions(temporal=True, out=tmp_path))
    told = json.loads(ls3dw("evaluate", sample_data, "--temporal", "--json").out)
    assert json.loads(json.dumps(report.to_dict())) == told
    assert report.render() == ls3dw("evaluate", sample_data, "--temporal").out.rstrip("\n")
    assert report.evaluations[0].scores[0].faces > 0
    assert {path.name for path in report.files} == {path.name for path in tmp_path.iterdir()}
    assert report.motion


@pytest.mark.parametrize(
    "options",
    [
        {"ablation": "yaw", "temporal": True},
        {"ablation": "yaw", "predictions": ("a.npz",)},
        {"limit": 3},
        {"ablation": "yaw", "model_2d": ("a", "b"), "model_3d": ("a", "b", "c")},
        {"predictions": ("x=a.npz", "x=b.npz")},
    ],
)
def test_options_that_do_not_go_together(options: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError):
        EvaluateOptions(**options)  # type: ignore[arg-type]

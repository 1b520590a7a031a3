"""`ls3dw bench`: statistics, arithmetic, bounds and text; nothing here depends on how long anything takes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Command
from hypothesis import given
from hypothesis import strategies as st

from ls3dw.building.bench import run, stages
from ls3dw.building.bench.material import SampleFaces, repeat_videos, write_video
from ls3dw.building.bench.run import BUILD, STEADY, Bound, Machine, bound_of, build_rows, cpu_features, sample_limit
from ls3dw.building.bench.table import describe_bound, machine_lines, percent, significant, table
from ls3dw.building.bench.timing import LEAST_RUNS, QUEUED, Row, Stage, Timer, repeat
from ls3dw.core.annotations import Annotations
from ls3dw.core.formats.videos import VideoReader
from ls3dw.models import Contract
from ls3dw.models.annotator import Annotator
from ls3dw.sources import open_source


def test_a_row_is_the_median_and_the_best_of_an_item() -> None:
    row = Row.of("network", [0.5, 0.8, 0.9], items=10, flop=2e9)
    assert (row.rate, row.ms, row.best_ms, row.runs) == (12.5, 80, 50, 3)
    assert row.share(peak=80e9) == 0.5
    assert Row.of("reading", [0.5], items=10).share(peak=80e9) is None


@pytest.mark.parametrize(("seconds", "items"), [([], 1), ([0.0], 1), ([1.0], 0)])
def test_a_row_of_nothing_is_refused(seconds: list[float], items: int) -> None:
    with pytest.raises(ValueError, match="expected some"):
        Row.of("nothing", seconds, items)


@given(st.floats(0.01, 1), st.floats(0, 20))
def test_runs_are_repeated_until_the_budget_is_spent(each: float, budget: float) -> None:
    seconds = repeat(lambda: each, budget)
    assert len(seconds) >= LEAST_RUNS
    if len(seconds) > LEAST_RUNS:
        assert sum(seconds[:-1]) < budget <= sum(seconds) or len(seconds) == 1000


@pytest.mark.parametrize(("waits", "runs", "between"), [("once", 1, 1), ("rarely", QUEUED, 1), ("never", 1, 0)])
def test_a_gpu_is_waited_for(monkeypatch: pytest.MonkeyPatch, waits: str, runs: int, between: int) -> None:
    log: list[str] = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: log.append("waited"))
    stage = Stage("work", lambda: log.append("run"), 3, waits=waits)  # type: ignore[arg-type]
    assert Timer(torch.device("cuda"), 0).time(stage).runs == LEAST_RUNS
    first = ["run", *["waited"] * between]
    assert log == first + ([*["run"] * runs, *["waited"] * between]) * LEAST_RUNS


def test_what_bounds_a_build() -> None:
    times = {stages.WHOLE: 0.001, stages.PROCESS: 0.008, stages.WRITER: 0.0005}
    beside = bound_of(times, on_gpu=True, workers=4, cores=5)
    assert (beside.part, beside.rate) == ("the decoding processes", 500)
    assert beside.shares == {"the networks": 0.5, "the decoding processes": 1.0, "the writer": 0.25}
    assert bound_of(times, on_gpu=True, workers=15, cores=16).part == "the networks"
    shared = bound_of({**times, stages.WHOLE: 0.1}, on_gpu=False, workers=1, cores=2)
    assert shared.rate == pytest.approx(2 / (0.2 + 0.0085))
    assert shared.part == "the networks"


def test_the_bound_in_words() -> None:
    bound = Bound(1400, {"a": 0.05, "b": 1.0})
    assert describe_bound(bound, shared=False) == "A build is bound by b, 100 % busy (a 5.0 %): 1,400 faces/s at most."
    assert "100 % of the cores' time" in describe_bound(bound, shared=True)


def test_the_rates_of_a_build() -> None:
    """The first chunk comes after the processes have started, the last before the index is written."""
    steady, overall = build_rows([(7.0, 30), (5.0, 10), (6.0, 20)], whole=12.0)
    assert (steady.name, steady.rate) == (STEADY, pytest.approx(25))
    assert (overall.name, overall.rate) == (BUILD, pytest.approx(5))
    assert [row.name for row in build_rows([(5.0, 10)], whole=6.0)] == [BUILD]


def test_a_build_takes_as_many_faces_as_there_is_time_for() -> None:
    assert [sample_limit(seconds) for seconds in (100, 0.5, 1e-4)] == [1, 4, 48]


def test_numbers_have_three_digits_that_count() -> None:
    values = (12345.6, 99.95, 12.34, 2, 0.98765, 0.012345)
    assert [significant(value) for value in values] == ["12,346", "100.0", "12.3", "2.00", "0.988", "0.0123"]
    assert [percent(share) for share in (0.331, 0.0123)] == ["33 %", "1.2 %"]


def test_a_busy_machine_is_said_to_be() -> None:
    idle = Machine("EPYC", ("AVX2",), 2, 2, "cpu", "float32", 7.6e10, 0.4, "3.11", "2.13.0")
    assert [line.split()[0] for line in machine_lines(idle)] == ["processor", "arithmetic", "versions"]
    assert "76.0 GFLOP/s" in machine_lines(idle)[1]
    assert "load of 8.5" in machine_lines(replace(idle, load=8.5))[-1]
    assert machine_lines(replace(idle, device="NVIDIA H100"))[1].endswith("NVIDIA H100")


def test_a_table_is_laid_out_in_columns() -> None:
    assert table([("stage", "faces/s"), ("a", "1,000"), ("longer name", "")]) == [
        "stage        faces/s",
        "a              1,000",
        "longer name",
    ]


def test_arithmetic_of_the_published_networks() -> None:
    fan = {"class": "FAN", "stacks": 4, "features": 256}
    contracts = [Contract("", kind, fan, "", guidance_std=std) for kind, std in (("2d", 0), ("2d-to-3d", 1))]
    giga = [stages.network_flop(contract) / 2e9 for contract in contracts]
    assert np.round(giga, 1).tolist() == [25.2, 28.7]


def test_features_of_the_processor() -> None:
    assert cpu_features("sse avx512f amx_bf16") == ("AVX-512", "AMX bf16")
    assert cpu_features("") == (torch.backends.cpu.get_cpu_capability(),)


def test_the_material(tmp_path: Path) -> None:
    faces = SampleFaces.read()
    assert len(faces) == 132
    assert len(faces.spread(8)) == 8
    assert len(faces.spread(300)) == 300
    repeat_videos(tmp_path, 5)
    assert [media.expected for media in open_source("300vw", tmp_path).media()] == [48] * 5
    if write_video(tmp_path / "made.avi", "MJPG", faces.pictures[:3]):
        with VideoReader(tmp_path / "made.avi") as reader:
            assert [reader.picture(frame).shape for frame in reader.frames()] == [(480, 640, 3)] * 3


@pytest.fixture
def annotator(tiny_models: dict[str, str]) -> Annotator:
    return Annotator(tiny_models["2d"], tiny_models["2d-to-3d"], tiny_models["depth"], batch=2)


def test_the_stages_are_the_annotators(annotator: Annotator) -> None:
    faces = SampleFaces.read().spread(2)
    expected = annotator.annotate(faces.pictures, faces.boxes)
    with stages.as_annotating():
        timed = {stage.name: stage for stage in stages.network_stages(annotator, faces.batch())}
        finished = timed["back to the picture, head pose"].work()
        with_flip, without = (timed[name].work() for name in ("2D network with flip", "2D network, one pass"))
    assert annotator.flip
    assert isinstance(with_flip, torch.Tensor)
    assert isinstance(without, torch.Tensor)
    assert not torch.equal(with_flip, without)
    assert timed["2D network with flip"].flop == 2 * timed["2D network, one pass"].flop > 0
    assert [name for name, stage in timed.items() if stage.within] == ["2D network, one pass", "decode heatmaps"]
    for name in ("landmarks_2d", "landmarks_3d", "confidence_3d", "pose"):
        assert np.array_equal(getattr(finished, name), getattr(expected, name)), name


def test_the_whole_is_timed_without_depth_too(annotator: Annotator, tiny_models: dict[str, str]) -> None:
    faces = SampleFaces.read().spread(2).batch()
    assert annotator.model_depth is not None
    plane, whole = stages.whole_stages(annotator, faces)
    assert (plane.name, whole.name) == (stages.WITHOUT_DEPTH, stages.WHOLE)
    assert plane.flop + stages.network_flop(annotator.model_depth.contract) == whole.flop
    flat, solid = plane.work(), whole.work()
    assert isinstance(flat, Annotations)
    assert isinstance(solid, Annotations)
    assert np.array_equal(flat.landmarks_2d, solid.landmarks_2d)
    assert np.isnan(flat.landmarks_3d[..., 2]).all()
    assert np.isfinite(solid.landmarks_3d).all()
    bare = Annotator(tiny_models["2d"], tiny_models["3d"], "none", batch=2)
    assert [stage.name for stage in stages.whole_stages(bare, faces)] == [stages.WHOLE]


def test_stages_of_a_3d_network_without_guidance(tiny_models: dict[str, str]) -> None:
    annotator = Annotator(tiny_models["2d"], tiny_models["3d"], "none", batch=1)
    with stages.as_annotating():
        names = [stage.name for stage in stages.network_stages(annotator, SampleFaces.read().spread(1).batch())]
    assert "3D network with flip" in names
    assert not {"2D-to-3D FAN, guided", "depth network, guided"} & set(names)
    flop = [stages.network_flop(model.contract) for model in annotator.models]
    assert stages.whole_flop(annotator) == 2 * sum(flop)


def test_writing_again_and_again(annotator: Annotator, tmp_path: Path) -> None:
    _, chunk = stages.process_stage()
    assert len(chunk.faces) == 48
    faces = SampleFaces.read().spread(2)
    annotations = annotator.annotate(faces.pictures, faces.boxes)
    configuration = {"models": {"3d": None}, "guidance": "predicted"}
    Timer(torch.device("cpu"), 0).time(stages.writing_stage(tmp_path, chunk, annotations, configuration))
    assert len(list(tmp_path.glob("written-*/annotations/v1/300vw/*.h5"))) == 1 + LEAST_RUNS


def test_the_command(ls3dw: Command, tiny_models: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(run.MATRIX_SIDE, "cpu", 64)
    monkeypatch.setattr(run, "BUILD_SECONDS", 0.5)
    models = [f"--model-{name}={tiny_models[name]}" for name in ("2d", "3d")]
    words = ("bench", *models, "--model-depth", "none", "--gpu", "none", "--seconds", "0", "--workers", "0")
    ended = ls3dw(*words, "--json")
    assert (ended.status, ended.err) == (0, "")
    report = json.loads(ended.out)
    assert report["networks"] == ["tiny-2d", "tiny-3d"]
    assert report["machine"]["device"] == "cpu"
    assert report["machine"]["peak"] > 1e6
    rows = {row["name"]: row for row in report["rows"]}
    assert {stages.WHOLE, stages.PROCESS, stages.WRITER, STEADY, BUILD, "2D network with flip"} <= rows.keys()
    assert all(row["rate"] > 0 and row["best_ms"] <= row["ms"] * 1.001 for row in rows.values())
    assert {name for name, row in rows.items() if row["share"] is not None} == {
        "2D network, one pass",
        "2D network with flip",
        "3D network with flip",
        stages.WHOLE,
    }
    assert sum(report["bound"]["shares"].values()) == pytest.approx(1)
    assert (report["rival"], report["busy"]) == (None, None)


def test_two_gpus_are_one_too_many(ls3dw: Command) -> None:
    ended = ls3dw("bench", "--gpu", "0,1")
    assert (ended.status, ended.out) == (1, "")
    assert "give one id" in ended.error

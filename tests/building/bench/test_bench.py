"""`ls3dw bench`: statistics, arithmetic, bounds and text; nothing here depends on how long anything takes."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Command
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from ls3dw.building.bench import chain, host, machine, whole
from ls3dw.building.bench.bounds import Bound, Lane, sharing, side_by_side
from ls3dw.building.bench.machine import Machine, named_features
from ls3dw.building.bench.macs import count_macs, network_macs
from ls3dw.building.bench.material import repeat_videos, sample_faces, write_video
from ls3dw.building.bench.run import bound_of
from ls3dw.building.bench.stages import Bench, Row, Stage
from ls3dw.building.bench.table import describe_bound, machine_lines, percent, significant, table
from ls3dw.building.bench.timing import LEAST_RUNS, Clocks, DeviceClock, HostClock, Timing, repeat
from ls3dw.building.bench.whole import BUILD, STEADY, build_rows, sample_limit
from ls3dw.core.annotations import Annotations
from ls3dw.core.formats.videos import VideoReader
from ls3dw.models import Contract
from ls3dw.models.annotator import Annotator
from ls3dw.sources import open_source

SECONDS = st.floats(1e-6, 1e3)


def test_a_timing_is_the_median_and_the_best_of_an_item() -> None:
    timing = Timing((0.4, 0.2, 9.0), items=4)
    assert (timing.each, timing.best, timing.rate) == (0.1, 0.05, 10)


@pytest.mark.parametrize(("seconds", "items"), [((), 1), ((0.0,), 1), ((1.0,), 0)])
def test_a_timing_of_nothing_is_refused(seconds: tuple[float, ...], items: int) -> None:
    with pytest.raises(ValueError, match="expected some"):
        Timing(seconds, items)


@given(st.floats(0.01, 1), st.floats(0, 20))
def test_runs_are_repeated_until_the_budget_is_spent(each: float, budget: float) -> None:
    seconds = repeat(lambda: each, budget)
    assert len(seconds) >= LEAST_RUNS
    if len(seconds) > LEAST_RUNS:
        assert sum(seconds[:-1]) < budget <= sum(seconds) or len(seconds) == 1000


def test_the_host_clock_warms_up_and_waits_for_the_device() -> None:
    calls: list[str] = []
    timing = HostClock(lambda: calls.append("settled")).measure(lambda: calls.append("worked"), 3, budget=0)
    assert calls == ["worked", "settled"] * (1 + LEAST_RUNS)
    assert (len(timing.seconds), timing.items) == (LEAST_RUNS, 3)


def test_the_device_clock_launches_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU of which every run takes 10 ms, whenever it is launched."""
    log: list[str] = []

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self, stream: object) -> None:
            self.at = 0.01 * log.count("run")

        def elapsed_time(self, other: Event) -> float:
            return 1000 * (other.at - self.at)

        def synchronize(self) -> None:
            log.append("waited")

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: log.append("waited"))
    timing = DeviceClock(torch.device("cpu")).measure(lambda: log.append("run"), 4, budget=0.5)
    assert timing.each == pytest.approx(0.0025)
    assert len(timing.seconds) == log.count("run") - 1 == 50
    assert log.count("waited") == 3, "after the first run, after two that are tried, and after all others"


def test_a_row_has_its_share_of_the_peak() -> None:
    row = Row.of("network", Timing((0.5, 0.8, 0.9), items=10), flop=2e9)
    assert (row.rate, row.ms, row.best_ms) == (12.5, 80, 50)
    assert row.share(peak=80e9) == 0.5
    assert Row.of("reading", Timing((0.5,), items=10)).share(peak=80e9) is None


@given(st.lists(st.tuples(SECONDS, st.integers(1, 16)), min_size=1, max_size=4))
def test_side_by_side_the_slowest_is_always_busy(given_lanes: list[tuple[float, int]]) -> None:
    lanes = [Lane(str(number), *lane) for number, lane in enumerate(given_lanes)]
    bound = side_by_side(lanes)
    assert max(bound.shares.values()) == pytest.approx(1)
    assert bound.rate == pytest.approx(min(width / seconds for seconds, width in given_lanes))
    assert bound.shares[bound.lane] == max(bound.shares.values())


@given(st.lists(SECONDS, min_size=1, max_size=4), st.integers(1, 16))
def test_sharing_the_cores_all_are_busy(seconds: list[float], cores: int) -> None:
    bound = sharing([Lane(str(number), each) for number, each in enumerate(seconds)], cores)
    assert sum(bound.shares.values()) == pytest.approx(1)
    assert bound.rate * sum(seconds) == pytest.approx(cores)


def test_what_bounds_a_build() -> None:
    times = {chain.WHOLE: 0.001, host.PROCESS: 0.008, host.WRITER: 0.0005}
    beside = bound_of(times, on_gpu=True, workers=4, cores=5)
    assert (beside.lane, beside.rate) == ("the decoding processes", 500)
    assert beside.shares == {"the networks": 0.5, "the decoding processes": 1.0, "the writer": 0.25}
    assert bound_of(times, on_gpu=True, workers=15, cores=16).lane == "the networks"
    shared = bound_of({**times, chain.WHOLE: 0.1}, on_gpu=False, workers=1, cores=2)
    assert shared.rate == pytest.approx(2 / (0.2 + 0.0085))
    assert shared.lane == "the networks"


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


def test_arithmetic_is_counted_by_hand() -> None:
    network = nn.Sequential(
        nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2), nn.ReLU(), nn.Flatten(), nn.Linear(96, 5)
    )
    assert count_macs(network, torch.zeros(2, 4, 8, 8)) == 2 * (6 * 4 * 4 * 2 * 9 + 96 * 5)
    network(torch.zeros(2, 4, 8, 8))  # no hook is left behind that counts


def test_arithmetic_of_the_published_networks() -> None:
    fan = {"class": "FAN", "stacks": 4, "features": 256}
    giga = [
        network_macs(Contract("", kind, fan, "", guidance_std=std)) / 1e9 for kind, std in (("2d", 0), ("2d-to-3d", 1))
    ]
    assert np.round(giga, 1).tolist() == [25.2, 28.7]


def test_arithmetic_of_networks_that_give_coordinates() -> None:
    """CNN-6: five convolutions and the first of its two fully connected layers."""
    channels = (3, 32, 64, 128, 256, 512)
    convolutions = [9 * before * after * (64 >> n) ** 2 for n, (before, after) in enumerate(pairwise(channels))]
    contract = Contract("", "2d", {"class": "CNN6"}, "")
    assert network_macs(contract) == sum(convolutions) + 4 * 512 * 1024


def test_features_of_the_processor() -> None:
    assert named_features(frozenset({"sse", "avx512f", "amx_bf16"})) == ("AVX-512", "AMX bf16")
    assert named_features(frozenset()) == (torch.backends.cpu.get_cpu_capability(),)


def test_the_material(tmp_path: Path) -> None:
    faces = sample_faces()
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


def test_the_chain_is_the_annotators(annotator: Annotator) -> None:
    faces = sample_faces().spread(2)
    expected = annotator.annotate(faces.pictures, faces.boxes)
    assert np.array_equal(chain.points_2d(annotator, faces.batch()), expected.landmarks_2d)
    with chain.as_annotating():
        stages = {stage.name: stage for stage in chain.network_stages(annotator, faces.batch())}
        finished = stages["back to the picture, head pose"].work()
        with_flip, without = (stages[name].work() for name in ("2D network with flip", "2D network, one pass"))
    assert annotator.flip
    assert isinstance(with_flip, torch.Tensor)
    assert isinstance(without, torch.Tensor)
    assert not torch.equal(with_flip, without)
    assert stages["2D network with flip"].macs == 2 * stages["2D network, one pass"].macs > 0
    assert [name for name, stage in stages.items() if stage.within] == ["2D network, one pass", "decode heatmaps"]
    for name in ("landmarks_2d", "landmarks_3d", "confidence_3d", "pose"):
        assert np.array_equal(getattr(finished, name), getattr(expected, name)), name


def test_the_whole_is_timed_without_depth_too(annotator: Annotator, tiny_models: dict[str, str]) -> None:
    faces = sample_faces().spread(2).batch()
    plane, whole = chain.whole_stages(annotator, faces)
    assert (plane.name, whole.name) == (chain.PLANE, chain.WHOLE)
    assert plane.macs + chain.Macs.of(annotator).depth == whole.macs
    flat, solid = plane.work(), whole.work()
    assert isinstance(flat, Annotations)
    assert isinstance(solid, Annotations)
    assert np.array_equal(flat.landmarks_2d, solid.landmarks_2d)
    assert np.isnan(flat.landmarks_3d[..., 2]).all()
    assert np.isfinite(solid.landmarks_3d).all()
    bare = Annotator(tiny_models["2d"], tiny_models["3d"], "none", batch=2)
    assert [stage.name for stage in chain.whole_stages(bare, faces)] == [chain.WHOLE]


def test_stages_of_a_3d_network_without_guidance(tiny_models: dict[str, str]) -> None:
    annotator = Annotator(tiny_models["2d"], tiny_models["3d"], "none", batch=1)
    with chain.as_annotating():
        names = [stage.name for stage in chain.network_stages(annotator, sample_faces().spread(1).batch())]
    assert "3D network with flip" in names
    assert not {"2D-to-3D FAN, guided", "depth network, guided"} & set(names)
    macs = chain.Macs.of(annotator)
    assert macs.whole(annotator) == 2 * (macs.flat + macs.solid)


def test_writing_again_and_again(annotator: Annotator, tmp_path: Path) -> None:
    _, chunk = host.process_stage()
    faces = sample_faces().spread(2)
    done = host.annotate_like(chunk, annotator.annotate(faces.pictures, faces.boxes))
    assert done.annotations is not None
    assert len(done.annotations.pose) == len(chunk.faces) == 48
    configuration = {"models": {"3d": None}, "guidance": "predicted"}
    stage = host.writing_stage(tmp_path, done, configuration)
    Bench(Clocks.of(torch.device("cpu")), 0).time(Stage(stage.name, stage.work, stage.items))
    assert len(list(tmp_path.glob("written-*/annotations/v1/300vw/*.h5"))) == 1 + LEAST_RUNS


def test_the_command(ls3dw: Command, tiny_models: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "CPU_SIDE", 64)
    monkeypatch.setattr(whole, "BUILD_SECONDS", 0.5)
    models = [f"--model-{name}={tiny_models[name]}" for name in ("2d", "3d")]
    words = ("bench", *models, "--model-depth", "none", "--gpu", "none", "--seconds", "0", "--workers", "0")
    ended = ls3dw(*words, "--json")
    assert (ended.status, ended.err) == (0, "")
    report = json.loads(ended.out)
    assert report["networks"] == ["tiny-2d", "tiny-3d"]
    assert report["machine"]["device"] == "cpu"
    assert report["machine"]["peak"] > 1e6
    rows = {row["name"]: row for row in report["rows"]}
    assert {chain.WHOLE, host.PROCESS, host.WRITER, STEADY, BUILD, "2D network with flip"} <= rows.keys()
    assert all(row["rate"] > 0 and row["best_ms"] <= row["ms"] * 1.001 for row in rows.values())
    assert {name for name, row in rows.items() if row["share"] is not None} == {
        "2D network, one pass",
        "2D network with flip",
        "3D network with flip",
        chain.WHOLE,
    }
    assert sum(report["bound"]["shares"].values()) == pytest.approx(1)
    assert (report["rival"], report["busy"]) == (None, None)


def test_two_gpus_are_one_too_many(ls3dw: Command) -> None:
    ended = ls3dw("bench", "--gpu", "0,1")
    assert (ended.status, ended.out) == (1, "")
    assert "give one id" in ended.error

"""Times every stage and the whole of a build on this machine, and finds what limits it."""

from __future__ import annotations

import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

import cv2
import torch

from ls3dw.building.bench import rival, stages
from ls3dw.building.bench.material import SampleFaces, repeat_videos
from ls3dw.building.bench.timing import Row, Stage, Timer
from ls3dw.building.options import SAMPLE, BuildOptions, Engine, recorded
from ls3dw.building.pipeline import Build, model_records
from ls3dw.core.crops import Decode
from ls3dw.core.parallel.pool import default_workers
from ls3dw.models.annotator import Annotator
from ls3dw.models.inference.device import one_device
from ls3dw.sources import LS3DW

STEADY: Final = "build, from its first to its last faces"
BUILD: Final = "build, with its start and its end"

BUILD_SECONDS: Final = 8.0
"""Duration of the build on a CPU, about."""

GPU_VIDEOS: Final = 64
"""Copies of the sample's videos, 48 frames each, that a GPU builds from: enough to see more than its start."""

MATRIX_SIDE: Final = {"cpu": 1536, "cuda": 8192}
"""Side of the matrices whose product gives the peak: large enough to reach it, small enough for a moment."""

CPU_FEATURES: Final = {"avx512f": "AVX-512", "avx512_bf16": "AVX-512 bf16", "amx_tile": "AMX", "amx_bf16": "AMX bf16"}
"""What networks profit from, by the flag in /proc/cpuinfo."""

Progress = Callable[[str], None]


@dataclass(frozen=True)
class BenchOptions:
    """What `ls3dw bench` was asked for, with the names of `BuildOptions`. seconds: for each stage, about.

    against: a package to compare with, as it comes or with its networks compiled.
    """

    gpu: str = "auto"
    model_2d: str | None = None
    model_3d: str | None = None
    model_depth: str | None = None
    batch: int | None = None
    workers: int | None = None
    engine: Engine = "fast"
    seconds: float = 0.5
    against: Literal["face-alignment", "face-alignment-compiled"] | None = None

    def build(self, out: Path) -> BuildOptions:
        """Return the options of a build with the same networks."""
        names = ("gpu", "model_2d", "model_3d", "model_depth", "batch", "workers", "engine")
        return BuildOptions(out=out, **{name: getattr(self, name) for name in names})

    def annotator(self, models: rival.Models | None = None, decode: Decode = "subpixel") -> Annotator:
        """Make the annotator, or one like it with other models."""
        device = one_device(self.gpu)
        # On the CPU a build has no choice of batch either.
        batch = None if device.type == "cpu" else self.batch
        chosen = models or self.models
        return Annotator(*chosen, device=str(device), decode=decode, batch=batch, engine=self.engine)

    @property
    def models(self) -> rival.Models:
        return self.model_2d, self.model_3d, self.model_depth


@dataclass(frozen=True)
class Machine:
    """What it was measured on. device: runs the networks; precision: of their arithmetic; peak: FLOP/s of a large
    product in it; load: processes that wanted a core in the minute before, None where unknown."""

    processor: str
    features: tuple[str, ...]
    cores: int
    threads: int
    device: str
    precision: str
    peak: float
    load: float | None
    python: str
    torch: str

    @property
    def busy(self) -> bool:
        """Whether other work took a good part of the cores."""
        return self.load is not None and self.load > self.cores / 4


@dataclass(frozen=True)
class Bound:
    """What limits a build. rate: faces a second at most; shares: how busy each part is then, in [0, 1]."""

    rate: float
    shares: Mapping[str, float]

    @property
    def part(self) -> str:
        """The busiest part."""
        return max(self.shares, key=lambda name: self.shares[name])


@dataclass(frozen=True)
class BenchReport:
    """networks: their names; rows: all stages; busy: share of the whole annotator's time in which a GPU has work, None
    on the CPU; built: faces of the build that `rows` ends with; rival: None if not asked for."""

    machine: Machine
    networks: tuple[str, ...]
    batch: int
    workers: int
    rows: tuple[Row, ...]
    bound: Bound
    busy: float | None
    built: int
    rival: rival.Rival | None

    def row(self, name: str) -> Row:
        return next(row for row in self.rows if row.name == name)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values; each row with its share of the peak."""
        plain = asdict(self)
        for values, row in zip(plain["rows"], self.rows, strict=True):
            values["share"] = row.share(self.machine.peak)
        return plain


def run_bench(options: BenchOptions, report: Progress) -> BenchReport:
    """Time everything. report: called with the name of each stage before it is timed."""
    if options.against is not None:
        rival.check_installed()
    annotator = options.annotator()
    timer = Timer(annotator.device, options.seconds)
    on_gpu = annotator.device.type == "cuda"
    workers = default_workers(int(on_gpu)) if options.workers is None else options.workers
    with tempfile.TemporaryDirectory(prefix="ls3dw-bench-") as name, _one_opencv_thread():
        scratch = Path(name)
        report("peak of this machine")
        machine = describe_machine(timer, annotator._policy.dtype)
        rows, on_device = _time_stages(options, annotator, timer, scratch, report)
        # The better of two peaks: other work on the machine may have slowed the first.
        machine = replace(machine, peak=max(machine.peak, measure_peak(timer, annotator._policy.dtype)))
        seconds = {row.name: row.ms / 1e3 for row in rows}
        report("build")
        built, faces = time_build(options.build(scratch / "data"), None if on_gpu else seconds[stages.WHOLE])
        compared = None
        if options.against is not None:
            weights = rival.published_weights(options.models, scratch)
            compiled = options.against.endswith("compiled")
            compared = rival.compare(timer, options.annotator, weights, report, compiled=compiled)
    busy = sum(row.ms for row in on_device) / 1e3 / seconds[stages.WHOLE]
    return BenchReport(
        machine=machine,
        networks=tuple(model.contract.name for model in annotator.models),
        batch=annotator.batch,
        workers=workers,
        rows=(*rows, *built),
        bound=bound_of(seconds, on_gpu=on_gpu, workers=workers, cores=machine.cores),
        busy=min(1.0, busy) if on_gpu else None,
        built=faces,
        rival=compared,
    )


def _time_stages(
    options: BenchOptions, annotator: Annotator, timer: Timer, scratch: Path, report: Progress
) -> tuple[list[Row], list[Row]]:
    """Time all stages but the build; also return the rows of the device's work, each once."""
    faces = SampleFaces.read()
    process, chunk = stages.process_stage()
    report("first batch")
    annotations = annotator.annotate_windows(faces.spread(annotator.batch).batch())
    # The annotator has halved its batches by now if memory is short.
    batch = faces.spread(annotator.batch).batch()

    def timed(stage: Stage) -> Row:
        report(stage.name)
        return timer.time(stage)

    decoding = [*stages.decoding_stages(scratch, faces), *stages.cutting_stages(faces.spread(32)), process]
    rows = [timed(stage) for stage in decoding]
    with stages.as_annotating():
        networks = [(stage, timed(stage)) for stage in stages.network_stages(annotator, batch)]
    models = (annotator.model_2d, annotator.model_3d, annotator.model_depth)
    records = model_records([model.contract if model else None for model in models])
    writing = stages.writing_stage(scratch, chunk, annotations, recorded(options.build(Path()), records))
    rows += [row for _, row in networks]
    rows += [timed(stage) for stage in (*stages.whole_stages(annotator, batch), writing)]
    return rows, [row for stage, row in networks if stage.waits == "rarely" and not stage.within]


def bound_of(seconds: Mapping[str, float], *, on_gpu: bool, workers: int, cores: int) -> Bound:
    """Find what limits a build from the seconds a face of its stages."""
    networks, process, writer = (seconds[name] for name in (stages.WHOLE, stages.PROCESS, stages.WRITER))
    parts = {"the networks": networks, "the decoding processes": process, "the writer": writer}
    if on_gpu:
        # Side by side: the slowest is always busy.
        parts["the decoding processes"] /= max(1, workers)
        rate = 1 / max(parts.values())
        return Bound(rate, {name: rate * each for name, each in parts.items()})
    # They share the cores, and the networks keep all of them busy.
    parts["the networks"] *= cores
    spent = sum(parts.values())
    return Bound(cores / spent, {name: each / spent for name, each in parts.items()})


def time_build(options: BuildOptions, face_seconds: float | None) -> tuple[list[Row], int]:
    """Build from the embedded sample, and count faces. face_seconds: of the networks on the CPU; None: on a GPU."""
    if face_seconds is None:
        root = options.out.with_name("videos")
        root.mkdir()
        repeat_videos(root, GPU_VIDEOS)
        options = replace(options, sources=("300vw",), root=root)
    else:
        options = replace(options, sources=(SAMPLE,), limit=sample_limit(face_seconds))
    run = Build(options)
    start = time.perf_counter()
    done: list[tuple[float, int]] = []
    run.run(lambda plan: None, lambda chunk: done.append((time.perf_counter() - start, len(chunk.faces))))
    return build_rows(done, time.perf_counter() - start), sum(faces for _, faces in done)


def sample_limit(face_seconds: float) -> int:
    """Choose how many faces of each source to build: 1 to 48, as many as the sample has."""
    return min(48, max(1, round(BUILD_SECONDS / face_seconds / len(LS3DW))))


def build_rows(done: Sequence[tuple[float, int]], whole: float) -> list[Row]:
    """Return a build's rates. done: when each chunk was annotated, in seconds from the start, and its faces."""
    total = sum(faces for _, faces in done)
    rows = [Row.of(BUILD, [whole], total)]
    (first, begun), (last, _) = min(done), max(done)
    if total > begun:
        rows.insert(0, Row.of(STEADY, [last - first], total - begun))
    return rows


def describe_machine(timer: Timer, precision: torch.dtype) -> Machine:
    """Describe this machine and measure its peak."""
    device = timer.device
    listed = Path("/proc/cpuinfo")
    text = listed.read_text(encoding="utf-8") if listed.is_file() else ""
    values = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())}
    return Machine(
        processor=values.get("model name", platform.processor() or platform.machine()),
        features=cpu_features(values.get("flags", "")),
        cores=len(os.sched_getaffinity(0)),
        threads=torch.get_num_threads(),
        device="cpu" if device.type == "cpu" else torch.cuda.get_device_name(device),
        precision=str(precision).removeprefix("torch."),
        peak=measure_peak(timer, precision),
        load=os.getloadavg()[0],
        python=platform.python_version(),
        torch=torch.__version__,
    )


def cpu_features(flags: str) -> tuple[str, ...]:
    """Return what networks profit from; without flags what torch reports, such as AVX2."""
    found = tuple(name for flag, name in CPU_FEATURES.items() if flag in flags.split())
    return found or (torch.backends.cpu.get_cpu_capability(),)


def measure_peak(timer: Timer, precision: torch.dtype) -> float:
    """Return the FLOP/s of a large matrix product in its best run."""
    side = MATRIX_SIDE[timer.device.type]
    # Not zeros: multiplying them takes less power, and so runs faster.
    generator = torch.Generator(timer.device).manual_seed(0)
    left, right = (torch.randn(side, side, generator=generator, device=timer.device).to(precision) for _ in range(2))
    row = timer.time(Stage("matrix product", lambda: left @ right, 1, waits="rarely"))
    return 2 * side**3 / (row.best_ms / 1e3)


@contextmanager
def _one_opencv_thread() -> Iterator[None]:
    """Give OpenCV one thread, as in decoding processes."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)

"""Times every stage and the whole of a build on this machine, and says what bounds it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

import cv2

from ls3dw.building.bench import chain, host
from ls3dw.building.bench.against import Models, Ours, Rival, Theirs, Told, check_installed, compare, make_weights
from ls3dw.building.bench.bounds import Bound, Lane, sharing, side_by_side
from ls3dw.building.bench.machine import Machine, describe, measure_peak
from ls3dw.building.bench.material import Faces, sample_faces
from ls3dw.building.bench.stages import Bench, Row, Stage
from ls3dw.building.bench.timing import Clocks
from ls3dw.building.bench.whole import time_build
from ls3dw.building.options import BuildOptions, Engine, recorded
from ls3dw.building.pipeline import model_records
from ls3dw.core.crops import Decode
from ls3dw.core.parallel.pool import default_workers
from ls3dw.models.annotator import Annotator
from ls3dw.models.inference.device import one_device

NETWORKS: Final = "the networks"
PROCESSES: Final = "the decoding processes"
WRITING: Final = "the writer"

Against = Literal["face-alignment", "face-alignment-compiled"]


@dataclass(frozen=True)
class BenchOptions:
    """What `ls3dw bench` was asked for; the names are those of `BuildOptions`. seconds: for each stage, about.

    against: the package to compare with, if any, as it comes or with its networks compiled.
    """

    gpu: str = "auto"
    model_2d: str | None = None
    model_3d: str | None = None
    model_depth: str | None = None
    batch: int | None = None
    workers: int | None = None
    engine: Engine = "fast"
    seconds: float = 0.5
    against: Against | None = None

    def build(self, out: Path) -> BuildOptions:
        """Return the options of a build like it."""
        return BuildOptions(
            out=out,
            gpu=self.gpu,
            model_2d=self.model_2d,
            model_3d=self.model_3d,
            model_depth=self.model_depth,
            batch=self.batch,
            workers=self.workers,
            engine=self.engine,
        )

    def annotator(self, models: Models | None = None, decode: Decode = "subpixel") -> Annotator:
        """Return the annotator that was asked for, or one like it with other models."""
        device = one_device(self.gpu)
        return Annotator(
            *(models or self.models),
            device=str(device),
            decode=decode,
            # On the CPU a build has no choice either.
            batch=None if device.type == "cpu" else self.batch,
            engine=self.engine,
        )

    @property
    def models(self) -> Models:
        return self.model_2d, self.model_3d, self.model_depth


@dataclass(frozen=True)
class Report:
    """networks: their names; built: faces of the build that `rows` ends with; busy: share of the whole annotator's time
    in which a GPU has work, None on the CPU; bound: what the lanes of a build allow; rival: None if not asked for."""

    machine: Machine
    networks: tuple[str, ...]
    batch: int
    workers: int
    rows: tuple[Row, ...]
    bound: Bound
    busy: float | None
    built: int
    rival: Rival | None

    def row(self, name: str) -> Row:
        return next(row for row in self.rows if row.name == name)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values; each row with its share of the peak."""
        shares = [{"share": row.share(self.machine.peak)} for row in self.rows]
        plain = asdict(self)
        return plain | {"rows": [row | share for row, share in zip(plain["rows"], shares, strict=True)]}


def run_bench(options: BenchOptions, told: Told) -> Report:
    """Time everything. told: hears the name of each stage before it is timed."""
    if options.against is not None:
        check_installed()
    annotator = options.annotator()
    on_gpu = annotator.device.type == "cuda"
    with tempfile.TemporaryDirectory(prefix="ls3dw-bench-") as name, one_thread_of_opencv():
        scratch = Path(name)
        told("peak of this machine")
        machine = describe(annotator.device, chain.precision(annotator), options.seconds)
        bench = Bench(Clocks.of(annotator.device), options.seconds)
        rows, device_rows = _stages(options, annotator, bench, scratch, told)
        machine = measured_again(machine, annotator, options.seconds)
        times = {row.name: row.ms / 1e3 for row in rows}
        workers = default_workers(int(on_gpu)) if options.workers is None else options.workers
        told("build")
        building, built = time_build(options.build(scratch / "data"), None if on_gpu else times[chain.WHOLE])
        rival = _compare(options, annotator, bench, scratch, told)
        busy = sum(row.ms for row in device_rows) / 1e3 / times[chain.WHOLE] if on_gpu else None
    return Report(
        machine=machine,
        networks=tuple(model.contract.name for model in annotator.models),
        batch=annotator.batch,
        workers=workers,
        rows=(*rows, *building),
        bound=bound_of(times, on_gpu=on_gpu, workers=workers, cores=machine.cores),
        busy=min(1.0, busy) if busy is not None else None,
        built=built,
        rival=rival,
    )


def measured_again(machine: Machine, annotator: Annotator, seconds: float) -> Machine:
    """Take the better of two peaks: other work on the machine may have taken from the first."""
    again = measure_peak(annotator.device, chain.precision(annotator), seconds)
    return replace(machine, peak=max(machine.peak, again))


@contextmanager
def one_thread_of_opencv() -> Iterator[None]:
    """Give OpenCV one thread, as decoding processes do."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


def bound_of(times: dict[str, float], *, on_gpu: bool, workers: int, cores: int) -> Bound:
    """Say what bounds a build, from the seconds a face of the stages."""
    networks, process, writer = times[chain.WHOLE], times[host.PROCESS], times[host.WRITER]
    if on_gpu:
        return side_by_side(
            [Lane(NETWORKS, networks), Lane(PROCESSES, process, max(1, workers)), Lane(WRITING, writer)]
        )
    return sharing([Lane(NETWORKS, networks, cores), Lane(PROCESSES, process), Lane(WRITING, writer)], cores)


def _stages(
    options: BenchOptions, annotator: Annotator, bench: Bench, scratch: Path, told: Told
) -> tuple[list[Row], list[Row]]:
    """Time all stages but the build; also return those of them that are work of the device, each once."""
    faces = sample_faces()
    process, chunk = host.process_stage()
    told("first batch")
    annotations = annotator.annotate_windows(faces.spread(annotator.batch).batch())
    # Where memory is short the annotator has halved its batches now.
    batch = faces.spread(annotator.batch).batch()

    def timed(stages: Iterable[Stage]) -> Iterator[tuple[Stage, Row]]:
        for stage in stages:
            told(stage.name)
            yield stage, bench.time(stage)

    rows = [row for _, row in timed(_before(scratch, faces, process))]
    with chain.as_annotating():
        networks = list(timed(chain.network_stages(annotator, batch)))
    rows += [row for _, row in networks]
    writing = host.writing_stage(scratch, host.annotate_like(chunk, annotations), configuration(options, annotator))
    rows += [row for _, row in timed([*chain.whole_stages(annotator, batch), writing])]
    return rows, [row for stage, row in networks if stage.clock == "device" and not stage.within]


def _before(scratch: Path, faces: Faces, process: Stage) -> Iterator[Stage]:
    yield from host.decoding_stages(scratch, faces)
    yield from host.cutting_stages(faces.spread(32))
    yield process


def configuration(options: BenchOptions, annotator: Annotator) -> dict[str, object]:
    """Return the configuration that shards of these networks would carry."""
    models = (annotator.model_2d, annotator.model_3d, annotator.model_depth)
    return recorded(options.build(Path()), model_records([model.contract if model else None for model in models]))


def _compare(options: BenchOptions, annotator: Annotator, bench: Bench, scratch: Path, told: Told) -> Rival | None:
    if options.against is None:
        return None
    weights = make_weights(options.models, scratch)
    theirs = Theirs(bench, annotator.device, options.against.endswith("compiled"), told)
    return compare(theirs, Ours(bench, options.annotator, weights, told), sample_faces())

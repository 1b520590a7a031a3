"""The stages of a build side by side: decoding processes, networks and writers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from functools import partial
from typing import Any

from ls3dw.building.annotate import GpuWorkers, MakeAnnotator, annotate_in_thread
from ls3dw.building.finish import finish_version
from ls3dw.building.options import BuildOptions, recorded
from ls3dw.building.plan import BuildPlan, make_plan
from ls3dw.building.prepare import Chunk, DecodeTask
from ls3dw.building.prestart import Prestart
from ls3dw.building.published import PublishedPoints
from ls3dw.building.write import ShardWriter, VersionFiles
from ls3dw.core.files import exclusive, remove_partial
from ls3dw.core.parallel.memory import prefetch_budget
from ls3dw.core.parallel.pool import default_workers, stream
from ls3dw.core.parallel.stage_timer import StageTimer, render
from ls3dw.core.parallel.threads import ThreadStage
from ls3dw.dataset.store import ShardRecord, Store, check_output, check_version, claim_version
from ls3dw.models.annotator import CPU_BATCH, Annotator, load_models
from ls3dw.models.inference.device import check_device, devices, on_one_core
from ls3dw.models.weights.contract import Contract

GPU_CHUNK = 32
"""Faces in a chunk for GPUs. On the CPU a chunk is one batch, so that batches never depend on timing."""

CPU_QUEUE = 2
GPU_QUEUE = 8
"""Chunks in each queue: of decoded ones (on the CPU), and to the networks and the writers."""

GPU_WRITERS = 3
"""Threads that write shards: a single one keeps two GPUs waiting."""

Begin = Callable[[BuildPlan], None]
Report = Callable[[Chunk], None]


class Build:
    """One run of `ls3dw build`: finishes what is missing of a version, and does nothing twice.

    prestart: processes that were started for its networks, if any.
    """

    def __init__(self, options: BuildOptions, prestart: Prestart | None = None) -> None:
        self.options = options
        self.version = options.version_name
        self.store = Store(options.out)
        self.pipeline = Pipeline(options, prestart)
        self.configuration = recorded(options, self.pipeline.models)

    def plan(self) -> BuildPlan:
        """List what is there and what is left to do; writes nothing."""
        # Check first: with another shard size the plan would report a source that changed.
        check_version(self.store, self.version, self.configuration)
        return make_plan(self.options, self.store, self.version)

    def run(self, begin: Begin, report: Report) -> list[ShardRecord]:
        """Build. begin: called with the plan; report: called with each annotated chunk, in any order, on any thread."""

        def annotate(plan: BuildPlan) -> None:
            published = self.options.annotations == "published"
            kinds = {source.name: None if published else source.annotation_kind for source in plan.sources}
            writer = ShardWriter(VersionFiles(self.store, self.version, self.configuration), kinds)
            self.pipeline.run(plan, writer.add, report)

        return make_version(self.store, self.version, self.configuration, self.plan, begin, annotate)


def make_version(
    store: Store,
    version: str,
    configuration: dict[str, Any],
    plan: Callable[[], BuildPlan],
    begin: Begin,
    annotate: Callable[[BuildPlan], None],
) -> list[ShardRecord]:
    """Make or finish a version, alone in the data set: plan it, write its shards, then all that describes them."""
    check_output(store.root)
    with exclusive(store.root):
        remove_partial(store.root)
        planned = plan()
        claim_version(store, version, configuration)
        begin(planned)
        annotate(planned)
        return finish_version(store, version, configuration)


class Pipeline:
    """Decodes, annotates and writes at the same time.

    models: the networks as manifests record them; seconds: of the last `run`.
    """

    def __init__(self, options: BuildOptions, prestart: Prestart | None = None) -> None:
        self._options = options
        self._prestart = prestart
        self.devices = ["cpu"] if options.annotations == "published" else devices(options.gpu)
        for device in self.devices:
            check_device(device)
        self._in_processes = needs_process(self.devices[0])
        if prestart and not self._in_processes:
            prestart.end()
        self.models = model_records(contracts_of(options))
        self.timer = StageTimer()
        self.seconds = 0.0

    @property
    def workers(self) -> int:
        """Number of decoding processes."""
        if self._options.workers is not None:
            return self._options.workers
        return default_workers(len(self.devices) if self._in_processes else 0)

    @property
    def writers(self) -> int:
        """Number of threads that write shards."""
        return GPU_WRITERS if self._in_processes else 1

    def run(self, plan: BuildPlan, write: Callable[[Chunk], None], report: Report) -> None:
        """Annotate all faces that the plan has left to do. write: takes annotated chunks, on several threads."""
        tasks = plan.tasks(self._options, GPU_CHUNK if self._in_processes else CPU_BATCH)
        if not tasks:
            return
        queue = GPU_QUEUE if self._in_processes else CPU_QUEUE
        reporting = threading.Lock()

        def write_all(chunks: Iterator[Chunk]) -> None:
            for chunk in chunks:
                with self.timer("write shards"):
                    write(chunk)
                self.timer.add(chunk.seconds)
                with reporting:
                    report(chunk)

        start = time.perf_counter()
        with ExitStack() as stack:
            # Closed in reverse order: decoding, then the networks, then the writers with all they were given.
            writing = stack.enter_context(ThreadStage(write_all, queue, keep=True, threads=self.writers))
            annotating = self._annotating(plan, writing.put, queue)
            stack.enter_context(annotating)
            for chunk in stack.enter_context(closing(self._decode(tasks))):
                annotating.put(chunk)
        self.seconds = time.perf_counter() - start

    def timing(self) -> str:
        """Return a table of how long each stage took, and so what the build waited for."""
        if not self.seconds:
            return "nothing was left to annotate"
        processes = {"decoding": max(1, self.workers), "networks": len(self.devices), "writing": self.writers}
        return render(self.timer.seconds, self.seconds, processes)  # type: ignore[arg-type]

    def _decode(self, tasks: Sequence[DecodeTask]) -> Generator[Chunk, None, None]:
        if not self._in_processes:
            return stream(tasks, self.workers, CPU_QUEUE)
        # As far ahead of GPUs as memory allows: they take seconds to load their networks.
        budget = prefetch_budget()
        return stream(tasks, self.workers, budget.nbytes, lambda chunk: budget.share(chunk.nbytes))

    def _annotating(
        self, plan: BuildPlan, done: Callable[[Chunk], None], queue: int
    ) -> ThreadStage[Chunk] | GpuWorkers:
        guided = self._options.guidance == "annotated" or self._options.annotations == "published"
        faces = sum(part.units for source in plan.sources for part in source.parts if not part.complete)
        makers = [annotator_maker(self._options, device, faces // len(self.devices)) for device in self.devices]
        if self._in_processes:
            return GpuWorkers(makers, done, self.timer, guided=guided, prestart=self._prestart)
        return annotate_in_thread(makers[0](), done, self.timer, guided=guided, queue=queue)


def needs_process(device: str) -> bool:
    """Whether the networks of a device run in a process of their own."""
    return device != "cpu"


def annotator_maker(options: BuildOptions, device: str, faces: int) -> MakeAnnotator:
    """Return what makes the annotator of a device; picklable. faces: how many it will get."""
    if options.annotations == "published":
        return PublishedPoints
    return partial(
        Annotator,
        options.model_2d,
        options.model_3d,
        options.model_depth,
        device=device,
        flip=options.flip,
        decode=options.decode,
        # Fixed on the CPU: the last bits depend on the size of a batch.
        batch=None if device == "cpu" else options.batch,
        engine=options.engine,
        faces=faces,
    )


def contracts_of(options: BuildOptions) -> Sequence[Contract | None]:
    """Load the networks, to find what is wrong with them before anything is written."""
    if options.annotations == "published":
        return (None, None, None)
    with on_one_core():
        models = load_models(options.model_2d, options.model_3d, options.model_depth, options.decode)
    return [model.contract if model else None for model in models]


def model_records(contracts: Sequence[Contract | None]) -> dict[str, Any]:
    """Return the 2D, 3D and depth network as manifests and shards record them."""
    return {
        role: contract and {"name": contract.name, "kind": contract.kind, "sha256": contract.sha256}
        for role, contract in zip(("2d", "3d", "depth"), contracts, strict=True)
    }

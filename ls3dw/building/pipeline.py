"""Sources to data set: decoding processes, networks and writers, all at work at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from functools import partial
from typing import Any

from ls3dw.building.annotate import GpuWorkers, Make, annotate_in_thread
from ls3dw.building.finish import finish_version
from ls3dw.building.options import BuildOptions, recorded
from ls3dw.building.plan import Plan, make_plan
from ls3dw.building.prepare import Chunk, DecodeTask
from ls3dw.building.prestart import Prestart
from ls3dw.building.published import Published
from ls3dw.building.write import AnnotatedChunk, ShardWriter
from ls3dw.core.files import exclusive, remove_partial
from ls3dw.core.parallel.memory import prefetch_budget
from ls3dw.core.parallel.pool import default_workers, stream
from ls3dw.core.parallel.stage_timer import StageTimer, render
from ls3dw.core.parallel.threads import ThreadStage
from ls3dw.dataset.store import ShardRecord, Store, check_version, claim_version
from ls3dw.models.annotator import CPU_BATCH, Annotator, load_models
from ls3dw.models.inference.device import check_device, devices, on_one_core
from ls3dw.models.weights.contract import Contract

GPU_CHUNK = 32
"""Faces that a process sends at a time; on the CPU a chunk is a batch, so that batches never depend on timing."""

CPU_WAITING = 2
GPU_WAITING = 8
"""Chunks that may lie in each queue: from the processes (on a CPU), to each device, to the writers."""

GPU_WRITERS = 3
"""Threads that write shards: one alone keeps two GPUs waiting."""


Report = Callable[[Chunk], None]


def model_records(contracts: Sequence[Contract | None]) -> dict[str, Any]:
    """Say which weights are used, as manifests and shards record it: of the 2D, the 3D and the depth network."""
    return {
        role: contract and {"name": contract.name, "kind": contract.kind, "sha256": contract.sha256}
        for role, contract in zip(("2d", "3d", "depth"), contracts, strict=True)
    }


def networks_of(options: BuildOptions, device: str, faces: int) -> Make:
    """Return what makes the annotator of a device, or the one that takes what was published; picklable. faces: how
    many it will have."""
    if options.annotations == "published":
        return Published
    return partial(
        Annotator,
        options.model_2d,
        options.model_3d,
        options.model_depth,
        device=device,
        flip=options.flip,
        decode=options.decode,
        # On the CPU always the same: the last bits depend on the size of a batch.
        batch=None if device == "cpu" else options.batch,
        engine=options.engine,
        faces=faces,
    )


def contracts_of(options: BuildOptions) -> Sequence[Contract | None]:
    """Load the networks, so that what is wrong with them is known before anything is written."""
    if options.annotations == "published":
        return (None, None, None)
    with on_one_core():
        models = load_models(options.model_2d, options.model_3d, options.model_depth, options.decode)
    return [model.contract if model else None for model in models]


def apart(device: str) -> bool:
    """Say whether a device's networks run in a process of their own."""
    return device != "cpu"


class Build:
    """One run of `ls3dw build`: finishes what is missing of a version, and does nothing twice.

    ahead: processes for its networks, if any were started before.
    """

    def __init__(self, options: BuildOptions, ahead: Prestart | None = None) -> None:
        self.options = options
        self._ahead = ahead
        self.store = Store(options.out)
        self.devices = ["cpu"] if options.annotations == "published" else devices(options.gpu)
        for device in self.devices:
            check_device(device)
        self.apart = apart(self.devices[0])
        if ahead and not self.apart:
            ahead.end()
        self.times = StageTimer()
        self.took = 0.0
        self.configuration = self.record(model_records(contracts_of(options)))

    def record(self, models: dict[str, Any]) -> dict[str, Any]:
        """Return what decides the content of the version."""
        return recorded(self.options, models)

    def plan(self) -> Plan:
        """List what is there and what is left to do; writes nothing."""
        # First: shards cut in another way would be taken for a source that changed.
        check_version(self.store, self.options.version_name, self.configuration)
        return self.planned()

    def planned(self) -> Plan:
        """List what is there and what is left to do."""
        return make_plan(self.options, self.store)

    def run(self, begin: Callable[[Plan], None], report: Report) -> list[ShardRecord]:
        """Build. begin: told the plan first; report: told each chunk that is annotated, in any order."""
        with exclusive(self.options.out):
            remove_partial(self.options.out)
            plan = self.plan()
            claim_version(self.store, self.options.version_name, self.configuration)
            begin(plan)
            self.annotate(plan, report)
            return finish_version(self.store, self.options.version_name, self.configuration)

    def writer(self, plan: Plan) -> ShardWriter:
        """Return what writes the shards of the plan."""
        published = self.options.annotations == "published"
        kinds = {source.name: None if published else source.annotation_kind for source in plan.sources}
        return ShardWriter(self.store, self.options.version_name, self.configuration, kinds)

    def annotate(self, plan: Plan, report: Report) -> None:
        """Make all shards that the plan has left to do."""
        work = plan.work(self.options, GPU_CHUNK if self.apart else CPU_BATCH)
        if not work:
            return
        writer = self.writer(plan)
        waiting = GPU_WAITING if self.apart else CPU_WAITING
        reporting = threading.Lock()

        def write(items: Iterator[AnnotatedChunk]) -> None:
            for done in items:
                with self.times("write shards"):
                    writer.add(done)
                self.times.add(done.chunk.seconds)
                with reporting:
                    report(done.chunk)

        start = time.perf_counter()
        with ExitStack() as stack:
            # Left in the opposite order: the networks end first, then the writers with all they gave them.
            writing = stack.enter_context(ThreadStage(write, waiting, keep=True, threads=self.writers))
            networks = self._networks(plan, writing, waiting)
            stack.enter_context(networks)
            chunks = stack.enter_context(closing(self._decoded(work)))
            for chunk in chunks:
                networks.put(chunk)
        self.took = time.perf_counter() - start

    def timing(self) -> str:
        """Say how long each stage of `annotate` took, and so what it waited for."""
        if not self.took:
            return "nothing was left to annotate"
        return render(
            self.times.seconds,
            self.took,
            {"decoding": max(1, self.workers), "networks": len(self.devices), "writing": self.writers},
        )

    @property
    def writers(self) -> int:
        """Threads that write shards."""
        return GPU_WRITERS if self.apart else 1

    @property
    def workers(self) -> int:
        """Decoding processes."""
        if self.options.workers is not None:
            return self.options.workers
        return default_workers(len(self.devices) if self.apart else 0)

    def _decoded(self, work: Sequence[DecodeTask]) -> Generator[Chunk, None, None]:
        """Decode in processes: beside GPUs as far ahead of the networks as there is room."""
        if not self.apart:
            return stream(work, self.workers, CPU_WAITING)
        room = prefetch_budget()
        return stream(work, self.workers, room.nbytes, lambda chunk: room.share(chunk.nbytes))

    def _networks(
        self, plan: Plan, writing: ThreadStage[AnnotatedChunk], waiting: int
    ) -> ThreadStage[Chunk] | GpuWorkers:
        own_points = self.options.guidance == "annotated" or self.options.annotations == "published"
        faces = sum(part.units for source in plan.sources for part in source.parts if not part.complete)
        makes = [networks_of(self.options, device, faces // len(self.devices)) for device in self.devices]
        if self.apart:
            return GpuWorkers(makes, writing.put, self.times, guided=own_points, ahead=self._ahead)
        return annotate_in_thread(makes[0](), writing.put, self.times, guided=own_points, waiting=waiting)

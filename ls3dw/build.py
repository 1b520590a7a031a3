"""Sources to data set: decoding processes, networks and one writer, all at work at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from typing import Any

from ls3dw.annotator import CPU_BATCH, Annotator
from ls3dw.batching import Annotates, Batcher
from ls3dw.config import BuildOptions, recorded
from ls3dw.consumer import Consumer
from ls3dw.execute import default_workers, stream
from ls3dw.files import exclusive, remove_partial
from ls3dw.finish import finish_version
from ls3dw.models.contract import Contract
from ls3dw.models.device import devices
from ls3dw.plan import Plan, make_plan
from ls3dw.prepare import Chunk
from ls3dw.published import Published
from ls3dw.store import ShardRecord, Store, check_version, claim_version
from ls3dw.write import AnnotatedChunk, ShardWriter

GPU_CHUNK = 32
"""Faces that a process sends at a time; on the CPU a chunk is a batch, so that batches never depend on timing."""

CPU_WAITING = 2
GPU_WAITING = 8
"""Chunks that may lie in each queue: from the processes, to each device, to the writer."""


Report = Callable[[Chunk], None]


def model_records(contracts: Sequence[Contract | None]) -> dict[str, Any]:
    """Say which weights are used, as manifests and shards record it: of the 2D, the 3D and the depth network."""
    return {
        role: contract and {"name": contract.name, "kind": contract.kind, "sha256": contract.sha256}
        for role, contract in zip(("2d", "3d", "depth"), contracts, strict=True)
    }


def make_annotators(options: BuildOptions) -> Sequence[Annotator] | Sequence[Published]:
    """Return an annotator a device, or the one that takes what was published."""
    if options.annotations == "published":
        return [Published()]
    return [
        Annotator(
            options.model_2d,
            options.model_3d,
            options.model_depth,
            device=device,
            flip=options.flip,
            decode=options.decode,
            # On the CPU always the same: the last bits depend on the size of a batch.
            batch=None if device == "cpu" else options.batch,
            engine=options.engine,
        )
        for device in devices(options.gpu)
    ]


class Build:
    """One run of `ls3dw build`: finishes what is missing of a version, and does nothing twice."""

    def __init__(self, options: BuildOptions) -> None:
        self.options = options
        self.store = Store(options.out)
        self.annotators = make_annotators(options)
        first = self.annotators[0]
        models = (first.model_2d, first.model_3d, first.model_depth)
        self.configuration = self.record(model_records([model.contract if model else None for model in models]))

    @property
    def on_gpu(self) -> bool:
        return self.annotators[0].device.type == "cuda"

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
        faces = sum(part.units for source in plan.sources for part in source.parts if not part.complete)
        for annotator in self.annotators:
            if isinstance(annotator, Annotator):
                annotator.expect(faces // len(self.annotators))
        work = plan.work(self.options, GPU_CHUNK if self.on_gpu else CPU_BATCH)
        writer = self.writer(plan)
        waiting = GPU_WAITING if self.on_gpu else CPU_WAITING
        workers = default_workers(self.on_gpu) if self.options.workers is None else self.options.workers

        def write(items: Iterator[AnnotatedChunk]) -> None:
            for done in items:
                writer.add(done)
                report(done.chunk)

        with ExitStack() as stack:
            # Left in the opposite order: the networks end first, then the writer with all they gave it.
            writing = stack.enter_context(Consumer(write, waiting, keep=True))
            lanes = [stack.enter_context(self._lane(annotator, writing, waiting)) for annotator in self.annotators]
            chunks = stack.enter_context(closing(stream(work, workers, waiting)))
            for number, chunk in enumerate(chunks):
                lanes[number % len(lanes)].put(chunk)

    def _lane(self, annotator: Annotates[Any], writing: Consumer[AnnotatedChunk], waiting: int) -> Consumer[Chunk]:
        own_points = self.options.guidance == "annotated" or self.options.annotations == "published"
        batcher = Batcher(annotator, guided=own_points, mix=self.on_gpu)

        def annotate(chunks: Iterator[Chunk]) -> None:
            for chunk in chunks:
                for done in batcher.add(chunk):
                    writing.put(done)
            for done in batcher.finish():
                writing.put(done)

        return Consumer(annotate, waiting, keep=False)

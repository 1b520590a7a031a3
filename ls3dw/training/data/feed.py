"""The inputs of each step: faces of all streams, and guiding points with their errors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ls3dw.models.weights.contract import Kind
from ls3dw.synth.rng import Rng, hash_seed, keyed_rng
from ls3dw.training.data.batch import Batch, BatchSlice, Stream, StreamSlice, concatenate
from ls3dw.training.data.faces import FaceList, open_faces
from ls3dw.training.data.files import FileStream
from ls3dw.training.data.guidance import disturb, guidance_noise
from ls3dw.training.data.heads import HeadStream, RendererFactory
from ls3dw.training.distributed import ProcessGroup
from ls3dw.training.networks import TrainedNetwork
from ls3dw.training.options import StreamOptions, TrainOptions
from ls3dw.training.validation.predict import predict_half


@dataclass(frozen=True)
class StepInputs:
    """A batch, and the points that guide each network which needs any."""

    images: Tensor
    landmarks_2d: Tensor
    landmarks_3d: Tensor
    guides: Mapping[str, Tensor]
    """By network: (B, 68, 2) crop pixels, true points with errors, NaN where unknown."""

    def tensors(self) -> list[Tensor]:
        return [self.images, self.landmarks_2d, self.landmarks_3d, *(self.guides[name] for name in sorted(self.guides))]


class Feed:
    """Makes the inputs of each step for the slices of this process, as a function of the step only."""

    def __init__(
        self,
        options: TrainOptions,
        networks: Mapping[str, TrainedNetwork],
        slices: Sequence[BatchSlice],
        device: torch.device,
        guide: TrainedNetwork | None = None,
    ):
        self.options = options
        self.networks = networks
        self.slices = slices
        self.device = device
        self.guide = guide

    @torch.no_grad()
    def inputs(self, step: int) -> StepInputs:
        """Make the inputs of a step."""
        batch = concatenate([stream.batch(step) for part in self.slices for stream in part.streams])
        predicted = self._predicted(batch, step)
        guides = {
            name: self._guide(trained, batch, predicted, step)
            for name, trained in self.networks.items()
            if not trained.image_only
        }
        return StepInputs(batch.images, batch.landmarks_2d, batch.landmarks_3d, guides)

    def _per_slice(self, step: int, draw: Callable[[Rng, slice], Tensor], *purpose: str) -> Tensor:
        """Draw for each slice of the batch with its own generator, and join the results.

        draw: gets the generator and the slice's rows of the batch.
        """
        count = self.options.batch // self.options.slices
        drawn = [
            draw(
                keyed_rng(self.device, self.options.seed, *purpose, part.index, step),
                slice(place * count, (place + 1) * count),
            )
            for place, part in enumerate(self.slices)
        ]
        return torch.cat(drawn)

    def _predicted(self, batch: Batch, step: int) -> Tensor | None:
        """Predict the points (B, 68, 2) that guide 2D-to-3D FANs; NaN for faces that true points guide."""
        if self.guide is None:
            return None
        share, count = self.options.guidance.predicted, self.options.batch // self.options.slices
        chosen = self._per_slice(step, lambda rng, _: rng.chance(share, count), "predicted")
        return torch.where(chosen[:, None, None], predict_half(self.guide, batch.images), torch.nan)

    def _guide(self, trained: TrainedNetwork, batch: Batch, predicted: Tensor | None, step: int) -> Tensor:
        """Give true points the errors of the networks that come before this one in use."""
        truth = guiding_points(batch, trained.kind)
        if trained.is_second_stage:
            # The same errors for all second stages, to compare networks on equal terms.
            first_stage = self.options.first_stage
            return self._per_slice(step, lambda rng, rows: disturb(truth[rows], first_stage, rng), "first stage")
        guidance, count = self.options.guidance, self.options.batch // self.options.slices
        noise = self._per_slice(step, lambda rng, _: guidance_noise(count, guidance, rng), "guidance", trained.name)
        wrong = truth + noise * trained.options.noise
        if predicted is None or trained.kind != "2d-to-3d":
            return wrong
        return torch.where(predicted.isnan(), wrong, predicted)

    @property
    def rendered(self) -> int:
        """Heads rendered so far by this process."""
        streams = [stream for part in self.slices for stream in part.streams]
        return sum(stream.rendered for stream in streams if isinstance(stream, HeadStream))


def guiding_points(batch: Batch, kind: Kind) -> Tensor:
    """Return the true points (B, 68, 2) that guide a network of this kind, or straighten its crops."""
    return batch.landmarks_2d if kind in ("2d", "2d-to-3d") else batch.landmarks_3d[..., :2]


class Prefetcher:
    """Makes the next step's inputs during the present step, on a CUDA stream of its own; on the CPU `take` makes
    them."""

    def __init__(self, make: Callable[[int], StepInputs], device: torch.device) -> None:
        self._make = make
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        if self._stream is not None:
            self._stream.wait_stream(torch.cuda.current_stream())  # renderers and tables may still be in the making
        self._step = 0
        self._ready: StepInputs | None = None

    def start(self, step: int) -> None:
        """Begin to make a step's inputs: render, augment, copy to the device."""
        self._step = step
        if self._stream is not None:
            with torch.cuda.stream(self._stream):
                self._ready = self._make(step)

    def take(self) -> StepInputs:
        """Return the inputs; work queued after this call waits for them."""
        if self._stream is None:
            return self._make(self._step)
        inputs = self._ready
        assert inputs is not None
        present = torch.cuda.current_stream()
        present.wait_stream(self._stream)
        for tensor in inputs.tensors():
            tensor.record_stream(present)
        return inputs


def open_files(options: TrainOptions) -> dict[int, FaceList]:
    """Open the file streams of a pipeline, by stream number; raises an `Ls3dwError` for an unusable folder."""
    return {number: open_faces(stream) for number, stream in enumerate(options.data) if stream.stream != "heads"}


def make_slices(
    options: TrainOptions, files: Mapping[int, FaceList], open_heads: RendererFactory, group: ProcessGroup
) -> list[BatchSlice]:
    """Make the streams of this process's slices; the slices share one renderer a stream."""
    device = group.device
    counts = split_batch(options.batch // options.slices, options.data)
    renderers = {
        number: open_heads(device, stream.render)
        for number, stream in enumerate(options.data)
        if stream.stream == "heads"
    }

    def stream(number: int, index: int) -> Stream:
        chosen = options.data[number]
        part = StreamSlice(hash_seed(options.seed, "stream", number), index, options.slices, counts[number])
        augmentation = chosen.augment or options.augment
        if number in renderers:
            return HeadStream(renderers[number], chosen, part, augmentation, device)
        return FileStream(files[number], part, augmentation, device, chosen.workers)

    return [
        BatchSlice(index, [stream(number, index) for number in range(len(counts))])
        for index in group.slices(options.slices)
    ]


def split_batch(count: int, streams: Sequence[StreamOptions]) -> list[int]:
    """Split `count` faces by the streams' shares: at least one each, the rest to the largest remainders."""
    total = sum(stream.share for stream in streams)
    exact = [count * stream.share / total for stream in streams]
    counts = [max(1, int(part)) for part in exact]
    order = sorted(range(len(streams)), key=lambda number: counts[number] - exact[number])
    for number in order[: max(0, count - sum(counts))]:
        counts[number] += 1
    while sum(counts) > count:  # shares of less than one face were rounded up
        counts[counts.index(max(counts))] -= 1
    return counts

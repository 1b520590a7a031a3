"""Puts together the inputs of each step: the streams' shares of every lane, and guidance with its errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from ls3dw.training.data.batch import Batch, Stream, concatenate
from ls3dw.training.data.faces import FaceList, open_faces
from ls3dw.training.data.files import FileStream, Share
from ls3dw.training.data.first_stage import disturb
from ls3dw.training.data.guidance import guidance_noise
from ls3dw.training.data.heads import HeadMaker, HeadStream, OpenHeads
from ls3dw.training.data.seeds import Dice, seed_of
from ls3dw.training.distributed import Group
from ls3dw.training.loop.step import Inputs, guided_by
from ls3dw.training.networks import Trained
from ls3dw.training.options import StreamOptions, TrainOptions
from ls3dw.training.validation.predict import predict_quickly


@dataclass(frozen=True)
class Lane:
    """One lane of the batch: a fixed number of faces of each stream, and random numbers of its own."""

    number: int
    streams: Sequence[Stream]


class Feed:
    """Gives the inputs of each step for the lanes of this process: a function of the step alone."""

    def __init__(
        self,
        options: TrainOptions,
        networks: Mapping[str, Trained],
        lanes: Sequence[Lane],
        group: Group,
        guide: Trained | None = None,
    ):
        self.options = options
        self.networks = networks
        self.lanes = lanes
        self.device = group.device
        self.guide = guide

    @torch.no_grad()
    def inputs(self, step: int) -> Inputs:
        batches = [concatenate([stream.batch(step) for stream in lane.streams]) for lane in self.lanes]
        batch = concatenate(batches)
        count = len(batches[0].images)
        predicted = self._predicted(batch, step, count)
        guides = {
            name: self._guide(trained, batch, predicted, step, count)
            for name, trained in self.networks.items()
            if not trained.alone
        }
        return Inputs(batch.images, batch.landmarks_2d, batch.landmarks_3d, guides)

    def _predicted(self, batch: Batch, step: int, count: int) -> torch.Tensor | None:
        """Predict the points that guide 2D-to-3D FANs, (B, 68, 2), NaN for faces that true points guide."""
        if self.guide is None:
            return None
        share = self.options.guidance.predicted
        dice = [Dice(self.device, self.options.seed, "predicted", lane.number, step) for lane in self.lanes]
        chosen = torch.cat([drawn.chance(share, count) for drawn in dice])
        return torch.where(chosen[:, None, None], predict_quickly(self.guide, batch.images), torch.nan)

    def _guide(
        self, trained: Trained, batch: Batch, predicted: torch.Tensor | None, step: int, count: int
    ) -> torch.Tensor:
        """Make the points that a network is given wrong, as those before it leave them. count: faces a lane."""
        truth = guided_by(batch, trained.kind)
        seed, device = self.options.seed, self.device
        if trained.straightened:
            # The same errors for all networks of stage two: what differs between them shall be the networks.
            dice = [Dice(device, seed, "first stage", lane.number, step) for lane in self.lanes]
            parts = zip(torch.split(truth, count), dice, strict=True)
            return torch.cat([disturb(points, self.options.first_stage, drawn) for points, drawn in parts])
        dice = [Dice(device, seed, "guidance", trained.name, lane.number, step) for lane in self.lanes]
        noise = torch.cat([guidance_noise(count, self.options.guidance, drawn) for drawn in dice])
        wrong = truth + noise * trained.options.noise
        if predicted is None or trained.kind != "2d-to-3d":
            return wrong
        return torch.where(predicted.isnan(), wrong, predicted)

    @property
    def rendered(self) -> int:
        """Heads rendered so far by this process."""
        streams = [stream for lane in self.lanes for stream in lane.streams]
        return sum(stream.rendered for stream in streams if isinstance(stream, HeadStream))


def open_files(options: TrainOptions) -> dict[int, FaceList]:
    """Open the file streams of a pipeline by their number in it; an `Ls3dwError` says what is wrong with a folder."""
    return {number: open_faces(stream) for number, stream in enumerate(options.data) if stream.stream != "heads"}


def open_renderers(options: TrainOptions, open_heads: OpenHeads, device: torch.device) -> dict[int, HeadMaker]:
    """Make the renderers of the streams of heads, by their number in the pipeline."""
    return {
        number: open_heads(device, stream.render)
        for number, stream in enumerate(options.data)
        if stream.stream == "heads"
    }


def make_lanes(
    options: TrainOptions, files: Mapping[int, FaceList], heads: Mapping[int, HeadMaker], group: Group
) -> list[Lane]:
    """Make the streams of this process's lanes."""
    counts = share_out(options.batch // options.lanes, options.data)
    return [
        Lane(
            lane,
            [
                _stream(
                    options,
                    number,
                    Share(seed_of(options.seed, "stream", number), lane, options.lanes, count),
                    files.get(number),
                    heads.get(number),
                    group,
                )
                for number, count in enumerate(counts)
            ],
        )
        for lane in group.lanes(options.lanes)
    ]


def _stream(
    options: TrainOptions, number: int, share: Share, faces: FaceList | None, maker: HeadMaker | None, group: Group
) -> Stream:
    stream = options.data[number]
    augmentation = stream.augment or options.augment
    if faces is None:
        assert maker is not None
        return HeadStream(maker, stream, share, augmentation, group.device)
    return FileStream(faces, share, augmentation, group.device, stream.workers)


def share_out(count: int, streams: Sequence[StreamOptions]) -> list[int]:
    """Cut `count` faces by the streams' shares to whole numbers of at least one; what rounding leaves goes to the
    largest remainders."""
    total = sum(stream.share for stream in streams)
    exact = [count * stream.share / total for stream in streams]
    counts = [max(1, int(part)) for part in exact]
    order = sorted(range(len(streams)), key=lambda number: counts[number] - exact[number])
    for number in order[: max(0, count - sum(counts))]:
        counts[number] += 1
    while sum(counts) > count:  # shares of less than one face were rounded up
        counts[counts.index(max(counts))] -= 1
    return counts

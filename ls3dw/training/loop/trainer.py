"""The loop: data, step, average, and from time to time the log, validation and a checkpoint."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ls3dw.errors import ConfigurationError, TrainingError
from ls3dw.training.data.feed import Feed, make_lanes, open_files, open_renderers
from ls3dw.training.data.heads import OpenHeads, open_renderer
from ls3dw.training.data.prefetch import Prefetch
from ls3dw.training.distributed import Group, join_norms
from ls3dw.training.loop import checkpoint
from ls3dw.training.loop.monitor import SHOWN, Monitor, write_errors
from ls3dw.training.loop.step import Step, empty_inputs
from ls3dw.training.loop.timing import Clock
from ls3dw.training.networks import Trained, load_guide, make_cascades, make_networks
from ls3dw.training.objective.ema import MovingAverage, average_of
from ls3dw.training.objective.norms import settle
from ls3dw.training.objective.optimizers import state_tensors
from ls3dw.training.objective.schedule import length_of, rate_at
from ls3dw.training.options import TrainOptions, config_hash
from ls3dw.training.validation.predict import predict
from ls3dw.training.validation.validate import Figures, validate
from ls3dw.training.validation.validation_set import ValidationSet, make_sets

log = logging.getLogger(__name__)

AHEAD = 2
"""Steps that a GPU's queue may hold: enough to keep it busy, few enough for the time to be known."""


class Trainer:
    """A run of a pipeline in the folder `out`.

    open_heads: makes the renderer, if a stream or the validation asks for heads. `run` goes on from the last
    checkpoint.
    """

    def __init__(self, options: TrainOptions, out: Path, group: Group, open_heads: OpenHeads = open_renderer) -> None:
        self.options = options
        self.out = out
        self.group = group
        self.config = config_hash(options)
        if options.minutes is not None and group.world > 1:
            raise ConfigurationError(
                "minutes: several processes need steps or epochs, so that all stop at the same one"
            )
        # Everything that can be wrong with the data comes first, before anything that takes long.
        files = open_files(options)
        self.length = length_of(options, sum(map(len, files.values())))
        self.open_heads = open_heads
        heads = open_renderers(options, open_heads, group.device)
        self.networks = make_networks(options.networks, options.seed, group.device)
        for name, trained in self.networks.items():
            self.networks[name] = Trained(name, trained.options, join_norms(trained.network, group))
        self.averages = {
            name: Trained(name, trained.options, average_of(trained.network)) for name, trained in self.networks.items()
        }
        self.cascades = make_cascades(options.cascades, self.averages)
        pairs = [(self.averages[name].network, self.networks[name].network) for name in self.networks]
        self.average = MovingAverage(pairs, options.ema)
        self.step = Step(options, self.networks, group)
        self.guide = load_guide(options.guidance.model, group.device)
        self.feed = Feed(options, self.networks, make_lanes(options, files, heads, group), group, self.guide)
        self.clock = Clock(group)
        self.sums = torch.zeros(len(self.networks) + 1, device=group.device)
        """Losses since the last line of the log, and their number."""
        self.results: dict[str, Figures] = {}
        self.taken = 0
        self.settled = False
        """Whether batch norms keep their statistics: the step is another one then."""
        self.stopping = False
        """Set it from a signal handler: the run saves a checkpoint after the present step, and ends."""

    @property
    def exported(self) -> dict[str, Trained]:
        """What can be used by itself: the averages and the cascades, but for networks that are stage two of one."""
        return {name: each for name, each in (self.averages | self.cascades).items() if not each.straightened}

    def tensors(self) -> dict[str, Tensor]:
        """Name every tensor that a checkpoint holds."""
        found = {"progress/sums": self.sums}
        for name, trained in self.networks.items():
            found |= {f"network/{name}/{key}": value for key, value in trained.network.state_dict().items()}
            average = self.averages[name].network.state_dict()
            found |= {f"average/{name}/{key}": value for key, value in average.items()}
            found |= {f"optimizer/{name}/{key}": value for key, value in state_tensors(self.step.optimizers[name])}
        return found

    def run(self) -> dict[str, Figures]:
        """Train to the end; return the last validation's figures by `set/network`."""
        try:
            with torch.backends.cudnn.flags(enabled=True, benchmark=True, deterministic=False, allow_tf32=True):
                return self._run()
        finally:
            self.step.release()

    def _run(self) -> dict[str, Figures]:
        seconds = self._resume()
        sets = make_sets(self.options.validation, self.open_heads, self.group.device) if self.group.leads else []
        monitor = Monitor(self.out, self.taken) if self.group.leads else None
        if self.length.share(self.taken, seconds) < 1:
            seconds = self._train(seconds, monitor, sets)
        if self._unsaved:
            self._save(seconds)
        if not self.stopping:
            self._validate(monitor, sets)
        if monitor is not None:
            monitor.close()
        return self.results

    def _train(self, seconds: float, monitor: Monitor | None, sets: list[ValidationSet]) -> float:
        """Take all steps that are left after `seconds` of training; return the seconds of all."""
        self._settle(seconds)
        self._capture()
        prefetch = Prefetch(self.feed.inputs, self.group.device)
        rendering = time.perf_counter()
        prefetch.start(self.taken)
        self._note_rendering(rendering)
        begun = time.perf_counter() - seconds
        self.clock.restart()
        queue: deque[torch.cuda.Event] = deque()
        while not self.stopping and self.length.share(self.taken, time.perf_counter() - begun) < 1:
            if self._settle(time.perf_counter() - begun):
                self._capture()
            self._take(prefetch, rate_at(self.options.optimizer, self.length, self.taken, time.perf_counter() - begun))
            self._throttle(queue)
            self._report(monitor, sets, time.perf_counter() - begun)
        return time.perf_counter() - begun

    def _settle(self, seconds: float) -> bool:
        """Let batch norms keep their statistics, if the part of the run for it begins; return whether it does."""
        if self.settled or self.length.share(self.taken, seconds) < 1 - self.options.settle:
            return False
        for name, trained in self.networks.items():
            settle(trained.network, self.averages[name].network)
        self.settled = True
        return True

    def _take(self, prefetch: Prefetch, rate: float) -> None:
        """Take one step, and begin with the next one's data."""
        inputs = self.clock.fetch(prefetch.take)
        self.clock.begin()
        self.step(inputs, rate)
        self.average.update(self.taken)
        self.sums[:-1] += self.step.losses
        self.sums[-1] += 1
        self.clock.end()
        self.taken += 1
        prefetch.start(self.taken)

    def _throttle(self, queue: deque[torch.cuda.Event]) -> None:
        if self.group.device.type == "cuda":
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record(torch.cuda.current_stream())
            queue.append(event)
            if len(queue) > AHEAD:
                queue.popleft().synchronize()

    def _resume(self) -> float:
        """Put the last checkpoint's values in place; return the seconds that were trained before it."""
        found = checkpoint.newest(self.out)
        if found is None:
            return 0.0
        checkpoint.check_same(found, self.config, self.out)
        checkpoint.restore(self.out, found, self.tensors())
        self.taken = found.step
        log.info("going on from step %d in %s", found.step, self.out)
        return found.seconds

    def _capture(self) -> None:
        """Capture the step as a CUDA graph; the steps that it takes for that leave no trace."""
        if self.group.device.type != "cuda":
            return
        tensors = self.tensors()
        before = {name: value.clone() for name, value in tensors.items()}
        lanes = self.group.lanes(self.options.lanes)
        count = self.options.batch // self.options.lanes * len(lanes)
        self.step.capture(empty_inputs(count, self.networks, self.group.device))
        checkpoint.put_back(before, tensors)

    def _note_rendering(self, start: float) -> None:
        if self.feed.rendered and self.group.device.type == "cuda":
            torch.cuda.synchronize()
        if self.feed.rendered:
            speed = self.feed.rendered / (time.perf_counter() - start)
            log.info("%d heads rendered to begin with, %.0f a second", self.feed.rendered, speed)

    def _report(self, monitor: Monitor | None, sets: list[ValidationSet], seconds: float) -> None:
        """Write what is due after this step."""
        validation, saving = self.options.validation.every, self.options.checkpoint.every
        if self.taken % self.options.log == 0:
            self._log(monitor, seconds)
        due = validation > 0 and self.taken % validation == 0
        if due:
            self._validate(monitor, sets)
        if self.taken % saving == 0:
            self._save(seconds)
        if due or self.taken % saving == 0:
            self.clock.restart()

    def _log(self, monitor: Monitor | None, seconds: float) -> None:
        losses = dict(zip(self.networks, (self.sums[:-1] / self.sums[-1]).tolist(), strict=True))
        self.sums.zero_()
        if not all(loss == loss and abs(loss) < float("inf") for loss in losses.values()):
            raise TrainingError(f"step {self.taken}: the loss is not finite ({losses}); a lower rate or clip may help")
        speed = self.clock.read(self.options.batch)
        if monitor is None:
            return
        rate = rate_at(self.options.optimizer, self.length, self.taken, seconds)
        monitor.write(self.taken, "loss", losses)
        rendered = self.feed.rendered
        monitor.write(self.taken, "speed", {**speed, "seconds": seconds, "rendered": rendered, "rate": rate})
        parts = ", ".join(f"{name} {loss:.4f}" for name, loss in losses.items())
        log.info(
            "step %d (%.0f %%): loss %s; %.0f images/s, %.1f %% waiting for data",
            *(self.taken, 100 * self.length.share(self.taken, seconds), parts),
            *(speed["images_per_s"], 100 * speed["wait"]),
        )

    def _validate(self, monitor: Monitor | None, sets: list[ValidationSet]) -> None:
        if monitor is None or not sets:
            return
        # Looking for the fastest algorithms would take longer than it saves: many shapes, few passes each.
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=False, allow_tf32=True):
            measured = validate(self.averages | self.cascades, sets, self.guide)
        self.results = {name: each.figures for name, each in measured.items()}
        write_errors(self.out, measured, sets)
        monitor.write(self.taken, "validation", self.results)
        for name, figures in self.results.items():
            log.info("step %d: %s %s", self.taken, name, _shown(figures))
        if monitor.shows:
            self._show(monitor, sets)

    def _show(self, monitor: Monitor, sets: list[ValidationSet]) -> None:
        """Draw what the networks that need no points predict on the first faces."""
        for faces in sets:
            for name, trained in (self.averages | self.cascades).items():
                if trained.alone:
                    points = predict(trained, faces.images[:SHOWN], flip=faces.flip).cpu().numpy()
                    truth = faces.landmarks_2d if trained.kind == "2d" else faces.landmarks_3d[..., :2]
                    monitor.show(self.taken, f"{faces.name}/{name}", faces.images, points, truth)

    @property
    def _unsaved(self) -> bool:
        return self.taken % self.options.checkpoint.every != 0

    def _save(self, seconds: float) -> None:
        if self.group.leads:
            keep = self.options.checkpoint.keep
            checkpoint.save(self.out, self.tensors(), self.taken, seconds, self.config, keep)


def _shown(figures: Mapping[str, float]) -> str:
    """Print shares as per cent."""
    return ", ".join(
        f"{name} {value:.0f}" if name == "faces" else f"{name} {100 * value:.2f} %" for name, value in figures.items()
    )

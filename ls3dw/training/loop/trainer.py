"""The training loop: data, step, moving average, log, validation, checkpoints."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from ls3dw.errors import ConfigurationError, TrainingError
from ls3dw.training.data.feed import Feed, Prefetcher, make_slices, open_files
from ls3dw.training.data.heads import RendererFactory, open_renderer
from ls3dw.training.distributed import ProcessGroup, sync_norms
from ls3dw.training.loop import checkpoint
from ls3dw.training.loop.monitor import SHOWN, Monitor, StepTimer, write_errors
from ls3dw.training.loop.step import TrainStep, empty_inputs
from ls3dw.training.networks import TrainedNetwork, load_guide, make_cascades, make_networks
from ls3dw.training.objective.averages import MovingAverage, average_of, freeze_batch_norms
from ls3dw.training.objective.optimizers import rate_at, run_length, state_tensors
from ls3dw.training.options import TrainOptions, config_hash
from ls3dw.training.validation.predict import predict
from ls3dw.training.validation.sets import ValidationSet, make_sets
from ls3dw.training.validation.validate import Figures, validate

log = logging.getLogger(__name__)

QUEUED = 2
"""Steps in the GPU's queue at most: enough to keep it busy, few enough to know the time."""


class Trainer:
    """Runs a pipeline in the folder `out`, from its last checkpoint on.

    open_heads: makes the renderer, if a stream or the validation needs one; stop: asked after each step, ends the run
    with a checkpoint.
    """

    def __init__(
        self,
        options: TrainOptions,
        out: Path,
        group: ProcessGroup,
        open_heads: RendererFactory = open_renderer,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self.options = options
        self.out = out
        self.group = group
        self.config = config_hash(options)
        if options.minutes is not None and group.world > 1:
            raise ConfigurationError(
                "minutes: several processes need steps or epochs, so that all stop at the same one"
            )
        # Data first, to fail before anything slow.
        files = open_files(options)
        self.length = run_length(options, sum(map(len, files.values())))
        self.open_heads = open_heads
        slices = make_slices(options, files, open_heads, group)
        self.networks = make_networks(options.networks, options.seed, group.device)
        for name, trained in self.networks.items():
            self.networks[name] = TrainedNetwork(name, trained.options, sync_norms(trained.network, group))
        self.averages = {
            name: TrainedNetwork(name, trained.options, average_of(trained.network))
            for name, trained in self.networks.items()
        }
        self.cascades = make_cascades(options.cascades, self.averages)
        pairs = [(self.averages[name].network, self.networks[name].network) for name in self.networks]
        self.average = MovingAverage(pairs, options.ema)
        self.step = TrainStep(options, self.networks, group)
        self.guide = load_guide(options.guidance.model, group.device)
        self.feed = Feed(options, self.networks, slices, group.device, self.guide)
        self.timer = StepTimer(group)
        self.sums = torch.zeros(len(self.networks) + 1, device=group.device)
        """Sums of losses since the last line of the log, and their number."""
        self.results: dict[str, Figures] = {}
        """The last validation's figures by `set/network`."""
        self.taken = 0
        """Steps taken."""
        self.frozen = False
        """Whether batch norms are frozen, which makes the step another one."""
        self.stopped = False
        """Whether `stop` has ended the run."""
        self._stop = stop

    @property
    def exported(self) -> dict[str, TrainedNetwork]:
        """The averages and cascades that work by themselves: all but second stages."""
        return {name: each for name, each in (self.averages | self.cascades).items() if not each.is_second_stage}

    def tensors(self) -> dict[str, Tensor]:
        """Name every tensor of a checkpoint."""
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
        sets = make_sets(self.options.validation, self.open_heads, self.group.device) if self.group.is_main else []
        monitor = Monitor(self.out, self.taken) if self.group.is_main else None
        if self.length.progress(self.taken, seconds) < 1:
            seconds = self._train(seconds, monitor, sets)
        if self.taken % self.options.checkpoint.every != 0:
            self._save(seconds)
        if not self.stopped:
            self._validate(monitor, sets)
        if monitor is not None:
            monitor.close()
        return self.results

    def _train(self, seconds: float, monitor: Monitor | None, sets: list[ValidationSet]) -> float:
        """Take all steps that are left after `seconds` of training; return the seconds of all."""
        self._freeze_when_due(seconds)
        self._capture()
        prefetcher = Prefetcher(self.feed.inputs, self.group.device)
        self._prefetch_first(prefetcher)
        started = time.perf_counter() - seconds
        self.timer.restart()
        queue: deque[torch.cuda.Event] = deque()
        while not self.stopped and self.length.progress(self.taken, time.perf_counter() - started) < 1:
            if self._freeze_when_due(time.perf_counter() - started):
                self._capture()
            rate = rate_at(self.options.optimizer, self.length, self.taken, time.perf_counter() - started)
            self._take_step(prefetcher, rate)
            if self.group.device.type == "cuda":
                event = torch.cuda.Event()  # type: ignore[no-untyped-call]
                event.record(torch.cuda.current_stream())
                queue.append(event)
                if len(queue) > QUEUED:
                    queue.popleft().synchronize()
            self._report(monitor, sets, time.perf_counter() - started)
            self.stopped = self._stop()
        return time.perf_counter() - started

    def _freeze_when_due(self, seconds: float) -> bool:
        """Freeze the batch norms when the run reaches its last part; return whether this call did."""
        if self.frozen or self.length.progress(self.taken, seconds) < 1 - self.options.freeze_norms:
            return False
        for name, trained in self.networks.items():
            freeze_batch_norms(trained.network, self.averages[name].network)
        self.frozen = True
        return True

    def _take_step(self, prefetcher: Prefetcher, rate: float) -> None:
        """Take one step, and start to prefetch the next one's data."""
        inputs = self.timer.fetch(prefetcher.take)
        self.timer.begin()
        self.step(inputs, rate)
        self.average.update(self.taken)
        self.sums[:-1] += self.step.losses
        self.sums[-1] += 1
        self.timer.end()
        self.taken += 1
        prefetcher.start(self.taken)

    def _resume(self) -> float:
        """Restore the last checkpoint; return the seconds of training before it."""
        found = checkpoint.newest(self.out)
        if found is None:
            return 0.0
        checkpoint.check_same(found, self.config, self.out)
        checkpoint.restore(self.out, found, self.tensors())
        self.taken = found.step
        log.info("going on from step %d in %s", found.step, self.out)
        return found.seconds

    def _capture(self) -> None:
        """On a GPU capture the step as a CUDA graph, and undo the steps that this takes."""
        if self.group.device.type != "cuda":
            return
        tensors = self.tensors()
        before = {name: value.clone() for name, value in tensors.items()}
        count = self.options.batch // self.options.slices * len(self.group.slices(self.options.slices))
        self.step.capture(empty_inputs(count, self.networks, self.group.device))
        checkpoint.copy_into(before, tensors)

    def _prefetch_first(self, prefetcher: Prefetcher) -> None:
        """Start the first step's data, and log how fast its heads were rendered."""
        started = time.perf_counter()
        prefetcher.start(self.taken)
        if rendered := self.feed.rendered:
            if self.group.device.type == "cuda":
                torch.cuda.synchronize()
            speed = rendered / (time.perf_counter() - started)
            log.info("%d heads rendered to begin with, %.0f a second", rendered, speed)

    def _report(self, monitor: Monitor | None, sets: list[ValidationSet], seconds: float) -> None:
        """Log, validate and save if due after this step."""
        if self.taken % self.options.log == 0:
            self._log(monitor, seconds)
        validate_every, save_every = self.options.validation.every, self.options.checkpoint.every
        validation_due = validate_every > 0 and self.taken % validate_every == 0
        save_due = self.taken % save_every == 0
        if validation_due:
            self._validate(monitor, sets)
        if save_due:
            self._save(seconds)
        if validation_due or save_due:
            self.timer.restart()

    def _log(self, monitor: Monitor | None, seconds: float) -> None:
        losses = dict(zip(self.networks, (self.sums[:-1] / self.sums[-1]).tolist(), strict=True))
        self.sums.zero_()
        if not all(loss == loss and abs(loss) < float("inf") for loss in losses.values()):
            raise TrainingError(f"step {self.taken}: the loss is not finite ({losses}); a lower rate or clip may help")
        speed = self.timer.read(self.options.batch)
        if monitor is None:
            return
        rate = rate_at(self.options.optimizer, self.length, self.taken, seconds)
        monitor.write(self.taken, "loss", losses)
        rendered = self.feed.rendered
        monitor.write(self.taken, "speed", {**speed, "seconds": seconds, "rendered": rendered, "rate": rate})
        parts = ", ".join(f"{name} {loss:.4f}" for name, loss in losses.items())
        log.info(
            "step %d (%.0f %%): loss %s; %.0f images/s, %.1f %% waiting for data",
            *(self.taken, 100 * self.length.progress(self.taken, seconds), parts),
            *(speed["images_per_s"], 100 * speed["wait"]),
        )

    def _validate(self, monitor: Monitor | None, sets: list[ValidationSet]) -> None:
        if monitor is None or not sets:
            return
        networks = self.averages | self.cascades
        # No cuDNN benchmark: with many shapes and few passes each, it takes longer than it saves.
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=False, allow_tf32=True):
            errors = validate(networks, sets, self.guide)
        self.results = {name: each.figures for name, each in errors.items()}
        write_errors(self.out, errors, sets)
        monitor.write(self.taken, "validation", self.results)
        for name, figures in self.results.items():
            log.info("step %d: %s %s", self.taken, name, _percentages(figures))
        shown = [(faces, each) for faces in sets for each in networks.values() if each.image_only and monitor.shows]
        for faces, trained in shown:
            points = predict(trained, faces.images[:SHOWN], flip=faces.flip).cpu().numpy()
            monitor.show(self.taken, f"{faces.name}/{trained.name}", faces.images, points, faces.truth(trained.kind))

    def _save(self, seconds: float) -> None:
        if self.group.is_main:
            keep = self.options.checkpoint.keep
            checkpoint.save(self.out, self.tensors(), self.taken, seconds, self.config, keep)


def _percentages(figures: Mapping[str, float]) -> str:
    return ", ".join(
        f"{name} {value:.0f}" if name == "faces" else f"{name} {100 * value:.2f} %" for name, value in figures.items()
    )

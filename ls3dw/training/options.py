"""Options of a training run, read from a pipeline file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from ls3dw.core.files import dump_json, is_safe_name, sha256
from ls3dw.core.formats.yaml_text import parse_yaml
from ls3dw.core.options import parse_options, read_yaml
from ls3dw.errors import ConfigurationError
from ls3dw.synth.options import RenderOptions
from ls3dw.training.network_options import NEEDS, FirstStageOptions, GuidanceOptions, NetworkOptions, cascade_faults

StreamName = Literal["heads", "300wlp", "300w", "menpo", "dataset"]

OFFERS: Final[dict[StreamName, frozenset[str]]] = {
    "heads": frozenset({"2d", "3d", "z"}),
    "300wlp": frozenset({"2d", "3d"}),
    "300w": frozenset({"2d"}),
    "menpo": frozenset({"2d"}),
    "dataset": frozenset({"2d", "3d", "z"}),
}
"""Labels of the faces of a stream."""

FORMER_NAMES: Final = {"lanes": "slices", "settle": "freeze_norms"}
"""Options under the names that they had before; pipeline files may still use them."""


@dataclass(frozen=True)
class OptimizerOptions:
    """The optimizer and its learning rate.

    schedule: "cosine" falls to nearly zero; "geometric" falls to `last` by equal factors in equal times; "steps" sets
        the rate at each (epoch, rate) of `drops`
    warm_up: steps over which the rate rises from zero
    clip: largest norm of a network's gradient, 0: no limit
    """

    kind: Literal["adamw", "rmsprop", "sgd"] = "adamw"
    rate: float = 2e-3
    weight_decay: float = 0.0
    momentum: float = 0.0
    schedule: Literal["cosine", "geometric", "steps"] = "cosine"
    last: float | None = None
    drops: tuple[tuple[float, float], ...] = ()
    warm_up: int = 0
    clip: float = 0.0

    def faults(self) -> Iterator[str]:
        if self.rate <= 0 or min((rate for _, rate in self.drops), default=1.0) <= 0:
            yield "rates must be more than 0"
        if min(self.weight_decay, self.momentum, self.warm_up, self.clip) < 0:
            yield "weight_decay, momentum, warm_up and clip cannot be negative"
        if (self.schedule == "steps") != bool(self.drops):
            yield "schedule steps goes with drops: [[epoch, rate], ...], and the others without"
        if (self.schedule == "geometric") != (self.last is not None) or (self.last is not None and self.last <= 0):
            yield "schedule geometric goes with last: RATE, more than 0, and the others without"
        if [epoch for epoch, _ in self.drops] != sorted({epoch for epoch, _ in self.drops}):
            yield "the epochs of drops must rise"


@dataclass(frozen=True)
class TargetOptions:
    """Heatmaps. std: of the Gaussians, in cells; weight: a cell counts 1 + weight * target times, 0: plain MSE."""

    std: float = 1.0
    weight: float = 0.0

    def faults(self) -> Iterator[str]:
        if not 0 < self.std < 16 or self.weight < 0:
            yield "expected 0 < std < 16 and weight >= 0"


@dataclass(frozen=True)
class AugmentOptions:
    """Ranges of random augmentation.

    flip: probability
    rotation: degrees to either side
    scale: smallest and largest zoom
    translation: in sides of the crop
    box_noise: move of each edge of the face's box, in sides of the box
    spread: "uniform" over these ranges, or "normal" with the ranges as two standard deviations
    reflect: share of pictures continued by their mirror image instead of black
    colour: factors of the channels lie in 1 +- colour
    occlusion, blur: probability of a rectangle of noise, of a Gaussian blur
    degrade: probability of photographic degradation (blur, noise, JPEG, ...), rendered heads only
    """

    flip: float = 0.5
    rotation: float = 0.0
    scale: tuple[float, float] = (1.0, 1.0)
    translation: float = 0.0
    box_noise: float = 0.0
    spread: Literal["uniform", "normal"] = "uniform"
    reflect: float = 0.0
    colour: float = 0.0
    occlusion: float = 0.0
    blur: float = 0.0
    degrade: float = 0.0

    def faults(self) -> Iterator[str]:
        shares = (self.flip, self.reflect, self.occlusion, self.blur, self.degrade)
        if not all(0 <= share <= 1 for share in shares):
            yield "flip, reflect, occlusion, blur and degrade are probabilities from 0 to 1"
        if not 0 < self.scale[0] <= 1 <= self.scale[1] < 10:
            yield f"scale {list(self.scale)}: expected the smallest and the largest zoom, around 1"
        if not (0 <= self.rotation <= 180 and 0 <= self.colour < 1):
            yield "expected rotation from 0 to 180 degrees and colour from 0 to 1"
        if not (0 <= self.translation <= 0.5 and 0 <= self.box_noise < 0.5):
            yield "expected translation of at most 0.5 and box_noise of less than 0.5"


@dataclass(frozen=True)
class StreamOptions:
    """A source of a share of each batch.

    balance: number of pose bins to draw from equally (pose_bins.py), 0: no balancing
    augment: instead of the pipeline's
    For heads:
    pool: pictures kept on the device and drawn many times, each with new augmentation
    chunk, every: every `every` steps the `chunk` oldest pictures are replaced (0: never)
    start: pictures at the first step
    render: options of the renderer (`synth.options.RenderOptions`); size above 256 with zoom 256 / size leaves room
        around the crop for turning and shifting
    For all others:
    root, subsets, limit: folder, its subsets, number of faces
    version, subset: of a data set; a subset is one that `ls3dw subset` wrote, with its copies
    workers: decoding processes, 0: none
    """

    stream: StreamName
    share: float = 1.0
    root: Path | None = None
    subsets: tuple[str, ...] = ()
    limit: int | None = None
    version: str | None = None
    subset: str | None = None
    balance: int = 0
    workers: int = 4
    pool: int = 16384
    chunk: int = 128
    every: int = 4
    start: int = 1024
    render: Mapping[str, Any] = field(default_factory=dict)
    augment: AugmentOptions | None = None

    def faults(self) -> Iterator[str]:
        if self.share <= 0 or self.workers < 0 or (self.limit is not None and self.limit < 1):
            yield "expected share > 0, workers >= 0, limit >= 1"
        if (self.stream == "heads") == (self.root is not None):
            yield "heads are rendered: no root" if self.root else f"{self.stream} needs its folder: root"
        if not 1 <= self.chunk <= self.start <= self.pool or self.every < 0:
            yield "expected 1 <= chunk <= start <= pool and every >= 0"
        yield from self._balance_faults()
        try:
            render_options(self.render)
        except ConfigurationError as error:
            yield str(error)

    def _balance_faults(self) -> Iterator[str]:
        if self.balance < 0:
            yield f"balance {self.balance}: expected a number of bins, as 9, or 0"
        if self.stream == "heads" and self.balance and (self.every or self.start != self.pool):
            yield f"balance needs a pool that stays as it is: start: {self.pool}, every: 0"
        if self.subset is not None and (self.stream != "dataset" or self.balance):
            yield "subset is for the stream dataset, which is then drawn as the subset was: without balance"


def render_options(values: Mapping[str, Any]) -> RenderOptions:
    """Build the renderer's options from plain values; raises one `ConfigurationError` for all faults."""
    return parse_options(RenderOptions, values, "render")


@dataclass(frozen=True)
class RealOptions:
    """A source of real faces to validate on."""

    source: Literal["300wlp", "300w", "menpo", "aflw2000"]
    root: Path
    subsets: tuple[str, ...] = ()
    limit: int | None = 512


@dataclass(frozen=True)
class ValidationOptions:
    """Validation.

    every: steps between validations, 0: at the end only
    rendered, seed: number of held-out heads, and their own seed
    degrade: share of heads that are degraded
    real: sources of real faces
    flip: on real faces, average 2D predictions with those of the mirrored picture
    """

    every: int = 2000
    rendered: int = 0
    degrade: float = 1.0
    real: tuple[RealOptions, ...] = ()
    flip: bool = True
    seed: int = 1_000_003

    def faults(self) -> Iterator[str]:
        if min(self.every, self.rendered) < 0:
            yield "every and rendered cannot be negative"


@dataclass(frozen=True)
class CheckpointOptions:
    """Checkpoints. every: steps between them; keep: number of the last ones to keep."""

    every: int = 2000
    keep: int = 2

    def faults(self) -> Iterator[str]:
        if min(self.every, self.keep) < 1:
            yield "every and keep must be at least 1"


@dataclass(frozen=True)
class TrainOptions:
    """A whole pipeline.

    batch: pictures a step, over all processes
    slices: equal parts of the batch with their own random numbers, shared by the processes: any number of processes
        sees the same faces
    steps, epochs, minutes: length of the run, one of the three
    epoch: pictures an epoch, by default those of the file streams
    ema: decay of the moving average of the weights, 0: none
    freeze_norms: last share of the run, in which batch norms keep the statistics of the moving average
    log: steps between lines of the log
    cascades: names of two networks each, validated and exported as one
    """

    name: str
    data: tuple[StreamOptions, ...]
    networks: Mapping[str, NetworkOptions]
    batch: int
    seed: int = 0
    steps: int | None = None
    epochs: float | None = None
    minutes: float | None = None
    epoch: int | None = None
    slices: int = 1
    precision: Literal["fp32", "bf16"] = "fp32"
    ema: float = 0.0
    freeze_norms: float = 0.0
    log: int = 50
    optimizer: OptimizerOptions = field(default_factory=OptimizerOptions)
    targets: TargetOptions = field(default_factory=TargetOptions)
    augment: AugmentOptions = field(default_factory=AugmentOptions)
    guidance: GuidanceOptions = field(default_factory=GuidanceOptions)
    cascades: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    first_stage: FirstStageOptions = field(default_factory=FirstStageOptions)
    validation: ValidationOptions = field(default_factory=ValidationOptions)
    checkpoint: CheckpointOptions = field(default_factory=CheckpointOptions)

    def faults(self) -> Iterator[str]:
        yield from self._length_faults()
        if self.batch < 1 or self.slices < 1 or self.batch % self.slices:
            yield f"batch {self.batch}, slices {self.slices}: expected slices that divide the batch"
        elif self.data and self.batch // self.slices < len(self.data):
            yield f"batch {self.batch} in {self.slices} slices: too small for {len(self.data)} streams"
        if not 0 <= self.ema < 1 or self.log < 1:
            yield "expected ema from 0 to below 1, and log of at least 1"
        if not 0 <= self.freeze_norms <= 1:
            yield f"freeze_norms {self.freeze_norms}: expected a share of the run, from 0 to 1"
        if not self.data or not self.networks:
            yield "expected at least one stream under data and at least one network under networks"
        yield from self._need_faults()
        yield from cascade_faults(self.cascades, self.networks)
        for name in (self.name, *self.networks, *self.cascades):
            if not is_safe_name(name):
                yield f"name {name!r}: expected letters, digits and ._+- only"

    def _length_faults(self) -> Iterator[str]:
        given = [value for value in (self.steps, self.epochs, self.minutes) if value is not None]
        if len(given) != 1 or given[0] <= 0:
            yield "expected one of steps, epochs and minutes, more than 0"
        counted = self.epochs is not None or self.optimizer.schedule == "steps"
        if counted and self.epoch is None and all(stream.stream == "heads" for stream in self.data):
            yield "epochs of rendered heads need a length: epoch: PICTURES"
        if self.epoch is not None and self.epoch < 1:
            yield f"epoch {self.epoch}: expected at least 1"

    def _need_faults(self) -> Iterator[str]:
        offered = frozenset[str]().union(*(OFFERS[stream.stream] for stream in self.data))
        for name, options in self.networks.items():
            if missing := sorted(NEEDS[options.kind] - offered):
                yield f"networks.{name}: no stream has what a {options.kind} network learns from ({', '.join(missing)})"
        if self.guidance.model is not None and all(each.kind != "2d-to-3d" for each in self.networks.values()):
            yield "guidance.model: no 2d-to-3d network under networks, which alone it guides"


def read_options(path: Path, changes: Mapping[str, Any] | None = None) -> TrainOptions:
    """Read a training pipeline. changes: values to replace, by dotted name, such as `optimizer.rate`.

    Raises one `ConfigurationError` for all faults.
    """
    values = _with_present_names(read_yaml(path))
    for name, value in _with_present_names(changes or {}).items():
        _set(values, name, value)
    return make_options(values, str(path))


def make_options(values: Any, where: str = "pipeline") -> TrainOptions:
    """Build the options from plain values; raises one `ConfigurationError` for all faults."""
    return parse_options(TrainOptions, _with_present_names(values), prefix=f"{where}: ")


def _with_present_names(values: Any) -> Any:
    if not isinstance(values, Mapping):
        return values
    return {FORMER_NAMES.get(name, name): value for name, value in values.items()}


def read_change(text: str) -> tuple[str, Any]:
    """Split `name=value` of the command line; the value is YAML."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise ConfigurationError(f"--set {text!r}: expected name=value, as in --set optimizer.rate=0.001")
    try:
        return name, parse_yaml(value)
    except ValueError as error:
        raise ConfigurationError(f"--set {text!r}: the value is not YAML") from error


def _set(values: Any, name: str, value: Any) -> None:
    """Replace the value at a dotted name, with numbers for places in lists: `data.0.root`."""
    *path, last = name.split(".")
    place = values
    for word in path:
        if isinstance(place, list) and word.isdecimal() and int(word) < len(place):
            place = place[int(word)]
        elif isinstance(place, dict):
            place = place.setdefault(word, {})
    if isinstance(place, list) and last.isdecimal() and int(last) < len(place):
        place[int(last)] = value
    elif isinstance(place, dict):
        place[last] = value
    else:
        raise ConfigurationError(f"--set {name}: no such place in the pipeline")


def recorded(options: TrainOptions) -> dict[str, Any]:
    """Return the options that decide the weights, as plain values: all but validation and checkpoints."""
    values = asdict(options)
    for name in ("validation", "checkpoint"):
        del values[name]
    plain: dict[str, Any] = _plain(values)
    return plain


def config_hash(options: TrainOptions) -> str:
    return sha256(dump_json(recorded(options)))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(entry) for entry in value]
    return str(value) if isinstance(value, Path) else value

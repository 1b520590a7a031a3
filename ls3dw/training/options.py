"""What a training run was asked for: frozen dataclasses, read from a pipeline file, all faults reported at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from ls3dw.building.options import read_yaml
from ls3dw.core.files import dump_json, is_safe_name, sha256
from ls3dw.core.formats.yaml_text import parse_yaml
from ls3dw.errors import ConfigurationError
from ls3dw.synth.options import RenderOptions
from ls3dw.training.network_options import NEEDS, NetworkOptions, cascade_faults
from ls3dw.training.parsing import parse

StreamName = Literal["heads", "300wlp", "300w", "menpo", "dataset"]

OFFERS: Final[dict[StreamName, frozenset[str]]] = {
    "heads": frozenset({"2d", "3d", "z"}),
    "300wlp": frozenset({"2d", "3d"}),
    "300w": frozenset({"2d"}),
    "menpo": frozenset({"2d"}),
    "dataset": frozenset({"2d", "3d", "z"}),
}
"""What the faces of a stream come with."""


@dataclass(frozen=True)
class OptimizerOptions:
    """schedule: "cosine" falls to nearly zero at the end; "geometric" to `last`, by the same factor in equal times;
    "steps" changes the rate at each (epoch, rate) of `drops`.
    warm_up: steps over which the rate rises from zero; clip: largest norm of a network's gradient, 0: any."""

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
    """std: of the Gaussians in heatmap cells; weight: a cell counts 1 + weight * target times, 0: plain MSE."""

    std: float = 1.0
    weight: float = 0.0

    def faults(self) -> Iterator[str]:
        if not 0 < self.std < 16 or self.weight < 0:
            yield "expected 0 < std < 16 and weight >= 0"


@dataclass(frozen=True)
class AugmentOptions:
    """Ranges of what is drawn for each picture.

    flip: probability; rotation: degrees to either side; scale: smallest and largest zoom; translation: share of the
    crop's side; box_noise: share of its side by which each edge of the face's box moves; spread: "uniform" over these
    ranges, or "normal" with the ranges as two standard deviations; reflect: share of pictures that are continued by
    their mirror image, not by black; colour: factors of the channels in 1 +- colour; occlusion: probability of a
    rectangle of noise; blur: probability of a Gaussian blur; degrade: of the photographic degradation of rendered heads
    (blur, noise, JPEG, ...).
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
    """Where a share of each batch comes from.

    heads: `pool` pictures are kept on the device and drawn again with other augmentation; every `every` steps the
    `chunk` oldest are replaced (0: never); training begins with `start` of them; render: options
    of the renderer (`synth.options.RenderOptions`). size above 256 with zoom 256 / size leaves room around the crop for
    turning and shifting. Others: `root`, and of it some `subsets`; `limit`
    faces; `version` of a data set, and a `subset` of it that `ls3dw subset` wrote, with its copies; `workers`:
    processes that decode (0: none).
    balance: bins of pose that come equally often (pose_bins.py), 0: as they come. augment: in place of the pipeline's.
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
    """Build the renderer's options from plain values; `ConfigurationError` names every fault."""
    faults: list[str] = []
    options = parse(RenderOptions, values, faults, "render")
    if options is None or faults:
        raise ConfigurationError("; ".join(faults))
    return options


@dataclass(frozen=True)
class GuidanceOptions:
    """How 2D predictions err, in crop pixels; see guidance.py.

    model: a 2D network (a zoo name or a file) whose own predictions guide 2D-to-3D FANs on a share `predicted` of the
    faces, in place of true points with errors drawn."""

    spread: float = 4.0
    shift: float = 0.7
    jaw: float = 6.0
    gross: float = 0.03
    gross_size: float = 25.0
    model: str | None = None
    predicted: float = 0.0

    def faults(self) -> Iterator[str]:
        if min(self.spread, self.shift, self.jaw, self.gross, self.gross_size, self.predicted) < 0:
            yield "no value can be negative"
        if max(self.gross, self.predicted) > 1:
            yield "gross and predicted are probabilities"
        if (self.model is not None) != (self.predicted > 0):
            yield "model and predicted go together: the 2D network, and the share of faces that its predictions guide"


@dataclass(frozen=True)
class FirstStageOptions:
    """How stage one of a cascade errs where stage two is trained: standard deviations of the face's turn in degrees, of
    the logarithm of its box's size, and of its place on each axis in sides of the box."""

    rotation: float = 5.0
    zoom: float = 0.05
    shift: float = 0.03

    def faults(self) -> Iterator[str]:
        if min(asdict(self).values()) < 0:
            yield "no value can be negative"


@dataclass(frozen=True)
class RealOptions:
    """A source of real faces to validate on."""

    source: Literal["300wlp", "300w", "menpo", "aflw2000"]
    root: Path
    subsets: tuple[str, ...] = ()
    limit: int | None = 512


@dataclass(frozen=True)
class ValidationOptions:
    """every: steps between validations, 0: at the end only; rendered: held-out heads, of a `seed` of their own, of
    which a share (`degrade`) look like photographs of many qualities; real: sources of real faces; flip: average 2D
    heatmaps or points with those of the mirrored picture on real faces."""

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
    """every: steps between checkpoints; keep: how many of the last are kept."""

    every: int = 2000
    keep: int = 2

    def faults(self) -> Iterator[str]:
        if min(self.every, self.keep) < 1:
            yield "every and keep must be at least 1"


@dataclass(frozen=True)
class TrainOptions:
    """A whole pipeline. One of steps, epochs and minutes says how long it runs; `batch` pictures a step (all processes
    together) in `lanes` with their own random numbers, so that N processes, each with its lanes, see what one would.

    epoch: pictures that count as one, by default those of the file streams. log: steps between lines of the log.
    settle: share of the run, at its end, in which batch norms keep the statistics of the moving average (norms.py).
    cascades: the names of two networks each, which are validated and exported as one.
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
    lanes: int = 1
    precision: Literal["fp32", "bf16"] = "fp32"
    ema: float = 0.0
    settle: float = 0.0
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
        if self.batch < 1 or self.lanes < 1 or self.batch % self.lanes:
            yield f"batch {self.batch}, lanes {self.lanes}: expected lanes that divide the batch"
        elif self.data and self.batch // self.lanes < len(self.data):
            yield f"batch {self.batch} in {self.lanes} lanes: too small for {len(self.data)} streams"
        if not 0 <= self.ema < 1 or self.log < 1:
            yield "expected ema from 0 to below 1, and log of at least 1"
        if not 0 <= self.settle <= 1:
            yield f"settle {self.settle}: expected a share of the run, from 0 to 1"
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
    """Read a training pipeline; changes: dotted names and values that replace those of the file.

    Raises `ConfigurationError` that names every fault.
    """
    values = read_yaml(path)
    for name, value in (changes or {}).items():
        _set(values, name, value)
    return make_options(values, str(path))


def make_options(values: Any, where: str = "pipeline") -> TrainOptions:
    """Check plain values and build the options; `ConfigurationError` names every fault."""
    faults: list[str] = []
    options = parse(TrainOptions, values, faults)
    if faults or options is None:
        raise ConfigurationError(f"{where}: {'; '.join(faults)}")
    return options


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
    """Replace the value at a dotted name; numbers go into lists: `data.0.root`."""
    *way, last = name.split(".")
    place = values
    for word in way:
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
    """Return what decides the weights, as plain values: all but validation and checkpoints, which only look on."""
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

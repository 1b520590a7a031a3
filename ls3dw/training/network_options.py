"""Options of networks, of cascades of two, and of the errors of the points that they are given."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from ls3dw.models.weights.contract import CLASSES_OF, COORDINATES, Kind

LossName = Literal["wing", "l1", "l2", "smooth_l1"]

CASCADE: Final = "Cascade"

NEEDS: Final[dict[Kind, frozenset[str]]] = {
    "2d": frozenset({"2d"}),
    "3d": frozenset({"3d"}),
    "2d-to-3d": frozenset({"2d", "3d"}),
    "depth": frozenset({"3d", "z"}),
}
"""Labels that a network learns from."""


@dataclass(frozen=True)
class NetworkOptions:
    """Options of one network.

    network: class and its arguments
    init: "random", or weights to start from (a zoo name or a file)
    noise: factor on the guidance noise
    rate: factor on the optimizer's rate
    For networks that give coordinates:
    loss: by default "wing" with `w` and `epsilon`, in pixels of the network's input (losses.py)
    stage: 2 trains on crops straightened by points with the errors of `first_stage`
    """

    kind: Kind
    network: Mapping[str, Any]
    init: str = "random"
    noise: float = 1.0
    rate: float = 1.0
    loss: LossName | None = None
    w: float = 10.0
    epsilon: float = 2.0
    stage: int = 1

    @property
    def coordinates(self) -> bool:
        """Whether it gives coordinates rather than heatmaps or depth."""
        return self.network.get("class") in COORDINATES

    def faults(self) -> Iterator[str]:
        if self.network.get("class") == CASCADE:
            yield "a cascade is not trained as a whole: name its two networks under cascades"
        elif self.network.get("class") not in CLASSES_OF[self.kind]:
            classes = " or ".join(name for name in CLASSES_OF[self.kind] if name != CASCADE)
            yield f"network {dict(self.network)}: expected class {classes} for kind {self.kind}"
        elif not self.coordinates and (self.loss is not None or self.stage != 1):
            yield f"loss and stage are for networks that give coordinates, {', '.join(COORDINATES[:-1])}"
        if self.noise < 0 or min(self.rate, self.w, self.epsilon) <= 0:
            yield "noise cannot be negative, and rate, w and epsilon must be more than 0"
        if self.stage not in (1, 2):
            yield f"stage {self.stage}: expected 1 or 2"


def cascade_faults(cascades: Mapping[str, tuple[str, str]], networks: Mapping[str, NetworkOptions]) -> Iterator[str]:
    """Yield what is wrong with cascades; each is the names of its two networks."""
    for name, stages in cascades.items():
        if name in networks:
            yield f"cascades.{name}: a network has this name too"
        for number, stage in enumerate(stages, 1):
            options = networks.get(stage)
            if options is None or not options.coordinates or options.stage != number:
                yield f"cascades.{name}: {stage!r}, expected a network that gives coordinates, with stage: {number}"
        if len({networks[stage].kind for stage in stages if stage in networks}) > 1:
            yield f"cascades.{name}: its networks are of two kinds"
    second = {stages[1] for stages in cascades.values()}
    for name, options in networks.items():
        if options.stage == 2 and name not in second:
            yield f"networks.{name}: stage 2 of no cascade; name it under cascades: {{NAME: [FIRST, {name}]}}"


@dataclass(frozen=True)
class GuidanceOptions:
    """Errors of guiding points, in crop pixels; see guidance.py.

    model: a 2D network (a zoo name or a file) whose predictions guide 2D-to-3D FANs on a share `predicted` of the
    faces, instead of true points with random errors
    """

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
    """Errors of a cascade's stage one in training stage two: standard deviations of the face's turn (degrees), of the
    logarithm of its size, and of its place on each axis (sides of its box)."""

    rotation: float = 5.0
    zoom: float = 0.05
    shift: float = 0.03

    def faults(self) -> Iterator[str]:
        if min(asdict(self).values()) < 0:
            yield "no value can be negative"

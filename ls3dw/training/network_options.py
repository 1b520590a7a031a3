"""What a pipeline asks of each network, and of cascades of two."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
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
"""What a network learns from."""


@dataclass(frozen=True)
class NetworkOptions:
    """network: class and its arguments; init: "random", or weights to start from (a zoo name or a file); noise: how
    strong the guidance noise is for this network, 1: as in `guidance`; rate: the optimizer's rate times this.

    Of networks that give coordinates: loss, by default "wing" with its `w` and `epsilon`, in pixels of the network's
    input (losses.py); stage: 2 is trained on crops straightened by points that err as `first_stage` says.
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
    """Say what is wrong with cascades, each the names of its two networks."""
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

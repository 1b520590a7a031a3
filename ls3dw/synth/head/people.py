"""The difference between people's mean head and the head file's mean, which is that of MakeHuman's heads.

`docs/reports/2026-11-22/placement.md` describes the data it was fitted on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from ls3dw.core.files import dump_json, read_json
from ls3dw.core.sample import Doubles
from ls3dw.errors import ConfigurationError

BUNDLED: Final = Path(__file__).parents[2] / "bundled" / "people.json"

_SIZES: Final = {"stretch": 3, "lips": 2}


@dataclass(frozen=True)
class People:
    """People's mean head: the head file's mean plus identity @ its directions, then stretched, with thinner lips.

    identity: (I,) in standard deviations, for the directions of one head file
    stretch: (3,) relative growth of width, height and depth
    lips: (2,) relative loss of height of the upper and the lower lip
    fitted_on: description of the data
    """

    identity: Doubles
    stretch: Doubles
    lips: Doubles
    fitted_on: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def none(cls, directions: int) -> People:
        """Return no difference."""
        return cls(np.zeros(directions), np.zeros(3), np.zeros(2))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for `from_dict`."""
        values = {name: getattr(self, name) for name in ("identity", "stretch", "lips")}
        rounded = {name: [round(float(value), 4) for value in numbers] for name, numbers in values.items()}
        return {**rounded, "fitted_on": dict(self.fitted_on)}

    @classmethod
    def from_dict(cls, values: Any, where: str) -> People:
        """Build from plain values; raises one `ConfigurationError` for all faults."""
        try:
            identity, stretch, lips = (np.array(values[name], np.float64) for name in ("identity", "stretch", "lips"))
            people = cls(identity, stretch, lips, dict(values["fitted_on"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigurationError(
                f"{where}: not a mean of people ({type(error).__name__}: {error}); "
                "expected identity, stretch, lips and fitted_on as `ls3dw/bundled/people.json` has them"
            ) from error
        faults = [
            f"{name} of shape {getattr(people, name).shape}, expected ({size},)"
            for name, size in {"identity": people.identity.size, **_SIZES}.items()
            if getattr(people, name).shape != (size,)
        ]
        names = ("identity", *_SIZES)
        faults += [f"{name} not finite" for name in names if not np.isfinite(getattr(people, name)).all()]
        if faults:
            raise ConfigurationError(f"{where}: {'; '.join(faults)}")
        return people


def load_people(path: Path | None = None) -> People:
    """Read and check a mean of people, by default the bundled one."""
    path = BUNDLED if path is None else path
    return People.from_dict(read_json(path, ConfigurationError), str(path))


def dump_people(people: People) -> bytes:
    """Encode as JSON that `load_people` reads."""
    return dump_json(people.to_dict())

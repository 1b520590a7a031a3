"""What the rendered heads are drawn from."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

from ls3dw.core.geometry import CROP_SIZE
from ls3dw.errors import ConfigurationError


@dataclass(frozen=True)
class RenderOptions:
    """The main parameters of the distributions. Angles in degrees; shares and chances from 0 to 1."""

    size: int = CROP_SIZE
    """Side of the pictures in pixels."""

    uniform_share: float = 0.65
    """Share of heads whose yaw is uniform over +-`yaw_limit`."""

    profile_share: float = 0.07
    """Share of heads in profile: yaw uniform from `PROFILE` to `yaw_limit`, to either side. All others: `yaw_std`."""

    yaw_limit: float = 92.0
    yaw_std: float = 26.0
    pitch_std: float = 16.0
    roll_std: float = 17.0

    turned_share: float = 0.12
    """Share of pictures that are turned by any angle: people who lie, cameras held askew."""

    convention_2d: str = "300w"
    convention_3d: str = "aflw2000-3d"
    """Whose points they are (`synth/conventions.py`): `merl-rav` are the placement's own."""

    zoom: float = 1.0
    """Scale of the face against the published crop; below 1 leaves room for turning and scaling the picture later."""

    zoom_std: float = 0.13
    """Standard deviation of the logarithm of the scale."""

    shift_std: float = 0.035
    """Standard deviation of the crop's place on each axis, in sides of the crop."""

    perspective_chance: float = 0.7
    """Chance of a near camera; the others see the head from afar."""

    glasses_chance: float = 0.3
    hat_chance: float = 0.12
    long_hair_chance: float = 0.35
    locks_chance: float = 0.16
    """Chance of locks across the face, for heads that have hair: 94 of 100."""

    backgrounds: Path | None = None
    """Folder of pictures that backgrounds are cut from too; each takes 0.4 MB of the device's memory."""

    def __post_init__(self) -> None:
        shares = {
            entry.name: getattr(self, entry.name) for entry in fields(self) if entry.name.endswith(("share", "chance"))
        }
        faults = [f"{name} {value}: expected 0 to 1" for name, value in shares.items() if not 0 <= value <= 1]
        if self.uniform_share + self.profile_share > 1:
            faults.append(
                f"uniform_share + profile_share {self.uniform_share + self.profile_share}: expected at most 1"
            )
        if self.size < 16:
            faults.append(f"size {self.size}: expected at least 16")
        if self.zoom <= 0:
            faults.append(f"zoom {self.zoom}: expected more than 0")
        if faults:
            raise ConfigurationError("; ".join(faults))

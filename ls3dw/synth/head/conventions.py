"""Labelling conventions: where a data set puts the 68 points, as offsets from the placement's.

The placement follows the labels of MERL-RAV. 300-W's annotators put 2D points elsewhere, and AFLW2000-3D has the
vertices of a fitted model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from ls3dw.core.markup import GROUPS, MIRROR, POINTS
from ls3dw.core.sample import Doubles
from ls3dw.errors import ConfigurationError

PLAIN: Final = "merl-rav"
"""Convention of the placement itself."""

JAW: Final = len(GROUPS["jaw"])

OTHER_PARTS: Final = 30.0
"""Cost of a weight between points of different parts of the face; within one part it is 1."""

_PARTS: Final = ("jaw", "right brow", "left brow", "nose ridge", "nose base", "right eye", "left eye")


@dataclass(frozen=True)
class Convention:
    """Offsets of points from the placement's, on people's mean head with its mean expression.

    offsets (68, 3): head units in the head frame. jaw_yaws (K,): rising degrees; jaw_spacing (K, 17): how far each jaw
    point lies along the visible contour at such a yaw, in steps from one of its points to the next; yaw >= 0, where the
    nose points to the left of the picture: with yaw < 0 it is mirrored. `fitted_on` says what it was fitted on.
    """

    offsets: Doubles
    jaw_yaws: Doubles
    jaw_spacing: Doubles
    fitted_on: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def plain(cls) -> Convention:
        """Return what leaves the points where the placement has them."""
        return cls(np.zeros((POINTS, 3)), np.zeros(1), np.zeros((1, JAW)))

    def to_dict(self) -> dict[str, Any]:
        """Return what `from_dict` reads, ready for JSON."""
        values = {name: getattr(self, name) for name in ("offsets", "jaw_yaws", "jaw_spacing")}
        return {
            **{name: np.round(array, 4).tolist() for name, array in values.items()},
            "fitted_on": dict(self.fitted_on),
        }

    @classmethod
    def from_dict(cls, values: Any, where: str) -> Convention:
        """Check and build; `ConfigurationError` names what is wrong."""
        try:
            offsets, yaws, spacing = (
                np.array(values[name], np.float64) for name in ("offsets", "jaw_yaws", "jaw_spacing")
            )
            convention = cls(offsets, yaws, spacing, dict(values["fitted_on"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigurationError(
                f"{where}: not a convention of the points ({type(error).__name__}: {error})"
            ) from error
        expected = ((POINTS, 3), (len(yaws),), (len(yaws), JAW)) if yaws.ndim == 1 and len(yaws) else ()
        if (offsets.shape, yaws.shape, spacing.shape) != expected or not (np.diff(yaws) > 0).all():
            raise ConfigurationError(
                f"{where}: offsets {offsets.shape}, jaw_yaws {yaws.shape}, jaw_spacing {spacing.shape};"
                f" expected ({POINTS}, 3), rising (K,) and (K, {JAW})"
            )
        if not all(np.isfinite(array).all() for array in (offsets, yaws, spacing)):
            raise ConfigurationError(f"{where}: values that are not finite")
        return convention


class Conventional:
    """Moves the points of posed heads to those of a convention.

    mean (68, 3): the placement's points on the mean head. Each new point is a weighted sum of the old ones, with
    weights that give its offset on the mean head. So it follows lips and lids of any expression, in any frame.
    """

    def __init__(self, convention: Convention, mean: Tensor) -> None:
        device = mean.device
        self.shares = torch.from_numpy(_shares(convention.offsets, mean.double().cpu().numpy())).float().to(device)
        self._yaws = torch.from_numpy(convention.jaw_yaws).float().to(device)
        self._spacing = torch.from_numpy(convention.jaw_spacing).float().to(device)

    def points(self, points: Tensor) -> Tensor:
        """Move points (B, 68, C)."""
        return self.shares @ points

    def contour(self, jaw: Tensor, yaw: Tensor) -> Tensor:
        """Space the jaw's points (B, 17, C) anew along the visible contour; yaw (B,) degrees."""
        size = yaw.abs().contiguous()
        if len(self._yaws) == 1:
            steps = self._spacing.expand(len(jaw), -1)
        else:
            place = (torch.searchsorted(self._yaws, size) - 1).clamp(0, len(self._yaws) - 2)
            low, high = self._yaws[place], self._yaws[place + 1]
            share = ((size - low) / (high - low)).clamp(0, 1)[:, None]
            steps = torch.lerp(self._spacing[place], self._spacing[place + 1], share)
        steps = torch.where((yaw < 0)[:, None], -steps.flip(1), steps)
        return along(jaw, torch.arange(JAW, device=jaw.device) + steps)


def along(curve: Tensor, place: Tensor) -> Tensor:
    """Find places (B, M; 0 to P - 1) of the smooth curves through points (B, P, C); straight on beyond their ends."""
    last = curve.shape[1] - 1
    before, after = 2 * curve[:, :1] - curve[:, 1:2], 2 * curve[:, -1:] - curve[:, -2:-1]
    padded = torch.cat((before, curve, after), dim=1)
    first = place.floor().clamp(0, last - 1)
    share = (place - first)[..., None]
    inside = share.clamp(0, 1)
    index = first.long()[..., None].expand(-1, -1, curve.shape[2])
    a, b, c, d = (padded.gather(1, index + step) for step in range(4))
    bend = (2 * a - 5 * b + 4 * c - d) * inside + (3 * b - a - 3 * c + d) * inside.square()
    smooth = b + 0.5 * inside * (c - a + bend)
    return smooth + (share - inside) * (c - b)


def _shares(offsets: Doubles, mean: Doubles) -> Doubles:
    """Return the smallest weights (68, 68), rows summing to 1, that move the mean head's points by the offsets."""
    part = np.zeros(POINTS, np.int64)
    for number, name in enumerate(_PARTS):
        part[list(GROUPS[name])] = number + 1
    places = np.concatenate((mean.T, np.ones((1, POINTS))))
    shares: Doubles = np.eye(POINTS)
    for point in range(POINTS):
        cheap = places / np.where(part == part[point], 1.0, OTHER_PARTS)
        shares[point] += cheap.T @ np.linalg.solve(cheap @ places.T, np.append(offsets[point], 0.0))
    return shares


def symmetric(offsets: Doubles) -> Doubles:
    """Average offsets (68, 3) with their mirror image."""
    both: Doubles = (offsets + offsets[list(MIRROR)] * np.array([-1.0, 1.0, 1.0])) / 2
    return both

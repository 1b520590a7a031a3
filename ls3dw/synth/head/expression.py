"""What faces do: random weights of the facial actions, and where the eyes look."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from ls3dw.synth.rng import SplitRng
from ls3dw.synth.shade.tensors import constant


@dataclass(frozen=True)
class Habit:
    """Actions that come together: with this chance, at one strength drawn from low to high (low ones more often).

    A name without a side (`eyeBlink`) means both sides.
    """

    chance: float
    low: float
    high: float
    actions: Mapping[str, float]


HABITS: Final = (
    Habit(0.12, 0.0, 0.8, {"jawOpen": 1}),
    Habit(0.30, 0.1, 1.1, {"mouthSmile": 1, "cheekSquint": 0.4}),
    Habit(0.32, 0.4, 1.1, {"mouthSmile": 1, "mouthUpperUp": 0.6, "mouthLowerDown": 0.45, "jawOpen": 0.12}),
    Habit(0.07, 0.4, 1.0, {"mouthSmile": 1, "mouthUpperUp": 0.5, "mouthLowerDown": 0.6, "jawOpen": 0.6}),
    Habit(0.04, 0.6, 1.0, {"jawOpen": 1, "mouthStretch": 0.4, "mouthUpperUp": 0.4, "mouthLowerDown": 0.6}),
    Habit(0.03, 0.5, 1.0, {"jawOpen": 0.9, "eyeBlink": 1, "mouthFunnel": 0.3}),
    Habit(0.06, 0.4, 1.0, {"jawOpen": 0.5, "browInnerUp": 0.9, "browOuterUp": 0.9, "eyeWide": 1}),
    Habit(0.06, 0.4, 1.0, {"jawOpen": 0.4, "mouthClose": 0.4}),
    Habit(0.09, 0.3, 1.0, {"mouthPress": 0.9, "mouthRollLower": 0.7, "mouthRollUpper": 0.5}),
    Habit(0.06, 0.3, 1.0, {"noseSneer": 0.9, "browDown": 0.9, "mouthUpperUp": 0.8, "eyeSquint": 0.5}),
    Habit(0.06, 0.3, 1.0, {"mouthFrown": 0.9, "browInnerUp": 0.8, "mouthShrugLower": 0.5}),
    Habit(0.10, 0.2, 0.9, {"mouthRollLower": 0.8, "mouthRollUpper": 0.6}),
    Habit(0.15, 0.0, 1.0, {"mouthUpperUp": 0.7, "mouthLowerDown": 0.8}),
    Habit(0.10, 0.0, 0.8, {"mouthStretch": 1}),
    Habit(0.10, 0.0, 0.8, {"mouthFrown": 1}),
    Habit(0.08, 0.0, 0.7, {"mouthDimple": 1}),
    Habit(0.05, 0.0, 0.8, {"mouthDimpleLeft": 1, "mouthSmileLeft": 0.6}),
    Habit(0.05, 0.0, 0.8, {"mouthDimpleRight": 1, "mouthSmileRight": 0.6}),
    Habit(0.10, 0.1, 0.9, {"mouthPucker": 1}),
    Habit(0.08, 0.1, 0.8, {"mouthFunnel": 1, "jawOpen": 0.2}),
    Habit(0.06, 0.0, 0.6, {"jawForward": 1}),
    Habit(0.05, 0.0, 0.6, {"jawLeft": 1, "mouthLeft": 0.5}),
    Habit(0.05, 0.0, 0.6, {"jawRight": 1, "mouthRight": 0.5}),
    Habit(0.04, 0.0, 0.6, {"mouthLeft": 1}),
    Habit(0.04, 0.0, 0.6, {"mouthRight": 1}),
    Habit(0.05, 0.0, 0.6, {"mouthShrugLower": 1}),
    Habit(0.05, 0.0, 0.6, {"mouthShrugUpper": 1}),
    Habit(0.05, 0.1, 0.8, {"cheekPuff": 1}),
    Habit(0.03, 0.0, 0.7, {"tongueOut": 1}),
    Habit(0.12, 0.0, 0.8, {"noseSneer": 1}),
    Habit(0.25, 0.0, 0.9, {"eyeSquint": 1}),
    Habit(0.15, 0.0, 0.9, {"eyeWide": 1}),
    Habit(0.25, 0.0, 1.0, {"browDown": 1}),
    Habit(0.15, 0.0, 1.0, {"browOuterUp": 1}),
    Habit(0.15, 0.0, 1.0, {"browInnerUp": 1}),
    Habit(0.03, 0.2, 1.0, {"browOuterUpLeft": 1, "browDownRight": 0.5}),
    Habit(0.03, 0.2, 1.0, {"browOuterUpRight": 1, "browDownLeft": 0.5}),
    Habit(0.12, 0.8, 1.0, {"eyeBlink": 1}),
    Habit(0.40, 0.0, 0.5, {"eyeBlink": 1}),
    Habit(0.12, 0.3, 1.0, {"eyeSquint": 1, "cheekSquint": 0.7, "eyeBlink": 0.35}),
    Habit(0.02, 0.7, 1.0, {"eyeBlinkLeft": 1, "cheekSquintLeft": 0.7}),
    Habit(0.02, 0.7, 1.0, {"eyeBlinkRight": 1, "cheekSquintRight": 0.7}),
)

LARGEST_GAZE: Final = (0.6, 0.42)
"""Radians that eyes turn aside, and up or down."""

_PRESSED = ("mouthPressLeft", "mouthPressRight", "mouthRollLower", "mouthRollUpper", "mouthPucker")
_FULL_LOOK = 0.4
"""Radians at which lids have followed the gaze by one whole action."""


def habit_matrix(names: tuple[str, ...]) -> Tensor:
    """Return what each habit adds to each action: (len(HABITS), len(names)). Actions that a head lacks are left out."""
    rows = [[_share(habit, name) for name in names] for habit in HABITS]
    return torch.tensor(rows, dtype=torch.float32)


def _share(habit: Habit, name: str) -> float:
    return float(
        habit.actions.get(name, 0)
        + habit.actions.get(name.removesuffix("Left").removesuffix("Right"), 0) * (name.endswith(("Left", "Right")))
    )


class Expressions:
    """Draws the weights of a head's facial actions."""

    def __init__(self, names: tuple[str, ...], device: torch.device) -> None:
        self.names = names
        self._matrix = habit_matrix(names).to(device)
        self._pressed = self._mark(_PRESSED, device)
        self._jaw = names.index("jawOpen")
        self._looks = torch.stack(
            [
                self._mark(pair, device)
                for pair in (
                    ("eyeLookOutLeft", "eyeLookInRight"),
                    ("eyeLookInLeft", "eyeLookOutRight"),
                    ("eyeLookUpLeft", "eyeLookUpRight"),
                    ("eyeLookDownLeft", "eyeLookDownRight"),
                )
            ]
        )

    def _mark(self, chosen: Iterable[str], device: torch.device) -> Tensor:
        return torch.tensor([float(name in tuple(chosen)) for name in self.names], device=device)

    def draw(self, gaze: Tensor, draws: SplitRng) -> Tensor:
        """Draw weights (B, E) from 0 to 1.1; the lids follow the gaze (B, 2)."""
        count = len(gaze)
        device = draws.device
        chance, low, high = (
            constant(tuple(getattr(habit, name) for habit in HABITS), device) for name in ("chance", "low", "high")
        )
        strength = low + (high - low) * draws.uniform(count, len(HABITS)) ** 1.3
        weights = (strength * draws.chance(chance, count, len(HABITS))) @ self._matrix
        # No face does the same on both sides.
        weights = (weights * (1 + 0.12 * draws.normal(count, len(self.names)))).clamp(0, 1.1)
        weights = weights * (1 - self._pressed * weights[:, self._jaw, None].clamp(max=1))
        aside, up = gaze[:, :1], gaze[:, 1:]
        looks = torch.cat((aside, -aside, up, -up), dim=1).clamp(min=0) / _FULL_LOOK
        # A raised lid hardly moves when the eye is shut anyway; blinks are capped so that lids never pass each other.
        return (weights + looks @ self._looks).clamp(0, 1.1)


def draw_gaze(rotation: Tensor, draws: SplitRng) -> Tensor:
    """Draw where eyes look (B, 2): radians to the subject's left and up, from straight ahead; some at the camera."""
    count = len(rotation)
    spread = torch.where(draws.chance(0.25, count, 1), 2.0, 1.0) * constant((0.18, 0.11), draws.device)
    free = draws.normal(count, 2) * spread
    ahead = rotation[:, 2]
    camera = torch.stack((torch.atan2(ahead[:, 0], ahead[:, 2]), torch.asin(ahead[:, 1].clamp(-1, 1))), dim=1)
    reachable = (camera[:, :1].abs() < math.radians(50)) & draws.chance(0.4, count, 1)
    gaze = torch.where(reachable, camera + 0.2 * free, free)
    limit = constant(LARGEST_GAZE, draws.device)
    return gaze.clamp(-limit, limit)

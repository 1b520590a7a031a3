"""People's mean head as it is drawn: with the mean of the expressions, and where the 68 points lie on it."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from ls3dw.core.sample import Doubles
from ls3dw.synth.head.brows import Brows
from ls3dw.synth.head.expression import Expressions, draw_gaze
from ls3dw.synth.head.landmarks import JAW, anatomical_points, frontal_jaw
from ls3dw.synth.head.model import Head
from ls3dw.synth.rng import SplitRng

LEAST_SPREAD: Final = 0.1
"""Smallest spread of an expression: nobody keeps a face quite still."""

_DRAWN: Final = 8000


def drawn_expressions(head: Head) -> tuple[Doubles, Doubles]:
    """Return mean and spread (E,) of the expressions drawn for faces turned to the camera.

    Those of the brows count as none (0, 0): the placement of their points already has the mean expression.
    """
    device, draws = torch.device("cpu"), SplitRng(0, "cpu")
    gaze = draw_gaze(torch.eye(3).expand(_DRAWN, 3, 3), draws)
    weights = Expressions(head.expression_names, device).draw(gaze, draws).double()
    free = torch.tensor([not name.startswith("brow") for name in head.expression_names])
    mean, spread = weights.mean(0) * free, weights.std(0).clamp(min=LEAST_SPREAD) * free
    return mean.numpy(), spread.numpy()


def mean_head(head: Head) -> Tensor:
    """Return people's mean head with its mean expression (1, V, 3)."""
    mean = torch.from_numpy(drawn_expressions(head)[0]).to(head.usual)
    return (head.usual + torch.einsum("e,evx->vx", mean, head.expressions))[None]


def mean_points(head: Head) -> Tensor:
    """Return the placement's points on it (68, 3), those of the jaw where they are in 3D."""
    vertices = mean_head(head)
    points = anatomical_points(head, vertices, Brows.mean(1, vertices.device))[0]
    return torch.cat((frontal_jaw(head, vertices)[0], points[JAW:]))

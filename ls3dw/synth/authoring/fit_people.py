"""Fit the difference between people's mean head and the head file's mean to labelled faces.

Each face has its own pose, shape and expression, which are eliminated, as in `fit_placement`, to find the difference
that all share. The prior mean of expressions is that of drawn heads, so that heads drawn about the result have people's
mean shape.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ls3dw.core.markup import MIRROR, POINTS
from ls3dw.synth.authoring.fit_faces import JAW, FaceModel
from ls3dw.synth.authoring.fit_placement import eliminated, fit_in_parts, prepare
from ls3dw.synth.authoring.sliding import ACTIONS, STRETCH, HeadShape, local_vertices
from ls3dw.synth.head.mean_head import drawn_expressions
from ls3dw.synth.head.model import Group, Head
from ls3dw.synth.head.people import People
from ls3dw.synth.head.placement import Placement
from ls3dw.synth.head.places import Places
from ls3dw.synth.head.shape import IDENTITY_SPREAD, LIP_SPREAD

ROUNDS: Final = 4
HOLD: Final = 0.02
"""Precision a face of the prior that holds people's mean at the model's, in inverse variances of the spread.

With a tenth of it some directions move by 16 standard deviations, and the mean shape fits no better.
"""

STILL: Final = 0.02
"""Root mean square move of skin without labels (`_unseen`), in head units, that costs as much as one spread of one
direction. Without this the skull grows into a cone to explain jaws and noses."""

SAME_SIZE: Final = 1e8
"""Precision of the sum of width, height and depth, which is fixed, since every face has its own scale."""


def fit_people(
    head: Head,
    placement: Placement,
    labels: ArrayLike,
    *,
    occluded: ArrayLike | None = None,
    fitted_on: Mapping[str, Any] | None = None,
) -> People:
    """Fit people's mean head to labels (N, 68, 2) with a placement; arguments as in `fit_placement.fit`."""
    points, certainty = prepare(labels, occluded)
    model = _model(head, placement)
    shared = _shared(model, len(head.identity))
    hold = _hold(head, model, shared, len(points))
    usual, fits = torch.zeros(len(shared), dtype=torch.float64), None
    for _ in range(ROUNDS):
        moved = replace(model, mean=model.mean + torch.einsum("c,cpx->px", usual, model.basis[shared]))
        fits = fit_in_parts(moved, points, certainty, fits, 3 if fits else 8)
        matrix, right = eliminated(moved, fits, points, certainty, lambda jacobian, *_: jacobian[..., shared])
        usual = usual + torch.linalg.solve(matrix + hold, right - hold @ usual)
    values = np.zeros(len(head.identity) + 5)
    values[shared.numpy()] = usual.numpy()
    identity, stretched, lips = np.split(values, (len(head.identity), len(head.identity) + 3))
    return People(identity, stretched, lips, {"faces": len(points), **(fitted_on or {})})


def _model(head: Head, placement: Placement) -> FaceModel:
    """Return the variation of the points by identity, stretch, lips and expressions about the drawn mean."""
    shape = HeadShape.of(head)
    free, lines = slice(JAW, POINTS), (-1, 3)
    corners = np.concatenate((placement.point_vertices[free], placement.jaw_vertices.reshape(lines)))
    shares = np.concatenate((placement.point_weights[free], placement.jaw_weights.reshape(lines)))
    places = Places(local_vertices(shape, corners), shares.astype(np.float64))
    mean, spread = drawn_expressions(head)
    numbers = {name: number for number, name in enumerate(head.expression_names)}
    sides = {f"{name}{side}": limits for name, limits in ACTIONS.items() for side in ("", "Left", "Right")}
    actions = [(numbers[name], *limits) for name, limits in sides.items() if name in numbers]
    still = head.mean.double().cpu().numpy()
    basis = [
        *shape.identity,
        *(still * np.eye(3)[axis] for axis in range(3)),
        *head.thinner_lips.double().cpu().numpy(),
    ]
    ranges = [(IDENTITY_SPREAD, -np.inf, np.inf)] * len(shape.identity)
    ranges += [(value, -np.inf, np.inf) for value in (*STRETCH, LIP_SPREAD, LIP_SPREAD)]
    for number, own, low, high in actions:
        basis.append(shape.expressions[number])
        ranges.append((float(spread[number]) or own, low - float(mean[number]), high - float(mean[number])))
    spreads, lows, highs = (torch.tensor(values, dtype=torch.float64) for values in zip(*ranges, strict=True))
    return FaceModel(
        mean=torch.from_numpy(places.positions(still + np.einsum("e,evx->vx", mean, shape.expressions))),
        basis=torch.from_numpy(places.positions(np.stack(basis))),
        directions=torch.from_numpy(placement.jaw_directions.astype(np.float64)),
        precision=spreads**-2,
        low=lows,
        high=highs,
    )


def _hold(head: Head, model: FaceModel, shared: Tensor, faces: int) -> Tensor:
    """Return the precision (S, S) of the prior on the shared difference, about 0."""
    hold = torch.diag(model.precision[shared])
    first_lip = len(head.identity) + 3
    hold[shared >= first_lip] = 0.0  # the labels determine the lips
    moves = np.concatenate((head.identity, head.mean * torch.eye(3)[:, None], head.thinner_lips))[shared.numpy()]
    unseen = moves[:, _unseen(head)].astype(np.float64)
    hold += torch.from_numpy(np.einsum("svx,tvx->st", unseen, unseen)) / unseen.shape[1] / STILL**2
    hold *= HOLD * faces
    stretch = torch.nonzero((shared >= len(head.identity)) & (shared < first_lip))[:, 0]
    hold[stretch[:, None], stretch] += SAME_SIZE
    return hold


def _unseen(head: Head) -> NDArray[np.bool_]:
    """Mark the skin without labels (V,): above the forehead, behind the ears, the neck."""
    _, up, front = head.mean.T
    unseen: NDArray[np.bool_] = (
        (head.vertex_group == Group.SKIN) & ((up > 0.8) | (front < -0.6) | (up < -1.4))
    ).numpy()
    return unseen


def _shared(model: FaceModel, directions: int) -> Tensor:
    """Return the numbers of the directions that people may share: symmetric identity, stretch, lips."""
    fixed = POINTS - JAW
    partners = [MIRROR[point] - JAW for point in range(JAW, POINTS)]
    points = model.basis[: directions + 5, :fixed]
    mirrored = points[:, partners] * points.new_tensor([-1.0, 1.0, 1.0])
    even = (mirrored - points).square().sum((1, 2)) < 0.5 * points.square().sum((1, 2))
    return torch.nonzero(even)[:, 0]

"""Fit how people's heads differ on average from the head file's mean, to faces that people have labelled.

Each face has its own pose, shape and expression; what all of them share is found as `fit_placement` finds offsets, with
the faces' own freedom eliminated. Expressions are expected as they are drawn, so that heads drawn about the result have
people's shape in the mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ls3dw.markup import MIRROR, POINTS
from ls3dw.synth.fit_faces import JAW, FaceModel
from ls3dw.synth.fit_placement import eliminated, fit_in_parts, prepare
from ls3dw.synth.head import Group, Head
from ls3dw.synth.mean_head import drawn_expressions
from ls3dw.synth.people import People
from ls3dw.synth.placement import Placement
from ls3dw.synth.places import Places
from ls3dw.synth.shape import IDENTITY_SPREAD, LIP_SPREAD
from ls3dw.synth.sliding import ACTIONS, STRETCH, HeadShape, local_vertices

ROUNDS: Final = 4
HOLD: Final = 0.02
"""How much each face adds to the prior that holds people's mean at the model's, in inverse variances of the spread.

With a tenth of it some directions run off by 16 standard deviations, and the mean shape fits no better.
"""

STILL: Final = 0.02
"""Root mean square move, in head units, of what bears no labels (`_unseen`) that costs as much as one spread of one
direction: without that the skull grows into a cone to explain jaws and noses."""

SAME_SIZE: Final = 1e8
"""Precision with which width, height and depth keep their sum: every face has a scale of its own anyway."""


def fit_people(
    head: Head,
    placement: Placement,
    labels: ArrayLike,
    *,
    occluded: ArrayLike | None = None,
    fitted_on: Mapping[str, Any] | None = None,
) -> People:
    """Fit people's mean head to labels (N, 68, 2) with that placement; arguments as those of `fit_placement.fit`."""
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
    """Return the head's variation at the points: identity, stretch, lips, expressions, about the mean that is drawn."""
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
    """Return the precision (S, S) of the prior on what people share, about no difference from the head file's mean."""
    hold = torch.diag(model.precision[shared])
    first_lip = len(head.identity) + 3
    hold[shared >= first_lip] = 0.0  # what lips lack, the labels tell
    moves = np.concatenate((head.identity, head.mean * torch.eye(3)[:, None], head.thinner_lips))[shared.numpy()]
    unseen = moves[:, _unseen(head)].astype(np.float64)
    hold += torch.from_numpy(np.einsum("svx,tvx->st", unseen, unseen)) / unseen.shape[1] / STILL**2
    hold *= HOLD * faces
    stretch = torch.nonzero((shared >= len(head.identity)) & (shared < first_lip))[:, 0]
    hold[stretch[:, None], stretch] += SAME_SIZE
    return hold


def _unseen(head: Head) -> NDArray[np.bool_]:
    """Mark the skin that bears no labels (V,): above the forehead, behind the ears, and the neck."""
    _, up, front = head.mean.T
    unseen: NDArray[np.bool_] = (
        (head.vertex_group == Group.SKIN) & ((up > 0.8) | (front < -0.6) | (up < -1.4))
    ).numpy()
    return unseen


def _shared(model: FaceModel, directions: int) -> Tensor:
    """Number what people may share: identity that is alike on both sides, stretch, and lips."""
    fixed = POINTS - JAW
    partners = [MIRROR[point] - JAW for point in range(JAW, POINTS)]
    points = model.basis[: directions + 5, :fixed]
    mirrored = points[:, partners] * points.new_tensor([-1.0, 1.0, 1.0])
    even = (mirrored - points).square().sum((1, 2)) < 0.5 * points.square().sum((1, 2))
    return torch.nonzero(even)[:, 0]

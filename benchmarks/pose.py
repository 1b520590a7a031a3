"""Holds ways to fit a head to 68 points against each other: error of |yaw| on AFLW2000-3D landmarks, and speed.

    python benchmarks/pose.py aflw2000_landmarks_odd_rows.npz

The faces are cut in halves by turns: what to use may be chosen on the first half, and is reported on the second.
`rigid` is what `ls3dw.core.pose` does. The others change one thing: no linear map before the rotation; robust weights
(Cauchy) at a distance in units of the head; directions of identity or expression of the bundled head, held by a ridge.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ls3dw.core.pose import UNLIKELY, head_pose_fit, mean_head
from ls3dw.synth.head.model import load_head

Array = NDArray[np.float64]

STEPS = 4
USUAL = 99
"""Faces turned farther are commonly left out of pose evaluation."""

MOUTHS = ("jawOpen", "mouthSmileLeft", "mouthSmileRight", "mouthPucker")


@dataclass(frozen=True)
class Way:
    """A way to fit. robust: distance at which a point counts half; basis: (K, 68, 3) directions, held by `ridge`."""

    head: Array
    linear: bool = True
    robust: float | None = None
    basis: Array | None = None
    ridge: float = 0.0


def fit_yaw(way: Way, points: NDArray[Any]) -> Array:
    """Return the yaw in degrees of points (N, 68, 2 or 3)."""
    axes = points.shape[2]
    seen = points.astype(np.float64) * np.array((1.0, -1.0, 1.0))[:axes]
    weights = np.ones(seen.shape[:2])
    shape = np.broadcast_to(way.head, (len(seen), *way.head.shape))
    for _ in range(1 if way.robust is None and way.basis is None else STEPS + 1):
        turn, scale, centred, solid = _turn(way, seen, shape, weights)
        if way.basis is not None:
            shape = way.head + _deformed(way, seen, turn[:, :axes] * scale[:, None, None])
        if way.robust is not None:
            left = centred - np.einsum("n,nab,npb->npa", scale, turn[:, :axes], solid)
            distance = np.linalg.norm(left[..., :2], axis=2) / scale[:, None]
            weights = 1 / (1 + (distance / way.robust) ** 2)
    yaw: Array = np.degrees(-np.arcsin(np.clip(turn[:, 0, 2], -1, 1)))
    return yaw


def _turn(way: Way, seen: Array, shape: Array, weights: Array) -> tuple[Array, Array, Array, Array]:
    """Return rotations (N, 2 or 3, 3), scales (N,), and the points and shapes around their weighted means."""
    share = (weights / weights.sum(axis=1, keepdims=True))[..., None]
    centred = seen - (share * seen).sum(axis=1, keepdims=True)
    solid = shape - (share * shape).sum(axis=1, keepdims=True)
    spread = np.einsum("np,npa,npb->nab", weights, solid, solid)
    match = np.einsum("np,npa,npb->nab", weights, centred, solid)
    linear = np.linalg.solve(spread, match.transpose(0, 2, 1)).transpose(0, 2, 1) if way.linear else match
    left, _, right = np.linalg.svd(linear, full_matrices=False)
    turn = left @ right
    scale = np.einsum("nab,nab->n", match, turn) / np.einsum("nab,nbc,nac->n", turn, spread, turn)
    return turn, scale, centred, solid


def _deformed(way: Way, seen: Array, projection: Array) -> Array:
    """Return what the directions add to the head (N, 68, 3), fitted to the points with the pose held."""
    basis = way.basis if way.basis is not None else np.empty((0, *way.head.shape))
    drawn = np.einsum("nab,kpb->nkpa", projection, basis).reshape(len(seen), len(basis), -1)
    left = seen - seen.mean(axis=1, keepdims=True) - np.einsum("nab,pb->npa", projection, way.head)
    ridge = way.ridge * (projection[:, 0] ** 2).sum(axis=1)
    system = drawn @ drawn.transpose(0, 2, 1) + ridge[:, None, None] * np.eye(len(basis))
    strengths = np.linalg.solve(system, drawn @ left.reshape(len(seen), -1, 1))[..., 0]
    added: Array = np.einsum("nk,kpb->npb", strengths, basis)
    return added


def ways() -> dict[str, Way]:
    head = load_head()

    def at_points(vertices: Any) -> Array:
        placed = (vertices[..., head.point_vertices, :] * head.point_weights[..., None]).sum(dim=-2).double().numpy()
        centred: Array = placed - placed.mean(axis=-2, keepdims=True)
        return centred

    mouths = at_points(head.expressions[[head.expression_names.index(name) for name in MOUTHS]])
    rigid = Way(mean_head())
    return {
        "rigid": rigid,
        "no linear map": replace(rigid, linear=False),
        "robust, 0.1": replace(rigid, robust=0.1),
        "robust, 0.2": replace(rigid, robust=0.2),
        "8 identities": replace(rigid, basis=at_points(head.identity[:8]), ridge=0.05),
        "4 expressions": replace(rigid, basis=mouths, ridge=0.3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("file", type=Path)
    with np.load(parser.parse_args().file) as arrays:
        solid = arrays["published_pt3d_68"].transpose(0, 2, 1)
        again, yaw = arrays["reannotated_xy"].transpose(0, 2, 1), np.abs(arrays["yaw_degrees"])
    sets = {"published with z": solid, "published": solid[..., :2], "re-annotated": again}
    halves = np.arange(len(yaw)) % 2 == 0
    print("mean error of |yaw|, degrees / right bin, per cent: first half, second half")
    for name, way in ways().items():
        cells = [_cell(np.abs(fit_yaw(way, points)), yaw, halves) for points in sets.values()]
        print(f"| {name} | {' | '.join(cells)} |")
    for name, points in sets.items():
        pose = head_pose_fit(points)
        print(f"ls3dw.core.pose, {name}: {_cell(np.abs(pose.angles[:, 0]), yaw, np.ones_like(halves))}")
        print(f"  residual: median {np.median(pose.residual):.3f}, {(pose.residual > UNLIKELY).sum()} above {UNLIKELY}")
        many = np.tile(points, (-(-230_000 // len(points)), 1, 1))[:230_000].astype(np.float32)
        start = time.process_time()
        head_pose_fit(many)
        print(f"  230,000 faces: {time.process_time() - start:.2f} s of CPU")


def _cell(ours: NDArray[Any], yaw: NDArray[Any], halves: NDArray[np.bool_]) -> str:
    cells = []
    for half in (halves, ~halves):
        if half.any():
            error = np.abs(ours - yaw)[half & (yaw <= USUAL)].mean()
            right = np.digitize(ours, (30, 60), right=True) == np.digitize(yaw, (30, 60), right=True)
            cells.append(f"{error:.2f} / {100 * right[half].mean():.1f}")
    return ", ".join(cells)


if __name__ == "__main__":
    main()

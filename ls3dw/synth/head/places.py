"""Places on a triangle mesh: hits of rays, and points that slide along tracks of mesh edges."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

Neighbours = dict[int, set[int]]

_CHUNK = 32
"""Rays that are tried against all triangles at once."""


@dataclass(frozen=True)
class Places:
    """Triangles (..., 3 vertices) and barycentric weights (..., 3)."""

    vertices: Ints
    weights: Floats

    def positions(self, vertices: NDArray[np.floating]) -> Floats:
        """Return where the places are on a mesh with these vertices (..., V, 3) -> (..., places, 3)."""
        found: Floats = (vertices[..., self.vertices, :] * self.weights[..., None]).sum(-2)
        return found

    def reshape(self, *shape: int) -> Places:
        return Places(self.vertices.reshape(*shape, 3), self.weights.reshape(*shape, 3))


def cast_rays(
    vertices: Floats, triangles: Ints, origins: Floats, directions: Floats, reach: float
) -> tuple[Places, NDArray[np.bool_]]:
    """Find where rays (R, 3) leave the mesh: their farthest hit within `reach`; and whether there is one (R,)."""
    corners = np.zeros((len(origins), 3), np.int64)
    weights = np.tile(np.array([1.0, 0.0, 0.0]), (len(origins), 1))
    hit = np.zeros(len(origins), bool)
    first, edge, other = (
        vertices[triangles[:, 0]],
        vertices[triangles[:, 1]] - vertices[triangles[:, 0]],
        vertices[triangles[:, 2]] - vertices[triangles[:, 0]],
    )
    for at in range(0, len(origins), _CHUNK):
        rays = slice(at, at + _CHUNK)
        direction = directions[rays, None]
        p = np.cross(direction, other)
        determinant = (p * edge).sum(-1)
        determinant = np.where(abs(determinant) < 1e-12, np.inf, determinant)
        offset = origins[rays, None] - first
        u = (offset * p).sum(-1) / determinant
        q = np.cross(offset, edge)
        v = (direction * q).sum(-1) / determinant
        along = (q * other).sum(-1) / determinant
        inside = (u >= -1e-9) & (v >= -1e-9) & (u + v <= 1 + 1e-9) & (along > 0) & (along < reach)
        farthest = np.where(inside, along, -1.0).argmax(1)
        row = np.arange(len(farthest))
        hit[rays] = inside[row, farthest]
        shares = np.stack((1 - u - v, u, v), -1)[row, farthest].clip(0, 1)
        corners[rays] = triangles[farthest]
        weights[rays] = shares / shares.sum(-1, keepdims=True)
    return Places(corners, weights), hit


@dataclass(frozen=True)
class Track:
    """A line of mesh edges: `path` (n,) vertices and how far along the line each is (n,)."""

    path: Ints
    along: Floats
    thirds: Ints
    """(n - 1,) the vertex that makes a triangle with each edge."""

    def at(self, distance: float) -> tuple[Ints, Floats]:
        """Return the place (3,), (3,) at a distance along the track, held at its ends."""
        distance = float(np.clip(distance, self.along[0], self.along[-1]))
        edge = int(np.clip(np.searchsorted(self.along, distance, "right") - 1, 0, len(self.path) - 2))
        share = (distance - self.along[edge]) / (self.along[edge + 1] - self.along[edge])
        corners = np.array([self.path[edge], self.path[edge + 1], self.thirds[edge]])
        return corners, np.array([1 - share, share, 0.0])

    def nearest(self, vertices: Floats, position: Floats) -> float:
        """Return how far along the track its closest point to a position lies."""
        start, step = vertices[self.path[:-1]], np.diff(vertices[self.path], axis=0)
        share = (((position - start) * step).sum(1) / (step**2).sum(1)).clip(0, 1)
        edge = int(((start + share[:, None] * step - position) ** 2).sum(1).argmin())
        return float(self.along[edge] + share[edge] * (self.along[edge + 1] - self.along[edge]))


def neighbours_of(triangles: Ints) -> Neighbours:
    """Return the vertices that each vertex shares an edge with."""
    found: Neighbours = {}
    for a, b, c in triangles.tolist():
        found.setdefault(a, set()).update((b, c))
        found.setdefault(b, set()).update((a, c))
        found.setdefault(c, set()).update((a, b))
    return found


def make_track(
    vertices: Floats, neighbours: Neighbours, through: Sequence[int], stretched: Floats | None = None
) -> Track:
    """Join vertices by the shortest ways along mesh edges; lengths of ways are those of `stretched`, if it is given."""
    path = [through[0]]
    for start, end in pairwise(through):
        path += _shortest(vertices if stretched is None else stretched, neighbours, start, end)[1:]
    lengths = np.linalg.norm(np.diff(vertices[path], axis=0), axis=1)
    thirds = [min(neighbours[a] & neighbours[b]) for a, b in pairwise(path)]
    return Track(np.array(path), np.concatenate(([0.0], lengths.cumsum())), np.array(thirds))


def _shortest(vertices: Floats, neighbours: Neighbours, start: int, end: int) -> list[int]:
    """Dijkstra's shortest path."""
    came: dict[int, int] = {}
    waiting: list[tuple[float, int, int]] = [(0.0, start, start)]
    while waiting:
        length, vertex, before = heapq.heappop(waiting)
        if vertex in came:
            continue
        came[vertex] = before
        if vertex == end:
            break
        for following in neighbours[vertex] - came.keys():
            step = float(np.linalg.norm(vertices[following] - vertices[vertex]))
            heapq.heappush(waiting, (length + step, following, vertex))
    path = [end]
    while path[-1] != start:
        path.append(came[path[-1]])
    return path[::-1]

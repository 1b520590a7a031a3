"""Random heads, and the main directions of their differences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ls3dw.core.sample import Doubles, Floats
from ls3dw.synth.authoring.head_source import Mesh
from ls3dw.synth.head.model import Group

Bools = NDArray[np.bool_]
Parameters = dict[str, Floats]

PHENOTYPES: Final = ("african", "asian", "caucasian")

PARTS: Final = ("cheek", "chin", "ear", "eye", "forehead", "head", "mouth", "neck", "nose", "measure-neck")
"""Prefixes of the names of changes of head and neck, after the side."""

CHILDREN: Final = 0.22
CHILD_AGE, ADULT_AGE = (0.12, 0.5), (0.45, 1.0)
"""Share of children, and ranges of age on anny's scale: 0 baby, 1/3 child, 2/3 young, 1 old."""

SPREADS: Final[tuple[tuple[tuple[str, ...], float], ...]] = (
    (("head-trans", "neck-trans", "head-angle"), 0.12),
    (("nose-trans-out", "mouth-trans-out"), 0.15),
    (("ear-shape", "ear-wing", "ear-flap", "ear-rot", "ear-trans"), 0.25),
    (("head-fat", "head-age", "neck-double"), 0.5),
    (("head-",), 0.3),
    (("nose-width", "nose-flaring", "nose-nostrils-width", "nose-scale-horiz", "nose-volume", "nose-point-width"), 0.6),
    (("mouth-",), 0.38),
    (("",), 0.45),
)
"""Standard deviation of a change by the first prefix that fits; at 1 MakeHuman's slider is at its end.

Ears are reduced, since large changes look like an elf's, and mouths, since teeth and tongue do not follow; wide noses
and double chins are increased.
"""

ASYMMETRY: Final = 0.2
"""Standard deviation of the difference between the two sides, on the same scale."""

_NECK_BELOW, _SHOULDERS = 6.0, 0.25
_FACE_ABOVE, _FACE_BEFORE, _FACE_WITHIN = 6.3, 0.3, 0.85
_HAIR, _FACE = 0.3, 1.5
"""Weights of squared errors in regions of `base.obj`; 1 elsewhere."""


@dataclass(frozen=True)
class Basis:
    """A mean (V, 3), K directions (K, V, 3) of one standard deviation, and their share of the variance."""

    mean: Floats
    directions: Floats
    explained: float

    def error(self, heads: Floats, face: Bools) -> float:
        """Return the mean distance on the face between heads (N, V, 3) and their projections onto this basis."""
        wanted = (heads[:, face] - self.mean[face]).reshape(len(heads), -1)
        across = self.directions[:, face].reshape(len(self.directions), -1)
        kept = np.linalg.lstsq(across.T, wanted.T, rcond=None)[0].T @ across
        return float(np.linalg.norm((wanted - kept).reshape(len(heads), -1, 3), axis=2).mean())


def draw_phenotypes(generator: np.random.Generator, count: int) -> Parameters:
    """Draw sex, age, ancestry, weight, muscle, height and proportions: {name: (count,)}."""
    children = generator.random(count) < CHILDREN
    age = np.where(children, generator.uniform(*CHILD_AGE, count), generator.uniform(*ADULT_AGE, count))
    drawn = {"age": age, "gender": generator.beta(0.4, 0.4, count), "weight": generator.random(count)}
    drawn |= {name: generator.uniform(0.2, 0.8, count) for name in ("muscle", "height", "proportions")}
    # A Dirichlet parameter below 1 favours one ancestry, with some mixtures.
    drawn |= dict(zip(PHENOTYPES, generator.dirichlet((0.5, 0.5, 0.5), count).T, strict=True))
    return {name: values.astype(np.float32) for name, values in drawn.items()}


def draw_changes(generator: np.random.Generator, names: Sequence[str], count: int) -> Parameters:
    """Draw the changes of head and neck among `names`: {name: (count,)}; `r-` equals `l-` up to some asymmetry."""
    drawn: Parameters = {}
    for name in names:
        bare = name.removeprefix("l-").removeprefix("r-")
        if not bare.startswith(PARTS) or name.startswith("r-"):
            continue
        values = generator.normal(0, _spread(bare), count)
        drawn[name] = values.clip(-1, 1).astype(np.float32)
        if name.startswith("l-"):
            other = values + generator.normal(0, ASYMMETRY, count)
            drawn[f"r-{bare}"] = other.clip(-1, 1).astype(np.float32)
    return drawn


def _spread(name: str) -> float:
    return next(spread for starts, spread in SPREADS if name.startswith(starts))


def face_of(mesh: Mesh) -> Bools:
    """Mark the skin of the face (V,), which defines the place and size of a head."""
    x, y, z = mesh.base.T
    face: Bools = (mesh.vertex_group == Group.SKIN) & (y > _FACE_ABOVE) & (z > _FACE_BEFORE) & (abs(x) < _FACE_WITHIN)
    return face


def normalise(heads: Floats, face: Bools) -> tuple[Floats, Floats]:
    """Centre and scale heads (N, V, 3) so that their faces have mean 0 and root mean square 1.

    Returns the heads and their former sizes (N,).
    """
    centred = heads - heads[:, face].mean(1, keepdims=True)
    sizes = np.sqrt(np.square(centred[:, face]).sum(2).mean(1))
    return centred / sizes[:, None, None], sizes


def principal_directions(heads: Floats, mesh: Mesh, count: int) -> Basis:
    """Find the mean and the `count` principal directions of heads (N, V, 3) and their mirror images.

    Symmetric and antisymmetric halves do not covary then, so each direction is of one kind, and the mean is symmetric.
    """
    mirrored: Floats = heads[:, mesh.mirror] * np.array((-1, 1, 1), np.float32)
    half = np.float32(0.5)
    even, odd = half * (heads + mirrored), half * (heads - mirrored)
    del mirrored
    mean = even.mean(0)
    even -= mean
    weight: Floats = np.sqrt(_importance(mesh))[:, None]
    parts = [_directions(part, weight, count) for part in (even, odd)]
    variances = np.concatenate([variance for variance, _ in parts])
    largest = np.argsort(-variances, kind="stable")[:count]
    directions = np.concatenate([found for _, found in parts])[largest]
    total = sum(float(np.square(part * weight).sum(dtype=np.float64)) for part in (even, odd)) / len(heads)
    return Basis(mean, directions, float(variances[largest].sum()) / total)


def _importance(mesh: Mesh) -> Floats:
    importance = np.ones(len(mesh.base), np.float32)
    group = mesh.vertex_group
    importance[(group == Group.SKIN) & (mesh.base[:, 1] < _NECK_BELOW)] = _SHOULDERS
    importance[group == Group.HAIR] = _HAIR
    importance[face_of(mesh) | ((group > Group.SKIN) & (group < Group.HAIR))] = _FACE
    return importance


def _directions(centred: Floats, weight: Floats, count: int) -> tuple[Doubles, Floats]:
    """Return variances (count,) and directions (count, V, 3) of weighted differences from the mean (N, V, 3)."""
    rows = (centred * weight).reshape(len(centred), -1)
    # N is far smaller than 3 V, and the N x N inner products have the same principal directions.
    squares, vectors = np.linalg.eigh((rows @ rows.T).astype(np.float64))
    squares, vectors = squares[: -count - 1 : -1], vectors[:, : -count - 1 : -1]
    directions = (vectors.T.astype(np.float32) @ rows).reshape(len(squares), -1, 3) / weight / np.sqrt(len(rows))
    # Signs of eigenvectors are arbitrary: make the largest component of each positive.
    flat = directions.reshape(len(directions), -1)
    extreme = np.take_along_axis(flat, abs(flat).argmax(1, keepdims=True), 1)
    return squares / len(rows), (directions * np.sign(extreme)[:, :, None]).astype(np.float32)

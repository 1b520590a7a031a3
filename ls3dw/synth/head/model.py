"""The compact head: a mean, directions of identity and expression, and where the 68 points lie on it.

`docs/cards/head.md` says what it was made from and how to make it again.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from dataclasses import dataclass, fields
from enum import IntEnum
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ls3dw.core.resources import folder
from ls3dw.errors import ModelError
from ls3dw.synth.head.brows import POINTS_A_BROW
from ls3dw.synth.head.lips import lip_changes
from ls3dw.synth.head.people import People, load_people
from ls3dw.synth.head.placement import MESH_VERTICES, Placement, load_placement

Arrays = dict[str, NDArray[Any]]

LAYOUT: Final[dict[str, tuple[str, tuple[str | int, ...]]]] = {
    "mean": ("f", ("V", 3)),
    "identity": ("f", ("I", "V", 3)),
    "expressions": ("f", ("E", "V", 3)),
    "expression_names": ("U", ("E",)),
    "triangles": ("iu", ("T", 3)),
    "triangle_group": ("iu", ("T",)),
    "vertex_group": ("iu", ("V",)),
    "lips": ("f", ("V",)),
    "eyelids": ("f", ("V",)),
    "ears": ("f", ("V",)),
    "inner_mouth": ("f", ("V",)),
    "occlusion": ("f", ("V",)),
    "uv": ("f", ("V", 2)),
    "head_weight": ("f", ("V",)),
    "full_ids": ("iu", ("V",)),
}
"""The arrays of a head file: kinds of numpy dtype, and the shape; a letter stands for the same number everywhere."""

_DAMAGE: Final = (ValueError, LookupError, TypeError, EOFError, OSError, RuntimeError, zipfile.BadZipFile, zlib.error)
"""What numpy and zipfile raise on damaged files, each for other bytes; TypeError where the file is one bare array."""

_SHARES: Final = ("lips", "eyelids", "ears", "inner_mouth", "occlusion", "head_weight")


class Group(IntEnum):
    """The part of the head that a vertex or a triangle belongs to. Left is the subject's left, at positive x."""

    SKIN = 0
    LEFT_EYE = 1
    RIGHT_EYE = 2
    UPPER_TEETH = 3
    LOWER_TEETH = 4
    LASHES = 5
    TONGUE = 6
    HAIR = 7
    """A shell for long hair, down to the shoulders."""


@dataclass(frozen=True, eq=False)
class Head:
    """V vertices, T triangles, I directions of identity and E of expression, as tensors of one device.

    A head is `mean + identity weights @ identity + expression weights @ expressions`. Axes: x to the subject's left,
    which is the picture's right of a frontal face, y up, z out of the face. Unit: the face's size, the root mean square
    distance of its skin from its own middle, which is the origin; 0.07 m on average.
    Shares are from 0 to 1, floats are float32, indices are int64.
    """

    mean: Tensor
    """(V, 3) of the heads that the directions were made from: what is painted keeps to its places."""

    identity: Tensor
    """(I, V, 3) principal directions, largest first, each one standard deviation long."""

    expressions: Tensor
    """(E, V, 3) what each facial action adds at full strength."""

    expression_names: tuple[str, ...]
    """(E,) names of the actions, those of ARKit: `jawOpen`, `eyeBlinkLeft`, ..."""

    triangles: Tensor
    """(T, 3) vertices, counter-clockwise from outside."""

    triangle_group: Tensor
    """(T,) `Group`."""

    vertex_group: Tensor
    """(V,) `Group`."""

    lips: Tensor
    """(V,) share of red lip."""

    eyelids: Tensor
    """(V,) share of eyelid."""

    ears: Tensor
    """(V,) share of ear."""

    inner_mouth: Tensor
    """(V,) share of the inside of the mouth."""

    occlusion: Tensor
    """(V,) light that reaches the place from all around: 1 open, 0 hidden."""

    uv: Tensor
    """(V, 2) place in the MakeHuman texture, u to the right and v up."""

    head_weight: Tensor
    """(V,) 1 turns with the head, 0 stays with the torso."""

    full_ids: Tensor
    """(V,) rising numbers of the vertices in the full MakeHuman mesh."""

    point_vertices: Tensor
    """(68, 3) triangle that each anatomical point lies on; all vertices from here on are those of this head."""

    point_weights: Tensor
    """(68, 3) barycentric weights."""

    jaw_vertices: Tensor
    """(17, L, 3) triangles of each jaw point's line, from the anatomical place toward the front."""

    jaw_weights: Tensor
    """(17, L, 3)"""

    jaw_directions: Tensor
    """(17, 2) unit vectors, x and y: the contour point is the place of the line farthest along its direction."""

    brow_vertices: Tensor
    """(10, O, 3) triangles of points 17 to 26, moved up by each of the offsets."""

    brow_weights: Tensor
    """(10, O, 3)"""

    brow_offsets: Tensor
    """(O,) in units of the head."""

    usual: Tensor
    """(V, 3) people's mean head, about which heads are drawn (`people.py`)."""

    thinner_lips: Tensor
    """(2, V, 3) how the vertices move as the upper and the lower lip lose all of their height (`lips.py`)."""

    @cached_property
    def brow_gaps(self) -> Tensor:
        """Head units between neighbouring points of a brow of people's mean head (4,), from the nose outward."""
        middle = len(self.brow_offsets) // 2
        left = self.brow_vertices[POINTS_A_BROW:, middle], self.brow_weights[POINTS_A_BROW:, middle]
        brow = (self.usual[left[0]] * left[1][..., None]).sum(1)
        gaps: Tensor = torch.linalg.vector_norm(brow[1:] - brow[:-1], dim=1)
        return gaps


def load_head(device: torch.device | str = "cpu", path: Path | None = None) -> Head:
    """Load a head file (the bundled one where no path is given) and place the 68 points on it.

    People's mean is known for the bundled head; one of your own is its own mean. `ModelError` when the file is missing
    or damaged, or lacks a vertex that the placement refers to.
    """
    own = path is not None
    path = folder("bundled") / "head.npz" if path is None else path
    arrays = read_arrays(path)
    arrays |= _placed(load_placement(), arrays["full_ids"], path)
    people = People.none(len(arrays["identity"])) if own else load_people()
    if len(people.identity) != len(arrays["identity"]):
        raise ModelError(
            f"{path}: {len(arrays['identity'])} directions, but people's mean has {len(people.identity)}; "
            "make it again with `ls3dw head fit`"
        )
    arrays["thinner_lips"] = lip_changes(arrays, arrays["vertex_group"] == Group.SKIN)
    arrays["usual"] = _usual(arrays, people)
    tensors: dict[str, Tensor] = {
        name: torch.from_numpy(array.astype(np.float32 if array.dtype.kind == "f" else np.int64))
        for name, array in arrays.items()
        if array.dtype.kind != "U"
    }
    return Head(
        expression_names=tuple(str(name) for name in arrays["expression_names"]),
        **{name: tensor.to(device) for name, tensor in tensors.items()},
    )


def _usual(arrays: Arrays, people: People) -> NDArray[Any]:
    """Return people's mean head (V, 3)."""
    directions = np.concatenate((arrays["identity"], arrays["thinner_lips"])).astype(np.float64)
    weights = np.concatenate((people.identity, people.lips))
    usual: NDArray[Any] = arrays["mean"] * (1 + people.stretch) + np.einsum("k,kvx->vx", weights, directions)
    return usual


def read_arrays(path: Path) -> Arrays:
    """Read and check the arrays of a head file, in the types that they are stored in; `ModelError` when damaged."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(
            f"{path}: cannot be read ({error.strerror}); expected a head file of `ls3dw head build`"
        ) from error
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            arrays = {name: file[name] for name in LAYOUT}
    except _DAMAGE as error:
        raise ModelError(f"{path}: not a head file, or damaged ({error}); make it with `ls3dw head build`") from error
    faults = _shape_faults(arrays) or _value_faults(arrays)
    if faults:
        raise ModelError(f"{path}: {'; '.join(faults)}; make it with `ls3dw head build`")
    return arrays


def dump_arrays(arrays: Arrays) -> bytes:
    """Encode as a file that `read_arrays` reads; the same arrays give the same bytes with the same zlib."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **{name: arrays[name] for name in LAYOUT})
    return buffer.getvalue()


def _shape_faults(arrays: Arrays) -> list[str]:
    faults, sizes = [], dict[str | int, int]()
    for name, (kinds, expected) in LAYOUT.items():
        array = arrays[name]
        fits = array.dtype.kind in kinds and array.ndim == len(expected)
        if fits:
            # A number stands for itself; a letter for what the first array with it has.
            wanted = tuple(
                side if isinstance(side, int) else sizes.setdefault(side, array.shape[axis])
                for axis, side in enumerate(expected)
            )
            fits = array.shape == wanted
        if not fits:
            shape = ", ".join(str(sizes.get(side, side)) for side in expected)
            faults.append(f"{name} is {array.dtype} {array.shape}, expected kind {kinds} ({shape})")
    return faults


def _value_faults(arrays: Arrays) -> list[str]:
    faults = [
        f"{name} holds values that are not finite"
        for name, array in arrays.items()
        if array.dtype.kind == "f" and not np.isfinite(array).all()
    ]
    faults += [f"{name} leaves 0 to 1" for name in _SHARES if (arrays[name] < 0).any() or (arrays[name] > 1).any()]
    limits = {"triangles": len(arrays["mean"]), "full_ids": MESH_VERTICES}
    limits |= {"triangle_group": len(Group), "vertex_group": len(Group)}
    for name, limit in limits.items():
        if arrays[name].size == 0 or arrays[name].min() < 0 or arrays[name].max() >= limit:
            faults.append(f"{name} leaves 0 to {limit - 1}")
    if not (np.diff(arrays["full_ids"].astype(np.int64)) > 0).all():
        faults.append("full_ids do not rise")
    if len(set(arrays["expression_names"].tolist())) != len(arrays["expression_names"]):
        faults.append("expression_names repeat")
    return faults


def _placed(placement: Placement, full_ids: NDArray[Any], path: Path) -> Arrays:
    """Return the placement's arrays with vertices of the full mesh turned into vertices of this head."""
    placed: Arrays = {}
    for name in (field.name for field in fields(placement) if field.name not in ("fitted_on", "conventions")):
        values = getattr(placement, name)
        if name.endswith("_vertices"):
            missing = np.setdiff1d(values, full_ids)
            if missing.size:
                raise ModelError(
                    f"{path}: lacks {missing.size} vertices that the placement of the points refers to "
                    f"(the first is {missing[0]}); make it with `ls3dw head build`"
                )
            values = np.searchsorted(full_ids, values)
        placed[name] = values
    return placed

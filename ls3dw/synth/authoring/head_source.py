"""The head of the `anny` package: the MakeHuman mesh, its shape changes, textures and mirror.

All positions are in the frame of `base.obj`: unit 0.1 m, x to the subject's left, y up, z out of the face.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from ls3dw.core.sample import Floats
from ls3dw.errors import ConfigurationError
from ls3dw.synth.head.model import Group
from ls3dw.synth.head.placement import MESH_VERTICES

Ints = NDArray[np.int64]

VERSION: Final = "0.6.2"

PARTS: Final[tuple[tuple[str, Group], ...]] = (
    ("body", Group.SKIN),
    ("helper-l-eye", Group.LEFT_EYE),
    ("helper-r-eye", Group.RIGHT_EYE),
    ("helper-upper-teeth", Group.UPPER_TEETH),
    ("helper-lower-teeth", Group.LOWER_TEETH),
    ("helper-l-eyelashes-1", Group.LASHES),
    ("helper-l-eyelashes-2", Group.LASHES),
    ("helper-r-eyelashes-1", Group.LASHES),
    ("helper-r-eyelashes-2", Group.LASHES),
    ("helper-tongue", Group.TONGUE),
    ("helper-hair", Group.HAIR),
)
"""Groups of `base.obj` in a head, in the order of its triangles."""

TEXTURES: Final = ("lips", "eyelids", "ears", "inside-mouth")

_LOWEST, _WIDEST = 4.6, 2.3
"""Skin is kept above this height and within this distance of the middle, down to the chest."""

_BLUR = 5
"""Size in texels of the blur before a mask is sampled, since its JPEG edges are ragged."""


@dataclass(frozen=True)
class Mesh:
    """The head's part of the full mesh: V vertices, T triangles."""

    full_ids: Ints
    """(V,) vertex numbers in the full mesh, rising."""

    base: Floats
    """(V, 3) positions in `base.obj`, which define regions."""

    uv: Floats
    """(V, 2)"""

    triangles: Ints
    """(T, 3)"""

    triangle_group: Ints
    """(T,) `Group`."""

    vertex_group: Ints
    """(V,) `Group`."""

    mirror: Ints
    """(V,) the vertex on the other side."""


@dataclass
class _Obj:
    """The parts of a Wavefront file that a head needs."""

    vertices: list[tuple[float, ...]] = field(default_factory=list)
    texels: list[tuple[float, ...]] = field(default_factory=list)
    texel_of: dict[int, int] = field(default_factory=dict)
    faces: dict[str, list[list[int]]] = field(default_factory=dict)


class Source:
    """The `anny` model and its files. The first use takes two minutes, while `anny` fills its cache."""

    def __init__(self) -> None:
        """Load the model; raises `ConfigurationError` if `anny` is missing or of another version."""
        try:
            # anny prints on import; stdout is for results.
            with contextlib.redirect_stdout(sys.stderr):
                import anny
        except ImportError as error:
            raise ConfigurationError(
                'building a head needs the anny package; install it with: pip install "ls3dw[heads]"'
            ) from error
        self._data = Path(anny.__file__).parent / "data" / "mpfb2"
        with contextlib.redirect_stdout(sys.stderr):
            self._model = anny.Anny(
                topology="anny-quads-full", local_changes="all", facial_actions="all", phenotypes="all"
            )
        if self._model.template_vertices.shape != (MESH_VERTICES, 3):
            raise ConfigurationError(
                f"anny: a mesh of {len(self._model.template_vertices)} vertices, expected {MESH_VERTICES}; "
                f'install version {VERSION}: pip install "ls3dw[heads]"'
            )
        self.mesh = self._read_mesh()

    @property
    def local_changes(self) -> tuple[str, ...]:
        """Names of the shape changes of single parts of the body."""
        return tuple(self._model.local_change_labels)

    @property
    def facial_actions(self) -> tuple[str, ...]:
        return tuple(self._model.facial_action_labels)

    def heads(self, phenotypes: Mapping[str, Floats], changes: Mapping[str, Floats]) -> Floats:
        """Shape N heads: {name: (N,)} of each kind -> (N, V, 3)."""
        coefficients = self._model.get_phenotype_blendshape_coefficients(
            **{name: torch.from_numpy(values).double() for name, values in phenotypes.items()},
            local_changes={name: torch.from_numpy(values).double() for name, values in changes.items()},
        )
        ids = torch.from_numpy(self.mesh.full_ids)
        basis = self._model.blendshapes[:, ids].flatten(1).float()
        template = self._model.template_vertices[ids].flatten().float()
        return _to_head_axes((template + coefficients.float() @ basis).view(len(coefficients), -1, 3))

    def actions(self) -> Floats:
        """Return the displacements of the facial actions: (E, V, 3)."""
        rows = [self._model.blendshape_labels.index(f"facial_action:{name}") for name in self.facial_actions]
        return _to_head_axes(self._model.blendshapes[rows][:, torch.from_numpy(self.mesh.full_ids)])

    def bone_weight(self, *prefixes: str) -> Floats:
        """Return how much each vertex follows the bones with these name prefixes: (V,)."""
        bones = [number for number, name in enumerate(self._model.bone_labels) if name.startswith(prefixes)]
        follows = torch.isin(self._model.vertex_bone_indices, torch.tensor(bones))
        weights: Floats = (self._model.vertex_bone_weights * follows).sum(1).numpy().astype(np.float32)
        return weights[self.mesh.full_ids]

    def mask(self, texture: str) -> Floats:
        """Sample one of `TEXTURES` at the vertices: (V,) from 0 to 1."""
        path = self._data / "textures" / f"mpfb_{texture}.jpg"
        picture = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        if picture is None:
            raise ConfigurationError(f'{path}: cannot be read; install anny again: pip install "ls3dw[heads]"')
        height, width = picture.shape
        smooth = cv2.blur(picture.astype(np.float32) / 255, (_BLUR, _BLUR))
        # v counts up from the lower edge of the picture; OpenCV counts down from the centre of the top row.
        x = self.mesh.uv[:, :1] * width - 0.5
        y = (1 - self.mesh.uv[:, 1:]) * height - 0.5
        sampled: Floats = np.asarray(cv2.remap(smooth, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE))
        return sampled[:, 0].clip(0, 1)

    def _read_mesh(self) -> Mesh:
        obj = _read_obj(self._data / "3dobjs" / "base.obj")
        base, texels = np.array(obj.vertices), np.array(obj.texels)
        quads, groups = [], []
        for name, group in PARTS:
            faces = np.array(obj.faces[name])
            if group is Group.SKIN:
                corners = base[faces]
                near = (corners[..., 1].min(1) > _LOWEST) & (abs(corners[..., 0]).max(1) < _WIDEST)
                faces = faces[near]
            quads.append(faces)
            groups.append(np.full(len(faces), group))
        full_ids, compact = np.unique(np.concatenate(quads), return_inverse=True)
        quad = compact.reshape(-1, 4)
        triangles = np.concatenate((quad[:, [0, 1, 2]], quad[:, [0, 2, 3]]))
        triangle_group = np.concatenate(groups * 2)
        vertex_group = np.zeros(len(full_ids), np.int64)
        vertex_group[triangles] = triangle_group[:, None]
        return Mesh(
            full_ids=full_ids,
            base=base[full_ids].astype(np.float32),
            uv=texels[[obj.texel_of[vertex] for vertex in full_ids.tolist()]].astype(np.float32),
            triangles=triangles,
            triangle_group=triangle_group,
            vertex_group=vertex_group,
            mirror=np.searchsorted(full_ids, _read_mirror(self._data / "mesh_metadata" / "hm08.mirror")[full_ids]),
        )


def _to_head_axes(anny: torch.Tensor) -> Floats:
    """Convert (..., 3) from metres in the order x, -z, y to the frame of `base.obj`."""
    x, z, y = anny.unbind(-1)
    turned: Floats = (10 * torch.stack((x, y, -z), -1)).numpy().astype(np.float32)
    return turned


def _read_obj(path: Path) -> _Obj:
    obj, name = _Obj(), ""
    for line in path.read_text(encoding="utf-8").splitlines():
        kind, *words = line.split() or [""]
        if kind == "v":
            obj.vertices.append(tuple(map(float, words[:3])))
        elif kind == "vt":
            obj.texels.append(tuple(map(float, words[:2])))
        elif kind == "g":
            name = words[0]
        elif kind == "f":
            corners = [[int(number) - 1 for number in word.split("/")[:2]] for word in words]
            obj.faces.setdefault(name, []).append([vertex for vertex, _ in corners])
            for vertex, texel in corners:
                obj.texel_of.setdefault(vertex, texel)
    return obj


def _read_mirror(path: Path) -> Ints:
    """Read lines of `vertex partner side` into (full mesh,)."""
    partner: NDArray[Any] = np.empty(MESH_VERTICES, np.int64)
    for line in path.read_text(encoding="utf-8").splitlines():
        vertex, other, _ = line.split()
        partner[int(vertex)] = int(other)
    return partner

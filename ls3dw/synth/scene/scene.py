"""A batch of posed heads in front of cameras: the geometry that shading and landmarks need."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from torch import Tensor

from ls3dw.synth.head.brows import Brows
from ls3dw.synth.raster.rasterizer import Fragments
from ls3dw.synth.scene.locks import Locks


class Attribute(IntEnum):
    """Columns of `Scene.attributes`, from 0 to 1."""

    OCCLUSION = 0
    """Ambient light that reaches the place (1: all)."""

    LIP = 1
    MOUTH = 2
    """Inside of the mouth."""

    EAR = 3
    LID = 4


class Extra(IntEnum):
    """Groups of triangles that a scene adds to those of `head.Group`."""

    GLASSES_FRAME = 11
    GLASSES_LENS = 12
    HAT = 13


class HatKind(IntEnum):
    """Kinds of hats."""

    NONE = 0
    CAP = 1
    BEANIE = 2
    HOOD = 3
    BRIM = 4
    """A hat with a brim all around."""


@dataclass(frozen=True)
class Scene:
    """B heads with worn things, posed, projected and rasterized, V vertices and T triangles in all.

    Things that a head does not wear have all vertices in one place, so no pixels. Frames: "head" has x to the subject's
    left, y up, z out of the face; "view" has x right, y up, z toward the camera; both are in head units (about 0.07 m).
    "screen" is in pixels, x right, y down, z larger nearer.
    """

    size: int
    """Side of the picture in pixels."""

    screen: Tensor
    """(B, V, 3) pixels, pixel centres at integers; z is larger nearer, in the scale of x and y."""

    posed: Tensor
    """(B, V, 3) view frame, before perspective, for normals, light and shadow."""

    rest: Tensor
    """(V, 3) mean head without expression, head frame: texture coordinates that stick to the face."""

    triangles: Tensor
    """(T, 3) int64."""

    triangle_group: Tensor
    """(T,) int64: `head.Group` or `Extra`."""

    attributes: Tensor
    """(V, 5) float32, columns of `Attribute`."""

    opaque: Fragments
    """Everything but lenses and long hair. Triangle numbers of all layers index `triangles`."""

    lens: Fragments
    """Lenses of glasses, drawn over `opaque` where they are nearer."""

    hair: Fragments
    """The whole shell of long hair; hair is where `hair_cut` is positive."""

    rotation: Tensor
    """(B, 3, 3): view = rotation @ head."""

    scale: Tensor
    """(B,) pixels in a head unit."""

    hairline: Tensor
    """(B,) A scalp place u (unit vector from (0, 0.3, -0.5)) has hair where u . (0, 0.6, -0.8) > hairline; heads are
    bald above about 0.9."""

    hair_cut: Tensor
    """(B, H, W) distance inside the cut of long hair, in head units; positive where there is hair (noise added to it
    frays the edge), -inf outside `hair`."""

    locks: Locks
    """Hair across the face, in front of all layers."""

    brows: Brows

    has_long_hair: Tensor
    """(B,) bool."""

    hat_kind: Tensor
    """(B,) int64: `HatKind`."""

    @property
    def has_hat(self) -> Tensor:
        """(B,) bool."""
        return self.hat_kind > 0

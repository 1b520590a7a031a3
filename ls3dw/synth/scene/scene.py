"""A batch of posed heads before a camera: all that the shading and the landmarks need to know about geometry."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from torch import Tensor

from ls3dw.synth.head.brows import Brows
from ls3dw.synth.raster.rasterizer import Fragments
from ls3dw.synth.scene.locks import Locks


class Attribute(IntEnum):
    """Columns of `Scene.attributes`: what every vertex of the mesh carries, each from 0 to 1."""

    OCCLUSION = 0
    """Light that reaches the place from all around (1 open)."""

    LIP = 1
    MOUTH = 2
    """Inside of the mouth."""

    EAR = 3
    LID = 4


class Extra(IntEnum):
    """Groups of the parts that a scene adds to those of `head.Group`."""

    GLASSES_FRAME = 11
    GLASSES_LENS = 12
    HAT = 13


class HatKind(IntEnum):
    """What is worn on the head."""

    NONE = 0
    CAP = 1
    BEANIE = 2
    HOOD = 3
    BRIM = 4
    """A hat with a brim all around."""


@dataclass(frozen=True)
class Scene:
    """B heads with what they wear, posed, projected and rasterized. V vertices and T triangles are those of all parts.

    What a head does not wear has all its vertices in one place, and so no pixels. Frames: "head" has x to the
    subject's left, y up, z out of the face; "view" is the head turned to the camera (x right, y up, z toward it), both
    in head units (about 0.07 m); "screen" is pixels (x right, y down, z larger nearer).
    """

    size: int
    """Side of the picture in pixels."""

    screen: Tensor
    """(B, V, 3) pixels, centres of pixels at integers, z nearer is larger, with the scale of x and y."""

    posed: Tensor
    """(B, V, 3) view frame, before perspective: for normals, light and shadow."""

    rest: Tensor
    """(V, 3) head frame, of the mean head without expression: patterns at these coordinates stick to the face."""

    triangles: Tensor
    """(T, 3) int64."""

    triangle_group: Tensor
    """(T,) int64: `head.Group` or `Extra`."""

    attributes: Tensor
    """(V, 5) float32, columns of `Attribute`."""

    opaque: Fragments
    """What is seen of everything but lenses and long hair. Triangle numbers of all layers index `triangles`."""

    lens: Fragments
    """The glasses' lenses, to be laid over `opaque` where they are nearer."""

    hair: Fragments
    """The shell of long hair, whole: what is left of it is where `hair_cut` is positive."""

    rotation: Tensor
    """(B, 3, 3) head frame to view frame: view = rotation @ head."""

    scale: Tensor
    """(B,) pixels in a head unit."""

    hairline: Tensor
    """(B,) where scalp hair begins: a scalp place u (unit vector from (0, 0.3, -0.5)) has hair where
    u . (0, 0.6, -0.8) > hairline; above about 0.9 the head is bald."""

    hair_cut: Tensor
    """(B, H, W) of `hair`: how far inside the cut of the long hair a pixel lies, in head units: hair is there where
    this is positive (add noise to fray the edge); -inf where there is no hair."""

    locks: Locks
    """Hair across the face, before all layers."""

    brows: Brows

    has_long_hair: Tensor
    """(B,) bool."""

    hat_kind: Tensor
    """(B,) int64: `HatKind`."""

    @property
    def has_hat(self) -> Tensor:
        """(B,) bool."""
        return self.hat_kind > 0

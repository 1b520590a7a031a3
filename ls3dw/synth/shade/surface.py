"""The surface of everything opaque: skin, then hair, then worn things."""

from __future__ import annotations

from torch import Tensor

from ls3dw.synth.head.model import Head
from ls3dw.synth.rng import Rng
from ls3dw.synth.scene.scene import Scene
from ls3dw.synth.shade.cloth import paint_cloth
from ls3dw.synth.shade.face_hair import paint_beard, paint_brows, paint_scalp
from ls3dw.synth.shade.paint import Paint
from ls3dw.synth.shade.palette import Looks
from ls3dw.synth.shade.parts import paint_eyes, paint_frames, paint_lashes, paint_mouth
from ls3dw.synth.shade.pixels import Pixels
from ls3dw.synth.shade.skin import paint_skin


def paint_surface(
    pixels: Pixels, scene: Scene, head: Head, looks: Looks, bank: Tensor, rng: Rng
) -> tuple[Paint, Tensor]:
    """Paint every opaque pixel; also return who has a full beard (B, 1, 1, 1)."""
    paint, fine = paint_skin(pixels, looks, rng)
    paint_brows(paint, pixels, scene, head, looks, fine, rng)
    bearded = paint_beard(paint, pixels, looks, fine, rng)
    paint_scalp(paint, pixels, scene, looks, fine, rng)
    paint_mouth(paint, pixels, rng)
    paint_eyes(paint, pixels, rng)
    paint_lashes(paint, pixels, looks, rng)
    paint_cloth(paint, pixels, scene, bank, fine, rng)
    paint_frames(paint, pixels, rng)
    return paint, bearded

"""Hair: streaks, and the layer of long hair in front of jaw, cheeks and ears."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ls3dw.synth.rng import Rng
from ls3dw.synth.scene.scene import Scene
from ls3dw.synth.shade.light import Lights, irradiance, to_linear
from ls3dw.synth.shade.noise import sinusoid_noise
from ls3dw.synth.shade.palette import Looks
from ls3dw.synth.shade.pixels import look
from ls3dw.synth.shade.tensors import mix, planes, step


def strands(rest: Tensor, rng: Rng, along: float = 0.6) -> Tensor:
    """Return streaks of hair (B, 1, H, W), of high frequency around the head and low frequency downward."""
    around = torch.atan2(rest[:, :1], rest[:, 2:] + 0.5)
    down = rest[:, 1:2] * along
    broad = sinusoid_noise(torch.cat((around * 8, down, rest[:, 2:] * 0.5), 1), rng, 1, 9, waves=10)
    narrow = sinusoid_noise(torch.cat((around * 45, down * 1.6), 1), rng, 0.5, 3, waves=8)
    return 0.6 * broad + 0.5 * narrow


def tinted(colour: Tensor, streaks: Tensor, strength: Tensor) -> Tensor:
    """Vary a hair colour by streaks, the light ones warmer."""
    return mix(colour, colour * planes((1.1, 1.0, 0.85), colour.device), streaks.clamp(0, 1)) * (
        1 + strength * streaks
    ).clamp(0.15, 2.4)


def long_hair(
    scene: Scene, normals: Tensor, front: Tensor, looks: Looks, lights: Lights, rng: Rng
) -> tuple[Tensor, Tensor]:
    """Return the light from long hair (B, 3, H, W) and its coverage (B, 1, H, W).

    front: (B, 1, H, W) depth of the opaque layer, which hides hair behind it.
    """
    count = len(front)
    one = (count, 1, 1, 1)
    pixels = look(scene, scene.hair, normals)
    cut = scene.hair_cut[:, None].clamp(-9, 9)
    rest = pixels.rest
    ragged = sinusoid_noise(rest * planes((6.0, 0.7, 2.0), rest.device), rng, 0.6, 4, waves=12)
    kept = step(cut + rng.uniform(*one, low=0.02, high=0.12) * ragged, -0.02, 0.03)
    near = pixels.depth > front - 0.03 * scene.scale.view(one)
    share = kept * (pixels.seen & near) * scene.has_long_hair.view(one)
    share = F.avg_pool2d(F.pad(share, (1, 1, 1, 1), mode="replicate"), 3, 1)
    around = torch.atan2(rest[:, :1], rest[:, 2:] + 0.5)
    waves = sinusoid_noise(rest, rng, 1.5, 5, waves=6) * rng.uniform(*one).square() * 0.12
    streaks = sinusoid_noise(torch.cat((around + waves, rest[:, 1:2] * 0.05), 1), rng, 14, 150, waves=16)
    colour = tinted(looks.hair, streaks, rng.uniform(*one, low=0.05, high=0.24))
    # Strands hang down: normals vary around the head and little from top to bottom.
    rounded = torch.cat((rest[:, :1] + 0.12 * streaks, (rest[:, 1:2] - 0.2) * 0.4, rest[:, 2:] + 0.4), 1)
    rounded = torch.einsum("bij,bjhw->bihw", scene.rotation, F.normalize(rounded, dim=1))
    normal = F.normalize(0.7 * rounded + 0.3 * pixels.normal, dim=1)
    open_ = torch.full_like(share, 0.8)
    light = to_linear(colour) * irradiance(lights, normal, open_, open_)
    facing = (normal * lights.lamp).sum(1, keepdim=True).clamp(min=0)
    shine = facing.pow(10) * (0.5 + 0.5 * streaks).clamp(0, 1.5) * rng.uniform(*one) * 0.12
    return light + shine * lights.lamp_colour, share

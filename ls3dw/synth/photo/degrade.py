"""The photographic chain: what lies between a scene and its picture in a data set, drawn anew for every picture."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ls3dw.errors import ConfigurationError
from ls3dw.synth.photo.jpeg import compress
from ls3dw.synth.rng import SplitRng
from ls3dw.synth.scene.blobs import occlude
from ls3dw.synth.shade.palette import plain_colours
from ls3dw.synth.shade.tensors import mix, planes

GROUPS = 8
"""Pictures of one group share their resolution and interpolation, which tensors cannot vary."""

KERNEL = 9
MARGIN = 0.36
"""Widest margin beyond a photograph's edge, in sides of the picture: the last half cuts into the face."""

SIZE_STEP = 16
"""Low resolutions are multiples of it: JPEG needs whole blocks of 16 with its colour at half resolution."""


@dataclass(frozen=True)
class DegradeOptions:
    """How often (probabilities) and how much (ranges); values are of pictures in [0, 1], lengths in pixels."""

    occluders: tuple[float, ...] = (0.18, 0.1)
    """One probability for each occluder a picture may get."""

    gamma: tuple[float, float] = (0.6, 1.7)
    contrast: tuple[float, float] = (0.6, 1.4)
    brightness: float = 0.07
    """Standard deviation of what is added to all channels."""

    white_balance: float = 0.1
    """Standard deviation of each channel's gain."""

    saturation: tuple[float, float] = (0.5, 1.6)
    gray: float = 0.12
    vignette: float = 0.2
    low_resolution: float = 0.6
    smallest: int = 48
    blur: float = 0.5
    longest_blur: float = 2.2
    """Radius of defocus; motion is up to the kernel's side."""

    noise: float = 0.06
    """Largest standard deviation, at mid-gray; most pictures have far less."""

    jpeg: float = 0.6
    quality: tuple[float, float] = (15.0, 95.0)
    border: float = 0.24
    """Share of the pictures that reach beyond the edge of their photograph."""

    def __post_init__(self) -> None:
        if faults := [*self._chance_faults(), *self._range_faults()]:
            raise ConfigurationError(f"degradation: {'; '.join(faults)}")

    def _chance_faults(self) -> Iterator[str]:
        chances = {name: getattr(self, name) for name in _CHANCES}
        chances |= {f"occluders[{number}]": chance for number, chance in enumerate(self.occluders)}
        yield from (f"{name} {chance}: expected 0 to 1" for name, chance in chances.items() if not 0 <= chance <= 1)

    def _range_faults(self) -> Iterator[str]:
        for name, least, most in _RANGES:
            low, high = getattr(self, name)
            if not least <= low <= high <= most:
                yield f"{name} {(low, high)}: expected low and high, from {least} to {most}"
        for name, least in _LEAST:
            if not getattr(self, name) >= least:
                yield f"{name} {getattr(self, name)}: expected at least {least}"


_CHANCES = ("gray", "vignette", "low_resolution", "blur", "jpeg", "border")
_RANGES = (("gamma", 0.1, 10), ("contrast", 0, 10), ("saturation", 0, 10), ("quality", 1, 100))
_LEAST = (("brightness", 0), ("white_balance", 0), ("smallest", SIZE_STEP), ("longest_blur", 0.3), ("noise", 0))


def degrade(images: Tensor, draws: SplitRng, options: DegradeOptions | None = None) -> Tensor:
    """Put pictures (B, 3, S, S) in [0, 1] through occluders, tone, blur, resolution, noise, JPEG and borders.

    S must be a multiple of 16, or `ConfigurationError`. Nothing waits for the device. Landmarks stay where they are.
    """
    height, width = images.shape[-2:]
    if height != width or height % SIZE_STEP:
        raise ConfigurationError(
            f"degradation of {width} x {height} pixels: expected a square, {SIZE_STEP} times a number"
        )
    options = options or DegradeOptions()
    images = occlude(images, draws, options.occluders)
    images = _tone(images, draws, options)
    order = draws.permutation(len(images))
    done = [_photograph(images[group], draws, options) for group in order.chunk(GROUPS)]
    images = torch.cat(done)[order.argsort()]
    return _border(images, draws, options.border)


def _tone(images: Tensor, draws: SplitRng, options: DegradeOptions) -> Tensor:
    """Change gamma, contrast, brightness, colours and the light towards the corners."""
    count, _, height, width = images.shape
    one = (count, 1, 1, 1)
    images = images.clamp(1e-4, 1) ** draws.uniform(*one, low=options.gamma[0], high=options.gamma[1])
    gain = draws.uniform(*one, low=options.contrast[0], high=options.contrast[1])
    balance = 1 + options.white_balance * draws.normal(count, 3, 1, 1)
    shift = 0.5 - 0.5 * gain + options.brightness * draws.normal(*one)
    images = images * (gain * balance) + shift * balance
    luminance = (images * planes((0.299, 0.587, 0.114), images.device)).sum(1, keepdim=True)
    saturation = draws.uniform(*one, low=options.saturation[0], high=options.saturation[1])
    images = mix(luminance, images, saturation * ~draws.chance(options.gray, *one))
    strength = draws.uniform(*one, high=0.6) * draws.chance(options.vignette, *one)
    x = torch.linspace(-1, 1, width, device=images.device)
    y = torch.linspace(-1, 1, height, device=images.device)
    radius = (x.square()[None, :] + y.square()[:, None])[None, None] / 2
    return (images * (1 - strength * radius)).clamp_(0, 1)


def _photograph(images: Tensor, draws: SplitRng, options: DegradeOptions) -> Tensor:
    """Take one group through optics, sensor and file at a resolution of its own."""
    side, host = images.shape[-1], draws.host
    if host.uniform(1).item() < options.blur:
        images = _blur(images, draws, options.longest_blur)
    size = side
    if host.uniform(1).item() < options.low_resolution:
        smallest = min(options.smallest, side)
        wished = smallest * math.exp(host.uniform(1).item() * math.log(side / smallest))
        size = max(SIZE_STEP, round(wished / SIZE_STEP) * SIZE_STEP)
    if size != side:
        images = F.interpolate(images, size=(size, size), mode="area")
    images = _sensor(images, draws, options.noise)
    if host.uniform(1).item() < options.jpeg:
        images = compress(images, draws.uniform(len(images), low=options.quality[0], high=options.quality[1]))
    if size != side:
        mode = "bicubic" if host.uniform(1).item() < 0.5 else "bilinear"
        images = F.interpolate(images, size=(side, side), mode=mode, align_corners=False)
    return images.clamp_(0, 1)


def _blur(images: Tensor, draws: SplitRng, longest: float) -> Tensor:
    """Blur each picture by a kernel of its own: a soft disc (defocus) or a line (motion)."""
    count, channels, height, width = images.shape
    grid = torch.arange(KERNEL, device=images.device) - KERNEL // 2
    x, y = grid[None, None, :], grid[None, :, None]
    radius = draws.uniform(count, 1, 1, low=0.3, high=longest)
    disc = torch.sigmoid((radius - (x * x + y * y).sqrt()) * 4)
    angle, half = draws.uniform(count, 1, 1, high=math.pi), draws.uniform(count, 1, 1, high=KERNEL / 2 - 1)
    along, across = x * angle.cos() + y * angle.sin(), y * angle.cos() - x * angle.sin()
    line = torch.sigmoid((half - along.abs()) * 4) * torch.exp(-2 * across.square())
    kernel = torch.where(draws.chance(0.3, count, 1, 1), line, disc)
    kernel = kernel / kernel.sum((1, 2), keepdim=True)
    padded = F.pad(images, (KERNEL // 2,) * 4, mode="replicate").view(1, count * channels, *_grown(height, width))
    weights = kernel[:, None].expand(-1, channels, -1, -1).reshape(count * channels, 1, KERNEL, KERNEL)
    return F.conv2d(padded, weights, groups=count * channels).view(images.shape)


def _grown(height: int, width: int) -> tuple[int, int]:
    return height + KERNEL - 1, width + KERNEL - 1


def _sensor(images: Tensor, draws: SplitRng, strongest: float) -> Tensor:
    """Add noise of the read-out and of the light itself, which grows with the root of the light."""
    one = (len(images), 1, 1, 1)
    strength = draws.uniform(*one).pow(3) * strongest
    shot = draws.uniform(*one)
    grain = draws.normal(*images.shape)
    # Half of all cameras' noise is gray: the channels are mixed on the way to the file.
    grain = mix(grain, grain.mean(1, keepdim=True) * math.sqrt(3), draws.chance(0.5, *one).float())
    return (images + grain * strength * (1 - shot + shot * (2 * images.clamp(min=0)).sqrt())).clamp_(0, 1)


def _border(images: Tensor, draws: SplitRng, share: float) -> Tensor:
    """End some photographs inside the picture; beyond lies black, a colour, the edge repeated, or the reflection."""
    count, _, height, width = images.shape
    reached = draws.chance(share, count, 1)
    columns, inside_x = _beyond(draws, reached, width)
    rows, inside_y = _beyond(draws, reached, height)
    picture = torch.arange(count, device=images.device)
    moved = images.permute(0, 2, 3, 1)[picture[:, None, None], rows[:, :, None], columns[:, None, :]].permute(
        0, 3, 1, 2
    )
    inside = (inside_y[:, :, None] & inside_x[:, None, :])[:, None]
    flat = draws.chance(0.7, count, 1, 1, 1)
    colour = plain_colours(draws, count) * draws.chance(0.4, count, 1, 1, 1)
    return torch.where(inside | ~flat, moved, colour)


def _beyond(draws: SplitRng, reached: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Return which row or column is seen at each place (B, length), and whether it lies inside the photograph."""
    count = len(reached)
    place = torch.arange(length, device=reached.device)[None]
    open_side = draws.chance(0.5, count, 2) | ~reached
    depth = (draws.uniform(count, 2) * MARGIN * length).long() * ~open_side
    low, high = depth[:, :1], length - 1 - depth[:, 1:]
    reflected = torch.where(place < low, 2 * low - place, torch.where(place > high, 2 * high - place, place))
    repeated = torch.minimum(torch.maximum(place, low), high)
    source = torch.where(draws.chance(0.5, count, 1), reflected, repeated).clamp(0, length - 1)
    return source, (place >= low) & (place <= high)

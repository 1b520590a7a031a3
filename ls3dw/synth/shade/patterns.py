"""Procedural pictures for backgrounds, clothes and reflections.

Each kind is a function (rng, count, side) -> (count, 3, side, side) float32 in [0, 1]. They run once, for the bank, so
they are written for clarity, not speed.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ls3dw.synth.rng import Rng
from ls3dw.synth.shade.tensors import mix, step


def clouds(rng: Rng, count: int, side: int) -> Tensor:
    """Mix three colours by fractal noise: walls, skies, cloth, anything out of focus."""
    field, detail = fractal(rng, count, side), fractal(rng, count, side)
    low, middle, high = (colours(rng, count) for _ in range(3))
    image = mix(mix(low, middle, step(field, 0.2, 0.6)), high, step(field, 0.5, 0.9))
    return (image * (0.8 + 0.4 * detail)).clamp(0, 1)


def bokeh(rng: Rng, count: int, side: int) -> Tensor:
    """Lay discs of defocused light over a dim scene."""
    image = clouds(rng, count, side) * rng.uniform(count, 1, 1, 1, low=0.1, high=0.7)
    radius = rng.uniform(count, 1, 1, 1, low=0.03, high=0.2)
    lamp = colours(rng, count)
    for _ in range(30):
        x, y = _offset(rng, count, side)
        distance = (x * x + y * y).sqrt() / (radius * rng.uniform(count, 1, 1, 1, low=0.7, high=1.2))
        light = step(distance, 1.05, 0.9) * (0.6 + 0.4 * distance.clamp(0, 1))
        tint = (lamp + 0.5 * (colours(rng, count) - 0.5)).clamp(0, 1)
        image = image + light * tint * rng.uniform(count, 1, 1, 1, high=0.7)
    return image.clamp(0, 1)


def stripes(rng: Rng, count: int, side: int) -> Tensor:
    """Cross two bands of lines, bent by noise: cloth, blinds, fences, planks."""
    x, y = _turned(rng, count, side)
    bend = rng.uniform(count, 1, 1, 1).square() * 0.6 * (fractal(rng, count, side) - 0.5)
    image = colours(rng, count).expand(-1, -1, side, side)
    for axis in (x + bend, y + bend):
        wave = torch.sin(axis * rng.uniform(count, 1, 1, 1, low=4, high=60) + rng.uniform(count, 1, 1, 1) * 6)
        edge = rng.uniform(count, 1, 1, 1, low=0.05, high=1.0)
        share = step(wave, -edge, edge) * rng.chance(0.75, count, 1, 1, 1) * rng.uniform(count, 1, 1, 1)
        image = mix(image, colours(rng, count), share)
    return (image * (0.7 + 0.6 * fractal(rng, count, side))).clamp(0, 1)


def bricks(rng: Rng, count: int, side: int) -> Tensor:
    """Lay bricks, tiles or panels of varied shade, with joints."""
    x, y = _turned(rng, count, side, most=0.3)
    rows = y * rng.uniform(count, 1, 1, 1, low=2, high=14)
    columns = x * rng.uniform(count, 1, 1, 1, low=1, high=10) + 0.5 * rng.uniform(count, 1, 1, 1) * rows.floor()
    shade = _hash(rows.floor(), columns.floor())
    edge = torch.minimum(0.5 - (rows - rows.floor() - 0.5).abs(), 0.5 - (columns - columns.floor() - 0.5).abs())
    joint = step(edge, 0.0, rng.uniform(count, 1, 1, 1, low=0.02, high=0.12))
    grain = fractal(rng, count, side)
    body = colours(rng, count) * (1 + (shade - 0.5) * rng.uniform(count, 1, 1, 1)) * (0.75 + 0.5 * grain)
    return mix(colours(rng, count) * (0.8 + 0.4 * grain), body, joint).clamp(0, 1)


def rooms(rng: Rng, count: int, side: int) -> Tensor:
    """Stack upright boxes with lit edges: doors, windows, shelves, screens, houses."""
    image = 0.4 * clouds(rng, count, side) + 0.6 * colours(rng, count)
    for _ in range(26):
        x, y = _offset(rng, count, side)
        wide, high = (0.02 + 0.5 * rng.uniform(count, 1, 1, 1).square() for _ in range(2))
        sharp = rng.uniform(count, 1, 1, 1, low=0.003, high=0.03)
        inside = step(x.abs(), wide + sharp, wide) * step(y.abs(), high + sharp, high)
        tone = colours(rng, count) + 0.4 * rng.normal(count, 1, 1, 1) * y + 0.3 * rng.normal(count, 1, 1, 1) * x
        image = mix(image, tone.clamp(0, 1), inside)
    return (image * (0.85 + 0.3 * fractal(rng, count, side))).clamp(0, 1)


def leaves(rng: Rng, count: int, side: int) -> Tensor:
    """Layer cells of three sizes: foliage, stones, crowds, crumpled things."""
    image = clouds(rng, count, side) * 0.5
    base, accent = colours(rng, count), colours(rng, count)
    green = torch.tensor((0.25, 0.4, 0.12), device=rng.device).view(1, 3, 1, 1)
    base = torch.where(rng.chance(0.5, count, 1, 1, 1), green * (0.5 + rng.uniform(count, 1, 1, 1)), base)
    for scale in (5.0, 11.0, 24.0):
        distance, shade, tone = _cells(rng, count, side, scale)
        body = mix(base, accent, tone * rng.uniform(count, 1, 1, 1)) * (0.35 + 1.1 * shade)
        share = step(distance, 0.55, 0.4) * (shade > rng.uniform(count, 1, 1, 1))
        image = mix(image, body * (1.1 - 0.9 * distance), share)
    return image.clamp(0, 1)


def dead_leaves(rng: Rng, count: int, side: int) -> Tensor:
    """Drop shapes of all sizes on each other: the dead leaves model, with the statistics of photographs."""
    half = side // 2
    image = clouds(rng, count, half)
    palette = torch.stack([colours(rng, count) for _ in range(5)])
    for index in range(110):
        x, y = _offset(rng, count, half)
        size = 0.035 / (0.07 + rng.uniform(count, 1, 1, 1))
        angle, flat = rng.uniform(count, 1, 1, 1, high=math.pi), rng.uniform(count, 1, 1, 1, low=0.3)
        u, v = x * angle.cos() + y * angle.sin(), (y * angle.cos() - x * angle.sin()) / flat
        shape = torch.where(rng.chance(0.5, count, 1, 1, 1), (u * u + v * v).sqrt(), torch.maximum(u.abs(), v.abs()))
        tone = palette[index % len(palette)] * rng.uniform(count, 1, 1, 1, low=0.3, high=1.3)
        tone = tone * (1 + rng.normal(count, 1, 1, 1) * u / size * 0.3)
        image = torch.where(shape < size, tone.clamp(0, 1), image)
    image = F.interpolate(image, size=(side, side), mode="bilinear", align_corners=False)
    return (image * (0.8 + 0.4 * fractal(rng, count, side))).clamp(0, 1)


def writing(rng: Rng, count: int, side: int) -> Tensor:
    """Write lines of made-up letters of several sizes: posters, banners, captions, number plates."""
    image = clouds(rng, count, side)
    for _ in range(3):
        x, y = _turned(rng, count, side, most=0.15)
        scale = rng.uniform(count, 1, 1, 1, low=8, high=40)
        rows, columns = y * scale, x * scale * 1.6
        line, letter = rows.floor(), columns.floor()
        # A letter is a 4 x 5 raster with space around it.
        cell_x, cell_y = ((columns - letter) * 5).floor(), ((rows - line) * 8).floor()
        ink = (_hash(line * 7 + cell_y, letter * 5 + cell_x) > 0.42) & (cell_x < 4) & (cell_y < 5)
        ink = ink & (_hash(line, (letter / 6).floor()) > 0.35) & (_hash(line, line + 3) > 0.3)
        top, bottom = rng.uniform(count, 1, 1, 1, low=-1, high=0.6), rng.uniform(count, 1, 1, 1, low=0.1, high=0.7)
        share = ink * (y > top) * (y < top + bottom) * rng.chance(0.8, count, 1, 1, 1)
        image = mix(image, colours(rng, count), share.float())
    return image


KINDS: tuple[Callable[[Rng, int, int], Tensor], ...] = (
    clouds,
    bokeh,
    stripes,
    bricks,
    rooms,
    leaves,
    dead_leaves,
    writing,
)


def fractal(rng: Rng, count: int, side: int, channels: int = 1) -> Tensor:
    """Sum octaves of random grids of random roughness: (count, channels, side, side), stretched to [0, 1]."""
    total = torch.zeros(count, channels, side, side, device=rng.device)
    roughness = rng.uniform(count, 1, 1, 1, low=0.4, high=0.85)
    cells = 2
    while cells < side:
        grid = rng.normal(count, channels, cells + 1, cells + 1)
        octave = F.interpolate(grid, size=(side, side), mode="bicubic", align_corners=True)
        total = total + octave * roughness ** math.log2(cells)
        cells *= 2
    low, high = total.amin((2, 3), keepdim=True), total.amax((2, 3), keepdim=True)
    return (total - low) / (high - low)


def colours(rng: Rng, count: int) -> Tensor:
    """Draw colours (count, 3, 1, 1) of things: any lightness, mostly low saturation, rather warm."""
    lightness = rng.uniform(count, 1, 1, 1, low=0.03, high=0.95)
    chroma = (rng.uniform(count, 3, 1, 1) - 0.5) * rng.uniform(count, 1, 1, 1).pow(2) * 1.1
    warm = torch.tensor((0.08, 0.0, -0.08), device=rng.device).view(1, 3, 1, 1) * rng.normal(count, 1, 1, 1)
    return (lightness + chroma + warm).clamp(0, 1)


def _axes(side: int, device: torch.device) -> tuple[Tensor, Tensor]:
    line = torch.linspace(-1, 1, side, device=device)
    return line.view(1, 1, 1, side), line.view(1, 1, side, 1)


def _offset(rng: Rng, count: int, side: int) -> tuple[Tensor, Tensor]:
    """Return coordinates around a random place of each picture."""
    x, y = _axes(side, rng.device)
    middle = rng.uniform(2, count, 1, 1, 1, low=-1.1, high=1.1)
    return x - middle[0], y - middle[1]


def _turned(rng: Rng, count: int, side: int, most: float = math.pi) -> tuple[Tensor, Tensor]:
    x, y = _axes(side, rng.device)
    angle = rng.uniform(count, 1, 1, 1, low=-most, high=most)
    return x * angle.cos() + y * angle.sin(), y * angle.cos() - x * angle.sin()


def _hash(first: Tensor, second: Tensor) -> Tensor:
    """Hash pairs of whole numbers to [0, 1)."""
    mixed = torch.sin(first * 12.9898 + second * 78.233) * 43758.5453
    return mixed - mixed.floor()


def _cells(rng: Rng, count: int, side: int, scale: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return the distance to the nearest seed of a jittered grid, and two random values of that seed."""
    x, y = _turned(rng, count, side)
    x, y = x * scale + rng.uniform(count, 1, 1, 1) * 99, y * scale + rng.uniform(count, 1, 1, 1) * 99
    nearest = torch.full((count, 1, side, side), 9.0, device=rng.device)
    seed_x, seed_y = torch.zeros_like(nearest), torch.zeros_like(nearest)
    for dx in (-1, 0, 1):
        for dy in (-1, 0, 1):
            column, row = x.floor() + dx, y.floor() + dy
            away_x = column + _hash(column, row) - x
            away_y = row + _hash(row + 17, column) - y
            distance = (away_x * away_x + away_y * away_y * 2).sqrt()
            closer = distance < nearest
            nearest = torch.where(closer, distance, nearest)
            seed_x, seed_y = torch.where(closer, column, seed_x), torch.where(closer, row, seed_y)
    return nearest, _hash(seed_x + 5, seed_y), _hash(seed_y + 11, seed_x)

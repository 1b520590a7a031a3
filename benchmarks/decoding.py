"""Holds estimators of a landmark's place in its heatmap against each other, where the truth is exact.

    python benchmarks/decoding.py                      heatmaps of the bundled 2D-FAN on the embedded sample
    python benchmarks/decoding.py --crops heads.npz    on other crops: `crops` (N,256,256,3) uint8, `points` (N,68,2)

All figures are in pixels of the 256x256 crop; a heatmap cell has four. bias: mean error; phase bias: the largest mean
error among the points that share a sixteenth of a cell, which shows an estimator that is drawn to cells' centres.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ls3dw.core.crops import cut_window
from ls3dw.core.geometry import apply
from ls3dw.core.resources import folder
from ls3dw.models import load
from ls3dw.models.inference.resampling import resample
from ls3dw.models.networks import heatmaps
from ls3dw.models.networks.heatmaps import (
    cells_to_crop,
    decode_quarter,
    decode_subpixel,
    draw_gaussians,
    peaks,
    windows,
)
from ls3dw.sources import SOURCES, open_source

PHASES = 16


def parabola(maps: Tensor) -> Tensor:
    """Peak of the parabola through the logarithms of the highest cell and its neighbours on each axis."""
    peak = peaks(maps)[0]
    logs = windows(maps, peak, radius=1).clamp(min=1e-6).log()
    slope = torch.stack((logs[..., 1, 2] - logs[..., 1, 0], logs[..., 2, 1] - logs[..., 0, 1]), -1) / 2
    ends = torch.stack((logs[..., 1, 2] + logs[..., 1, 0], logs[..., 2, 1] + logs[..., 0, 1]), -1)
    bend = ends - 2 * logs[..., 1, 1, None]
    return cells_to_crop(peak + (slope / -bend.clamp(max=-1e-6)).clamp(-1, 1))


def centroid(maps: Tensor, radius: int) -> Tensor:
    """Centre of mass of the window around the highest cell."""
    peak = peaks(maps)[0]
    window = windows(maps.clamp(min=0), peak, radius)
    offset = torch.arange(-radius, radius + 1, dtype=maps.dtype, device=maps.device)
    mass = window.sum(dim=(2, 3)).clamp(min=1e-6)
    shift = torch.stack(((window.sum(2) * offset).sum(2) / mass, (window.sum(3) * offset).sum(2) / mass), -1)
    return cells_to_crop(peak + shift)


ESTIMATORS: dict[str, Callable[[Tensor], Tensor]] = {
    "highest cell": lambda maps: cells_to_crop(peaks(maps)[0].to(maps.dtype)),
    "quarter cell (published)": lambda maps: cells_to_crop(decode_quarter(maps)[0] - 0.5),
    "parabola of logs": parabola,
    "centroid 3x3": lambda maps: centroid(maps, 1),
    "centroid 5x5": lambda maps: centroid(maps, 2),
    "centroid 7x7": lambda maps: centroid(maps, 3),
    "Newton step on smoothed logs (ours)": lambda maps: decode_subpixel(maps)[0],
}


def measure(points: Tensor, truth: Tensor) -> str:
    """Return a line of figures for points (N, P, 2) against the truth."""
    error = (points - truth).double().cpu()
    distance = error.norm(dim=-1)
    bias = error.mean(dim=(0, 1))
    phase = (((truth.double().cpu() + 0.5) / 4 - 0.5) % 1 * PHASES).long()
    drawn = max(abs(error[..., axis][phase[..., axis] == p].mean().item()) for p in range(PHASES) for axis in (0, 1))
    return f"{distance.mean():8.3f} {distance.median():8.3f} {bias[0]:+8.3f} {bias[1]:+8.3f} {drawn:8.3f}"


def table(title: str, maps: dict[str, Tensor], truth: Tensor) -> None:
    head = ("mean", "median", "bias x", "bias y", "phase")
    print(f"\n{title}: {truth.shape[0]} faces\n{' ' * 46} {' '.join(f'{name:>8}' for name in head)}")
    for kind, stack in maps.items():
        for name, estimate in ESTIMATORS.items():
            parts = [estimate(part) for part in torch.split(stack, 256)]
            print(f"{kind + name:<46} {measure(torch.cat(parts), truth)}")


def sample_crops() -> tuple[Tensor, Tensor]:
    """Return the crops (N, 3, 256, 256) of the embedded sample's faces with 68 contour points, and these (N, 68, 2)."""
    crops, points = [], []
    for name in SOURCES:
        for sample in open_source(name, folder("embedded")):
            if name == "aflw2000" or np.isnan(sample.annotation).any():
                continue
            window = cut_window(sample.image(), sample.box)
            crops.append(resample(torch.from_numpy(window.pixels)[None], torch.from_numpy(window.to_crop)[None]))
            points.append(apply(window.crop, sample.annotation))
    return torch.cat(crops), torch.from_numpy(np.stack(points))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--crops", type=Path)
    parser.add_argument("--model", default="fan-2d-small")
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    torch.manual_seed(0)
    truth = torch.rand(100, 68, 2) * 220 + 18
    ideal = draw_gaussians((truth + 0.5) / 4 - 0.5, 1.2, heatmaps.CELLS)
    noisy = ideal + 0.02 * torch.randn_like(ideal)
    table("Gaussians of std 1.2 cells", {"": ideal, "noise 0.02, ": noisy}, truth)
    if given.crops:
        data = np.load(given.crops)
        crops = torch.from_numpy(data["crops"]).permute(0, 3, 1, 2).float() / 255
        truth = torch.from_numpy(data["points"]).float()
    else:
        crops, truth = sample_crops()
    network = load(given.model, ("2d",)).network.to(given.device)
    with torch.inference_mode():
        plain, mirrored = [], []
        for part in torch.split(crops, 32):
            part = part.to(given.device)
            plain.append(network(part)[-1].float())
            mirrored.append(heatmaps.mirror_heatmaps(network(part.flip(-1))[-1].float()))
        one, both = torch.cat(plain), (torch.cat(plain) + torch.cat(mirrored)) / 2
        table(given.model, {"one pass, ": one, "with flip, ": both}, truth.to(given.device))
        points = [(decode_subpixel(a)[0] + decode_subpixel(b)[0]) / 2 for a, b in zip(plain, mirrored, strict=True)]
        print(f"{'points of both passes averaged, ours':<46} {measure(torch.cat(points), truth.to(given.device))}")


if __name__ == "__main__":
    main()

"""Stand-ins for what training takes long to make: heads of a few coloured dots, and small pipelines."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from ls3dw.core.pose import mean_head
from ls3dw.models.networks.heatmaps import draw_gaussians
from ls3dw.synth.renderer import Rendered
from ls3dw.synth.rng import keyed_rng
from ls3dw.training.data.heads import HeadRenderer
from ls3dw.training.distributed import ProcessGroup
from ls3dw.training.loop.trainer import Trainer
from ls3dw.training.options import TrainOptions, make_options

CPU = torch.device("cpu")
ALONE = ProcessGroup(CPU)


def dots(count: int, seed: int, chunk: int, size: int = 256) -> Rendered:
    """Draw mean heads, shifted and turned in the plane, as a bright dot a point; the 2D jaw is the 3D one."""
    rng = keyed_rng(CPU, seed, chunk)
    head = torch.from_numpy(mean_head()).float() * torch.tensor([1.0, -1.0, 1.0])
    head = head * (150 / (head[:, 0].max() - head[:, 0].min()))
    zoom = rng.uniform(count, 1, 1, low=0.8, high=1.1)
    points = head * zoom
    points[..., :2] += (size - 1) / 2 + rng.uniform(count, 1, 2, low=-15, high=15)
    colours = torch.linspace(0.3, 1, 68)[:, None] * torch.tensor([1.0, 0.8, 0.6])
    marks = torch.einsum("npyx,pc->ncyx", draw_gaussians(points[..., :2], 2.0, size), colours)
    images = (marks.clamp(0, 1) * 255).to(torch.uint8)
    visible = torch.ones(count, 68, dtype=torch.bool)
    return Rendered(images, points[..., :2].contiguous(), points, visible, torch.zeros(count, 3))


def open_dots(device: torch.device, options: Mapping[str, Any]) -> HeadRenderer:
    """Make the renderer of dots; options: size."""
    size = int(options.get("size", 256))
    return HeadRenderer(
        lambda count, seed, chunk: dots(count, seed, chunk, size), lambda images, seed, step: images * 0.9
    )


FAN = {"class": "FAN", "stacks": 1, "features": 16}
DEPTH = {"class": "DepthNet", "layers": [1, 1, 1, 1], "width": 4}
NETWORKS: dict[str, Any] = {
    "flat": {"kind": "2d", "network": FAN},
    "solid": {"kind": "3d", "network": FAN},
    "guided": {"kind": "2d-to-3d", "network": FAN},
    "depth": {"kind": "depth", "network": DEPTH},
}


def pipeline(**changes: Any) -> dict[str, Any]:
    """Return the plain values of a small pipeline."""
    return {
        "name": "small",
        "steps": 6,
        "batch": 4,
        "log": 2,
        "data": [{"stream": "heads", "pool": 16, "chunk": 4, "start": 8, "every": 2}],
        "networks": {"flat": NETWORKS["flat"]},
        "augment": {"rotation": 20, "scale": [0.9, 1.1], "degrade": 0.5},
        "validation": {"every": 0},
        "checkpoint": {"every": 3},
        **changes,
    }


def options(**changes: Any) -> TrainOptions:
    return make_options(pipeline(**changes))


class KilledError(Exception):
    """Stands for the end of the process."""


def train(chosen: TrainOptions, out: Path, until: int | None = None) -> Trainer:
    """Run a pipeline, or as far as the step `until`, where it is killed."""
    trainer = Trainer(chosen, out, ALONE, open_dots)
    if until is not None:
        take = trainer.step.__class__.__call__
        count = 0

        class Fragile(type(trainer.step)):  # type: ignore[misc]
            def __call__(self, *arguments: Any) -> None:
                nonlocal count
                take(self, *arguments)
                count += 1
                if count == until:
                    raise KilledError

        trainer.step.__class__ = Fragile
        with pytest.raises(KilledError):
            trainer.run()
    else:
        trainer.run()
    return trainer


def losses(out: Path) -> list[Any]:
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == "loss"]

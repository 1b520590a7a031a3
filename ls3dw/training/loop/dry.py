"""Opens everything that a run would open, and trains nothing: what is wrong is found before it takes a GPU."""

from __future__ import annotations

import torch

from ls3dw.synth.shade.background import read_pictures
from ls3dw.training.data.faces import FaceList
from ls3dw.training.data.feed import open_files
from ls3dw.training.networks import load_guide, make_networks
from ls3dw.training.options import TrainOptions, render_options


def open_all(options: TrainOptions) -> dict[int, FaceList]:
    """Return the faces of each stream that has any by its number; `ConfigurationError` for what cannot be opened."""
    for stream in options.data:
        if backgrounds := render_options(stream.render).backgrounds:
            read_pictures(backgrounds)
    device = torch.device("cpu")
    make_networks(options.networks, options.seed, device)
    load_guide(options.guidance.model, device)
    return open_files(options)

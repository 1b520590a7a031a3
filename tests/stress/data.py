"""The data set of the harnesses: two versions of the sample by random networks, with subsets, galleries, an audit."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ls3dw.building.audit import apply
from ls3dw.building.options import BuildOptions
from ls3dw.building.pipeline import Build
from ls3dw.core.files import sha256_file
from ls3dw.dataset.open import open_dataset
from ls3dw.dataset.subsets.pose_balanced import PoseBalance
from ls3dw.dataset.subsets.produce import write_pose_balanced, write_split
from ls3dw.dataset.subsets.split import SplitOptions
from ls3dw.review.gallery import write_gallery
from ls3dw.review.gallery.choose import GalleryOptions


@contextmanager
def work_folder() -> Iterator[Path]:
    """Yield a new folder, in memory where there is room."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        yield Path(folder)


def tiny_networks(folder: Path) -> dict[str, str]:
    """Write random networks that annotate quickly."""
    import torch

    from ls3dw.models import Contract
    from ls3dw.models.weights.zoo import save

    torch.manual_seed(0)
    files = {}
    for kind in ("2d", "3d"):
        network: dict[str, Any] = {"class": "FAN", "stacks": 1, "features": 16}
        contract = Contract(f"tiny-{kind}", kind, network, "")  # type: ignore[arg-type]
        save(contract.build(), folder / f"{kind}.safetensors", contract)
        files[f"model_{kind}"] = str(folder / f"{kind}.safetensors")
    return files


def make_data(folder: Path) -> Path:
    """Build the data set in a new folder below `folder`."""
    root = folder / "data"
    networks: dict[str, Any] = tiny_networks(folder)
    options = BuildOptions(out=root, gpu="none", workers=0, flip=False, limit=4, model_depth="none", **networks)
    Build(options).run(lambda plan: None, lambda record: None)
    dataset = open_dataset(root)
    write_split(dataset, SplitOptions(share=0.3))
    write_pose_balanced(dataset, PoseBalance(bins=2))
    write_gallery(dataset, GalleryOptions("random", limit=6))
    face = str(dataset.index["id"].iloc[0])
    entry = {"id": face, "verdict": "reject", "note": "", "when": "2026-01-31T12:00:00Z"}
    head = {"kind": "ls3dw decisions", "format": 1, "version": "v1", "gallery": "random", "who": "ada"}
    manifest = sha256_file(dataset.store.manifest_file("v1"))
    decisions = folder / "decisions.json"
    decisions.write_text(json.dumps({**head, "manifest": manifest, "decisions": [entry]}))
    apply(root, [decisions])
    return root


def report(name: str, figures: dict[str, Any]) -> None:
    """Print a line of the table, and exit 1 if something failed."""
    print(f"{name}: " + ", ".join(f"{value} {what}" for what, value in figures.items()), flush=True)
    if figures.get("failed"):
        sys.exit(1)

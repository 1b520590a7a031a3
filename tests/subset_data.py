"""Made-up indexes, and data sets that are no more than an index."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd


def make_index(faces: dict[str, Any] | None = None, seed: int = 0, **counts: int) -> pd.DataFrame:
    """Make an index: `menpo=50` stills of Menpo, `v001=300` frames of the video 001 of 300-VW. Hashes are all random.

    faces: columns that are the same for all; yaw is even in [-90, 90] otherwise.
    """
    parts = [_part(name, count, np.random.default_rng((seed, *name.encode()))) for name, count in counts.items()]
    return pd.concat(parts, ignore_index=True).assign(**(faces or {}))


def _part(name: str, count: int, dice: np.random.Generator) -> pd.DataFrame:
    number = np.arange(1, count + 1)
    film = name[1:] if name.startswith("v") else None
    ids = [f"300vw/{film}/{place:06d}" if film else f"{name}/face{place:05d}" for place in number]
    columns: dict[str, Any] = {
        "id": ids,
        "source": "300vw" if film else name,
        "subset": "train" if film in (None, "001", "002") else "C",
        "media": [f"{film}/vid.avi" if film else f"{face}.jpg" for face in ids],
        "frame": number if film else 0,
        "width": 640,
        "height": 480,
        "shard": "all-0000",
        "row": number - 1,
        "yaw": dice.uniform(-90, 90, count).astype(np.float32),
        "pitch": np.float32(0),
        "roll": np.float32(0),
        "nme": np.float32(0.03),
        "confidence": np.float32(0.9),
        "broken": False,
        "pose_residual": np.float32(0.06),
        "phash": dice.integers(0, 1 << 64, count, dtype=np.uint64),
    }
    return pd.DataFrame(
        columns | {side: np.full(count, place, np.float32) for place, side in enumerate(("x0", "y0", "x1", "y1"))}
    )


def write_dataset(root: Path, index: pd.DataFrame) -> Path:
    """Write what opening a data set needs: no faces, only their index."""
    version = root / "annotations" / "v1"
    version.mkdir(parents=True)
    models = {"3d": {"name": "made-up", "sha256": "ab" * 32}}
    files = [{"path": "subsets/v1/origins.parquet", "size": 1, "sha256": "cd" * 32}]
    manifest = {"version": "v1", "counts": {}, "configuration": {"models": models}, "files": files}
    (version / "manifest.json").write_text(json.dumps(manifest))
    (root / "dataset.json").write_text(json.dumps({"format": 1, "newest": "v1", "versions": ["v1"]}))
    index.to_parquet(version / "index.parquet")
    return root


def flip(value: int, *bits: int) -> np.uint64:
    """Turn some bits of a hash."""
    turned = int(value)
    for bit in bits:
        turned ^= 1 << int(bit)
    return np.uint64(turned)

"""Damages files, and uses a data set in every way that reads it."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from ls3dw.building.audit import plan
from ls3dw.core.files import sha256_file
from ls3dw.dataset.decisions import read_audit
from ls3dw.dataset.exporters import FORMATS, ExportOptions
from ls3dw.dataset.index import read_drops
from ls3dw.dataset.open import open_dataset
from ls3dw.dataset.summary import render_summary, summarise
from ls3dw.dataset.verify import verify
from ls3dw.dataset.versions import list_versions
from ls3dw.errors import DatasetError

VALUES: tuple[Any, ...] = (
    None,
    True,
    -1,
    1 << 70,
    1e300,
    "",
    "../../x",
    "/etc/passwd",
    "\ud800",
    [],
    {},
    [[]],
    "v1",
    "x" * 9999,
)


def mutate(data: bytes, suffix: str, rng: np.random.Generator) -> bytes:
    """Damage the bytes of a file in one of several ways."""
    if suffix == ".json" and rng.random() < 0.7:
        return _mutate_json(data, rng)
    changed = bytearray(data)
    way = int(rng.integers(0, 6))
    place = int(rng.integers(0, max(len(data), 1)))
    if way == 0 or not data:
        return bytes(changed[:place])
    if way == 1:
        size = int(rng.integers(1, 65))
        changed[place : place + size] = rng.integers(0, 256, size, dtype=np.uint8).tobytes()
    elif way == 2:
        changed[place : place + 8] = (0, 1, 2**31, 2**63 - 1, 2**64 - 1)[int(rng.integers(0, 5))].to_bytes(8, "little")
    elif way == 3:
        return bytes(changed[:place] + changed[place + int(rng.integers(1, 999)) :])
    elif way == 4:
        for at in rng.integers(0, len(data), 20):
            changed[at] ^= 1 << int(rng.integers(0, 8))
    else:
        # Heads and tails hold the structure.
        at = int(rng.integers(0, min(len(data), 2048)))
        changed[at if rng.random() < 0.5 else -1 - at] = int(rng.integers(0, 256))
    return bytes(changed)


def _mutate_json(data: bytes, rng: np.random.Generator) -> bytes:
    """Replace, remove or add one value at a random place."""
    root = json.loads(data)
    node, depth = root, int(rng.integers(0, 5))
    while depth and isinstance(node, dict | list) and node:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        child = node[keys[int(rng.integers(0, len(keys)))]]
        if not isinstance(child, dict | list) or not child:
            break
        node, depth = child, depth - 1
    value = VALUES[int(rng.integers(0, len(VALUES)))]
    keys = list(node) if isinstance(node, dict) else list(range(len(node)))
    key = keys[int(rng.integers(0, len(keys)))] if keys else None
    if key is None or rng.random() < 0.02:
        return json.dumps(value).encode()
    if rng.random() < 0.2:
        del node[key]
    else:
        node[key] = value
    if rng.random() < 0.02:
        return b"[" * 200_000
    return json.dumps(root).encode()


def exercise(root: Path, rng: np.random.Generator | None = None) -> None:
    """Read a data set by every way in, or by one at random; raise the first `DatasetError`.

    Each way is tried even if another failed.
    """
    ways = (_list, _summarise, _faces, _tables, _verify, _export, _audit)
    failed: list[DatasetError] = []
    for read in ways if rng is None else [ways[int(rng.integers(0, len(ways)))]]:
        try:
            read(root)
        except DatasetError as error:
            failed.append(error)
    if failed:
        raise failed[0]


def _list(root: Path) -> None:
    list_versions(root)


def _summarise(root: Path) -> None:
    render_summary(summarise(open_dataset(root)))


def _faces(root: Path) -> None:
    dataset = open_dataset(root)
    for row in range(0, len(dataset), 7):
        face = dataset[row]
        face.to_picture(face.landmarks_3d)


def _tables(root: Path) -> None:
    dataset = open_dataset(root)
    dataset.column("landmarks_3d")
    read_drops(dataset.store, dataset.version)
    read_audit(dataset.store, dataset.manifest["configuration"])
    list(dataset.store.markers(dataset.version))
    for path in (root / "subsets" / dataset.version).glob("*.parquet"):
        dataset.subset(path.stem)


def _verify(root: Path) -> None:
    verify(root)


def _export(root: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        FORMATS["menpo"](open_dataset(root), Path(folder, "out"), ExportOptions())


def _audit(root: Path) -> None:
    """Look at decisions on a version without writing one."""
    with tempfile.TemporaryDirectory() as folder:
        dataset = open_dataset(root)
        head = {"kind": "ls3dw decisions", "format": 1, "version": dataset.version, "gallery": "worst", "who": "ada"}
        manifest = sha256_file(dataset.store.manifest_file(dataset.version))
        path = Path(folder, "decisions.json")
        path.write_text(json.dumps({**head, "manifest": manifest, "decisions": []}))
        plan(root, [path])

"""Finds the data files of the package: `manifests/`, `pipelines/`, the bundled networks, the embedded sample."""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).resolve().parents[1]


def folder(name: str) -> Path:
    """Return a data folder: in the package in a wheel, next to it in a checkout."""
    for candidate in (PACKAGE / name, PACKAGE.parent / name):
        if candidate.is_dir():
            return candidate
    raise FileNotFoundError(f"{name}: not in {PACKAGE} nor beside it; reinstall ls3dw")


@cache
def manifest(name: str) -> dict[str, Any]:
    """Read `manifests/<name>.toml`."""
    with (folder("manifests") / f"{name}.toml").open("rb") as file:
        return tomllib.load(file)

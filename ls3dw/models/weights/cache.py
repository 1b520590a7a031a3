"""Lists the weights that others published (`manifests/weights.toml`), and names the files of the cache folder."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ls3dw.core.resources import manifest
from ls3dw.errors import ModelError
from ls3dw.models.networks.fan import Pooling
from ls3dw.models.weights.contract import Kind


@dataclass(frozen=True)
class PublishedWeights:
    """A published weights file.

    sha256: its first hex digits, None if none was published; pooling: None where the file itself has it, or has no
    pooling; urls: folders with the file, in the order of trying.
    """

    name: str
    title: str
    file: str
    kind: Kind
    format: str
    network: Mapping[str, Any]
    urls: tuple[str, ...]
    licence: str
    homepage: str
    sha256: str | None = None
    pooling: Pooling | None = None

    @property
    def download(self) -> Path:
        """Path of the fetched file."""
        return home() / "downloads" / self.file

    def check(self, digest: str, where: object) -> None:
        """Raise `ModelError` unless this is the SHA-256 of the published file."""
        if self.sha256 is not None and not digest.startswith(self.sha256):
            raise ModelError(
                f"{where}: SHA-256 {digest[: len(self.sha256)]}..., expected {self.sha256}... of the published"
                f" {self.file}; get the file again"
            )


@cache
def published() -> Mapping[str, PublishedWeights]:
    """Return the published weights by name."""
    table = manifest("weights")
    shared = {"licence": table["licence"], "homepage": table["homepage"]}
    return {
        name: PublishedWeights(name=name, **shared, **{**values, "urls": tuple(values["urls"])})
        for name, values in table["weights"].items()
    }


def find(name: str) -> PublishedWeights:
    """Return published weights by name; `ModelError` for others lists the names."""
    if name not in published():
        raise ModelError(f"{name!r}: no published weights of that name; known are {', '.join(published())}")
    return published()[name]


def named_like(file: Path) -> PublishedWeights | None:
    """Return the published weights that have this file's name."""
    return next((item for item in published().values() if item.file == file.name), None)


def home() -> Path:
    """Return the cache folder: `LS3DW_HOME`, or `ls3dw` under `XDG_CACHE_HOME` or `~/.cache`."""
    if chosen := os.environ.get("LS3DW_HOME"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").expanduser() / "ls3dw"


def imported_path(name: str) -> Path:
    """Return where imported weights of that name are kept."""
    return home() / "models" / f"{name}.safetensors"


def imported_names() -> list[str]:
    """Return the names of the imported weights, sorted."""
    return sorted(path.stem for path in (home() / "models").glob("*.safetensors"))

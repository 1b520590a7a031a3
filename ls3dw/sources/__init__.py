"""The data sets that can be read."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from ls3dw.errors import SourceError
from ls3dw.sources.aflw2000 import AFLW2000
from ls3dw.sources.base import Count, Source
from ls3dw.sources.heads import Heads
from ls3dw.sources.menpo import Menpo
from ls3dw.sources.release import Release
from ls3dw.sources.vw300 import VW300
from ls3dw.sources.w300 import W300
from ls3dw.sources.w300lp import W300LP

__all__ = ["LS3DW", "SOURCES", "Count", "Source", "open_source"]

SOURCES: Final[dict[str, type[Source]]] = {
    "300w": W300,
    "300vw": VW300,
    "menpo": Menpo,
    "aflw2000": AFLW2000,
    "heads": Heads,
    "300wlp": W300LP,
    "ls3dw": Release,
}

LS3DW: Final = ("300w", "300vw", "menpo", "aflw2000")
"""The four data sets that LS3D-W was made of; the embedded sample has some of each."""


def open_source(name: str, root: str | Path) -> Source:
    """Find the data set `name` in a folder, without decoding anything. Raises SourceError if it is not there."""
    if name not in SOURCES:
        raise SourceError(f"no source {name!r}; choose from {', '.join(SOURCES)}")
    return SOURCES[name](root)

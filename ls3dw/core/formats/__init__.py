"""File formats, read as plain data: Torch7, Matlab, pickles, pictures, videos. No code in a file is ever run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ls3dw.core.lazy import door

if TYPE_CHECKING:
    from ls3dw.core.formats import t7

__all__ = ["t7"]

_HOMES = {"t7": "t7"}
__getattr__, __dir__ = door(__name__, _HOMES)

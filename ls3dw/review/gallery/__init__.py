"""Galleries: static pages on which people review the faces of a version."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ls3dw.core.lazy import door

if TYPE_CHECKING:
    from ls3dw.review.gallery.writer import write_gallery

__all__ = ["write_gallery"]

_HOMES = {"write_gallery": "writer"}
__getattr__, __dir__ = door(__name__, _HOMES)

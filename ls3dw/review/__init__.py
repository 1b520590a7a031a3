"""What people look at: overlays, contact sheets, pages of pairs, galleries."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ls3dw.core.lazy import door

if TYPE_CHECKING:
    from ls3dw.review.overlay import draw_face
    from ls3dw.review.pairs import write_pairs
    from ls3dw.review.sheets import write_contact_sheets

__all__ = ["draw_face", "write_contact_sheets", "write_pairs"]

_HOMES = {"draw_face": "overlay", "write_contact_sheets": "sheets", "write_pairs": "pairs"}
__getattr__, __dir__ = door(__name__, _HOMES)

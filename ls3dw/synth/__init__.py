"""Rendered heads with their 68 landmarks: training data without a photograph."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ls3dw.core.lazy import door

if TYPE_CHECKING:
    from ls3dw.synth.options import RenderOptions
    from ls3dw.synth.renderer import Renderer
    from ls3dw.synth.rng import SplitRng
    from ls3dw.synth.write import HeadsReport, render_heads

__all__ = ["HeadsReport", "RenderOptions", "Renderer", "SplitRng", "render_heads"]

_HOMES = {
    "HeadsReport": "write",
    "RenderOptions": "options",
    "Renderer": "renderer",
    "SplitRng": "rng",
    "render_heads": "write",
}
__getattr__, __dir__ = door(__name__, _HOMES)

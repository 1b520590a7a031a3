"""Rendered heads with their 68 landmarks: training data without a photograph."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ls3dw.core.lazy import door

if TYPE_CHECKING:
    from ls3dw.synth.options import RenderOptions
    from ls3dw.synth.renderer import Renderer
    from ls3dw.synth.write import write_heads

__all__ = ["RenderOptions", "Renderer", "write_heads"]

_HOMES = {"RenderOptions": "options", "Renderer": "renderer", "write_heads": "write"}
__getattr__, __dir__ = door(__name__, _HOMES)

"""Sources to a data set: plan, decode, annotate, write, finish; and new versions made from older ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ls3dw.core.lazy import door

if TYPE_CHECKING:
    from ls3dw.building.options import BuildOptions, make_options
    from ls3dw.building.pipeline import Build
    from ls3dw.building.regenerate import RegenerateOptions, Regeneration, resolve_options

__all__ = ["Build", "BuildOptions", "RegenerateOptions", "Regeneration", "make_options", "resolve_options"]

_HOMES = {
    "Build": "pipeline",
    "BuildOptions": "options",
    "RegenerateOptions": "regenerate",
    "Regeneration": "regenerate",
    "make_options": "options",
    "resolve_options": "regenerate",
}
__getattr__, __dir__ = door(__name__, _HOMES)

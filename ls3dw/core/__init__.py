"""Shared basics: the 68-point mark-up, coordinates, the sample, pose, metrics, files, file formats, worker processes.

Knows no data set and no network, and never imports torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ls3dw.core.lazy import door

if TYPE_CHECKING:
    from ls3dw.core import geometry, markup, metrics, pose
    from ls3dw.core.formats import t7
    from ls3dw.core.sample import Drop, Media, Sample

__all__ = ["Drop", "Media", "Sample", "geometry", "markup", "metrics", "pose", "t7"]

_HOMES = {
    "Drop": "sample",
    "Media": "sample",
    "Sample": "sample",
    "geometry": "geometry",
    "markup": "markup",
    "metrics": "metrics",
    "pose": "pose",
    "t7": "formats.t7",
}
__getattr__, __dir__ = door(__name__, _HOMES)

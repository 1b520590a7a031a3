"""Tolerances of the rasterizer, the same on every device."""

THINNEST = 1e-7
"""Least doubled area of a drawn triangle, in pixels; smaller ones are seen edge-on."""

EDGE = 1e-5
"""Tolerated negative barycentric weight; without it rounding leaves pinholes along shared edges."""

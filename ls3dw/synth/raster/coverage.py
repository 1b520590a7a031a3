"""What counts as covered by a triangle, on every device alike."""

THINNEST = 1e-7
"""Triangles whose doubled area in pixels is below this are seen edge-on and not drawn."""

EDGE = 1e-5
"""By how much a barycentric weight may be negative: rounding would otherwise leave pinholes along shared edges."""

"""The former name of `SplitRng`."""

from __future__ import annotations

from ls3dw.synth.rng import SplitRng as Draws

__all__ = ["Draws"]

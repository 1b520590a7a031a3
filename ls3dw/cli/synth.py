"""`ls3dw synth`."""

from __future__ import annotations

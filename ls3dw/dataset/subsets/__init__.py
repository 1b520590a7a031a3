"""Subsets of a data set: balanced by pose, split without leaks. They list ids; pictures are never copied."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ls3dw.core.lazy import door

if TYPE_CHECKING:
    from ls3dw.dataset.subsets.produce import write_balanced, write_pose_balanced, write_split

__all__ = ["write_balanced", "write_pose_balanced", "write_split"]

_HOMES = {"write_balanced": "produce", "write_pose_balanced": "produce", "write_split": "produce"}
__getattr__, __dir__ = door(__name__, _HOMES)

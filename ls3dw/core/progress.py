"""How far a command is: what the library reports, and the command line draws."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True)
class Progress:
    """How far a command is. done, total: pictures and frames, or faces; where: the source and part just finished."""

    done: int
    total: int
    where: str = ""


OnProgress: TypeAlias = Callable[[Progress], None]

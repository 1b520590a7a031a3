"""The runtime: worker processes, arrays shared with them, and threads with bounded queues."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ls3dw.core.lazy import door

if TYPE_CHECKING:
    from ls3dw.core.parallel.memory import prefetch_budget
    from ls3dw.core.parallel.pool import stream
    from ls3dw.core.parallel.shared import SharedArray
    from ls3dw.core.parallel.stage_timer import StageTimer
    from ls3dw.core.parallel.threads import ThreadStage
    from ls3dw.core.parallel.worker import Worker

__all__ = ["SharedArray", "StageTimer", "ThreadStage", "Worker", "prefetch_budget", "stream"]

_HOMES = {
    "SharedArray": "shared",
    "StageTimer": "stage_timer",
    "ThreadStage": "threads",
    "Worker": "worker",
    "prefetch_budget": "memory",
    "stream": "pool",
}
__getattr__, __dir__ = door(__name__, _HOMES)

"""How much memory there is, and how much of it may hold what is decoded ahead of the networks."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

SYSTEM: Final = Path("/")

MOST_BYTES: Final = 8 << 30
"""That may lie ready where memory is plenty: about what is decoded while GPUs load their networks."""

MOST_ITEMS: Final = 512
"""That may lie ready: each is an open file, of which a process often may have 1,024."""

_LIMITS: Final = {"": ("sys/fs/cgroup", "memory.max"), "memory": ("sys/fs/cgroup/memory", "memory.limit_in_bytes")}
"""By the controller that /proc/self/cgroup names (none: version 2), where control groups lie and keep their limit."""


@dataclass(frozen=True)
class PrefetchBudget:
    """For so many bytes and so many items, whichever is reached first."""

    nbytes: int
    items: int

    def share(self, nbytes: int) -> int:
        """Return how many of the bytes an item takes up that has `nbytes`."""
        return max(nbytes, self.nbytes // self.items)


def prefetch_budget() -> PrefetchBudget:
    """Return the room for what lies ready: a quarter of the free memory at most, and half of the files that may be
    open."""
    available = available_memory()
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = files == resource.RLIM_INFINITY
    return PrefetchBudget(
        MOST_BYTES if available is None else max(1, min(MOST_BYTES, available // 4)),
        MOST_ITEMS if unlimited else max(1, min(MOST_ITEMS, files // 2)),
    )


def available_memory(system: Path = SYSTEM) -> int | None:
    """Return the bytes that are free or can be made so, at most what containers and batch jobs may have; None where
    the system does not say. system: the root of its files."""
    try:
        lines = (system / "proc/meminfo").read_text().splitlines()
        available = next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return None
    return min([available, *_group_limits(system)])


def _group_limits(system: Path) -> Iterator[int]:
    """Yield the limits of this process's control groups and of those around them."""
    try:
        lines = (system / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if controllers in _LIMITS:
            top, name = _LIMITS[controllers]
            inner = PurePosixPath(group.lstrip("/"))
            for level in (inner, *inner.parents):
                yield from _limit(system / top / level / name)


def _limit(path: Path) -> Iterator[int]:
    """Yield the limit that a file holds, if it is there and holds one: "max" is none."""
    try:
        yield int(path.read_text())
    except (OSError, ValueError):
        return

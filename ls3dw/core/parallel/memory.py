"""Free memory, and the share of it that prefetched items may take."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

SYSTEM: Final = Path("/")

MOST_BYTES: Final = 8 << 30
"""Largest prefetch buffer: about as much as is decoded while GPUs load their networks."""

MOST_ITEMS: Final = 512
"""Most prefetched items: each is an open file, and the usual limit is 1,024."""

_LIMITS: Final = {"": ("sys/fs/cgroup", "memory.max"), "memory": ("sys/fs/cgroup/memory", "memory.limit_in_bytes")}
"""Folder and limit file of control groups, by the controller in /proc/self/cgroup (empty: version 2)."""


@dataclass(frozen=True)
class PrefetchBudget:
    """Limits on prefetched items; whichever is reached first."""

    nbytes: int
    items: int

    def share(self, nbytes: int) -> int:
        """Return the bytes to count for an item of `nbytes`, so that `items` of them fill the budget."""
        return max(nbytes, self.nbytes // self.items)


def prefetch_budget() -> PrefetchBudget:
    """Return the budget: at most a quarter of the free memory, and half of the files that may be open."""
    available = available_memory()
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = files == resource.RLIM_INFINITY
    return PrefetchBudget(
        MOST_BYTES if available is None else max(1, min(MOST_BYTES, available // 4)),
        MOST_ITEMS if unlimited else max(1, min(MOST_ITEMS, files // 2)),
    )


def available_memory(system: Path = SYSTEM) -> int | None:
    """Return the available bytes, at most the limit of the container or batch job; None if unknown.

    system: root of the system's files.
    """
    try:
        lines = (system / "proc/meminfo").read_text().splitlines()
        available = next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return None
    return min([available, *_group_limits(system)])


def _group_limits(system: Path) -> Iterator[int]:
    """Yield the limits of this process's control groups and their parents."""
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
    """Yield the limit in a file, if there is one: "max" is none."""
    try:
        yield int(path.read_text())
    except (OSError, ValueError):
        return

"""How much memory there is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final

SYSTEM: Final = Path("/")

_LIMITS: Final = {"": ("sys/fs/cgroup", "memory.max"), "memory": ("sys/fs/cgroup/memory", "memory.limit_in_bytes")}
"""By the controller that /proc/self/cgroup names (none: version 2), where control groups lie and keep their limit."""


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

"""How much memory builds may count on: of the system, and of the control groups around them."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from ls3dw.core.parallel.memory import PrefetchBudget, available_memory, prefetch_budget

GIB = 1 << 30


def system(root: Path, group: str, files: dict[str, str]) -> Path:
    """Make what a system with 16 GiB available shows of memory and control groups."""
    files = {"proc/meminfo": "MemTotal: 33554432 kB\nMemAvailable:   16777216 kB\n", "proc/self/cgroup": group} | files
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("group", "files", "expected"),
    [
        ("0::/\n", {}, 16),
        ("0::/\n", {"sys/fs/cgroup/memory.max": "max\n"}, 16),
        ("0::/\n", {"sys/fs/cgroup/memory.max": f"{4 * GIB}\n"}, 4),
        ("0::/job/step\n", {"sys/fs/cgroup/job/memory.max": f"{2 * GIB}\n"}, 2),
        ("0::/job/step\n", {"sys/fs/cgroup/job/step/memory.max": f"{64 * GIB}\n"}, 16),
        ("4:memory:/job\n", {"sys/fs/cgroup/memory/job/memory.limit_in_bytes": f"{GIB}\n"}, 1),
        # Within a container the group's own folder need not be seen.
        ("4:memory:/docker/1f\n", {"sys/fs/cgroup/memory/memory.limit_in_bytes": f"{3 * GIB}\n"}, 3),
        ("4:cpu:/job\n", {"sys/fs/cgroup/memory/job/memory.limit_in_bytes": f"{GIB}\n"}, 16),
    ],
)
def test_the_least_counts(tmp_path: Path, group: str, files: dict[str, str], expected: int) -> None:
    assert available_memory(system(tmp_path, group, files)) == expected * GIB


def test_a_system_that_does_not_say(tmp_path: Path) -> None:
    assert available_memory(tmp_path) is None


def test_room_is_for_bytes_and_for_items() -> None:
    room = PrefetchBudget(nbytes=1000, items=10)
    assert (room.share(1), room.share(100), room.share(400)) == (100, 100, 400)


def test_half_of_the_files_may_lie_ready() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))
        assert prefetch_budget().items == 100
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert 0 < prefetch_budget().nbytes <= 8 * GIB


def test_this_system_says() -> None:
    available = available_memory()
    assert available is None or available > GIB // 4

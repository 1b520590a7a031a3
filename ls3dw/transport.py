"""Sends objects between processes through a Unix socket; their arrays travel in memory that both map, uncopied.

The memory belongs to an anonymous file whose descriptor goes along: when neither side uses it any more, or both are
killed, it is gone.
"""

from __future__ import annotations

import mmap
import os
import pickle
import tempfile
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle, send_handle
from typing import Any

LARGE = 4096
_ALIGNMENT = 64


def send(connection: Connection, item: Any) -> None:
    """Send an item to the process at the other end, which must be ours: it is pickled."""
    views: list[memoryview] = []

    def aside(buffer: pickle.PickleBuffer) -> bool:
        """Put large arrays aside; small ones stay in the pickle, so that they do not hold on to the memory."""
        view = buffer.raw()
        if view.nbytes < LARGE:
            return True
        views.append(view)
        return False

    body = pickle.dumps(item, protocol=5, buffer_callback=aside)
    places = _places([len(view) for view in views])
    connection.send((body, places))
    if not places:
        return
    descriptor = _anonymous_file()
    try:
        os.truncate(descriptor, sum(places[-1]))
        with mmap.mmap(descriptor, 0) as memory:
            for (start, size), view in zip(places, views, strict=True):
                memory[start : start + size] = view
        send_handle(connection, descriptor, 0)
    finally:
        os.close(descriptor)


def receive(connection: Connection) -> Any:
    """Receive an item; its arrays stay in the shared memory and cannot be written to."""
    body, places = connection.recv()
    if not places:
        return pickle.loads(body)  # noqa: S301 - from our own process, over a socket with a secret key
    descriptor = recv_handle(connection)
    try:
        memory = memoryview(mmap.mmap(descriptor, sum(places[-1]), access=mmap.ACCESS_READ))
    finally:
        os.close(descriptor)
    buffers = [memory[start : start + size] for start, size in places]
    return pickle.loads(body, buffers=buffers)  # noqa: S301 - as above


def _places(sizes: list[int]) -> list[tuple[int, int]]:
    """Lay buffers out one after the other, aligned; return start and size of each."""
    places = []
    start = 0
    for size in sizes:
        places.append((start, size))
        start = -(-(start + size) // _ALIGNMENT) * _ALIGNMENT
    return places


def _anonymous_file() -> int:
    """Open a file without a name: in memory where the system has such files, which no folder's size limits."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("ls3dw")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())

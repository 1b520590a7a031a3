"""Sends objects between processes over a Unix socket, with their arrays in shared memory.

The memory is an anonymous file whose descriptor is sent along: it is freed when no process has it open, however they
end. It is written and read by system calls, not mapped: that is faster, and releases Python's lock.
"""

from __future__ import annotations

import io
import os
import pickle
import tempfile
import weakref
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle, send_handle
from typing import Any, NoReturn, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray

LARGE = 4096
"""Bytes from which an array is sent in shared memory."""

_ALIGNMENT = 64

Fill: TypeAlias = Callable[[NDArray[Any]], None]

_Place: TypeAlias = tuple[int, tuple[int, ...], np.dtype[Any]]
"""Number, shape and dtype of a shared array in a pickle."""


class SharedArray:
    """An array in its own anonymous file: a process can pass it on without reading it.

    fill: writes the values into an array of this shape and dtype; called when they are needed.
    """

    def __init__(self, shape: tuple[int, ...], dtype: DTypeLike, fill: Fill | None) -> None:
        self.shape = shape
        self.dtype = np.dtype(dtype)
        self._fill = fill
        self._array: NDArray[Any] | None = None
        self._descriptor: int | None = None

    @classmethod
    def of(cls, array: NDArray[Any]) -> SharedArray:
        """Wrap an array."""
        shared = cls(array.shape, array.dtype, None)
        shared._array = array
        return shared

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.shape)) * self.dtype.itemsize

    def array(self) -> NDArray[Any]:
        """Return the array; each call makes a new copy in a process that received it."""
        if self._array is not None:
            return self._array
        array = np.empty(self.shape, self.dtype)
        self.read_into(array)
        if self._fill is not None:
            self._array, self._fill = array, None
        return array

    def read_into(self, target: NDArray[Any]) -> None:
        """Copy the values into a contiguous array of the same shape and dtype."""
        if self._array is not None:
            np.copyto(target, self._array)
        elif self._fill is not None:
            self._fill(target)
        else:
            assert self._descriptor is not None
            _read(self._descriptor, _flat(target), 0)

    def _share(self) -> int:
        """Return the descriptor of the file; write it on the first call."""
        if self._descriptor is None:
            descriptor = _written([_flat(np.ascontiguousarray(self.array()))], [(0, self.nbytes)])
            self._own(descriptor)
        assert self._descriptor is not None
        return self._descriptor

    @classmethod
    def _arrived(cls, shape: tuple[int, ...], dtype: np.dtype[Any], descriptor: int) -> SharedArray:
        shared = cls(shape, dtype, None)
        shared._own(descriptor)
        return shared

    def _own(self, descriptor: int) -> None:
        self._descriptor = descriptor
        weakref.finalize(self, os.close, descriptor)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a SharedArray is sent by core.parallel.shared.send only")


class _Pickler(pickle.Pickler):
    """Keeps shared arrays and large arrays out of the pickle."""

    def __init__(self, file: io.BytesIO) -> None:
        self.views: list[memoryview] = []
        self.arrays: list[SharedArray] = []
        super().__init__(file, protocol=5, buffer_callback=self._aside)

    def persistent_id(self, item: Any) -> _Place | None:
        if not isinstance(item, SharedArray):
            return None
        self.arrays.append(item)
        return len(self.arrays) - 1, item.shape, item.dtype

    def _aside(self, buffer: pickle.PickleBuffer) -> bool:
        view = buffer.raw()
        if view.nbytes < LARGE:
            return True
        self.views.append(view)
        return False


class _Unpickler(pickle.Unpickler):
    """Gives shared arrays the descriptors that came with them."""

    def __init__(self, body: bytes, buffers: list[NDArray[np.uint8]], descriptors: list[int]) -> None:
        super().__init__(io.BytesIO(body), buffers=buffers)
        self._descriptors = descriptors

    def persistent_load(self, place: _Place) -> SharedArray:
        number, shape, dtype = place
        return SharedArray._arrived(shape, dtype, self._descriptors[number])


def send(connection: Connection, item: Any) -> None:
    """Pickle an item and send it to another process of this program."""
    body = io.BytesIO()
    pickler = _Pickler(body)
    pickler.dump(item)
    places = _places([len(view) for view in pickler.views])
    connection.send((body.getvalue(), places, len(pickler.arrays)))
    for array in pickler.arrays:
        send_handle(connection, array._share(), 0)
    if places:
        descriptor = _written(pickler.views, places)
        try:
            send_handle(connection, descriptor, 0)
        finally:
            os.close(descriptor)


def receive(connection: Connection) -> Any:
    """Receive an item. Its large arrays are copied into one block; its shared arrays are not read."""
    body, places, count = connection.recv()
    descriptors = [recv_handle(connection) for _ in range(count)]
    memory = np.empty(sum(places[-1]) if places else 0, dtype=np.uint8)
    if places:
        descriptor = recv_handle(connection)
        try:
            _read(descriptor, memory.data, 0)
        finally:
            os.close(descriptor)
    # Safe to unpickle: from our own process, over a socket without a name.
    return _Unpickler(body, [memory[start : start + size] for start, size in places], descriptors).load()


def _places(sizes: list[int]) -> list[tuple[int, int]]:
    """Lay out buffers one after the other, aligned; return start and size of each."""
    places = []
    start = 0
    for size in sizes:
        places.append((start, size))
        start = -(-(start + size) // _ALIGNMENT) * _ALIGNMENT
    return places


def _flat(array: NDArray[Any]) -> memoryview:
    """Return the bytes of a contiguous array, to read or write."""
    if not array.flags.c_contiguous:
        raise ValueError(f"array {array.shape} with strides {array.strides}: expected a contiguous one")
    return array.reshape(-1).view(np.uint8).data


def _written(views: list[memoryview], places: list[tuple[int, int]]) -> int:
    """Write buffers to a new anonymous file; return its descriptor."""
    descriptor = _anonymous_file()
    try:
        for view, (start, _) in zip(views, places, strict=True):
            written = 0
            while written < len(view):
                written += os.pwrite(descriptor, view[written:], start + written)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _read(descriptor: int, view: memoryview, start: int) -> None:
    while len(view):
        count = os.preadv(descriptor, [view], start)
        if not count:
            raise EOFError("shared memory ended early")
        view, start = view[count:], start + count


def _anonymous_file() -> int:
    """Open a file without a name, in memory where the system can: /tmp and /dev/shm may be small."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("ls3dw")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())

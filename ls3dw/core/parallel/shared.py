"""Sends objects between processes through a Unix socket; their arrays travel in memory that is shared.

The memory belongs to anonymous files whose descriptors go along: when no process uses one any more, or all are killed,
it is gone. It is written and read by system calls, never mapped: that is faster, and Python's lock is free meanwhile.
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
_ALIGNMENT = 64

Fill: TypeAlias = Callable[[NDArray[Any]], None]

_Place: TypeAlias = tuple[int, tuple[int, ...], np.dtype[Any]]
"""Number, shape and kind of a parcel in a pickle."""


class SharedArray:
    """An array that a process can pass on without reading it: it travels in an anonymous file of its own.

    fill: writes the values to an array of that shape and kind, when they are wanted and straight to where they are.
    """

    def __init__(self, shape: tuple[int, ...], dtype: DTypeLike, fill: Fill | None) -> None:
        self.shape = shape
        self.dtype = np.dtype(dtype)
        self._fill = fill
        self._array: NDArray[Any] | None = None
        self._descriptor: int | None = None

    @classmethod
    def of(cls, array: NDArray[Any]) -> SharedArray:
        """Make one of an array that there is."""
        parcel = cls(array.shape, array.dtype, None)
        parcel._array = array
        return parcel

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.shape)) * self.dtype.itemsize

    def array(self) -> NDArray[Any]:
        """Return the array, filled once; in another process than the one that made it, a new copy."""
        if self._array is not None:
            return self._array
        array = np.empty(self.shape, self.dtype)
        self.read_into(array)
        if self._fill is not None:
            self._array, self._fill = array, None
        return array

    def read_into(self, target: NDArray[Any]) -> None:
        """Copy the values into a contiguous array of the same shape and kind."""
        if self._array is not None:
            np.copyto(target, self._array)
        elif self._fill is not None:
            self._fill(target)
        else:
            assert self._descriptor is not None
            _read(self._descriptor, _flat(target), 0)

    def _share(self) -> int:
        """Return the descriptor of the file, which is written now if that has not been done."""
        if self._descriptor is None:
            descriptor = _written([_flat(np.ascontiguousarray(self.array()))], [(0, self.nbytes)])
            self._own(descriptor)
        assert self._descriptor is not None
        return self._descriptor

    @classmethod
    def _arrived(cls, shape: tuple[int, ...], dtype: np.dtype[Any], descriptor: int) -> SharedArray:
        parcel = cls(shape, dtype, None)
        parcel._own(descriptor)
        return parcel

    def _own(self, descriptor: int) -> None:
        self._descriptor = descriptor
        weakref.finalize(self, os.close, descriptor)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a parcel travels by transport.send alone")


class _Pickler(pickle.Pickler):
    """Puts parcels and large arrays aside; small arrays stay in the pickle."""

    def __init__(self, file: io.BytesIO) -> None:
        self.views: list[memoryview] = []
        self.parcels: list[SharedArray] = []
        super().__init__(file, protocol=5, buffer_callback=self._aside)

    def persistent_id(self, item: Any) -> _Place | None:
        if not isinstance(item, SharedArray):
            return None
        self.parcels.append(item)
        return len(self.parcels) - 1, item.shape, item.dtype

    def _aside(self, buffer: pickle.PickleBuffer) -> bool:
        view = buffer.raw()
        if view.nbytes < LARGE:
            return True
        self.views.append(view)
        return False


class _Unpickler(pickle.Unpickler):
    """Gives parcels the files that came for them."""

    def __init__(self, body: bytes, buffers: list[NDArray[np.uint8]], descriptors: list[int]) -> None:
        super().__init__(io.BytesIO(body), buffers=buffers)
        self._descriptors = descriptors

    def persistent_load(self, place: _Place) -> SharedArray:
        number, shape, dtype = place
        return SharedArray._arrived(shape, dtype, self._descriptors[number])


def send(connection: Connection, item: Any) -> None:
    """Send an item to the process at the other end, which must be ours: it is pickled."""
    body = io.BytesIO()
    pickler = _Pickler(body)
    pickler.dump(item)
    places = _places([len(view) for view in pickler.views])
    connection.send((body.getvalue(), places, len(pickler.parcels)))
    for parcel in pickler.parcels:
        send_handle(connection, parcel._share(), 0)
    if places:
        descriptor = _written(pickler.views, places)
        try:
            send_handle(connection, descriptor, 0)
        finally:
            os.close(descriptor)


def receive(connection: Connection) -> Any:
    """Receive an item; its large arrays lie in one piece of memory, its parcels where they were."""
    body, places, parcels = connection.recv()
    descriptors = [recv_handle(connection) for _ in range(parcels)]
    memory = np.empty(sum(places[-1]) if places else 0, dtype=np.uint8)
    if places:
        descriptor = recv_handle(connection)
        try:
            _read(descriptor, memory.data, 0)
        finally:
            os.close(descriptor)
    # From our own process, over a socket that has no name.
    return _Unpickler(body, [memory[start : start + size] for start, size in places], descriptors).load()


def _places(sizes: list[int]) -> list[tuple[int, int]]:
    """Lay buffers out one after the other, aligned; return start and size of each."""
    places = []
    start = 0
    for size in sizes:
        places.append((start, size))
        start = -(-(start + size) // _ALIGNMENT) * _ALIGNMENT
    return places


def _flat(array: NDArray[Any]) -> memoryview:
    """Return the bytes of a contiguous array: writing to them must change it."""
    if not array.flags.c_contiguous:
        raise ValueError(f"array {array.shape} with strides {array.strides}: expected a contiguous one")
    return array.reshape(-1).view(np.uint8).data


def _written(views: list[memoryview], places: list[tuple[int, int]]) -> int:
    """Write buffers to a new anonymous file, each at its place; return its descriptor."""
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
    """Open a file without a name: in memory where the system has such files, which no folder's size limits."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("ls3dw")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())

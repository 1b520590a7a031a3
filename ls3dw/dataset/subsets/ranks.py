"""A random order of faces that does not change with other faces: a number from the id and the seed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray


def ranks(ids: Iterable[str], seed: int) -> NDArray[np.uint64]:
    """Return a number for each id (N,), which depends only on seed and id."""
    key = hashlib.blake2b(str(seed).encode(), digest_size=16).digest()
    numbers = (hashlib.blake2b(name.encode(), digest_size=8, key=key).digest() for name in ids)
    return np.frombuffer(b"".join(numbers), dtype="<u8").astype(np.uint64)

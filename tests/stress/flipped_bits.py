"""Flips single bits in all files of a data set: `verify` finds each. Usage: python -m stress.flipped_bits [SECONDS]"""

from __future__ import annotations

import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np

from ls3dw.dataset.verify import verify
from ls3dw.errors import DatasetError
from stress.data import make_data, report, work_folder


def found(root: Path) -> bool:
    """Return whether `verify` says that the data set is not as written."""
    try:
        return bool(verify(root).faults)
    except DatasetError:
        return True


def main(seconds: float) -> None:
    rng = np.random.default_rng(int(time.time()))
    with work_folder() as folder:
        root = make_data(folder)
        assert not found(root), verify(root)
        files = sorted(path for path in root.rglob("*") if path.is_file() and path.stat().st_size)
        tried: Counter[str] = Counter()
        missed: list[str] = []
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            # Small files as often as large ones.
            path = files[tried.total() % len(files)]
            whole = path.read_bytes()
            place, bit = int(rng.integers(0, len(whole))), int(rng.integers(0, 8))
            changed = bytearray(whole)
            changed[place] ^= 1 << bit
            path.write_bytes(changed)
            where = path.relative_to(root)
            tried[where.parts[0]] += 1
            if not found(root):
                missed.append(f"{where} byte {place} bit {bit}")
            path.write_bytes(whole)
        assert not found(root)
    for line in missed:
        print("missed", line)
    report("flipped bits", {"flips": tried.total(), "files": len(files), **tried, "failed": len(missed)})


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 60)

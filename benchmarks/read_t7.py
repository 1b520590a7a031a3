"""Times the reading of landmark files as LS3D-W has them: one Torch7 tensor of 68 x 2 doubles each.

python benchmarks/read_t7.py [--files 10000]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ls3dw.core.formats import t7
from ls3dw.sources.face import read_face
from ls3dw.sources.release import parse_t7


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=10_000)
    count = parser.parse_args().files
    points = np.random.default_rng(0).integers(0, 450, (count, 68, 2)).astype(np.float64)
    with tempfile.TemporaryDirectory() as name:
        paths = [Path(name, f"{number}.t7") for number in range(count)]
        for path, array in zip(paths, points, strict=True):
            path.write_bytes(t7.dumps(array))
        timed("ls3dw.core.formats.t7.load", t7.load, paths)
        timed("as a source reads them", lambda path: read_face(path, parse_t7), paths)


def timed(what: str, read: Callable[[Path], Any], paths: list[Path]) -> None:
    wall, cpu = time.perf_counter(), time.process_time()
    for path in paths:
        read(path)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(f"{what:<24} {len(paths)} files: {wall:.2f} s, {cpu:.2f} s of it on the CPU")


if __name__ == "__main__":
    main()

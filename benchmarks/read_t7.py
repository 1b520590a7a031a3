"""Times the reading of the small Torch7 files that LS3D-W consists of: one 68x2 DoubleTensor each.

python benchmarks/read_t7.py --files 10000
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from ls3dw.markup import POINTS
from ls3dw.t7 import dumps, load


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=10_000)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{number}.t7" for number in range(options.files)]
        for path in paths:
            path.write_bytes(dumps(rng.uniform(0, 450, (POINTS, 2))))
        for name, clock in (("wall", time.perf_counter), ("processor", time.process_time)):
            started = clock()
            total = sum(float(load(path)[0, 0]) for path in paths)
            print(f"{options.files} files in {clock() - started:.2f} s ({name} time), check sum {total:.0f}")


if __name__ == "__main__":
    main()

"""Damages a data set's files, and reads it in every way: nothing but `DatasetError` is raised, and nothing outside is
written. Usage: python -m stress.mutated_files [SECONDS]"""

from __future__ import annotations

import sys
import time
import traceback
from collections import Counter
from pathlib import Path

import numpy as np

from ls3dw.errors import DatasetError
from stress.data import make_data, report, work_folder
from stress.mutations import exercise, mutate

SLOW = 20.0
"""Seconds for all ways of reading a small data set; more counts as a hang."""


def listing(folder: Path) -> list[str]:
    return sorted(path.as_posix() for path in folder.rglob("*"))


def main(seconds: float) -> None:
    rng = np.random.default_rng(int(time.time()))
    outcomes: Counter[str] = Counter()
    faults: Counter[str] = Counter()
    with work_folder() as folder:
        root = make_data(folder)
        exercise(root)
        before = listing(folder)
        files = [path for path in sorted(root.rglob("*")) if path.is_file() and path.stat().st_size]
        files = [path for path in files if path.suffix in (".h5", ".json", ".parquet", ".sha256", ".md")]
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            path = files[outcomes.total() % len(files)]
            whole = path.read_bytes()
            path.write_bytes(mutate(whole, path.suffix, rng))
            start = time.monotonic()
            try:
                exercise(root, rng)
                outcomes["read all the same"] += 1
            except DatasetError:
                outcomes["DatasetError"] += 1
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt):
                    raise
                outcomes["other errors"] += 1
                last = traceback.extract_tb(error.__traceback__)[-1]
                faults[f"{path.suffix} {type(error).__name__}: {str(error)[:80]} at {last.filename}:{last.lineno}"] += 1
                if not faults.total() % 10:
                    print(faults.most_common(3), flush=True)
            if time.monotonic() - start > SLOW:
                faults[f"{path.suffix}: {time.monotonic() - start:.0f} s"] += 1
            path.write_bytes(whole)
        if listing(folder) != before:
            faults["files came or went"] += 1
    for fault, count in faults.most_common():
        print(count, fault)
    report("mutated files", {"inputs": outcomes.total(), **outcomes, "failed": faults.total()})


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 60)

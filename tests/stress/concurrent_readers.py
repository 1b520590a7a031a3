"""8 threads and 8 processes read a data set while versions come and go: every face is right. Usage:
python -m stress.concurrent_readers [SECONDS]"""

from __future__ import annotations

import multiprocessing
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from ls3dw.building.regenerate import Regeneration, settle
from ls3dw.dataset import versions
from ls3dw.dataset.open import Dataset, open_dataset
from ls3dw.dataset.verify import verify
from ls3dw.errors import DatasetError
from stress.data import make_data, report, work_folder

Truth = list[np.ndarray]


def read(dataset: Dataset, truth: Truth, root: Path, end: float, seed: int) -> Counter[str]:
    """Read random faces of v1 with one shared data set, and open the newest version now and then."""
    rng, counts = np.random.default_rng(seed), Counter[str]()
    while time.time() < end:
        row = int(rng.integers(0, len(truth)))
        counts["right" if np.array_equal(dataset[row].landmarks_3d, truth[row], equal_nan=True) else "wrong"] += 1
        if rng.random() < 0.02:
            try:
                newest = open_dataset(root)
                _ = newest[int(rng.integers(0, len(newest)))].image
                counts["newest versions"] += 1
            except DatasetError:
                counts["versions gone meanwhile"] += 1
    return counts


def read_apart(job: tuple[Dataset, Truth, Path, float, int]) -> Counter[str]:
    return read(*job)


def come_and_go(root: Path, networks: dict[str, Any], end: float) -> int:
    """Make a version and delete it again, until the time is over."""
    made = 0
    while time.time() < end:
        common = {**networks, "model_depth": "none", "gpu": "none", "workers": 0, "version_name": f"v{3 + made % 2}"}
        Regeneration(settle(root, {**common, "flip": bool(made % 2)})).run(lambda plan: None, lambda record: None)
        versions.delete(root, common["version_name"])
        made += 1
    return made


def main(seconds: float) -> None:
    with work_folder() as folder:
        root = make_data(folder)
        dataset = open_dataset(root, "v1")
        truth = [face.landmarks_3d for face in dataset]
        end = time.time() + seconds
        networks = {f"model_{kind}": str(folder / f"{kind}.safetensors") for kind in ("2d", "3d")}
        context = multiprocessing.get_context("spawn")
        with context.Pool(8) as processes, ThreadPoolExecutor(9) as threads:
            apart = processes.map_async(read_apart, [(dataset, truth, root, end, 100 + n) for n in range(8)])
            here = [threads.submit(read, dataset, truth, root, end, n) for n in range(8)]
            made = come_and_go(root, networks, end)
            counts = sum((one.result() for one in here), Counter[str]()) + sum(apart.get(120), Counter[str]())
        faults = verify(root).faults
    wrong = counts["wrong"] + len(faults)
    report("concurrent readers", {**counts, "versions made and deleted": made, "failed": wrong})


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 60)

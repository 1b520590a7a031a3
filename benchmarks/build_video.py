"""Times `ls3dw build` from 300-VW-like AVI files to finished shards, and its peak memory.

    python benchmarks/build_video.py --videos 16 --frames 500 --size 1280x720 --gpu 0 --full-size

Videos are made from the clips of the embedded sample: enlarged, drifting through the frame, encoded as XviD.
--full-size: random FAN-4 networks (24 M parameters each) with calibrated batch norm and the published depth network's
size, since speed does not depend on the weights; without it the bundled networks.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from ls3dw.prepare import Chunk
from ls3dw.resources import folder
from ls3dw.sources import open_source


def make_video(root: Path, size: tuple[int, int], frames: int, number: int) -> None:
    """Write one video and its annotations: NNN/vid.avi, NNN/annot/000001.pts, ..."""
    samples = list(open_source("300vw", folder("embedded") / "300VW"))
    clip = samples[number % 2 * 48 : number % 2 * 48 + 48]
    target = root / f"{number + 1:03d}"
    (target / "annot").mkdir(parents=True)
    width, height = size
    fourcc = cv2.VideoWriter.fourcc(*"XVID")
    video = cv2.VideoWriter(str(target / "vid.avi"), fourcc, 25.0, size)
    rng = np.random.default_rng(number)
    backdrop = cv2.resize(rng.integers(0, 255, (9, 16, 3), dtype=np.uint8), size, interpolation=cv2.INTER_CUBIC)
    side = round(height * 0.8)
    for frame in range(frames):
        turn = frame % (2 * len(clip) - 2)
        sample = clip[min(turn, 2 * len(clip) - 2 - turn)]
        image = sample.image()
        x = round((width - side) * (0.5 + 0.4 * np.sin(frame / 40)))
        y = round((height - side) * (0.5 + 0.4 * np.cos(frame / 55)))
        canvas = backdrop.copy()
        canvas[y : y + side, x : x + side] = cv2.resize(image, (side, side))[..., ::-1]
        video.write(canvas)
        zoom = side / image.shape[0]
        points = (sample.annotation + 0.5) * zoom - 0.5 + (x, y) + 1
        rows = "\n".join(f"{a:.4f} {b:.4f}" for a, b in points)
        text = f"version: 1\nn_points: 68\n{{\n{rows}\n}}\n"
        (target / "annot" / f"{frame + 1:06d}.pts").write_text(text)
    video.release()


def make_networks(root: Path, device: str, stacks: int, features: int, depth: dict[str, object]) -> dict[str, str]:
    """Save random networks of some size; return them as options of a build."""
    import torch

    from ls3dw.models.contract import Contract
    from ls3dw.models.zoo import calibrate, save

    fan = {"class": "FAN", "stacks": stacks, "features": features, "pooling": "avg"}
    contracts = {
        "model_2d": Contract("random-2d", "2d", {**fan, "in_channels": 3}, ""),
        "model_3d": Contract("random-3d", "2d-to-3d", {**fan, "in_channels": 71}, "", guidance_std=1.0),
        "model_depth": Contract("random-depth", "depth", {"class": "DepthNet", **depth}, "", guidance_std=2.0),
    }
    torch.manual_seed(0)
    for name, contract in contracts.items():
        network = contract.build().to(device)
        channels = contract.network.get("in_channels", 71)
        calibrate(network, torch.rand(8, channels, 256, 256, device=device))
        save(network, root / f"{name}.safetensors", contract)
    return {name: str(root / f"{name}.safetensors") for name in contracts}


class MemoryWatch:
    """Samples the resident memory of this process and, added up, of its decoding processes, from /proc."""

    def __init__(self) -> None:
        self.parent_mb = 0.0
        self.workers_mb = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> MemoryWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        own = os.getpid()
        while not self._over.wait(0.25):
            self.parent_mb = max(self.parent_mb, _resident_mb(own))
            listed = Path(f"/proc/{own}/task/{own}/children").read_text().split()
            self.workers_mb = max(self.workers_mb, sum(_resident_mb(int(pid)) for pid in listed))


def _resident_mb(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:  # it has just ended
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=4)
    parser.add_argument("--frames", type=int, default=50, help="of each video")
    parser.add_argument("--size", default="640x480")
    parser.add_argument("--gpu", default="auto")
    parser.add_argument("--workers", type=int)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--full-size", action="store_true")
    parser.add_argument("--tiny", action="store_true", help="networks of almost no cost: the rest of the build alone")
    parser.add_argument("--data", type=Path, help="keep and reuse the videos here")
    parser.add_argument("--no-depth", action="store_true")
    given = parser.parse_args()
    width, height = map(int, given.size.split("x"))
    scratch = Path(tempfile.mkdtemp(prefix="ls3dw-bench-"))
    root = given.data or scratch / "videos"
    start = time.perf_counter()
    if not root.exists():
        with ProcessPoolExecutor() as pool:
            list(pool.map(partial(make_video, root, (width, height), given.frames), range(given.videos)))
    made = time.perf_counter() - start

    from ls3dw.build import Build
    from ls3dw.config import BuildOptions
    from ls3dw.models.device import devices

    models: dict[str, str] = {}
    if given.full_size:
        models = make_networks(scratch, devices(given.gpu)[0], 4, 256, {})
    elif given.tiny:
        models = make_networks(scratch, "cpu", 1, 16, {"layers": [1, 1, 1, 1], "width": 4})
    if given.no_depth:
        models["model_depth"] = "none"
    start = time.perf_counter()
    run = Build(
        BuildOptions(
            sources=("300vw",),
            root=root,
            out=scratch / "out",
            gpu=given.gpu,
            workers=given.workers,
            batch=given.batch,
            **models,  # type: ignore[arg-type]
        )
    )
    loaded = time.perf_counter() - start
    faces: list[int] = []
    start = time.perf_counter()
    finished: list[float] = []

    def report(chunk: Chunk) -> None:
        faces.append(len(chunk.faces))
        finished.append(time.perf_counter() - start)

    with MemoryWatch() as memory:
        run.run(lambda plan: None, report)
    whole = time.perf_counter() - start
    size = sum(path.stat().st_size for path in (scratch / "out" / "faces").rglob("*.h5"))
    result = {
        "device": str(run.annotators[0].device),
        "size": given.size,
        "videos": given.videos,
        "faces": sum(faces),
        "making_videos_s": round(made, 1),
        "loading_networks_s": round(loaded, 1),
        "annotating_s": round(finished[-1], 2),
        "whole_build_s": round(whole, 2),
        "faces_per_s": round(sum(faces) / finished[-1], 1),
        "picture_kb_per_face": round(size / max(1, sum(faces)) / 1e3, 1),
        "parent_peak_mb": round(memory.parent_mb),
        "workers_peak_mb": round(memory.workers_mb),
    }
    if run.on_gpu:
        import torch

        result["gpu_peak_mb"] = round(torch.cuda.max_memory_allocated() / 1e6)
    print(json.dumps(result))
    shutil.rmtree(scratch)


if __name__ == "__main__":
    main()

"""Times `ls3dw build` from 300-VW-like AVI files to finished shards: faces/s, what each stage took, and memory: at
its peak, and after a quarter, half and all of the faces.

    python benchmarks/build_video.py --gpus 0                                       a few thousand faces
    python benchmarks/build_video.py --gpus 0 --videos 112 --frames 450 --size 640x480,1280x720 --weights bundled,full
    python benchmarks/build_video.py --gpus 0 0,1 --videos 112 --frames 450 --weights DIR

Videos are made from the clips of the embedded sample: enlarged, drifting through the frame, encoded as XviD; from
--distinct on they are links to the first ones. Each is decoded by one process, so there should be many more of them, as
in 300-VW (114). Each combination of size, weights and GPUs is a case, built anew.

--weights: bundled; a folder with weights files, each used for what its contract says; full: random FAN-4 networks (24 M
parameters each) with calibrated batch norm and the published depth network's size; tiny: networks of almost no cost.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import tempfile
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import product
from pathlib import Path

import cv2
import numpy as np

from ls3dw.building.prepare import Chunk
from ls3dw.core.resources import folder
from ls3dw.sources import open_source


def make_video(root: Path, size: tuple[int, int], frames: int, number: int) -> None:
    """Write one video and its annotations: NNN/vid.avi, NNN/annot/000001.pts, ..."""
    samples = list(open_source("300vw", folder("embedded") / "300VW"))
    clip = [(sample.image(), sample.annotation) for sample in samples[number % 2 * 48 : number % 2 * 48 + 48]]
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
        image, annotation = clip[min(turn, 2 * len(clip) - 2 - turn)]
        x = round((width - side) * (0.5 + 0.4 * np.sin(frame / 40)))
        y = round((height - side) * (0.5 + 0.4 * np.cos(frame / 55)))
        canvas = backdrop.copy()
        canvas[y : y + side, x : x + side] = cv2.resize(image, (side, side))[..., ::-1]
        video.write(canvas)
        zoom = side / image.shape[0]
        points = (annotation + 0.5) * zoom - 0.5 + (x, y) + 1
        rows = "\n".join(f"{a:.4f} {b:.4f}" for a, b in points)
        text = f"version: 1\nn_points: 68\n{{\n{rows}\n}}\n"
        (target / "annot" / f"{frame + 1:06d}.pts").write_text(text)
    video.release()


def make_videos(root: Path, size: tuple[int, int], videos: int, frames: int, distinct: int) -> None:
    """Write the distinct videos, and link the others to them."""
    with ProcessPoolExecutor() as pool:
        list(pool.map(partial(make_video, root, size, frames), range(min(videos, distinct))))
    for number in range(distinct, videos):
        source = root / f"{number % distinct + 1:03d}"
        (root / f"{number + 1:03d}").symlink_to(source.resolve(), target_is_directory=True)


def find_networks(root: Path) -> dict[str, str]:
    """Return the weights files of a folder as options of a build."""
    from ls3dw.models.weights.zoo import read_contract

    roles = {"2d": "model_2d", "2d-to-3d": "model_3d", "3d": "model_3d", "depth": "model_depth"}
    files = sorted(root.glob("*.safetensors"))
    return {roles[read_contract(file).kind]: str(file) for file in files}


def make_networks(root: Path, device: str, stacks: int, features: int, depth: dict[str, object]) -> dict[str, str]:
    """Save random networks of some size; return them as options of a build."""
    import torch

    from ls3dw.models.weights.contract import Contract
    from ls3dw.models.weights.zoo import calibrate, save

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
    """Samples memory in MB: resident in this process, added up in the decoding and in the network processes, shared
    between them (of the whole machine, above what it was at first), and on the cards, contexts included."""

    def __init__(self, gpus: str) -> None:
        self.now = dict.fromkeys(("parent", "decoding", "networks", "shared", "cards"), 0.0)
        self.peaks = dict(self.now)
        self._gpus = gpus if gpus[0].isdigit() else ""
        self._shared_before = _shared_mb()
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._watch, daemon=True)]
        if self._gpus:
            self._threads.append(threading.Thread(target=self._watch_cards, daemon=True))

    def __enter__(self) -> MemoryWatch:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _watch(self) -> None:
        own = os.getpid()
        while not self._over.wait(0.25):
            networks, decoding = 0.0, 0.0
            for pid in _children(own):
                resident, serves = _resident_mb(pid), _is_network_process(pid)
                networks += resident if serves else 0
                decoding += 0 if serves else resident
            shared = _shared_mb() - self._shared_before
            for name, value in zip(self.peaks, (_resident_mb(own), decoding, networks, shared), strict=False):
                self._note(name, value)

    def _watch_cards(self) -> None:
        words = ["nvidia-smi", "-i", self._gpus, "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
        while not self._over.wait(1):
            listed = subprocess.run(words, capture_output=True, text=True, check=False).stdout.split()
            self._note("cards", sum(float(word) for word in listed if word.isdigit()))

    def _note(self, name: str, value: float) -> None:
        self.now[name] = value
        self.peaks[name] = max(self.peaks[name], value)


def _children(pid: int) -> list[int]:
    """List the processes that any thread of a process has started."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(word) for task in tasks for word in _text(task / "children").split()]


def _is_network_process(pid: int) -> bool:
    return "\0network\0" in _text(Path(f"/proc/{pid}/cmdline"))


def _resident_mb(pid: int) -> float:
    return _field_mb(Path(f"/proc/{pid}/status"), "VmRSS")


def _shared_mb() -> float:
    return _field_mb(Path("/proc/meminfo"), "Shmem:")


def _field_mb(path: Path, name: str) -> float:
    return sum(int(line.split()[1]) for line in _text(path).splitlines() if line.startswith(name)) / 1e3


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:  # the process has just ended
        return ""


def run_case(given: argparse.Namespace, root: Path, models: dict[str, str], gpus: str) -> dict[str, object]:
    """Build once; return the figures and print the stages. The whole build begins with checking the weights."""
    from ls3dw.building.options import BuildOptions
    from ls3dw.building.pipeline import Build
    from ls3dw.building.prestart import Prestart

    out = Path(tempfile.mkdtemp(prefix="out-", dir=given.scratch))
    options = BuildOptions(
        sources=("300vw",),
        root=root,
        out=out,
        gpu=gpus,
        workers=given.workers,
        batch=given.batch,
        **models,  # type: ignore[arg-type]
    )
    arrivals: list[tuple[float, int]] = []
    marks = {share: round(share * given.videos * given.frames) for share in (0.25, 0.5, 1.0)}
    held: dict[str, dict[str, int]] = {}

    def report(chunk: Chunk) -> None:
        before = sum(count for _, count in arrivals)
        arrivals.append((time.perf_counter() - start, len(chunk.faces)))
        for share, faces in marks.items():
            if before < faces <= before + len(chunk.faces):
                held[f"{share:.0%}"] = rounded(memory.now)

    begun = time.perf_counter()
    with Prestart(gpus) as prestart:
        run = Build(options, prestart)
        start = time.perf_counter()
        with MemoryWatch(gpus) as memory:
            run.run(lambda plan: None, report)
    whole = time.perf_counter() - begun
    faces = sum(count for _, count in arrivals)
    written = sum(path.stat().st_size for path in (out / "faces").rglob("*.h5"))
    shutil.rmtree(out)
    print(run.pipeline.timing())
    return {
        "devices": run.pipeline.devices,
        "decoding_processes": run.pipeline.workers,
        "faces": faces,
        "checking_weights_s": round(start - begun, 2),
        "first_chunk_s": round(arrivals[0][0], 2),
        "annotating_s": round(run.pipeline.seconds, 2),
        "whole_build_s": round(whole, 2),
        "faces_per_s": round(faces / run.pipeline.seconds, 1),
        "faces_per_s_whole_build": round(faces / whole, 1),
        "faces_per_s_second_half": round(_rate_of_second_half(arrivals), 1),
        "picture_kb_per_face": round(written / max(1, faces) / 1e3, 1),
        "mb_at": held,
        "peak_mb": rounded(memory.peaks),
    }


def rounded(values: dict[str, float]) -> dict[str, int]:
    return {name: round(value) for name, value in values.items()}


def _rate_of_second_half(arrivals: list[tuple[float, int]]) -> float:
    """Return faces/s once everything has started."""
    later = arrivals[len(arrivals) // 2 :]
    return sum(count for _, count in later[1:]) / max(1e-9, later[-1][0] - later[0][0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=56)
    parser.add_argument("--frames", type=int, default=75, help="of each video")
    parser.add_argument("--distinct", type=int, default=8, help="videos that differ")
    parser.add_argument("--size", default="640x480", help="one or more, separated by commas")
    parser.add_argument("--weights", default="bundled", help="one or more, separated by commas")
    parser.add_argument("--gpus", nargs="+", default=["auto"], help="each as ls3dw build's --gpu: none, 0 or 0,1")
    parser.add_argument("--workers", type=int)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--no-depth", action="store_true")
    parser.add_argument("--data", type=Path, help="keep and reuse the videos here")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ls3dw-bench-") as scratch:
        given.scratch = Path(scratch)
        for size, weights in product(given.size.split(","), given.weights.split(",")):
            root = (given.data or given.scratch) / f"{size}-{given.videos}x{given.frames}"
            if not root.exists():
                width, height = map(int, size.split("x"))
                make_videos(root, (width, height), given.videos, given.frames, given.distinct)
            models = networks_for(weights, given.scratch) | ({"model_depth": "none"} if given.no_depth else {})
            for gpus in given.gpus:
                print(f"== {given.videos} videos of {given.frames} frames {size}, {weights} networks, --gpu {gpus}")
                figures = run_case(given, root, models, gpus)
                print(json.dumps({"size": size, "weights": weights, **figures}), flush=True)


def networks_for(weights: str, scratch: Path) -> dict[str, str]:
    """Return the networks of a case as options of a build."""
    sizes: dict[str, tuple[int, int, dict[str, object]]] = {
        "full": (4, 256, {}),
        "tiny": (1, 16, {"layers": [1, 1, 1, 1], "width": 4}),
    }
    if weights == "bundled":
        return {}
    if weights not in sizes:
        return find_networks(Path(weights))
    folder = scratch / weights
    folder.mkdir(exist_ok=True)
    return find_networks(folder) or make_networks(folder, "cpu", *sizes[weights])


if __name__ == "__main__":
    main()

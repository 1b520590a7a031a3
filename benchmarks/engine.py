"""Times networks in every way that the engine runs them, and holds their landmarks against the plain ones in float32.

    python benchmarks/engine.py --device cuda --batch 128 256 --weights FOLDER
    python benchmarks/engine.py --device cpu --batch 8 --only folded plain chain
    python benchmarks/engine.py --device cpu --compiled --widths 1 2 4

FOLDER: weights (.safetensors with their .json) that take the place of the bundled ones of their kind. The pictures are
rendered heads, whose own points guide the guided networks. All rates are from crops on the device: of a network alone,
and of the chain with decoding, guidance and flip, with the depth network and without. Share: of the 16-bit peak given
by --peak, or on a CPU of a matrix product timed here. One variant that fails does not end the others.
"""

from __future__ import annotations

import argparse
import copy
import gc
import platform
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ls3dw.building.bench.stages import network_flop, without
from ls3dw.models import Model, load
from ls3dw.models.annotator import Annotator
from ls3dw.models.face_batch import FaceBatch
from ls3dw.models.inference.policy import Policy, choose, has_bfloat16
from ls3dw.models.inference.runners import Runner, prepare
from ls3dw.models.networks.guidance import Guide, draw, gaussian_guide
from ls3dw.models.networks.heatmaps import decode_subpixel, with_mirrored
from ls3dw.models.weights.contract import CHANNELS_OF, RGB
from ls3dw.models.weights.zoo import DEFAULT_2D, DEFAULT_3D, DEFAULT_DEPTH, read_contract
from ls3dw.synth.renderer import Renderer
from ls3dw.synth.rng import SplitRng

H100_PEAK = 775.0
"""10^12 16-bit operations a second of a large matrix product."""

Variants = dict[str, Callable[[], Runner]]


@dataclass(frozen=True)
class Faces:
    """Rendered crops (N, 3, 256, 256) float in [0, 1] and their points (N, 68, 2)."""

    crops: Tensor
    points: Tensor

    def first(self, count: int) -> Faces:
        """Return so many, over and over again if need be."""
        rows = torch.arange(count, device=self.crops.device) % len(self.crops)
        return Faces(self.crops[rows], self.points[rows])

    def guide(self, model: Model) -> Guide | None:
        std = model.contract.guidance_std
        return gaussian_guide(self.points, std) if CHANNELS_OF[model.contract.kind] > RGB else None


def render(count: int, device: torch.device) -> Faces:
    renderer = Renderer(device)
    parts = [
        renderer.render(min(64, count - start), SplitRng(11, device).child(start)) for start in range(0, count, 64)
    ]
    crops = torch.cat([part.images for part in parts]).float() / 255
    return Faces(crops, torch.cat([part.landmarks_2d for part in parts]).float())


def networks(folder: Path | None) -> dict[str, str]:
    """Return the weights by kind."""
    found = {"2d": DEFAULT_2D, "2d-to-3d": DEFAULT_3D, "depth": DEFAULT_DEPTH}
    for file in sorted(folder.glob("*.safetensors")) if folder else ():
        found[read_contract(file).kind] = str(file)
    return found


class HalfNetwork:
    """A network as it stands in float16, channels last: what the package ran before it had an engine."""

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        self._network = copy.deepcopy(network).to(device, torch.float16)
        self._network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def __call__(self, crops: Tensor, guide: Guide | None = None, flip: bool = False) -> Tensor:
        if flip:
            return with_mirrored(self, crops)
        channels = RGB + (0 if guide is None else guide.profiles.shape[1])
        output = self._network(draw(crops, guide, torch.float16, channels))
        last: Tensor = output[-1] if isinstance(output, list) else output
        return last.float()


def variants(network: nn.Module, device: torch.device, batch: int, given: argparse.Namespace) -> Variants:
    """Name the ways to run a network."""

    def of(policy: Policy) -> Callable[[], Runner]:
        return lambda: prepare(copy.deepcopy(network), policy)

    plain, eager = choose(device, "plain"), choose(device, "eager")
    if device.type == "cuda":
        half = replace(eager, rows=batch)
        return {
            "plain float32": of(plain),
            "plain float16": lambda: HalfNetwork(network, device),
            "folded": of(half),
            "fused": of(replace(half, compiled=True)),
        }
    made = {"plain float32": of(plain)}
    for dtype in (torch.float32, torch.bfloat16) if has_bfloat16() else (torch.float32,):
        for rows in given.widths:
            policy = replace(eager, dtype=dtype, rows=rows)
            made[f"folded {policy.name}, {rows} a thread"] = of(policy)
            if given.compiled:
                made[f"folded compiled {policy.name}, {rows} a thread"] = of(replace(policy, compiled=True))
        whole = replace(eager, dtype=dtype, rows=None, threads=1)
        made[f"folded {whole.name}, all on all threads"] = of(whole)
    return made


def best(work: Callable[[], object], device: torch.device, seconds: float) -> float:
    """Return the least seconds that `work` takes."""
    fastest, end = float("inf"), time.perf_counter() + seconds
    repeats = 0
    while time.perf_counter() < end or repeats < 3:
        began = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        fastest = min(fastest, time.perf_counter() - began)
        repeats += 1
    return fastest


@contextmanager
def guarded(title: str) -> Iterator[None]:
    """Print what goes wrong and go on with the rest."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - printed; the other variants still say something
        print(f"{title}: FAILED, {type(error).__name__}: {str(error).strip()[:300]}", flush=True)
        traceback.print_exc(limit=-3)
    gc.collect()
    torch.cuda.empty_cache()


def decoded(model: Model, output: Tensor) -> Tensor:
    """Return landmarks (N, 68, 2) or depths (N, 68, 1), in crop pixels."""
    return output[..., None] if model.contract.kind == "depth" else decode_subpixel(output)[0]


def differences(found: Tensor, expected: Tensor) -> str:
    error = (found - expected).norm(dim=2).flatten()
    return f"{error.mean():.4f} mean {error.quantile(0.99):.4f} p99 {error.max():.3f} max px"


@dataclass(frozen=True)
class Bench:
    """A network, the pictures it is tried on, and what was asked for. peak: operations a second."""

    model: Model
    faces: Faces
    given: argparse.Namespace
    peak: float

    def measure(self) -> None:
        """Time all variants; the plain one comes first, and is what the others are held against."""
        work = network_flop(self.model.contract) / 2
        print(f"\n{self.model.contract.name}: {work / 1e9:.2f} GMAC a picture")
        expected: Tensor | None = None
        for batch in self.given.batch:
            for name, make in variants(self.model.network, self.faces.crops.device, batch, self.given).items():
                if name.startswith(tuple(self.given.only)):
                    with guarded(f"{name}, batch {batch}"), precision(exact=name == "plain float32"):
                        output = self._variant(name, make, batch, 2 * work / self.peak, expected)
                        expected = output if expected is None else expected

    def _variant(
        self, name: str, make: Callable[[], Runner], batch: int, share: float, expected: Tensor | None
    ) -> Tensor:
        some = self.faces.first(batch)
        guide = some.guide(self.model)
        began = time.perf_counter()
        runner = make()
        runner(some.crops, guide)
        runner(some.crops, guide)
        warm = time.perf_counter() - began
        seconds = best(lambda: runner(some.crops, guide), some.crops.device, self.given.seconds)
        output = decoded(self.model, in_batches(runner, self.faces.crops, self.faces.guide(self.model), batch))
        rate = batch / seconds
        print(
            f"{name:34} batch {batch:4} {seconds * 1e3:9.2f} ms {rate:9.1f} img/s {share * rate:6.1%} of peak"
            f"  ready after {warm:5.1f} s  {differences(output, output if expected is None else expected)}",
            flush=True,
        )
        return output


@contextmanager
def precision(*, exact: bool) -> Iterator[None]:
    """Let cuDNN choose freely, in TF32 too where it need not be exact; in float32 its search takes minutes."""
    with torch.backends.cudnn.flags(enabled=True, benchmark=not exact, deterministic=False, allow_tf32=not exact):
        yield


def in_batches(runner: Runner, crops: Tensor, guide: Guide | None, batch: int) -> Tensor:
    """Run over all pictures in batches of one size, the last filled up."""
    outputs = []
    for start in range(0, len(crops), batch):
        rows = torch.arange(start, start + batch, device=crops.device) % len(crops)
        own = None if guide is None else Guide(guide.points[rows], guide.profiles[rows], guide.reach)
        outputs.append(runner(crops[rows], own).clone())
    return torch.cat(outputs)[: len(crops)]


def chain(weights: dict[str, str], faces: Faces, given: argparse.Namespace) -> None:
    """Time the three networks in a row with decoding and guidance."""
    expected: Tensor | None = None
    engines = ("plain", "eager", "compiled") if faces.crops.is_cuda or given.compiled else ("plain", "eager")
    for batch in given.batch:
        for engine in engines:
            for flip in (True, False):
                with guarded(f"chain, {engine}, batch {batch}"), torch.inference_mode():
                    annotator = Annotator(
                        weights["2d"],
                        weights["2d-to-3d"],
                        weights["depth"],
                        device=str(faces.crops.device),
                        flip=flip,
                        batch=batch,
                        engine=engine,
                    )
                    with precision(exact=engine == "plain"):
                        output = through_chain(annotator, faces, given.seconds, expected if flip else None)
                        expected = output if expected is None else expected


def through_chain(annotator: Annotator, faces: Faces, seconds: float, expected: Tensor | None) -> Tensor:
    """Time one annotator from crops on the device to landmarks, print it, and return what it gives."""
    batch = annotator.batch
    some, none = faces.first(batch), FaceBatch((), np.zeros((batch, 4)))
    began = time.perf_counter()
    annotator._run(none, some.crops)
    output = annotator._run(none, some.crops)
    warm = time.perf_counter() - began
    took = best(lambda: annotator._run(none, some.crops), faces.crops.device, seconds)
    plane = without(annotator, model_depth=None)
    less = best(lambda: plane._run(none, some.crops), faces.crops.device, seconds)
    said = ""
    if expected is not None:
        rows = min(len(output), len(expected), len(faces.crops))
        moved = {"2D": slice(0, 2), "3D": slice(2, 4), "z": slice(4, 5)}
        said = "; ".join(
            f"{key} {differences(output[:rows, :, columns], expected[:rows, :, columns])}"
            for key, columns in moved.items()
        )
    flip = "flip" if annotator.flip else "no flip"
    print(
        f"chain, {annotator.engine:8} {flip:7} batch {batch:4} {batch / took:8.1f} faces/s,"
        f" {batch / less:8.1f} without depth  ready after {warm:5.1f} s  {said}",
        flush=True,
    )
    return output


def peak_of(device: torch.device, given: argparse.Namespace) -> float:
    """Return operations a second: what was given for a GPU, timed for a CPU."""
    if device.type == "cuda":
        return float(given.peak) * 1e12
    a = torch.rand(2048, 2048).to(choose(device, "eager").dtype)
    return 2 * 2048**3 / best(lambda: a @ a, device, 1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--weights", type=Path, help="folder of .safetensors files")
    parser.add_argument("--batch", type=int, nargs="+", default=[128])
    parser.add_argument("--faces", type=int, help="rendered heads [default: 256, on a CPU 16]")
    parser.add_argument("--widths", type=int, nargs="+", default=[1, 2], help="pictures a thread, on a CPU")
    parser.add_argument("--compiled", action="store_true", help="on a CPU too")
    parser.add_argument("--only", nargs="+", default=["plain", "folded", "fused", "chain"])
    parser.add_argument("--kinds", nargs="+", default=["2d", "2d-to-3d", "depth"])
    parser.add_argument("--seconds", type=float, default=0.7, help="for each timing")
    parser.add_argument("--peak", type=float, default=H100_PEAK, help="of the GPU, 10^12 operations a second")
    given = parser.parse_args()
    device = torch.device(given.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    print(
        f"{name}, torch {torch.__version__}, {torch.get_num_threads()} threads, bfloat16 on the CPU: {has_bfloat16()}"
    )
    faces = render(given.faces or (256 if device.type == "cuda" else 16), device)
    peak = peak_of(device, given)
    print(f"peak {peak / 1e12:.2f} TFLOP/s")
    weights = networks(given.weights)
    with torch.inference_mode():
        for kind in given.kinds:
            with guarded(kind):
                Bench(load(weights[kind]), faces, given, peak).measure()
    if "chain" in given.only:
        chain(weights, faces, given)


if __name__ == "__main__":
    main()

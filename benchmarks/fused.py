"""Times the fused FAN on a CUDA device, layer by layer and as a whole, and holds it against the plain network.

    python benchmarks/fused.py --batches 128 256                the network as a whole
    python benchmarks/fused.py --batches 128 256 --layers       each layer with each tile too; a minute more

Weights are random with calibrated batch norms, since speed does not depend on them; landmarks are compared with the
bundled 2D-FAN on the embedded sample. Layers' times are of CUDA graphs' replays. `tile_for` in
ls3dw/models/kernels/tiles.py holds the best tiles, "tuned" are the best of this run. "at once": without the
warp-specialized kernel.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from ls3dw.core.crops import cut_window
from ls3dw.core.resources import folder
from ls3dw.models import FAN, load
from ls3dw.models.inference.cuda_graph import CapturedCall
from ls3dw.models.inference.fused_fan import FusedFAN
from ls3dw.models.inference.resampling import resample
from ls3dw.models.kernels.convolutions import CudnnOperations, Tiling, TritonOperations, convolve
from ls3dw.models.kernels.hopper import warp_specialization_available
from ls3dw.models.kernels.operations import (
    ActivationTarget,
    ConvWeights,
    Epilogue,
    Operations,
    Plane,
    ScaleShift,
    convolve_by_torch,
)
from ls3dw.models.kernels.tiles import ConvShape, Tile, WarpSpecializedTile, tile_for, warp_specialized_tile_for
from ls3dw.models.networks.heatmaps import decode_subpixel
from ls3dw.models.weights.zoo import calibrate
from ls3dw.sources import open_source

PEAK = 775e12
"""16-bit operations a second that a large matrix product reached on an H100."""

GMAC = {3: 25.2, 71: 28.7}
"""Of FAN-4 with 256 features, an image."""

COMPILERS = 12


@dataclass(frozen=True)
class Layer:
    """A distinct convolution of the network: its shape, height, and which results it writes."""

    shape: ConvShape
    height: int
    writes: tuple[bool, ...]

    @property
    def name(self) -> str:
        kind = "3x3" if self.shape.taps == 9 else "1x1"
        letters = "".join(letter for letter, there in zip("baorlf", self.writes, strict=True) if there)
        return f"{self.height:3d} {kind} {self.shape.inputs:3d}->{self.shape.outputs:3d} {letters}"

    def operations(self, batch: int) -> float:
        return 2.0 * batch * self.height**2 * self.shape.taps * self.shape.inputs * self.shape.outputs


@dataclass(frozen=True)
class Call:
    """What a convolution was called with."""

    source: Plane
    weights: ConvWeights
    epilogue: Epilogue


class Recorder(TritonOperations):
    """Operations that remember the first call of each distinct convolution and count the others."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: dict[Layer, Call] = {}
        self.counts: dict[Layer, int] = {}

    def convolve(self, source: Plane, weights: ConvWeights, epilogue: Epilogue) -> None:
        shape = ConvShape(source.data.shape[:3].numel(), weights.inputs, weights.outputs, weights.taps)
        parts = (weights.bias, epilogue.active, epilogue.plane, epilogue.residual, epilogue.low, epilogue.following)
        writes = tuple(part is not None for part in parts)
        layer = Layer(shape, source.inside.shape[1], writes)
        self.calls.setdefault(layer, Call(source, weights, epilogue))
        self.counts[layer] = self.counts.get(layer, 0) + 1
        super().convolve(source, weights, epilogue)


def candidates(shape: ConvShape) -> list[Tiling]:
    """Return the tiles worth trying for a convolution, and None for torch's."""
    depth, found = min(64, shape.inputs), []
    if shape.pixels < 2**17:
        found += [Tile(64, 64, depth, 4, 4), Tile(128, 64, depth, 4, 4), Tile(128, 64, depth, 4, 3)]
        found += [Tile(128, 128, depth, 8, 3, registers=128), Tile(128, 128, depth, 4, 3)]
    elif shape.outputs > 64:
        found += [Tile(128, 128, depth, 8, 3, registers=128), Tile(128, 128, depth, 4, 3)]
        found += [Tile(256, 128, depth, 8, 4), Tile(256, 128, depth, 8, 4, transposed=True)]
    elif shape.outputs == 64:
        found += [Tile(128, 64, depth, 4, 3), Tile(128, 64, depth, 4, 3, transposed=True)]
    else:
        found += [Tile(128, shape.outputs, depth, 4, 3), Tile(256, shape.outputs, depth, 8, 3)]
    fitting = [tile for tile in found if tile.outputs <= 2 * shape.outputs]
    whole = [replace(tile, by_descriptor=True) for tile in fitting if shape.outputs % tile.outputs == 0]
    turns = warp_specialized_tile_for(shape) if warp_specialization_available(torch.device("cuda")) else None
    return list(dict.fromkeys([turns or tile_for(shape), tile_for(shape), None, *fitting, *whole]))


@dataclass(frozen=True)
class Kernel:
    """What a compiled kernel depends on beside its tile: a layer without its number of pixels."""

    inputs: int
    outputs: int
    taps: int
    writes: tuple[bool, ...]


def compile_all(plans: dict[Layer, list[Tiling]]) -> int:
    """Compile every kernel of every layer, in processes, into Triton's cache; return how many there are."""
    wanted: dict[Kernel, dict[Tiling, None]] = {}
    for layer, tiles in plans.items():
        kernel = Kernel(layer.shape.inputs, layer.shape.outputs, layer.shape.taps, layer.writes)
        wanted.setdefault(kernel, {}).update(dict.fromkeys(tiles))
    pairs = [(kernel, tile) for kernel, tiles in wanted.items() for tile in tiles]
    with ProcessPoolExecutor(COMPILERS, multiprocessing.get_context("spawn")) as pool:
        return sum(pool.map(compile_one, *zip(*pairs, strict=True)))


def compile_one(kernel: Kernel, tile: Tiling) -> int:
    """Compile a kernel by running it on a few pixels; return 1, or 0 after an error."""
    bias, active, plane, residual, low, following = kernel.writes
    inputs, outputs = kernel.inputs, kernel.outputs

    def made(channels: int) -> Plane:
        return Plane(torch.zeros(1, 9, 9, channels, device="cuda", dtype=torch.float16), 1)

    norm = ScaleShift(torch.ones(outputs, device="cuda"), torch.ones(outputs, device="cuda"))
    weight = torch.zeros(outputs, kernel.taps * inputs, device="cuda", dtype=torch.float16)
    epilogue = Epilogue(
        active=ActivationTarget(made(outputs), norm) if active else None,
        plane=made(outputs) if plane else None,
        residual=made(outputs) if residual else None,
        low=made(outputs) if low else None,
        following=ActivationTarget(made(outputs), norm) if following else None,
    )
    with reported(f"compile {kernel} {spelled(tile)}"):
        convolve(made(inputs), ConvWeights(weight, kernel.taps, norm.shift if bias else None), epilogue, tile)
        torch.cuda.synchronize()
        return 1
    return 0


@contextmanager
def reported(what: str) -> Iterator[None]:
    """Go on after an error, which is printed: what else there is to measure is not lost."""
    try:
        yield
    except Exception as error:  # noqa: BLE001
        last = traceback.extract_tb(error.__traceback__)[-1]
        print(f"FAILED {what}: {type(error).__name__}: {str(error)[:400]} ({last.filename}:{last.lineno})", flush=True)


def replay_time(run: Callable[[], object], times: int = 10, replays: int = 3) -> float:
    """Return the seconds that `run` takes on the device, the median of replays of a graph of several runs."""
    run()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(times):
            run()
    graph.replay()
    return statistics.median(elapsed(graph.replay) for _ in range(replays)) / times


def elapsed(run: Callable[[], object]) -> float:
    start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    start.record()
    run()
    stop.record()
    stop.synchronize()
    return float(start.elapsed_time(stop)) / 1000


def dense(call: Call) -> Call:
    """Return the call with planes without padding, as cuDNN takes them."""

    def of(plane: Plane | None) -> Plane | None:
        return None if plane is None else Plane(plane.inside.contiguous(), 0)

    def activation(part: ActivationTarget | None) -> ActivationTarget | None:
        return None if part is None else ActivationTarget(Plane(part.plane.inside.contiguous(), 0), part.norm)

    epilogue = call.epilogue
    active, following = activation(epilogue.active), activation(epilogue.following)
    parts = Epilogue(active, of(epilogue.plane), of(epilogue.residual), of(epilogue.low), epilogue.offset, following)
    return Call(Plane(call.source.inside.contiguous(), 0), call.weights, parts)


def tune(network: FAN, batch: int, channels: int) -> dict[ConvShape, Tiling]:
    """Time every distinct convolution with every tile and with cuDNN; return the best tiles."""
    recorder = Recorder()
    FusedFAN(network, operations=recorder)(crops(batch, channels))
    started = time.perf_counter()
    plans = {layer: candidates(layer.shape) for layer in recorder.calls}
    kernels = compile_all(plans)
    print(f"{kernels} kernels compiled in {time.perf_counter() - started:.0f} s")
    print(f"\nlayers at batch {batch}: µs cuDNN + pass, of which cuDNN; µs Triton, TFLOP/s; times; tile (b bias,")
    print("a activated, o out, r residual, l low, f following)")
    best: dict[ConvShape, tuple[float, Tiling]] = {}
    totals = [0.0, 0.0]
    for layer, call in recorder.calls.items():
        with reported(layer.name):
            found = sorted(tile_times(layer, call, plans[layer]), key=lambda pair: pair[0])
            whole, alone = cudnn_times(call)
            seconds = found[0][0]
            best[layer.shape] = min(best.get(layer.shape, found[0]), found[0], key=lambda pair: pair[0])
            count = recorder.counts[layer]
            totals = [totals[0] + whole * count, totals[1] + seconds * count]
            rate = layer.operations(batch) / seconds / 1e12
            print(
                f"{layer.name:24} {whole * 1e6:7.0f} {alone * 1e6:7.0f} {seconds * 1e6:7.0f} {rate:5.0f} x{count:2d} "
            )
            print("      " + "; ".join(f"{spelled(tile)} {seconds * 1e6:.0f}" for seconds, tile in found))
    print(f"all of these: cuDNN + pass {totals[0] * 1e3:.2f} ms, Triton {totals[1] * 1e3:.2f} ms", flush=True)
    return {shape: tile for shape, (_, tile) in best.items()}


def spelled(tile: Tiling) -> str:
    if tile is None:
        return "torch"
    if isinstance(tile, WarpSpecializedTile):
        return f"turns{tile.pixels}" + "t" * tile.transposed
    ending = (
        ("t" if tile.transposed else "") + (f"r{tile.registers}" if tile.registers else "") + "W" * tile.by_descriptor
    )
    return f"{tile.pixels}x{tile.outputs}x{tile.depth}w{tile.warps}s{tile.stages}{ending}"


def tile_times(layer: Layer, call: Call, tiles: list[Tiling]) -> list[tuple[float, Tiling]]:
    found = []
    for tile in tiles:
        with reported(f"{layer.name} {spelled(tile)}"):

            def run(tile: Tiling = tile) -> None:
                convolve(call.source, call.weights, call.epilogue, tile)

            found.append((replay_time(run), tile))
    return found


def cudnn_times(call: Call) -> tuple[float, float]:
    """Return the seconds of cuDNN's convolution with the pass after it, and of the convolution alone."""
    plain = dense(call)

    def whole() -> None:
        convolve(plain.source, plain.weights, plain.epilogue, None)

    return replay_time(whole), replay_time(lambda: convolve_by_torch(plain.source, plain.weights))


def crops(batch: int, channels: int) -> Tensor:
    generator = torch.Generator("cuda").manual_seed(1)
    x = torch.rand(batch, channels, 256, 256, generator=generator, device="cuda", dtype=torch.float16)
    return x.contiguous(memory_format=torch.channels_last)


def time_whole(network: FAN, batch: int, channels: int, operations: dict[str, Operations]) -> None:
    x = crops(batch, channels)
    # 3 channels become 4 and 71 become 72.
    padded = torch.cat((x, x[:, :1]), dim=1).contiguous(memory_format=torch.channels_last)
    for name, chosen in operations.items():
        for graph in (False, True):
            title = f"batch {batch} {name}{' graph' if graph else ''}"
            with reported(title):
                fused = FusedFAN(network, operations=chosen)
                run = CapturedCall(fused, (padded,)) if graph else fused
                show(title, whole_time(run, padded), batch, channels)
            torch.cuda.empty_cache()


def whole_time(run: Callable[[Tensor], Tensor], x: Tensor) -> float:
    for _ in range(3):
        run(x)
    torch.cuda.synchronize()
    return statistics.median(elapsed(lambda: run(x)) for _ in range(10))


def at_batch(tiles: dict[ConvShape, Tiling], batch: int, other: int) -> dict[ConvShape, Tiling]:
    """Return the tiles found at one batch size for the same layers at another."""
    return {replace(shape, pixels=shape.pixels // batch * other): tile for shape, tile in tiles.items()}


def show(name: str, seconds: float, batch: int, channels: int) -> None:
    rate = batch / seconds
    flops = rate * 2e9 * GMAC[channels]
    head = f"{name:34} {seconds * 1e3:8.2f} ms {rate:8.0f} img/s"
    print(f"{head} {flops / 1e12:6.0f} TFLOP/s {flops / PEAK:6.1%} of peak", flush=True)


def profile(network: FAN, batch: int, channels: int, operations: Operations) -> None:
    """Print the device time of each kind of kernel in one pass."""
    fused, x = FusedFAN(network, operations=operations), crops(batch, channels)
    fused(x)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as trace:
        fused(x)
        torch.cuda.synchronize()
    events = sorted(trace.key_averages(), key=lambda event: -event.device_time_total)
    for event in events[:10]:
        print(f"{event.device_time_total / 1e3:8.2f} ms x{event.count:4d} {event.key[:90]}")


@torch.no_grad()
def compare(name: str, network: nn.Module, fused: FusedFAN, x: Tensor) -> None:
    """Print how far the fused network's heatmaps and landmarks are from the plain one's in float32."""
    plain = network.float()(x.float())[-1]
    found = fused(x).float()
    distance = (decode_subpixel(found)[0] - decode_subpixel(plain)[0]).norm(dim=-1)
    heat = (found - plain).abs().max().item()
    print(
        f"{name:34} heatmaps differ by {heat:.2e} of {plain.abs().max().item():.2f}; "
        f"landmarks by {distance.mean().item():.4f} px on average, {distance.max().item():.3f} at most",
        flush=True,
    )


def sample_crops(faces: int = 64) -> Tensor:
    """Tiling the embedded sample's faces to (N, 3, 256, 256) in [0, 1]."""
    found = list(open_source("300vw", folder("embedded") / "300VW"))[:faces]
    windows = [cut_window(sample.image(), np.asarray(sample.box, dtype=np.float64)) for sample in found]
    parts = [(torch.from_numpy(window.pixels), torch.from_numpy(window.to_crop)) for window in windows]
    return torch.cat([resample(pixels[None], to_crop[None]) for pixels, to_crop in parts])


def make_network(channels: int) -> FAN:
    torch.manual_seed(0)
    network = FAN(4, 256, channels).cuda()
    calibrate(network, torch.rand(8, channels, 256, 256, device="cuda"))
    return network


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, nargs="+", default=[128, 256])
    parser.add_argument("--channels", type=int, choices=sorted(GMAC), default=3)
    parser.add_argument("--layers", action="store_true", help="time every layer with every tile, and what is best")
    arguments = parser.parse_args()
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = False
    started = time.perf_counter()
    print(torch.cuda.get_device_name(), "torch", torch.__version__, "python", sys.version.split()[0])
    network, first = make_network(arguments.channels), arguments.batches[0]
    operations: dict[str, Operations] = {"triton": TritonOperations(), "cudnn": CudnnOperations()}
    if warp_specialization_available(torch.device("cuda")):
        operations["at once"] = TritonOperations(specialize=False)
    if arguments.layers:
        with reported("layers"):
            tiles = tune(network, first, arguments.channels)
            for batch in arguments.batches:
                tiles |= at_batch(tiles, first, batch)
            operations["tuned"] = TritonOperations(tiles)
    for batch in arguments.batches:
        time_whole(network, batch, arguments.channels, operations)
    print(f"after {time.perf_counter() - started:.0f} s")
    with reported("profile"):
        profile(network, first, arguments.channels, operations["triton"])
    for name, chosen in operations.items():
        with reported(f"compare {name}"):
            x = crops(8, arguments.channels)
            compare(f"random FAN-4, {name}", network, FusedFAN(network, operations=chosen), x)
            small = load("fan-2d-small").network.cuda()
            assert isinstance(small, FAN)
            compare(f"bundled 2D-FAN, {name}", small, FusedFAN(small, operations=chosen), sample_crops().cuda())
    print(f"done after {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()

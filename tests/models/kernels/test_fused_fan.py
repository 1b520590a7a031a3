"""The fused FAN against the plain network: its data flow on the CPU, its kernels where there is a device for them.

Without a GPU the kernels run in Triton's interpreter: TRITON_INTERPRET=1 python -m pytest tests/models/kernels
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from plain_operations import PlainOperations
from torch import Tensor

from ls3dw.models import FAN
from ls3dw.models.inference.first_conv import FirstConv
from ls3dw.models.inference.fused_fan import FusedFAN
from ls3dw.models.inference.policy import Policy
from ls3dw.models.kernels.operations import (
    ActivationTarget,
    ConvWeights,
    Epilogue,
    Operations,
    Plane,
    ScaleShift,
)
from ls3dw.models.kernels.tiles import LARGEST_SHARED_MEMORY, ConvShape, Tile, warp_specialized_tile_for
from ls3dw.models.networks.fan import Pooling
from ls3dw.models.networks.guidance import draw, gaussian_guide
from ls3dw.models.weights.zoo import calibrate

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


def make_network(
    stacks: int = 1, features: int = 64, channels: int = 3, pooling: Pooling = "avg", stem: int | None = None
) -> FAN:
    generator = torch.Generator().manual_seed(stacks + features + channels)
    network = FAN(stacks, features, channels, pooling, stem)
    for name, parameter in network.named_parameters():
        # Batch norms' scales too: with ones, a scale that is left out would not show.
        spread = 1 / parameter[0].numel() ** 0.5 if parameter.dim() > 1 else 0.2
        with torch.no_grad():
            parameter.normal_(1.0 if "bn" in name and name.endswith("weight") else 0.0, spread, generator=generator)
    calibrate(network, torch.rand(2, channels, 256, 256, generator=generator))
    return network


def crops(count: int, channels: int) -> Tensor:
    return torch.rand(count, channels, 256, 256, generator=torch.Generator().manual_seed(9))


@torch.no_grad()
def error(network: FAN, fused: FusedFAN, x: Tensor) -> Tensor:
    """Return the differences of the last heatmaps from exact ones, as shares of their spread."""
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        plain = network(x[:, : network.conv1.in_channels])[-1]
    return (fused(x).float().to(plain.device) - plain) / plain.std()


def difference(network: FAN, fused: FusedFAN, x: Tensor) -> float:
    """Return the largest difference."""
    return float(error(network, fused, x).abs().max())


@pytest.mark.parametrize("pad", [0, 1])
@pytest.mark.parametrize(
    ("stacks", "features", "channels", "pooling", "stem"),
    [(1, 64, 3, "avg", None), (2, 64, 71, "max", None), (1, 128, 3, "max", 64), (4, 64, 3, "avg", 16)],
)
def test_the_data_flow_is_the_networks(
    stacks: int, features: int, channels: int, pooling: Pooling, stem: int | None, pad: int
) -> None:
    network = make_network(stacks, features, channels, pooling, stem)
    fused = FusedFAN(network, dtype=torch.float32, operations=PlainOperations(pad))
    assert difference(network, fused, crops(1, channels)) < 1e-3


@pytest.mark.slow
def test_the_published_size() -> None:
    network = make_network(4, 256)
    assert difference(network, FusedFAN(network, torch.float32, PlainOperations()), crops(1, 3)) < 1e-3


def test_channels_added_to_the_input_change_nothing() -> None:
    network = make_network()
    fused = FusedFAN(network, torch.float32, PlainOperations())
    x = crops(2, 4)
    torch.testing.assert_close(fused(x), fused(x[:, :3]), atol=1e-4, rtol=1e-4)


def test_a_guide_may_come_straight_to_what_the_first_convolution_gives() -> None:
    network = make_network(channels=71)
    fused = FusedFAN(network, torch.float32, PlainOperations())
    x, points = crops(2, 3), 256 * torch.rand(2, 68, 2, generator=torch.Generator().manual_seed(4))
    guide = gaussian_guide(points, 1.0)
    drawn = fused(draw(x, guide, torch.float32, 72))
    network.conv1.bias = None
    first = FirstConv(network.conv1, Policy(torch.device("cpu"), torch.float32))
    with torch.inference_mode():
        assert (fused.body(first(x, guide)) - drawn).abs().max() < 1e-3 * drawn.std()


def test_what_cannot_be_fused() -> None:
    network = make_network()
    with pytest.raises(ValueError, match="training mode"):
        FusedFAN(network.train())


@pytest.fixture
def operations() -> Operations:
    """Return kernels' operations, interpreted or on the GPU."""
    if not (INTERPRETED or torch.cuda.is_available()):
        pytest.skip("needs a CUDA device or TRITON_INTERPRET=1")
    kernels = pytest.importorskip("ls3dw.models.kernels.convolutions", exc_type=ImportError)
    chosen: Operations = kernels.TritonOperations()
    return chosen


class Bench:
    """Makes equal inputs for kernels and plain operations, and holds their results against each other."""

    def __init__(self, kernels: Operations, pictures: int = 3) -> None:
        self.pictures = pictures
        self.device = "cpu" if INTERPRETED else "cuda"
        self.generator = torch.Generator().manual_seed(0)
        self.sides = (kernels, PlainOperations(kernels.pad))

    def random(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator).to(self.device)

    def norm(self, channels: int) -> ScaleShift:
        return ScaleShift(1 + 0.3 * self.random(channels), 0.3 * self.random(channels))

    def plane(self, channels: int, size: int = 8, pad: int | None = None) -> Plane:
        pad = self.sides[0].pad if pad is None else pad
        plane = PlainOperations(pad).empty(self.pictures, size, size, channels, self.random(0).half())
        plane.inside.copy_(self.random(self.pictures, size, size, channels))
        return plane

    def compare(self, targets: dict[str, tuple[int, int]], run: Callable[[Operations, dict[str, Plane]], None]) -> None:
        """Run both sides on poisoned planes of some (channels, size); they must agree, and padding must be zero."""
        found = []
        for side in self.sides:
            like = self.random(0).half()
            planes = {
                name: side.empty(self.pictures, size, size, channels, like)
                for name, (channels, size) in targets.items()
            }
            for plane in planes.values():
                (plane.data if side is self.sides[0] else plane.inside).fill_(torch.nan)
            run(side, planes)
            found.append(planes)
        for name in targets:
            torch.testing.assert_close(found[0][name].data, found[1][name].data, atol=2e-2, rtol=2e-3)


@pytest.mark.parametrize("taps", [9, 1])
def test_a_convolution_writes_all_that_is_asked_for(operations: Operations, taps: int) -> None:
    bench = Bench(operations)
    source, residual, low = bench.plane(32), bench.plane(64), bench.plane(64, size=4)
    parts = [
        ConvWeights((bench.random(outputs, taps * 32) / (taps * 32) ** 0.5).half(), taps, bench.random(outputs))
        for outputs in (32, 32)
    ]
    norms = [bench.norm(32) for _ in range(4)]

    def run(side: Operations, planes: dict[str, Plane]) -> None:
        for number, weights in enumerate(parts):
            active = ActivationTarget(planes[f"active{number}"], norms[number])
            following = ActivationTarget(planes["following"], norms[2 + number])
            side.convolve(source, weights, Epilogue(active, planes["out"], residual, low, 32 * number, following))

    bench.compare({"active0": (32, 8), "active1": (32, 8), "out": (64, 8), "following": (64, 8)}, run)


def test_a_convolution_with_few_results_and_an_odd_number_of_outputs(operations: Operations) -> None:
    bench = Bench(operations)
    source, weights = bench.plane(16), ConvWeights(bench.random(20, 16).half(), 1, bench.random(20))
    bench.compare({"out": (20, 8)}, lambda side, planes: side.convolve(source, weights, Epilogue(plane=planes["out"])))


@pytest.mark.parametrize("tile", [(False, False), (True, False), (False, True), (True, True), None])
def test_a_tile_does_not_change_the_result(operations: Operations, tile: tuple[bool, bool] | None) -> None:
    from ls3dw.models.kernels.convolutions import TritonOperations

    bench = Bench(operations)
    source, residual, low = bench.plane(32), bench.plane(128), bench.plane(128, size=4)
    weights, norms = ConvWeights((bench.random(64, 288) / 17).half(), 9), [bench.norm(64) for _ in range(2)]
    chosen = tile and Tile(64, 32, 16, 4, 3, transposed=tile[0], by_descriptor=tile[1])
    bench.sides = (TritonOperations({ConvShape(3 * 9 * 9, 32, 64, 9): chosen}), bench.sides[1])

    def run(side: Operations, planes: dict[str, Plane]) -> None:
        for offset in (0, 64):
            active, following = (
                ActivationTarget(planes[name], norm) for name, norm in zip(planes, norms, strict=False)
            )
            side.convolve(source, weights, Epilogue(active, planes["out"], residual, low, offset, following))

    bench.compare({"active": (64, 8), "following": (128, 8), "out": (128, 8)}, run)


def test_whole_tiles_must_not_write_into_the_next_channels(operations: Operations) -> None:
    from ls3dw.models.kernels.convolutions import convolve

    bench = Bench(operations)
    weights = ConvWeights(bench.random(20, 16).half(), 1)
    with pytest.raises(ValueError, match="20 outputs in whole tiles of 32"):
        convolve(bench.plane(16), weights, Epilogue(plane=bench.plane(20)), Tile(64, 32, 16, 4, 3, by_descriptor=True))


SPECIALIZED = [(256, 128), (128, 128), (128, 64), (64, 64)]
"""Inputs and outputs of warp-specialized convolutions."""


@pytest.mark.parametrize(("inputs", "outputs"), SPECIALIZED)
def test_buffers_fit_and_cover_the_taps(inputs: int, outputs: int) -> None:
    tile = warp_specialized_tile_for(ConvShape(2**17, inputs, outputs, 9))
    assert tile is not None
    for width in (8, 32, 64):
        assert tile.memory(width, outputs) <= LARGEST_SHARED_MEMORY
        # From the tap above and left of the first pixel to that below and right of the last.
        assert tile.area(width) >= tile.pixels + 2 * (width + 1) + 2
    assert tile.memory(128, outputs) > LARGEST_SHARED_MEMORY


def test_few_pixels_or_channels_are_not_warp_specialized() -> None:
    few = [
        ConvShape(2**17 - 1, 64, 64, 9),
        ConvShape(2**17, 32, 64, 9),
        ConvShape(2**17, 64, 32, 9),
        ConvShape(2**17, 64, 64, 1),
    ]
    assert [warp_specialized_tile_for(shape) for shape in few] == [None] * 4


@pytest.fixture
def specialized() -> Operations:
    """Return operations whose convolutions are warp-specialized where there are enough pixels."""
    kernels = pytest.importorskip("ls3dw.models.kernels.convolutions", exc_type=ImportError)
    if not kernels.warp_specialization_available(torch.device("cuda" if torch.cuda.is_available() else "cpu")):
        pytest.skip("needs a Hopper GPU and the Triton that the kernel is made for")
    chosen: Operations = kernels.TritonOperations()
    return chosen


@pytest.mark.gpu
@pytest.mark.parametrize("size", [64, 32])
@pytest.mark.parametrize("everything", [False, True])
@pytest.mark.parametrize(("inputs", "outputs"), SPECIALIZED)
def test_warp_specialized_convolutions(
    specialized: Operations, inputs: int, outputs: int, everything: bool, size: int
) -> None:
    # Pictures enough that each group takes several tiles; at 64x64 the last tile is not full.
    bench = Bench(specialized, pictures=32 * (64 // size) ** 2)
    source, residual, low = bench.plane(inputs, size), bench.plane(256, size), bench.plane(256, size // 2)
    weights = ConvWeights((bench.random(outputs, 9 * inputs) / (3 * inputs**0.5)).half(), 9)
    norms = [bench.norm(outputs) for _ in range(2)]

    def run(side: Operations, planes: dict[str, Plane]) -> None:
        for offset in range(0, 256, outputs):
            epilogue = Epilogue(plane=planes["out"], residual=residual, offset=offset)
            if everything:
                active, following = (
                    ActivationTarget(planes[name], norm) for name, norm in zip(extra, norms, strict=True)
                )
                epilogue = replace(epilogue, active=active, low=low, following=following)
            side.convolve(source, weights, epilogue)

    extra = {"active": (outputs, size), "following": (256, size)}
    bench.compare({"out": (256, size)} | (extra if everything else {}), run)


def test_what_overflowed_is_not_rectified_away(operations: Operations) -> None:
    bench = Bench(operations)
    source, active = bench.plane(32), operations.empty(3, 8, 8, 64, bench.random(0).half())
    # What a difference of two values beyond float16 becomes: `Annotator` goes on in float32 when it arrives.
    source.inside[1] = torch.nan
    weights = ConvWeights((bench.random(64, 32) / 6).half(), 1)
    operations.convolve(source, weights, Epilogue(active=ActivationTarget(active, bench.norm(64))))
    assert [bool(torch.isnan(part).any()) for part in active.inside] == [False, True, False]


@pytest.mark.parametrize("outputs", [64, 20])
def test_two_convolutions_in_one(operations: Operations, outputs: int) -> None:
    bench = Bench(operations)
    source, residual, norms = bench.plane(32), bench.plane(outputs), (bench.norm(64), bench.norm(outputs))
    first = ConvWeights((bench.random(64, 32) / 6).half(), 1)
    second = ConvWeights((bench.random(outputs, 64) / 8).half(), 1, bench.random(outputs))

    def run(side: Operations, planes: dict[str, Plane]) -> None:
        epilogue = Epilogue(
            plane=planes["out"], residual=residual, following=ActivationTarget(planes["following"], norms[1])
        )
        side.convolve_twice(source, first, norms[0], second, epilogue)

    bench.compare({"out": (outputs, 8), "following": (outputs, 8)}, run)


def test_activations_from_a_plane_of_another_padding(operations: Operations) -> None:
    bench = Bench(operations)
    norms = [bench.norm(32) for _ in range(3)]
    for first in (None, norms[0]):
        source = bench.plane(32, pad=0)

        def run(
            side: Operations, planes: dict[str, Plane], source: Plane = source, first: ScaleShift | None = first
        ) -> None:
            results = [ActivationTarget(planes[name], norm) for name, norm in zip(planes, norms[1:], strict=False)]
            side.activate(source, first, results)

        bench.compare({"one": (32, 8)}, run)
        bench.compare({"one": (32, 8), "two": (32, 8)}, run)


def test_activations_of_which_one_is_averaged(operations: Operations) -> None:
    bench = Bench(operations)
    source, norms = bench.plane(32, pad=0), [bench.norm(32) for _ in range(3)]

    def run(side: Operations, planes: dict[str, Plane]) -> None:
        full, half = (ActivationTarget(plane, norm) for plane, norm in zip(planes.values(), norms[1:], strict=True))
        side.activate_and_average(source, norms[0], full, half)

    bench.compare({"full": (32, 8), "half": (32, 4)}, run)


@pytest.mark.parametrize("pooling", ["avg", "max"])
def test_pooling(operations: Operations, pooling: Pooling) -> None:
    bench = Bench(operations)
    source, norm = bench.plane(32), bench.norm(32)
    bench.compare(
        {"raw": (32, 4), "active": (32, 4)},
        lambda side, planes: side.pool(source, pooling, planes["raw"], ActivationTarget(planes["active"], norm)),
    )
    bench.compare({"raw": (32, 4)}, lambda side, planes: side.pool(source, pooling, planes["raw"], None))


def test_a_plane_that_kernels_cannot_count_is_refused(operations: Operations) -> None:
    with pytest.raises(ValueError, match="2\\^31"):
        operations.empty(4096, 64, 64, 256, torch.empty(0, device="meta"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("stacks", "features", "channels", "pooling"), [(1, 128, 3, "max"), (2, 256, 71, "avg")])
def test_the_whole_network_on_a_gpu(stacks: int, features: int, channels: int, pooling: Pooling) -> None:
    network = make_network(stacks, features, channels, pooling).cuda()
    fused = FusedFAN(network)
    for batch in (3, 8, 3):
        # float16 alone makes 0.016 of it, on a CPU too.
        assert error(network, fused, crops(batch, channels).cuda()).square().mean().sqrt() < 0.03

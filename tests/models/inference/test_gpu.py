"""What a GPU does in one pass gives what torch gives in many.

Without a GPU the kernels run in Triton's interpreter:

    TRITON_INTERPRET=1 python -m pytest tests/models/inference/test_gpu.py
"""

from __future__ import annotations

import logging
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from ls3dw.building.bench.widen import SMALL
from ls3dw.dataset.open import open_dataset
from ls3dw.models import FAN, DepthNet, kernels, load
from ls3dw.models.inference import resampling
from ls3dw.models.inference.gpu import FusedRunner, bottleneck, fusable
from ls3dw.models.inference.policy import Policy, choose
from ls3dw.models.inference.runners import prepare
from ls3dw.models.networks.guidance import Guide, gaussian_guide
from ls3dw.models.networks.heatmaps import decode_subpixel, from_profiles, gaussian_profiles, mirror_heatmaps

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = torch.device("cpu" if INTERPRETED else "cuda")
COMPILED = choose(torch.device("cuda"), "compiled")
SIZE = 64

on_gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


def kernel_module(name: str) -> ModuleType:
    if not (INTERPRETED or torch.cuda.is_available()):
        pytest.skip("needs a CUDA device or TRITON_INTERPRET=1")
    module: ModuleType = pytest.importorskip(f"ls3dw.models.kernels.{name}", exc_type=ImportError)
    return module


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE)


def guide(std: float) -> Guide:
    """Points of two pictures, in and around them; one is missing."""
    points = numbers(2, 5, 2) * (SIZE + 20) - 10
    points[0, 0] = torch.nan
    points[1, 0] = SIZE - 1
    return Guide(points, gaussian_profiles(points, std, SIZE), 5.5 * std)


@pytest.mark.parametrize("std", [1.0, 2.0])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@torch.inference_mode()
def test_a_guide_is_added_as_its_channels_would_be(std: float, dtype: torch.dtype) -> None:
    made = kernel_module("elementwise")
    given, before = guide(std), numbers(2, 24, SIZE // 2, SIZE // 2, seed=1).to(memory_format=torch.channels_last)
    weight = numbers(24, 5, 7, 7, seed=2) - 0.5
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        expected = before + torch.conv2d(from_profiles(given.profiles), weight, stride=2, padding=3)
    maps = before.to(dtype, copy=True)
    made.add_guide(maps, made.pack_guide_weight(weight).half(), given)
    assert (expected - before).abs().max() > 0.3
    torch.testing.assert_close(maps.float(), expected, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("channels", [24, 32])
def test_pooling_and_relu(channels: int) -> None:
    made = kernel_module("elementwise")
    maps = (numbers(3, channels, 16, 24) - 0.6).half().to(memory_format=torch.channels_last)
    maps[0, :, 5, 5] = torch.nan
    expected = torch.max_pool2d(maps, 3, stride=2, padding=1).relu()
    found = made.max_pool_relu(maps)
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(found.isnan(), expected.isnan())
    assert found.isnan().any()
    assert torch.equal(found.nan_to_num(), expected.nan_to_num())


@torch.inference_mode()
def test_heatmaps_are_laid_out_and_averaged() -> None:
    made = kernel_module("elementwise")
    # Behind each row, picture and pixel lies something else.
    one, other = (numbers(2, 9, 65, 72, seed=seed).half()[:, :8, :64, :68].permute(0, 3, 1, 2) for seed in (1, 2))
    heatmaps = torch.full((2, 68, 8, 64), torch.nan, device=DEVICE)
    made.write_heatmaps(one, heatmaps, mirrored=False)
    assert torch.equal(heatmaps, one.float())
    made.write_heatmaps(other, heatmaps, mirrored=True)
    assert torch.equal(heatmaps, (one.float() + mirror_heatmaps(other.float())) * 0.5)


# Of the interpreter and numpy, whose newest versions do not go together.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("zoom", [0.37, 1.0, 1.9])
def test_crops_are_the_ones_of_two_matrix_products(zoom: float, monkeypatch: pytest.MonkeyPatch) -> None:
    made = kernel_module("resampling")
    pixels = (numbers(2, 70, 50, 3) * 255).to(torch.uint8)
    affines = torch.tensor([[[zoom, 0, 1.7], [0, zoom, -3.2]], [[zoom, 0, -9.3], [0, zoom, 4.4]]]).double()
    found = made.resample(pixels, affines.to(DEVICE), SIZE, span=max(1, math.ceil(1 / zoom)))
    monkeypatch.setattr(kernels, "triton_available", lambda device: False)
    expected = resampling.resample(pixels, affines, SIZE)
    assert (expected == 0).any()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def heads(std: float, count: int = 3) -> tuple[Tensor, Guide]:
    """Render faces, guided by their own points."""
    from ls3dw.synth.options import RenderOptions
    from ls3dw.synth.renderer import Renderer
    from ls3dw.synth.rng import SplitRng

    made = Renderer("cpu", options=RenderOptions(size=256)).render(count, SplitRng(3, torch.device("cpu")))
    return made.images.cuda().float() / 255, gaussian_guide(made.landmarks_2d.cuda().float(), std)


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=on_gpu) for kind in SMALL])
@torch.inference_mode()
def test_a_network_on_fused_kernels_gives_what_the_plain_one_gives(kind: str) -> None:
    model = load(SMALL[kind])  # type: ignore[index]
    pictures, points = heads(model.contract.guidance_std or 1.0)
    given, flip = None if kind == "2d" else points, kind == "2d"
    plain = prepare(model.network, choose(torch.device("cuda"), "plain"))
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        expected = plain(pictures, given, flip=flip)
    fused = prepare(model.network, COMPILED.of_batch(len(pictures)))
    assert isinstance(fused, FusedRunner)
    found = fused(pictures, given, flip=flip)
    kept = found.clone()
    fused(1 - pictures, given, flip=flip)
    assert torch.equal(found, kept), "the next batch does not overwrite it"
    moved = found - expected if kind == "depth" else decode_subpixel(found)[0] - decode_subpixel(expected)[0]
    assert 0 < moved.abs().mean() < 0.02
    assert moved.abs().max() < 0.5


@torch.inference_mode()
def test_a_bottleneck_of_cudnns_is_the_bottleneck(monkeypatch: pytest.MonkeyPatch) -> None:
    """With cuDNN's convolutions played by torch's."""
    from ls3dw.models.inference.folding import FoldedDepth

    def relu(x: Tensor, weight: Tensor, bias: Tensor, stride: object, padding: object, *_: object) -> Tensor:
        return torch.conv2d(x, weight, bias, stride, padding).relu()  # type: ignore[call-overload, no-any-return]

    def add_relu(x: Tensor, weight: Tensor, z: Tensor, alpha: float, bias: Tensor, *rest: object) -> Tensor:
        return (torch.conv2d(x, weight, bias, *rest[:2]) + alpha * z).relu()  # type: ignore[call-overload, no-any-return]

    monkeypatch.setattr(torch, "cudnn_convolution_relu", relu)
    monkeypatch.setattr(torch, "cudnn_convolution_add_relu", add_relu)
    network = FoldedDepth(DepthNet(layers=[1, 2, 1, 1], width=16).eval()).float()
    for block, (channels, size) in zip(network.blocks, [(16, 8), (64, 8), (128, 4), (128, 4), (256, 4)], strict=True):
        x = torch.rand(2, channels, size, size)
        torch.testing.assert_close(bottleneck(block, x), block(x))  # type: ignore[arg-type]


def test_where_cudnn_does_not_fuse_it_says_so(caplog: pytest.LogCaptureFixture) -> None:
    from ls3dw.models.inference import gpu

    gpu._cudnn_fuses.cache_clear()
    here = replace(COMPILED, device=torch.device("cpu"))
    network = DepthNet(layers=[1, 1, 1, 1], width=16).eval()
    with caplog.at_level(logging.INFO):
        assert not gpu._cudnn_fuses(here.device, here.dtype)
    assert "cuDNN does not fuse here" in caplog.text
    assert not fusable(network, here), "not on a CPU at all"


@pytest.mark.parametrize("keeps", [True, False])
def test_a_relu_that_hides_an_overflow_is_not_fused(
    keeps: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from ls3dw.models.inference import gpu

    def played(x: Tensor, *_: object) -> Tensor:
        return x.relu() if keeps else x.relu().nan_to_num()

    monkeypatch.setattr(torch, "cudnn_convolution_relu", played)
    monkeypatch.setattr(torch, "cudnn_convolution_add_relu", played)
    gpu._cudnn_fuses.cache_clear()
    with caplog.at_level(logging.INFO):
        assert gpu._cudnn_fuses(torch.device("cpu"), torch.float32) == keeps
    gpu._cudnn_fuses.cache_clear()
    assert ("hides NaN" in caplog.text) != keeps


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Exception], None]]:
    """Have Triton's first kernel raise something, on a GPU that is played."""

    def play(error: Exception) -> None:
        def try_compiler() -> None:
            raise error

        monkeypatch.setitem(sys.modules, "ls3dw.models.kernels.launch", SimpleNamespace(try_compiler=try_compiler))

    monkeypatch.setattr(kernels, "find_spec", lambda name: "there")
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    kernels.triton_available.cache_clear()
    yield play
    kernels.triton_available.cache_clear()


def test_where_triton_cannot_compile_it_says_so(
    failing: Callable[[Exception], None], caplog: pytest.LogCaptureFixture
) -> None:
    """As in images with CUDA and no compiler."""
    failing(RuntimeError("Failed to find C compiler.\nPlease specify via CC"))
    with caplog.at_level(logging.WARNING):
        assert not kernels.triton_available(COMPILED.device)
        assert not fusable(FAN(stacks=1, features=32), COMPILED)
    assert caplog.text.count("Triton cannot compile here (RuntimeError: Failed to find C compiler.)") == 1


def test_too_little_memory_is_not_taken_for_a_missing_compiler(failing: Callable[[Exception], None]) -> None:
    failing(torch.cuda.OutOfMemoryError("full"))
    with pytest.raises(torch.cuda.OutOfMemoryError):
        kernels.triton_available(COMPILED.device)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_without_a_compiler_annotates_all_the_same(tmp_path: Path) -> None:
    """With kernels of our own and without: the landmarks are those of float16 either way."""
    words = [sys.executable, "-m", "ls3dw", "build", "--source", "sample", "--gpu", "0", "--engine", "compiled"]
    where = os.environ | {name: str(tmp_path) for name in ("TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "LS3DW_HOME")}
    points = {}
    for compiler in ("/bin/false", None):
        out = tmp_path / f"out-{compiler is None}"
        environment = where if compiler is None else where | {"CC": compiler}
        done = subprocess.run([*words, "--out", str(out)], env=environment, capture_output=True, text=True, check=True)
        assert ("Triton cannot compile here" in done.stderr) == (compiler is not None)
        points[compiler] = open_dataset(out).column("landmarks_2d")
    assert np.abs(points["/bin/false"] - points[None]).mean() < 0.05


def test_what_does_not_suit_the_kernels_is_not_fused(monkeypatch: pytest.MonkeyPatch) -> None:
    from ls3dw.models.inference import gpu

    monkeypatch.setattr(kernels, "triton_available", lambda device: device.type == "cuda")
    monkeypatch.setattr(gpu, "_cudnn_fuses", lambda device, dtype: True)
    assert fusable(DepthNet(layers=[1, 1, 1, 1], width=16), COMPILED)
    assert fusable(DepthNet(layers=[1, 1, 1, 1], width=24), COMPILED)
    assert not fusable(DepthNet(layers=[1, 1, 1, 1], width=12), COMPILED)
    assert fusable(FAN(1, 128), COMPILED)
    assert not fusable(FAN(1, 96), COMPILED)
    assert not fusable(FAN(1, 64), COMPILED), "parts of eight channels"
    assert not fusable(DepthNet(layers=[1, 1, 1, 1], width=16), COMPILED.widened())
    assert not fusable(DepthNet(layers=[1, 1, 1, 1], width=16), choose(torch.device("cuda"), "eager"))
    assert not fusable(
        DepthNet(layers=[1, 1, 1, 1], width=16), Policy(torch.device("cpu"), torch.float16, compiled=True)
    )

"""Folded networks give what the plain ones give, and a picture's result does not depend on those beside it."""

from __future__ import annotations

import copy
import logging
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ls3dw.building.options import Engine
from ls3dw.core.markup import POINTS
from ls3dw.errors import DeviceError
from ls3dw.models import FAN, DepthNet, load
from ls3dw.models.annotator import Annotator
from ls3dw.models.inference.folding import Activation, FoldedDepth, FoldedFAN, fold_network
from ls3dw.models.inference.policy import COMPILE_AFTER, ENGINES, choose, has_bfloat16
from ls3dw.models.inference.runners import prepare
from ls3dw.models.networks.fan import Pooling
from ls3dw.models.networks.guidance import Guide, draw, even, gaussian_guide, respond, stamp_guide
from ls3dw.models.networks.heatmaps import PUBLISHED_STD, decode_subpixel, draw_gaussians, stamp_gaussians
from ls3dw.models.networks.wing import Cascade
from ls3dw.models.weights.zoo import BUNDLED, calibrate

CPU = torch.device("cpu")
PLAIN = choose(CPU, "plain")
FOLDED = replace(choose(CPU, "eager"), dtype=torch.float32)


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def points(count: int) -> Tensor:
    """Points all over the crop and around it; some on its corners, one missing."""
    made = numbers(count, POINTS, 2) * 300 - 22
    made[0, 0] = torch.nan
    made[0, 1:5] = torch.tensor([[0.0, 0.0], [255.0, 0.0], [0.0, 255.0], [255.5, 255.5]])
    return made


def random_network(make: type[nn.Module], **arguments: Any) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        network = make(**arguments)
        for norm in network.modules():
            if isinstance(norm, nn.BatchNorm2d):
                nn.init.uniform_(norm.weight, -1.5, 1.5)
                nn.init.uniform_(norm.bias, -0.5, 0.5)
        channels = 71 if make is DepthNet else arguments.get("in_channels", 3)
        calibrate(network, torch.rand(4, channels, 256, 256))
    return network


@pytest.mark.parametrize(
    ("stacks", "features", "in_channels", "pooling", "stem"),
    [(1, 16, 3, "avg", None), (3, 16, 71, "avg", None), (2, 32, 3, "max", 16), (2, 16, 71, "max", 8)],
)
@torch.inference_mode()
def test_a_folded_fan_is_the_fan(
    stacks: int, features: int, in_channels: int, pooling: Pooling, stem: int | None
) -> None:
    network = random_network(FAN, stacks=stacks, features=features, in_channels=in_channels, pooling=pooling, stem=stem)
    assert isinstance(network, FAN)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    picture = numbers(1, in_channels, 256, 256).double()
    expected = copy.deepcopy(network).double()(picture)[-1]
    assert (FoldedFAN(network)(picture) - expected).abs().max() < 1e-12 * expected.abs().max()
    rounded = fold_network(network, torch.float32)(picture.float())
    assert (rounded - expected).abs().max() < 1e-4 * expected.abs().max()
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())


@torch.inference_mode()
def test_a_folded_depth_network_is_the_network() -> None:
    network = random_network(DepthNet, layers=[2, 1, 2, 1], width=8)
    assert isinstance(network, DepthNet)
    picture = numbers(1, 71, 256, 256).double()
    expected = copy.deepcopy(network).double()(picture)
    made = FoldedDepth(network)
    made.fc.float()
    found = made(picture)
    # Its last step is in float32 always.
    assert (found - expected).abs().max() < 1e-6 * expected.abs().max()
    rounded = fold_network(network, torch.float32)(picture.float())
    assert (rounded - expected).abs().max() < 1e-4 * expected.abs().max()


@pytest.mark.parametrize("name", BUNDLED)
@torch.inference_mode()
def test_the_bundled_networks_are_the_same_folded(name: str) -> None:
    model = load(name)
    crops, guide = numbers(1, 3, 256, 256), None if model.contract.kind == "2d" else gaussian_guide(points(1), 1.0)
    expected, found = (prepare(model.network, policy)(crops, guide) for policy in (PLAIN, FOLDED))
    assert (found - expected).abs().max() < 2e-5 * expected.abs().max()


@pytest.mark.parametrize(
    ("guide", "dense"),
    [
        (gaussian_guide(points(3), 1.0), draw_gaussians(points(3), 1.0)),
        (gaussian_guide(points(3), 2.0), draw_gaussians(points(3), 2.0)),
        (
            stamp_guide(points(3).nan_to_num(nan=9.0), PUBLISHED_STD),
            stamp_gaussians(points(3).nan_to_num(nan=9.0), PUBLISHED_STD),
        ),
    ],
    ids=["gaussian", "wide", "stamp"],
)
def test_answers_to_points_are_the_convolution_of_their_channels(guide: Guide, dense: Tensor) -> None:
    weight = numbers(16, POINTS, 7, 7, seed=3) - 0.5
    maps = numbers(3, 16, 128, 128).contiguous(memory_format=torch.channels_last)
    expected = maps + F.conv2d(dense, weight, stride=2, padding=3)
    respond(maps, weight, guide, stride=2, padding=3)
    assert (expected - numbers(3, 16, 128, 128)).abs().max() > 0.3
    torch.testing.assert_close(maps, expected, rtol=0, atol=1e-5)


def test_a_drawn_input_has_pictures_gaussians_and_empty_channels() -> None:
    images, guide = numbers(2, 3, 256, 256), gaussian_guide(points(2), 1.0)
    whole = draw(images, guide, torch.float32, even(3 + POINTS))
    assert whole.shape == (2, 72, 256, 256)
    assert whole.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(whole[:, :3], images)
    torch.testing.assert_close(whole[:, 3:71], draw_gaussians(points(2), 1.0))
    assert whole[:, 71].abs().max() == 0
    assert draw(images, None, torch.float16, even(3)).shape == (2, 4, 256, 256)


@torch.inference_mode()
def test_a_picture_does_not_depend_on_those_beside_it() -> None:
    runner = prepare(random_network(FAN, stacks=1, features=16, in_channels=71), replace(FOLDED, threads=2))
    crops, guide = numbers(5, 3, 256, 256), gaussian_guide(points(5), 1.0)
    threads = torch.get_num_threads()
    whole = runner(crops, guide)
    assert torch.get_num_threads() == threads
    for row in range(5):
        assert torch.equal(runner(crops[row : row + 1], guide[row : row + 1]), whole[row : row + 1])


@pytest.mark.parametrize(
    "stage", [{"class": "CNN7", "width": 0.125}, {"class": "ResNet50", "width": 0.125, "size": 64}]
)
@torch.inference_mode()
def test_coordinates_do_not_depend_on_those_beside_them(stage: dict[str, Any]) -> None:
    network = random_network(Cascade, first={"class": "CNN6", "width": 0.125}, second=stage)
    crops = numbers(5, 3, 256, 256)
    runner = prepare(network, replace(FOLDED, threads=2))
    whole = runner(crops)
    torch.testing.assert_close(whole, prepare(network, PLAIN)(crops), rtol=0, atol=1e-3)
    for part in (slice(0, 1), slice(1, 3), slice(3, 5)):
        assert torch.equal(runner(crops[part]), whole[part])


@torch.inference_mode()
def test_norms_that_stay_are_the_norms_in_any_type() -> None:
    block = random_network(FAN, stacks=1, features=16).get_submodule("conv2.bn1")
    assert isinstance(block, nn.BatchNorm2d)
    made = Activation(block).float()
    x = numbers(2, block.num_features, 8, 8) * 4 - 2
    torch.testing.assert_close(made(x), F.relu(block(x)), rtol=1e-6, atol=1e-6)
    narrow = x.bfloat16()
    torch.testing.assert_close(made(narrow), F.relu(block(narrow.float())).bfloat16(), rtol=1e-2, atol=1e-6)


@torch.inference_mode()
def test_bfloat16_keeps_the_first_and_last_convolution_and_the_norms_in_float32() -> None:
    network = random_network(FAN, stacks=2, features=16)
    assert isinstance(network, FAN)
    made = fold_network(network, torch.bfloat16)
    types = {name: tensor.dtype for name, tensor in made.state_dict().items()}
    wide = {name for name in types if name.startswith(("first", "heatmaps")) or ".act" in name or "sample.0" in name}
    assert {name for name, dtype in types.items() if dtype == torch.float32} == wide
    assert {dtype for name, dtype in types.items() if name not in wide} == {torch.bfloat16}
    expected = network(numbers(1, 3, 256, 256))[-1]
    found = prepare(network, replace(FOLDED, dtype=torch.bfloat16))(numbers(1, 3, 256, 256))
    assert found.dtype == torch.float32
    assert 1e-3 < (found - expected).abs().mean() / expected.abs().mean() < 0.15


@pytest.mark.slow
@torch.inference_mode()
def test_bfloat16_moves_landmarks_by_hundredths_of_a_pixel() -> None:
    """On processors without it torch computes it slowly; but right."""
    crops, guide = heads()
    network = load("fan-2d-to-3d-small").network
    policies = PLAIN, replace(FOLDED, dtype=torch.bfloat16)
    exact, narrow = (decode_subpixel(prepare(network, policy)(crops, guide))[0] for policy in policies)
    moved = (exact - narrow).norm(dim=2)
    assert 0 < moved.mean() < 0.03
    assert moved.max() < 0.5


def heads() -> tuple[Tensor, Guide]:
    """Render a face, guided by its own points."""
    from ls3dw.synth.options import RenderOptions
    from ls3dw.synth.renderer import Renderer
    from ls3dw.synth.rng import SplitRng

    made = Renderer("cpu", options=RenderOptions(size=256)).render(1, SplitRng(3, CPU))
    return made.images.float() / 255, gaussian_guide(made.landmarks_2d.float(), 1.0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", ["fan-2d-small", "fan-2d-to-3d-small"])
@pytest.mark.parametrize("engine", ["eager", "compiled"])
@torch.inference_mode()
def test_on_a_gpu_landmarks_stay_where_they_are(name: str, engine: str) -> None:
    crops, guide = heads()
    guide = Guide(guide.points.cuda(), guide.profiles.cuda(), guide.reach)
    policies = choose(torch.device("cuda"), "plain"), choose(torch.device("cuda"), engine).of_batch(1)
    exact, found = (
        decode_subpixel(prepare(load(name).network, policy)(crops.cuda(), None if name == "fan-2d-small" else guide))[0]
        for policy in policies
    )
    moved = (exact - found).norm(dim=2)
    assert moved.mean() < 0.02
    assert moved.max() < 0.5


@pytest.mark.parametrize("guided", [False, True])
@torch.inference_mode()
def test_openvino_gives_the_same_in_any_company(guided: bool) -> None:
    pytest.importorskip("openvino")
    network = random_network(FAN, stacks=2, features=32, in_channels=3 + 68 * guided)
    crops, guide = numbers(3, 3, 256, 256), gaussian_guide(points(3), 1.0) if guided else None
    expected = prepare(network, PLAIN)(crops, guide)
    runner = prepare(network, replace(FOLDED, compiled=True, threads=2))
    found = runner(crops, guide)
    assert (found - expected).abs().max() < 1e-4 * expected.abs().max()
    assert torch.equal(runner(crops[1:2], None if guide is None else guide[slice(1, 2)]), found[1:2])
    if not guided:
        mirrored = runner(crops, flip=True) - prepare(network, PLAIN)(crops, flip=True)
        assert mirrored.abs().max() < 1e-4 * expected.abs().max()


@torch.inference_mode()
def test_a_depth_network_by_openvino_is_the_same() -> None:
    pytest.importorskip("openvino")
    network = random_network(DepthNet, layers=[1, 1, 1, 1], width=8)
    crops, guide = numbers(2, 3, 256, 256), gaussian_guide(points(2), 2.0)
    expected = prepare(network, PLAIN)(crops, guide)
    found = prepare(network, replace(FOLDED, compiled=True))(crops, guide)
    assert (found - expected).abs().max() < 1e-4 * expected.abs().max()


def test_without_openvino_it_says_so_and_runs_eagerly(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("ls3dw.models.inference.policy.has_openvino", lambda: False)
    with caplog.at_level(logging.INFO):
        assert choose(CPU, "compiled") == choose(CPU, "eager")
    assert "pip install 'ls3dw[openvino]'" in caplog.text


def test_values_too_large_for_float16_widen_it(tiny_models: dict[str, str], caplog: pytest.LogCaptureFixture) -> None:
    annotator = Annotator(tiny_models["2d"], tiny_models["3d"], tiny_models["depth"], flip=False)
    annotator._policy = replace(annotator._policy, dtype=torch.float16)
    assert annotator.model_depth is not None
    with torch.no_grad():
        annotator.model_depth.network.get_parameter("layer1.0.bn3.bias").fill_(1e6)
        annotator.model_depth.network.get_parameter("fc.weight").mul_(1e-6)
    picture = np.random.default_rng(0).integers(0, 256, (99, 99, 3), dtype=np.uint8)
    result = annotator.annotate([picture], [[10, 10, 80, 90]])
    assert np.isfinite(result.landmarks_3d).all()
    assert "float16 overflowed with these weights" in caplog.text
    with torch.no_grad():
        annotator.model_depth.network.get_parameter("fc.bias").fill_(torch.inf)
    annotator._runners.clear()
    with pytest.raises(DeviceError, match="not finite"):
        annotator.annotate([picture], [[10, 10, 80, 90]])


def test_policies() -> None:
    assert get_args(Engine) == ENGINES
    assert choose(CPU, "fast").dtype == (torch.bfloat16 if has_bfloat16() else torch.float32)
    gpu = torch.device("cuda")
    assert choose(gpu, "fast").dtype == torch.float16
    assert choose(gpu, "plain").dtype == torch.float32
    assert choose(gpu, "compiled").of_batch(32).rows == 32
    assert choose(gpu, "eager").of_batch(32).rows is None
    assert choose(gpu, "fast").compiling() == choose(gpu, "compiled")
    with pytest.raises(ValueError, match="expected one of fast, eager"):
        choose(CPU, "quick")


def test_many_faces_on_a_gpu_are_worth_compiling_for(tiny_models: dict[str, str]) -> None:
    annotator = Annotator(tiny_models["2d"], tiny_models["3d"], "none")
    annotator._expect(10**6)
    assert not annotator._policy.compiled, "not on a CPU"
    annotator._policy = choose(torch.device("cuda"), "fast")
    annotator._expect(COMPILE_AFTER - 1)
    assert not annotator._policy.compiled
    annotator._expect(COMPILE_AFTER)
    assert annotator._policy == choose(torch.device("cuda"), "compiled")


def test_bfloat16_only_where_the_processor_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: False)
    assert not has_bfloat16()
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    assert has_bfloat16() == torch.backends.mkldnn.is_available()

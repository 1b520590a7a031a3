"""Packed networks give what the folded ones give, however many pictures go through together."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ls3dw.models import FAN, DepthNet, load
from ls3dw.models.inference.core_threads import run_in_parts
from ls3dw.models.inference.folding import Activation, PackedConv, fold_network, pack, packable, rectify_
from ls3dw.models.inference.policy import choose, has_bfloat16
from ls3dw.models.inference.runners import FoldedRunner, prepare
from ls3dw.models.networks.guidance import gaussian_guide
from ls3dw.models.weights.zoo import BUNDLED

CPU = torch.device("cpu")
EAGER = choose(CPU, "eager")
FLOAT32 = replace(EAGER, dtype=torch.float32)

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="needs oneDNN")


def numbers(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def count(network: nn.Module, kind: type[nn.Module]) -> int:
    return sum(isinstance(module, kind) for module in network.modules())


@pytest.mark.parametrize("name", ["fan-2d-light", "depth-light"])
@torch.inference_mode()
def test_a_packed_network_is_the_folded_one(name: str) -> None:
    network = load(name).network
    assert isinstance(network, FAN | DepthNet)
    before = fold_network(network, torch.float32)
    packed, maps = fold_network(network, torch.float32), torch.rand(1, before.first.out_channels, 128, 128)
    pack(packed, maps.clone())
    # All but the first.
    assert count(packed, PackedConv) == count(before, nn.Conv2d) - 1
    expected = before.body(maps.clone())
    assert (packed.body(maps) - expected).abs().max() < 2e-5 * expected.abs().max()


@pytest.mark.parametrize("name", ["fan-2d-light", "depth-light"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.inference_mode()
def test_what_is_not_a_number_stays_so(name: str, dtype: torch.dtype) -> None:
    """The annotator notices it at the end."""
    need(dtype)
    runner = prepare(load(name).network, replace(EAGER, dtype=dtype))
    assert isinstance(runner, FoldedRunner)
    maps = runner._first(numbers(1, 3, 256, 256), None)
    assert runner._network.body(maps.clone()).isfinite().all()
    maps[0, 0] = torch.nan
    assert runner._network.body(maps).isnan().all()


def need(dtype: torch.dtype) -> None:
    if dtype == torch.bfloat16 and not has_bfloat16():
        pytest.skip("needs a processor with bfloat16")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", BUNDLED)
@torch.inference_mode()
def test_a_picture_is_the_same_in_any_company(name: str, dtype: torch.dtype) -> None:
    need(dtype)
    model = load(name)
    crops, points = numbers(7, 3, 256, 256), numbers(7, 68, 2) * 255
    guide = None if model.contract.kind == "2d" else gaussian_guide(points, 1.0)
    alone, some = (prepare(model.network, replace(EAGER, dtype=dtype, rows=rows, threads=2)) for rows in (1, 4))
    expected = alone(crops, guide)
    assert torch.equal(some(crops, guide), expected)
    for part in (slice(0, 1), slice(1, 4), slice(2, 7)):
        assert torch.equal(some(crops[part], None if guide is None else guide[part]), expected[part])


@pytest.mark.parametrize(
    ("rows", "threads", "sizes"),
    [
        (4, 2, [4, 4, 4, 4]),
        (4, 4, [4, 4, 4, 4]),
        (4, 8, [2] * 8),
        (1, 2, [1] * 16),
        (16, 1, [16]),
        (5, 2, [5, 5, 5, 1]),
    ],
)
def test_every_thread_has_work(rows: int, threads: int, sizes: list[int]) -> None:
    def work(part: slice) -> Tensor:
        parts.append(part)
        return torch.arange(part.start, part.stop)

    parts: list[slice] = []
    assert torch.equal(run_in_parts(work, 16, rows, threads), torch.arange(16))
    assert sorted((part.stop - part.start for part in parts), reverse=True) == sizes


def test_a_narrow_relu_is_the_relu_of_every_number() -> None:
    numbers = torch.arange(-(2**15), 2**15).to(torch.int16).view(torch.bfloat16)
    expected = F.relu(numbers)
    found = rectify_(numbers.clone())
    torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)
    assert found.isnan().sum() == 2 * 127


@torch.inference_mode()
def test_a_narrow_norm_is_the_norm() -> None:
    norm = nn.BatchNorm2d(8).eval()
    nn.init.uniform_(norm.weight, -1.5, 1.5, generator=torch.Generator().manual_seed(1))
    maps = (numbers(2, 8, 6, 6) - 0.5).bfloat16().contiguous(memory_format=torch.channels_last)
    before = maps.clone()
    torch.testing.assert_close(Activation(norm).float()(maps), F.relu(norm(maps.float())).bfloat16())
    assert torch.equal(maps, before), "others read it too"


def test_what_is_packed() -> None:
    assert packable(FLOAT32)
    assert packable(EAGER)
    assert packable(replace(EAGER, dtype=torch.bfloat16)) == has_bfloat16()
    assert not packable(replace(EAGER, dtype=torch.float16))
    assert not packable(choose(torch.device("cuda"), "eager"))


def test_pictures_go_together_where_calls_cost_more_than_sums() -> None:
    assert EAGER.rows == choose(CPU, "compiled").rows == (4 if has_bfloat16() else 1)

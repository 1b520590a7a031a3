"""The rasterizer against a plain loop over pixels, and what it promises about order, edges and interpolation."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from ls3dw.errors import DeviceError
from ls3dw.synth import renderer
from ls3dw.synth.raster.rasterizer import Fragments, barycentric, interpolate, rasterize
from ls3dw.synth.rng import SplitRng

SIZE = 24


def soup(seed: int, batch: int = 2, triangles: int = 40) -> tuple[Tensor, Tensor]:
    """Make triangles of all sizes, some beyond the picture's edges, some behind z = 0."""
    draws = SplitRng(seed)
    middle = draws.uniform(batch, triangles, 1, 3, low=-4, high=SIZE + 4)
    spread = draws.uniform(batch, triangles, 1, 1, low=0.1, high=12)
    corners = middle + draws.normal(batch, triangles, 3, 3) * spread - torch.tensor((0.0, 0.0, 12.0))
    return corners.flatten(1, 2), torch.arange(3 * triangles).view(-1, 3)


def by_loop(vertices: Tensor, triangles: Tensor, x: int, y: int) -> tuple[int, float]:
    """Return the nearest triangle at one pixel of one picture and its depth, in float64."""
    best = (-1, -torch.inf)
    for number, corners in enumerate(vertices.double()[triangles]):
        system = torch.stack((corners[:, 0], corners[:, 1], torch.ones(3, dtype=torch.float64)))
        weights = torch.linalg.solve(system, torch.tensor((x, y, 1.0), dtype=torch.float64))
        depth = float(weights @ corners[:, 2])
        if bool((weights >= 0).all()) and depth > best[1]:
            best = (number, depth)
    return best


def test_every_pixel_shows_its_nearest_triangle() -> None:
    vertices, triangles = soup(seed=1)
    fragments = rasterize(vertices, triangles, SIZE, SIZE)
    wrong = 0
    for picture in range(len(vertices)):
        for y in range(SIZE):
            for x in range(SIZE):
                number, depth = by_loop(vertices[picture], triangles, x, y)
                same = int(fragments.triangle[picture, y, x]) == number
                wrong += not same
                if same:
                    assert float(fragments.depth[picture, y, x]) == pytest.approx(depth, abs=1e-3)
    assert wrong <= 2  # a pixel may lie on an edge up to rounding
    assert (fragments.triangle < 0).any()
    assert (fragments.depth < 0).any()


def test_a_picture_does_not_depend_on_the_order_of_triangles_nor_on_the_batch() -> None:
    vertices, triangles = soup(seed=2)
    order = SplitRng(3).permutation(len(triangles))
    straight = rasterize(vertices, triangles, SIZE, SIZE)
    shuffled = rasterize(vertices, triangles[order], SIZE, SIZE)
    alone = rasterize(vertices[1:], triangles, SIZE, SIZE)
    seen = straight.triangle >= 0
    assert torch.equal(order[shuffled.triangle.clamp(min=0)][seen], straight.triangle[seen])
    assert torch.equal(straight.depth, shuffled.depth)
    assert torch.equal(alone.triangle, straight.triangle[1:])


def test_neighbours_leave_no_pinholes_and_pixels_have_their_centres_at_integers() -> None:
    # A fan around an odd place covers the square from 2 to 20 whole: 19 x 19 pixels.
    angle = torch.linspace(0, 2 * torch.pi, 65)[:-1]
    reach = torch.stack((angle.cos(), angle.sin()), dim=-1)
    rim = 11 + 9 * reach / reach.abs().amax(1, keepdim=True)
    corners = torch.cat((torch.tensor([[10.3, 11.7]]), rim))
    vertices = torch.cat((corners, torch.zeros(len(corners), 1)), dim=1)[None]
    ring = torch.arange(1, 65)
    triangles = torch.stack((torch.zeros_like(ring), ring, ring.roll(-1)), dim=1)
    covered = rasterize(vertices, triangles, SIZE, SIZE).triangle[0] >= 0
    expected = torch.zeros(SIZE, SIZE, dtype=torch.bool)
    expected[2:21, 2:21] = True
    assert bool((covered >= expected)[3:20, 3:20].all())
    assert not covered[:2].any()
    assert not covered[21:].any()
    assert not covered[:, :2].any()
    assert not covered[:, 21:].any()


def test_flat_not_a_number_and_far_triangles_draw_nothing() -> None:
    vertices = torch.tensor(
        [[[1.0, 1, 0], [5, 5, 0], [9, 9, 0], [torch.nan, 1, 0], [1000, 1000, 0], [1010, 1000, 0], [1000, 1010, 0]]]
    )
    triangles = torch.tensor([[0, 1, 2], [0, 0, 0], [0, 1, 3], [4, 5, 6]])
    fragments = rasterize(vertices, triangles, SIZE, SIZE)
    assert bool((fragments.triangle == -1).all())
    assert bool((fragments.depth == -torch.inf).all())


def test_interpolation_gives_back_what_is_linear_in_the_picture() -> None:
    vertices, triangles = soup(seed=4)
    fragments = rasterize(vertices, triangles, SIZE, SIZE)
    weights = barycentric(fragments, vertices, triangles)
    seen = fragments.triangle >= 0
    values = interpolate(fragments, weights, vertices, triangles)
    grid = torch.stack(torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="xy"), dim=-1).float()
    assert weights.shape == (2, SIZE, SIZE, 3)
    torch.testing.assert_close(weights.sum(-1), seen.float())
    torch.testing.assert_close(values[..., :2][seen], grid.expand(2, -1, -1, -1)[seen], atol=2e-3, rtol=0)
    torch.testing.assert_close(values[..., 2][seen], fragments.depth[seen], atol=2e-3, rtol=0)
    assert not values[~seen].any()
    shared = interpolate(fragments, weights, vertices[1], triangles)
    torch.testing.assert_close(shared[1], values[1])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_gpu_draws_what_the_cpu_draws() -> None:
    vertices, triangles = soup(seed=5, batch=4, triangles=400)
    here = rasterize(vertices, triangles, 64, 64)
    there = rasterize(vertices.cuda(), triangles.cuda(), 64, 64)
    there = Fragments(there.triangle.cpu(), there.depth.cpu())
    same = here.triangle == there.triangle
    assert float(same.float().mean()) > 0.999
    torch.testing.assert_close(here.depth[same], there.depth[same], atol=1e-3, rtol=1e-5)
    carried = Fragments(here.triangle.cuda(), here.depth.cuda())
    weights = barycentric(here, vertices, triangles)
    again = barycentric(carried, vertices.cuda(), triangles.cuda())
    torch.testing.assert_close(again.cpu(), weights, atol=1e-3, rtol=0)
    for values in (vertices, vertices[0]):
        blended = interpolate(carried, weights.cuda(), values.cuda(), triangles.cuda())
        torch.testing.assert_close(blended.cpu(), interpolate(here, weights, values, triangles), atol=1e-4, rtol=1e-5)


def test_a_gpu_that_cannot_compile_is_an_error_that_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(renderer, "triton_available", lambda device: False)
    head: Any = SimpleNamespace(mean=SimpleNamespace(device=torch.device("cuda:0")))
    with pytest.raises(DeviceError, match=r"cuda:0: Triton renders .* install a C compiler"):
        renderer.Renderer(head=head)

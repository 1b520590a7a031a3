"""`--decode reference` gives what the published code gives: numbers that face-alignment 1.5.0 made, kept in a file.

benchmarks/against_face_alignment.py --vectors writes the file, and compares whole networks and whole chains.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ls3dw.core.crops import cut_window
from ls3dw.core.geometry import CROP_SIZE
from ls3dw.core.markup import POINTS
from ls3dw.errors import PictureError
from ls3dw.models import Model
from ls3dw.models.annotator import Annotator, to_whole_pixels
from ls3dw.models.networks.heatmaps import PUBLISHED_STD, decode_quarter, mirror_heatmaps, stamp_gaussians

VECTORS: dict[str, Any] = json.loads((Path(__file__).parent / "reference_vectors.json").read_bytes())
FACES = VECTORS["faces"]


@pytest.mark.parametrize("row", range(len(FACES)))
def test_crops_begin_and_end_where_the_published_code_cuts(row: int) -> None:
    (left, top), (right, bottom) = FACES[row]["corners"]
    picture = np.zeros((900, 900, 3), dtype=np.uint8)
    try:
        crop = cut_window(picture, np.array(FACES[row]["box"]), "reference").crop
    except PictureError:
        pytest.fail("the published code cuts this")
    zoom = CROP_SIZE / np.array([right - left, bottom - top])
    np.testing.assert_allclose(crop[:, :2], np.diag(zoom), rtol=1e-12)
    np.testing.assert_allclose(crop[:, 2], (0.5 - np.array([left, top])) * zoom - 0.5, rtol=1e-12, atol=1e-9)


def test_points_are_decoded_and_brought_back_as_there() -> None:
    """Also for boxes of whole numbers, whose points often lie on the edge of a pixel."""
    for face in FACES:
        peaks, signs = torch.tensor(face["peaks"]), torch.tensor(face["signs"])
        maps = torch.zeros(1, len(peaks), 64, 64)
        for point, ((x, y), (right, down)) in enumerate(zip(peaks.tolist(), signs.tolist(), strict=True)):
            maps[0, point, y, x] = 2
            for sx, sy in ((right, 0), (0, down)):
                if (sx or sy) and 0 <= x + sx < 64 and 0 <= y + sy < 64:
                    maps[0, point, y + sy, x + sx] = 1
        cells = decode_quarter(maps)[0]
        torch.testing.assert_close(cells, (peaks + 0.5 + 0.25 * signs)[None], rtol=0, atol=0)
        points = to_whole_pixels(cells.numpy(), np.array(face["box"])[None])
        np.testing.assert_array_equal(points[0], face["points"])


@pytest.mark.parametrize("place", VECTORS["stamps"])
def test_gaussians_for_the_depth_network_are_drawn_as_there(place: str) -> None:
    expected = np.zeros(CROP_SIZE)
    for pixel, height in VECTORS["stamps"][place].items():
        expected[int(pixel)] = height
    # What the published code calls place k is k - 0.5 where the centre of the first pixel is 0.
    points = torch.tensor([[[float(place) - 0.5, 129.5], [129.5, float(place) - 0.5]]])
    across, down = stamp_gaussians(points, PUBLISHED_STD)[0].numpy()
    np.testing.assert_allclose(across.max(axis=0), expected, atol=2e-6)
    np.testing.assert_allclose(down, across.T, atol=1e-7)
    assert (across.max(axis=1) > 0).sum() == 13


class Bright(nn.Module):
    """Stands in for a FAN: its heatmaps are the picture's brightness, so they follow it when it is mirrored."""

    def forward(self, x: Tensor) -> list[Tensor]:
        cells = nn.functional.avg_pool2d(x.mean(dim=1, keepdim=True), 4)
        shift = torch.linspace(0, 1, POINTS)[None, :, None, None]
        return [cells * (1 + shift)]


def test_flip_averages_whatever_sees_the_picture_alone(tiny_models: dict[str, str]) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    annotator = Annotator(tiny_models["2d"], tiny_models["3d"], "none", flip=True, decode="reference")
    annotator.model_3d = Model(Bright(), annotator.model_3d.contract)
    seen: list[Tensor] = []
    annotator._decode = lambda maps: (seen.append(maps), decode_quarter(maps))[1]  # type: ignore[method-assign,func-returns-value]
    annotator.annotate([picture], [[40, 40, 160, 160]])
    flat = torch.from_numpy(cut_window(picture, np.array([40, 40, 160, 160]), "reference").pixels / np.float32(255))
    inputs = flat.permute(2, 0, 1)[None]
    expected = (Bright()(inputs)[0] + mirror_heatmaps(Bright()(inputs.flip(-1))[0])) / 2
    torch.testing.assert_close(seen[1], expected)


def test_the_depth_network_is_shown_stamps_only_by_reference_decoding(tiny_models: dict[str, str]) -> None:
    picture = np.random.default_rng(1).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    reach = {}
    for decode in ("subpixel", "reference"):
        annotator = Annotator(*(tiny_models[kind] for kind in ("2d", "3d", "depth")), decode=decode, engine="plain")  # type: ignore[arg-type]
        shown: list[Tensor] = []
        annotator.model_depth.network.register_forward_pre_hook(lambda _, inputs, shown=shown: shown.append(inputs[0]))  # type: ignore[union-attr]
        annotator.annotate([picture], [[40, 40, 160, 160]])
        reach[decode] = int((shown[0][0, 3:] > 0).flatten(1).sum(dim=1).max())
    assert reach["reference"] <= 169 < reach["subpixel"]

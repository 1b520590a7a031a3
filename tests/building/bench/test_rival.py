"""`ls3dw bench --against`: a stand-in for the other package, and networks of the published size."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
from collections.abc import Sequence
from enum import IntEnum
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Command

from ls3dw.building.bench.material import SampleFaces
from ls3dw.building.bench.rival import Rival, compare
from ls3dw.building.bench.run import BenchOptions
from ls3dw.building.bench.table import rival_lines
from ls3dw.building.bench.timing import Row, Timer
from ls3dw.building.bench.widen import full_size, is_full_size
from ls3dw.core.crops import Windows
from ls3dw.models import load
from ls3dw.models.annotator import Annotator
from ls3dw.models.inference.resampling import resample
from ls3dw.models.weights.zoo import read_contract


class LandmarksType(IntEnum):
    TWO_D = 1
    THREE_D = 3


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch, tiny_models: dict[str, str]) -> ModuleType:
    """Stand in for face_alignment: fetches its weights, and gives what our published procedure gives."""
    module: Any = ModuleType("face_alignment")
    module.api = ModuleType("face_alignment.api")
    module.api.load_file_from_url = module.fetch = lambda url: pytest.fail("would download")
    annotator = Annotator(tiny_models["2d"], tiny_models["3d"], "none", decode="reference")
    expected = load(tiny_models["2d"]).network.state_dict()

    class FaceAlignment:
        def __init__(self, kind: LandmarksType, **_: object) -> None:
            base = "https://somewhere/2DFAN4-11f3.pth.tar", "https://somewhere/depth-2a46.pth.tar"
            weights = torch.load(module.api.load_file_from_url(base[0]), weights_only=True)
            assert all(torch.equal(weights[key], value) for key, value in expected.items())
            if kind is LandmarksType.THREE_D:
                depth = torch.load(module.api.load_file_from_url(base[1]), weights_only=True)["state_dict"]
                assert all(key.startswith("module.") for key in depth)

        def get_landmarks_from_image(self, image: Any, detected_faces: Sequence[Any]) -> list[np.ndarray]:
            return list(annotator.annotate([image] * len(detected_faces), np.array(detected_faces)).landmarks_2d)

    module.FaceAlignment, module.LandmarksType = FaceAlignment, LandmarksType
    monkeypatch.setitem(sys.modules, "face_alignment", module)
    monkeypatch.setitem(sys.modules, "face_alignment.api", module.api)
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.0")
    return module


def test_the_comparison(package: Any, tiny_models: dict[str, str]) -> None:
    weights = (tiny_models["2d"], tiny_models["2d-to-3d"], tiny_models["depth"])
    shown: list[str] = []
    timer = Timer(torch.device("cpu"), 0)
    rival = compare(timer, BenchOptions(gpu="none").annotator, weights, shown.append, compiled=False)
    assert rival.equal == 1
    assert 0 < rival.distance < 20
    assert [row.name for row in rival.ours] == ["ls3dw, 2D", "ls3dw, 2D and 3D", "ls3dw, 2D and 3D with z"]
    assert len(shown) == 6
    assert package.api.load_file_from_url is package.fetch


def test_the_comparison_in_words() -> None:
    def row(name: str, rate: float) -> Row:
        return Row(name, rate, 1000 / rate, 1000 / rate, 3)

    many = (row("32 faces", 142), row("32 faces, float16", 200))
    rival = Rival("1.5.0", False, row("one", 20), row("solid", 10), many, (row("ls3dw, 2D", 2000),), 0.995, 0.4, 32)
    lines = rival_lines(rival, row("the whole annotator", 4000))
    columns = {line.split("  ")[0]: line.split()[-2:] for line in lines[3:-2]}
    assert columns["ls3dw, 2D"] == ["100", "10.0"]
    assert columns["ls3dw, networks and batches of the table above"] == ["200", "20.0"]
    assert columns["one"] == ["1.00", "0.100"]
    assert "99.50 % of its coordinates" in lines[-1]


def test_without_the_package_it_says_so(ls3dw: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    ended = ls3dw("bench", "--against", "face-alignment")
    assert (ended.status, ended.out) == (1, "")
    assert "pip install face-alignment==1.5.0" in ended.error


def test_a_widened_network_computes_what_the_small_one_does(tmp_path: Path) -> None:
    faces = SampleFaces.read().spread(1).batch()
    (windows,) = faces.windows
    assert isinstance(windows, Windows)
    crop = resample(torch.from_numpy(windows.pixels.array()), torch.from_numpy(windows.to_crop))
    path = full_size("2d", None, tmp_path)
    assert is_full_size("2d", read_contract(path))
    assert not is_full_size("2d", read_contract("fan-2d-small"))
    with torch.inference_mode():
        small, wide = (load(spec).network(crop)[-1] for spec in ("fan-2d-small", path))
    assert float(small.max()) > 0.3
    assert float((small - wide).abs().max()) < 1e-3


def test_given_weights_of_the_published_size_are_taken(tmp_path: Path) -> None:
    path = full_size("depth", None, tmp_path)
    assert full_size("depth", str(path), tmp_path) == str(path)
    assert full_size("2d", "fan-2d-small", tmp_path) != "fan-2d-small"
    assert not is_full_size("2d-to-3d", read_contract(path))

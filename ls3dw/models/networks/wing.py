"""Networks that predict landmark coordinates, not heatmaps: CNN-6, CNN-7 and ResNet-50 of "Wing Loss for Robust Facial
Landmark Localisation with Convolutional Neural Networks" (Feng et al., CVPR 2018), and their cascade.

They take crops (N, 3, 256, 256) in [0, 1] like the other networks, and give (N, 68, 2) in crop pixels. Internally each
sees a square of the crop, resampled to its input size, and predicts pixels of that.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ls3dw.core.geometry import CROP_SIZE, RAISE, REFERENCE_SCALE, REFERENCE_SIDE
from ls3dw.core.markup import POINTS
from ls3dw.models.inference.resampling import find_taps
from ls3dw.models.networks.depth import EXPANSION, Bottleneck, residual_stages
from ls3dw.models.networks.heatmaps import mirror_on
from ls3dw.models.networks.straight import MIDDLE, compose, cut, mean_on, move, move_back, straighten

WINDOW: Final = 208
"""Side in crop pixels of the square that a network sees. A face's box has 125 px in the published crop; 208 px hold
99.9 % of the points of rendered heads with turned and shaken boxes, and leave out a third of the crop."""

LOWER: Final = RAISE * CROP_SIZE * REFERENCE_SCALE / (2 * REFERENCE_SIDE)
"""Offset of the square's centre below the crop's, 15 px: the crop's rule moves the face down by as much."""

MOST: Final = 8.0
"""Largest width, as a share of the paper's: a damaged contract may ask for any size."""


class PointNetwork(nn.Module):
    """Gives landmarks (N, 68, 2) float32 in crop pixels from crops (N, 3, 256, 256) in [0, 1]."""

    @abstractmethod
    def forward(self, images: Tensor) -> Tensor: ...


class CoordinateNet(PointNetwork):
    """A network with an input of `size` x `size` pixels, resampled from `window` x `window` crop pixels.

    Its last layer predicts offsets from the mean shape, so that training starts from the mean face.
    """

    def __init__(self, size: int, window: int) -> None:
        super().__init__()
        if not (32 <= size <= 2 * CROP_SIZE and 32 <= window <= 2 * CROP_SIZE):
            raise ValueError(f"size={size}, window={window}; expected 32 to {2 * CROP_SIZE} pixels")
        self.size = size
        self.window = window

    @abstractmethod
    def features(self, views: Tensor) -> Tensor:
        """Turn normalised inputs (N, 3, size, size) into vectors (N, C)."""

    @property
    @abstractmethod
    def last(self) -> nn.Linear:
        """The layer from features to 2 x 68 numbers."""

    def forward(self, images: Tensor, affines: Tensor | None = None) -> Tensor:
        """affines: (N, 2, 3), crop -> straight crop, from `straighten`; None: the unchanged crop."""
        return move_back(*self.look(images, affines))

    def look(self, images: Tensor, affines: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return landmarks (N, 68, 2) in input pixels, and the affines (N or 1, 2, 3) from crop to input pixels."""
        frame = _frame(images.device, self.size, self.window)
        if affines is None:
            views = self._view(images)
        else:
            frame = compose(frame, affines)
            views = cut(images, frame, self.size, math.ceil(self.window / self.size))
        return self._regress(views.to(images.dtype)), frame

    def _view(self, images: Tensor) -> Tensor:
        rows, columns = _filters(images.device, self.size, self.window)
        # Products with constant matrices: free of aliasing, and a captured step has nothing to wait for.
        return rows.to(images.dtype) @ images @ columns.to(images.dtype).T

    def _regress(self, views: Tensor) -> Tensor:
        features = self.features((views - 0.5) * 4)
        # float32 even in float16 or under autocast, which are too coarse for landmarks.
        with torch.autocast(views.device.type, enabled=False):
            offsets = F.linear(features.float(), self.last.weight.float(), self.last.bias.float())
        return _mean(views.device, self.size, self.window) + offsets.view(-1, POINTS, 2)

    def _start(self) -> None:
        """Initialise so that features keep their scale over layers (He et al., 2015), and near the mean face."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.normal_(self.last.weight, std=0.01)


class PlainCNN(CoordinateNet):
    """Convolutions 3x3 with ReLU, each followed by 2x2 max pooling, and two fully connected layers."""

    def __init__(self, channels: Sequence[int], hidden: int, size: int, width: float, window: int) -> None:
        super().__init__(size, window)
        if not 0 < width <= MOST:
            raise ValueError(f"width={width}; expected more than 0 and at most {MOST:g}, 1 being the paper's")
        self.depth = len(channels)
        before = 3
        for number, count in enumerate(channels, 1):
            after = _even(count * width)
            self.add_module(f"conv{number}", nn.Conv2d(before, after, 3, padding=1))
            before = after
        self.fc1 = nn.Linear(before * (size >> self.depth) ** 2, _even(hidden * width))
        self.fc2 = nn.Linear(self.fc1.out_features, 2 * POINTS)
        self._start()

    @property
    def last(self) -> nn.Linear:
        return self.fc2

    def features(self, views: Tensor) -> Tensor:
        for number in range(1, self.depth + 1):
            views = F.relu(F.max_pool2d(self.get_submodule(f"conv{number}")(views), 2))
        return F.relu(self.fc1(views.flatten(1)))


class CNN6(PlainCNN):
    """CNN-6: input 64x64, five convolutions. width: channels as a share of the paper's."""

    def __init__(self, width: float = 1.0, window: int = WINDOW) -> None:
        super().__init__((32, 64, 128, 256, 512), 1024, 64, width, window)


class CNN7(PlainCNN):
    """CNN-7: input 128x128, six convolutions, the first with 64 channels; the others are assumed to be CNN-6's, the
    last one twice."""

    def __init__(self, width: float = 1.0, window: int = WINDOW) -> None:
        super().__init__((64, 64, 128, 256, 512, 512), 1024, 128, width, window)


class ResNet50(CoordinateNet):
    """ResNet-50 with torchvision's keys, whose last layer gives the landmarks. width: as a share of the original."""

    def __init__(self, width: float = 1.0, size: int = 224, window: int = WINDOW) -> None:
        super().__init__(size, window)
        if not 0 < width <= MOST:
            raise ValueError(f"width={width}; expected more than 0 and at most {MOST:g}")
        planes = _even(64 * width)
        self.conv1 = nn.Conv2d(3, planes, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        for number, stage in enumerate(residual_stages((3, 4, 6, 3), planes), 1):
            self.add_module(f"layer{number}", stage)
        self.fc = nn.Linear(8 * planes * EXPANSION, 2 * POINTS)
        self._start()
        for module in self.modules():
            if isinstance(module, Bottleneck):
                # Blocks start as their skips, else features grow from one to the next.
                nn.init.zeros_(module.bn3.weight)

    @property
    def last(self) -> nn.Linear:
        return self.fc

    def features(self, views: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(views))), 3, stride=2, padding=1)
        for number in range(1, 5):
            x = self.get_submodule(f"layer{number}")(x)
        return x.mean(dim=(2, 3))


COORDINATE_NETWORKS: Final[dict[str, type[CoordinateNet]]] = {"CNN6": CNN6, "CNN7": CNN7, "ResNet50": ResNet50}


class Cascade(PointNetwork):
    """Two networks: the second sees the crop straightened by the landmarks of the first.

    first, second: networks, or class and arguments as in a contract: `{"class": "CNN6", "width": 0.5}`.
    """

    def __init__(self, first: Mapping[str, Any] | CoordinateNet, second: Mapping[str, Any] | CoordinateNet) -> None:
        super().__init__()
        self.first = _stage(first)
        self.second = _stage(second)

    def forward(self, images: Tensor) -> Tensor:
        points: Tensor = self.first(images)
        refined: Tensor = self.second(images, straighten(points))
        return refined


def _stage(network: Mapping[str, Any] | CoordinateNet) -> CoordinateNet:
    if isinstance(network, CoordinateNet):
        return network
    if not isinstance(network, Mapping) or network.get("class") not in COORDINATE_NETWORKS:
        raise ValueError(f"a stage {network!r}; expected an object with class {' or '.join(COORDINATE_NETWORKS)}")
    return COORDINATE_NETWORKS[network["class"]](**{key: value for key, value in network.items() if key != "class"})


def predict_points(network: Callable[[Tensor], Tensor], images: Tensor, flip: bool = False) -> Tensor:
    """Run a `PointNetwork` on crops: (N, 68, 2). flip: return the mean with the result of the mirrored crops."""
    points = network(images)
    if flip:
        points = (points + mirror_points(network(images.flip(-1)))) / 2
    return points


def mirror_points(points: Tensor) -> Tensor:
    """Turn the landmarks (N, 68, 2) of a mirrored crop into those of the crop."""
    mirrored = points[:, mirror_on(points.device)]
    return torch.stack((CROP_SIZE - 1 - mirrored[..., 0], mirrored[..., 1]), dim=-1)


def _even(count: float) -> int:
    """Round to a multiple of eight, which GPUs are fastest with."""
    return max(8, round(count / 8) * 8)


# Constants on the device, as in straight.py.


@cache
@torch.inference_mode(False)
def _frame(device: torch.device, size: int, window: int) -> Tensor:
    """Return the affine (1, 2, 3) from the crop to the input of a network."""
    zoom, middle = size / window, (size - 1) / 2
    affine = [[zoom, 0.0, middle - zoom * MIDDLE], [0.0, zoom, middle - zoom * (MIDDLE + LOWER)]]
    return torch.tensor([affine], dtype=torch.float32, device=device)


@cache
@torch.inference_mode(False)
def _filters(device: torch.device, size: int, window: int) -> tuple[Tensor, Tensor]:
    """Return the matrices (size, 256) that resample rows and columns of the crop to the input."""
    frame = _frame(torch.device("cpu"), size, window).double()
    columns, rows = (
        find_taps(frame[:, i, i], frame[:, i, 2], CROP_SIZE, size, math.ceil(window / size))
        .dense(CROP_SIZE)[0]
        .to(device)
        for i in (0, 1)
    )
    return rows, columns


@cache
@torch.inference_mode(False)
def _mean(device: torch.device, size: int, window: int) -> Tensor:
    """Return the mean shape (68, 2) in pixels of the input."""
    return move(mean_on(device)[None], _frame(device, size, window))[0]

"""The ablations of "How far are we" on any data set with a truth: pose, boxes, resolution, size of the network; and
roll.

The networks run again on the kept pictures, a batch at a time; only errors stay in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from ls3dw.core.files import sha256
from ls3dw.core.geometry import Affine, apply, compose, invert
from ls3dw.core.metrics import FAILURE, auc_parts, mean_errors
from ls3dw.core.normalisers import Normaliser
from ls3dw.core.pose import YAW_BINS, yaw_bins
from ls3dw.core.sample import Picture
from ls3dw.dataset.open import Dataset, Face
from ls3dw.dataset.shards import Shard
from ls3dw.errors import DatasetError
from ls3dw.evaluation.bootstrap import mean_intervals
from ls3dw.evaluation.measure import EvaluationProtocol, Truth, read_truth
from ls3dw.evaluation.scores import Interval, independent_units
from ls3dw.models.annotator import Annotator
from ls3dw.models.weights.zoo import Model, parameters

Ablation = Literal["yaw", "noise", "resolution", "size", "roll"]
ABLATIONS: Final[tuple[Ablation, ...]] = get_args(Ablation)

NOISE: Final = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3)
"""Largest move of each edge of the box, as a share of its side."""

HEIGHTS: Final = (200.0, 150.0, 100.0, 75.0, 50.0, 40.0, 30.0)
"""Height of the box in pixels to which larger faces are reduced."""

ROLLS: Final = (0.0, 30.0, 60.0, 90.0, 120.0, 150.0, 180.0)
"""Degrees by which a picture is turned, clockwise."""

AS_STORED: Final = 0.0
"""Level of the ablations that do not change the pictures."""

KINDS: Final = ("2d", "3d")

Networks = Mapping[str, Callable[[], Annotator]]
"""Name -> function that makes the annotator; only one exists at a time."""


@dataclass(frozen=True)
class AblationOptions:
    """limit: most faces, spread over the data set; threshold: of AUC and failures; seed: of boxes and intervals."""

    limit: int | None = None
    normaliser: Normaliser = "box"
    threshold: float = FAILURE
    seed: int = 0


@dataclass(frozen=True)
class Result:
    """One point of a plot.

    level: share of noise, pixels of height, degrees of roll, millions of parameters (for guided 3D points those of the
    2D network, too), or number of the bin; nme_mean, auc, failure_rate, auc_interval: fractions, the interval None with
    fewer than two independent faces; change: AUC minus that of the first level on the same faces, with its interval, or
    None for the first level and for ablations without levels.
    """

    network: str
    points: str
    level: float
    name: str
    faces: int
    nme_mean: float
    auc: float
    auc_interval: Interval | None
    failure_rate: float
    change: float | None = None
    change_interval: Interval | None = None


@dataclass(frozen=True)
class View:
    """A face as input of the networks. box: (4,) pixels of `image`; to_image: affine from the source's pixels."""

    image: Picture
    box: NDArray[np.float64]
    to_image: Affine


Vary = Callable[[Face, float, int], View]


def run_ablation(
    dataset: Dataset,
    ablation: Ablation,
    networks: Networks,
    options: AblationOptions,
    report: Callable[[int], None] = lambda faces: None,
) -> list[Result]:
    """Run the networks on the faces at every level. report: called with the number of faces after each batch."""
    truths = {
        kind: read_truth(dataset, EvaluationProtocol(points=kind, normaliser=options.normaliser))
        for kind in ("2d", "3d")
    }
    rows = _chosen(dataset, truths, options.limit)
    levels: Sequence[float] = {"noise": NOISE, "resolution": HEIGHTS, "roll": ROLLS}.get(ablation, (AS_STORED,))
    vary: Vary = {"noise": shaken, "resolution": reduced, "roll": turned}.get(ablation, as_stored)
    results: list[Result] = []
    for name, make in networks.items():
        annotator = make()
        errors = _errors(dataset, rows, annotator, levels, vary, truths, options.seed, report)
        for kind, by_level in zip(KINDS, errors, strict=True):
            score = _Scorer(dataset, rows, name, kind, options)
            if ablation == "yaw":
                results += score.by_yaw(by_level[0])
            elif ablation == "size":
                results += score.by_size(by_level[0], _at_work(annotator, kind))
            else:
                results += score.by_level(by_level, levels)
    return [result for result in results if result.faces]


def _chosen(dataset: Dataset, truths: Mapping[str, Truth], limit: int | None) -> NDArray[np.int64]:
    known = np.flatnonzero(np.any([truth.known for truth in truths.values()], axis=0))
    if not len(known):
        raise DatasetError(f"{dataset.store.root}: no face has points of its source to compare with")
    if limit is None or limit >= len(known):
        return known
    return known[np.linspace(0, len(known) - 1, limit).round().astype(np.int64)]


def _errors(
    dataset: Dataset,
    rows: NDArray[np.int64],
    annotator: Annotator,
    levels: Sequence[float],
    vary: Vary,
    truths: Mapping[str, Truth],
    seed: int,
    report: Callable[[int], None],
) -> NDArray[np.float64]:
    """Return the errors of both kinds (2, levels, rows), NaN where a kind has no truth."""
    errors = np.full((len(KINDS), len(levels), len(rows)), np.nan)
    for batch in _batches(len(rows), annotator.batch):
        faces = [dataset[int(row)] for row in rows[batch]]
        for number, level in enumerate(levels):
            found = _annotate(annotator, [vary(face, level, seed) for face in faces])
            for kind, points in enumerate(found):
                truth = truths[KINDS[kind]]
                own = rows[batch]
                errors[kind, number, batch] = mean_errors(points, truth.points[own], truth.sizes[own])
        report(len(faces))
    return errors


def _batches(count: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, count)) for start in range(0, count, size))


def _annotate(annotator: Annotator, views: Sequence[View]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return 2D and projected 3D points (N, 68, 2) in the source's pixels."""
    found = annotator.annotate([view.image for view in views], np.stack([view.box for view in views]))
    back = invert(np.stack([view.to_image for view in views]))
    return apply(back, found.landmarks_2d), apply(back, found.landmarks_3d[..., :2])


def _at_work(annotator: Annotator, kind: str) -> tuple[Model, ...]:
    """Return the networks that a kind of points needs: both, if 2D points guide the 3D network."""
    if kind == "2d":
        return (annotator.model_2d,)
    guided = annotator.model_3d.contract.kind == "2d-to-3d"
    return (annotator.model_2d, annotator.model_3d) if guided else (annotator.model_3d,)


def as_stored(face: Face, level: float, seed: int) -> View:
    """Return a face unchanged."""
    corners = face.to_picture(face.box.reshape(2, 2).astype(np.float64))
    return View(face.image, corners.ravel(), face.picture_affine)


def shaken(face: Face, level: float, seed: int) -> View:
    """Move each edge of the face's box by a uniform draw of up to `level` times its side.

    The draws depend on seed and id: a box moves in the same direction at every level, only farther.
    """
    view = as_stored(face, level, seed)
    rng = np.random.default_rng([seed, int(sha256(face.id.encode())[:16], 16)])
    corners = view.box.reshape(2, 2)
    moves = level * rng.uniform(-1, 1, (2, 2)) * (corners[1] - corners[0])
    return View(view.image, (corners + moves).ravel(), view.to_image)


def reduced(face: Face, level: float, seed: int) -> View:
    """Reduce a face by area to a box of `level` pixels of height; smaller ones stay unchanged."""
    view = as_stored(face, level, seed)
    height, width = view.image.shape[:2]
    factor = level / float(view.box[3] - view.box[1])
    if factor >= 1:
        return view
    size = max(1, round(width * factor)), max(1, round(height * factor))
    image = np.asarray(cv2.resize(view.image, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    zoom_x, zoom_y = size[0] / width, size[1] / height
    smaller = np.array([[zoom_x, 0, (zoom_x - 1) / 2], [0, zoom_y, (zoom_y - 1) / 2]])
    return View(image, apply(smaller, view.box.reshape(2, 2)).ravel(), compose(smaller, view.to_image))


def turned(face: Face, level: float, seed: int) -> View:
    """Turn a face's picture by `level` degrees; its box is the tight one of the turned points of its source.

    What lies beyond the picture is black. Without such points the corners of its box are turned.
    """
    view = as_stored(face, level, seed)
    if level == 0:
        return view
    height, width = view.image.shape[:2]
    side = int(np.ceil(np.hypot(height, width)))
    angle = np.radians(level)
    cos, sin = np.cos(angle), np.sin(angle)
    linear = np.array([[cos, -sin], [sin, cos]])
    middle = np.array([(width - 1) / 2, (height - 1) / 2])
    affine = np.concatenate((linear, ((side - 1) / 2 - linear @ middle)[:, None]), axis=1)
    image = np.asarray(cv2.warpAffine(view.image, affine, (side, side), flags=cv2.INTER_LINEAR), dtype=np.uint8)
    known = face.annotation[np.isfinite(face.annotation).all(axis=1)].astype(np.float64)
    x0, y0, x1, y1 = view.box
    corners = face.to_picture(known) if len(known) else np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])
    points = apply(affine, corners)
    return View(image, np.concatenate((points.min(0), points.max(0))), compose(affine, view.to_image))


class _Scorer:
    """Turns the errors (rows,) of one network and kind of points into results."""

    def __init__(
        self, dataset: Dataset, rows: NDArray[np.int64], network: str, points: str, options: AblationOptions
    ) -> None:
        self._dataset, self._rows, self._options = dataset, rows, options
        self._network, self._points = network, points
        self._units = independent_units(dataset)[rows]

    def __call__(self, errors: NDArray[np.float64], level: float, name: str) -> Result:
        found = ~np.isnan(errors)
        if not found.any():
            return Result(self._network, self._points, level, name, 0, np.nan, np.nan, None, np.nan)
        values, limit = errors[found], self._options.threshold
        parts = auc_parts(values, limit)
        return Result(
            network=self._network,
            points=self._points,
            level=level,
            name=name,
            faces=len(values),
            nme_mean=float(values.mean()),
            auc=float(parts.mean()),
            auc_interval=self._interval(parts, found),
            failure_rate=float((values > limit).mean()),
        )

    def _interval(self, values: NDArray[np.float64], found: NDArray[np.bool_]) -> Interval | None:
        low, high = mean_intervals(values[:, None], self._units[found], seed=self._options.seed)[0].tolist()
        return (low, high) if np.isfinite(low) else None

    def by_level(self, errors: NDArray[np.float64], levels: Sequence[float]) -> list[Result]:
        """Score each level (levels, rows), and what it changes on the same faces."""
        results = [self(values, level, f"{level:g}") for level, values in zip(levels, errors, strict=True)]
        found: NDArray[np.bool_] = np.logical_and.reduce(np.isfinite(errors))
        if not found.any():
            return results
        parts = [auc_parts(values[found], self._options.threshold) for values in errors]
        changes = [own - parts[0] for own in parts[1:]]
        later = [
            replace(result, change=float(change.mean()), change_interval=self._interval(change, found))
            for result, change in zip(results[1:], changes, strict=True)
        ]
        return [results[0], *later]

    def by_yaw(self, errors: NDArray[np.float64]) -> list[Result]:
        """Score each bin of |yaw|."""
        bins = yaw_bins(true_yaw(self._dataset)[self._rows])
        return [self(np.where(bins[name], errors, np.nan), float(number), name) for number, name in enumerate(YAW_BINS)]

    def by_size(self, errors: NDArray[np.float64], models: Sequence[Model]) -> list[Result]:
        """Score all, at the number of parameters of the networks that made the points."""
        millions = sum(parameters(model.network) for model in models) / 1e6
        return [self(errors, millions, f"{millions:.2f}")]


def true_yaw(dataset: Dataset) -> NDArray[np.float64]:
    """Return the yaw of each face (N,) in degrees: its source's own, or where it has none the version's."""
    yaw = dataset.index["yaw"].to_numpy(dtype=np.float64).copy()
    for (source, shard), rows in dataset.index.groupby(["source", "shard"], sort=False):
        with Shard(dataset.store.faces(str(source), str(shard)), dataset.store.root) as faces:
            own = faces.take("yaw", rows["row"].to_numpy())
        places = rows.index.to_numpy()
        yaw[places] = np.where(np.isnan(own), yaw[places], own)
    return yaw

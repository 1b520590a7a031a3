"""Figures of the averaged networks on validation sets: NME, AUC, failures, by yaw; the chain from 2D to 3D; depth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from ls3dw.core.geometry import tight_box
from ls3dw.core.metrics import auc, box_size, failure_rate, nme
from ls3dw.core.pose import yaw_bins
from ls3dw.core.sample import Floats
from ls3dw.training.data.seeds import Dice
from ls3dw.training.networks import Trained
from ls3dw.training.validation.predict import predict
from ls3dw.training.validation.validation_set import ValidationSet

Figures: TypeAlias = dict[str, float]


@dataclass(frozen=True)
class Measured:
    """figures: of a whole set; errors: (N,) NME of each face, or its mean |z| error; NaN where nothing is known."""

    figures: Figures
    errors: NDArray[np.float64]


"""The paper's bins of |yaw| in degrees; the last has all beyond."""

OFF: Final = 0.03
"""Noisy guidance: the mean distance of a point from its true place, in sizes (sqrt(w h)) of the face's box."""


def validate(
    networks: Mapping[str, Trained], sets: Sequence[ValidationSet], guide: Trained | None = None
) -> dict[str, Measured]:
    """Measure networks in eval mode: by `set/network` and, for those that need points, `/guidance`. NME is a
    fraction. guide: the 2D network whose points begin the chain where `networks` has none."""
    first = next((trained for trained in networks.values() if trained.kind == "2d" and trained.alone), guide)
    results: dict[str, Measured] = {}
    for faces in sets:
        for name, trained in networks.items():
            for guidance, measured in _measure(trained, first, faces).items():
                results["/".join(filter(None, (faces.name, name, guidance)))] = measured
    return results


def _measure(trained: Trained, first: Trained | None, faces: ValidationSet) -> dict[str, Measured]:
    truth = faces.landmarks_2d if trained.kind == "2d" else faces.landmarks_3d[..., :2]
    if np.isnan(truth).all():
        return {}
    if trained.kind == "depth":
        return _measure_depth(trained, faces)
    if trained.straightened:
        exact = torch.from_numpy(np.ascontiguousarray(truth)).to(faces.images.device)
        return {"exact": _figures(predict(trained, faces.images, exact).cpu().numpy(), truth, faces.yaw)}
    if trained.alone:
        return {"": _figures(predict(trained, faces.images, flip=faces.flip).cpu().numpy(), truth, faces.yaw)}
    return {
        guidance: _figures(predict(trained, faces.images, guide).cpu().numpy(), truth, faces.yaw)
        for guidance, guide in _guides(first, faces).items()
    }


def _guides(first: Trained | None, faces: ValidationSet) -> dict[str, torch.Tensor]:
    """Exact 2D points, the same off by 3 %, and those that the chain's 2D network predicts."""
    guides = {}
    if not np.isnan(faces.landmarks_2d).all():
        exact = torch.from_numpy(faces.landmarks_2d).to(faces.images.device)
        guides = {"exact": exact, "off": exact + _errors(faces.landmarks_2d).to(exact.device)}
    if first is not None:
        guides["chain"] = predict(first, faces.images, flip=faces.flip)
    return guides


def _errors(points: Floats) -> torch.Tensor:
    """Draw errors of the mean length `OFF` for points (N, 68, 2), always the same ones."""
    size = torch.from_numpy(box_size(tight_box(points))).float()
    noise = Dice(torch.device("cpu"), "noisy guidance").normal(*points.shape)
    mean_length = (torch.pi / 2) ** 0.5  # of a vector of two standard normal numbers
    errors: torch.Tensor = noise * (OFF / mean_length * size)[:, None, None]
    return errors


def _measure_depth(trained: Trained, faces: ValidationSet) -> dict[str, Measured]:
    """Measure z by the mean absolute error over the size of the face, guided by the true points."""
    z = faces.landmarks_3d[..., 2]
    if np.isnan(z).all():
        return {}
    guide = torch.from_numpy(np.ascontiguousarray(faces.landmarks_3d[..., :2])).to(faces.images.device)
    predicted = predict(trained, faces.images, guide).cpu().numpy()
    errors = np.abs(_centred(predicted) - _centred(z)).mean(axis=1) / box_size(tight_box(faces.landmarks_3d[..., :2]))
    return {"": Measured(_by_yaw({"mae": float(np.nanmean(errors))}, "mae", errors, faces.yaw), errors)}


def _centred(z: NDArray[np.float32]) -> NDArray[np.float64]:
    centred: NDArray[np.float64] = z.astype(np.float64) - z.mean(axis=1, keepdims=True, dtype=np.float64)
    return centred


def _figures(prediction: Floats, truth: Floats, yaw: Floats) -> Measured:
    errors = nme(prediction, truth)
    figures = {
        "nme": float(np.nanmean(errors)),
        "median": float(np.nanmedian(errors)),
        "auc": auc(errors),
        "failures": failure_rate(errors),
        "faces": float(np.count_nonzero(~np.isnan(errors))),
    }
    return Measured(_by_yaw(figures, "nme", errors, yaw), errors)


def _by_yaw(figures: Figures, name: str, errors: NDArray[np.float64], yaw: Floats) -> Figures:
    """Add the mean error of each bin of |yaw| that has faces."""
    for bin_name, inside in yaw_bins(np.asarray(yaw, dtype=np.float64)).items():
        chosen = inside & ~np.isnan(errors)
        if chosen.any():
            figures[f"{name} {bin_name}"] = float(errors[chosen].mean())
    return figures

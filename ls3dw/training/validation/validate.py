"""Errors of networks on validation sets: NME, AUC, failure rate, by yaw; of the chain from 2D to 3D; of depth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
import torch

from ls3dw.core.geometry import tight_box
from ls3dw.core.metrics import auc, box_size, failure_rate, nme
from ls3dw.core.pose import yaw_bins
from ls3dw.core.sample import Doubles, Floats
from ls3dw.synth.rng import keyed_rng
from ls3dw.training.networks import TrainedNetwork
from ls3dw.training.validation.predict import predict
from ls3dw.training.validation.sets import ValidationSet

Figures: TypeAlias = dict[str, float]


@dataclass(frozen=True)
class SetErrors:
    """Errors of one network on one set."""

    figures: Figures
    errors: Doubles
    """(N,) NME of each face, or mean |z| error over the face's size; NaN where unknown."""


OFF: Final = 0.03
"""Mean error of noisy guidance, over the size sqrt(w h) of the face's box."""


def validate(
    networks: Mapping[str, TrainedNetwork], sets: Sequence[ValidationSet], guide: TrainedNetwork | None = None
) -> dict[str, SetErrors]:
    """Measure networks in eval mode, by `set/network` and, for guided networks, `/guidance`.

    guide: the 2D network of the chain if `networks` has none.
    """
    first = next((trained for trained in networks.values() if trained.kind == "2d" and trained.image_only), guide)
    results: dict[str, SetErrors] = {}
    for faces in sets:
        for name, trained in networks.items():
            for guidance, errors in _measure(trained, first, faces).items():
                results["/".join(filter(None, (faces.name, name, guidance)))] = errors
    return results


def _measure(trained: TrainedNetwork, first: TrainedNetwork | None, faces: ValidationSet) -> dict[str, SetErrors]:
    truth = faces.truth(trained.kind)
    if np.isnan(truth).all():
        return {}
    if trained.kind == "depth":
        return _measure_depth(trained, faces)
    if trained.is_second_stage:
        exact = torch.from_numpy(np.ascontiguousarray(truth)).to(faces.images.device)
        return {"exact": _figures(predict(trained, faces.images, exact).cpu().numpy(), truth, faces.yaw)}
    if trained.image_only:
        return {"": _figures(predict(trained, faces.images, flip=faces.flip).cpu().numpy(), truth, faces.yaw)}
    return {
        guidance: _figures(predict(trained, faces.images, guide).cpu().numpy(), truth, faces.yaw)
        for guidance, guide in _guides(first, faces).items()
    }


def _guides(first: TrainedNetwork | None, faces: ValidationSet) -> dict[str, torch.Tensor]:
    """Return guiding points: true ones, true ones with errors of 3 %, and predictions of the 2D network."""
    guides = {}
    if not np.isnan(faces.landmarks_2d).all():
        exact = torch.from_numpy(faces.landmarks_2d).to(faces.images.device)
        guides = {"exact": exact, "off": exact + _noise(faces.landmarks_2d).to(exact.device)}
    if first is not None:
        guides["chain"] = predict(first, faces.images, flip=faces.flip)
    return guides


def _noise(points: Floats) -> torch.Tensor:
    """Draw errors of mean length `OFF` for points (N, 68, 2), equal in every run."""
    size = torch.from_numpy(box_size(tight_box(points))).float()
    noise = keyed_rng(torch.device("cpu"), "noisy guidance").normal(*points.shape)
    mean_length = (torch.pi / 2) ** 0.5  # of a standard normal vector in the plane
    errors: torch.Tensor = noise * (OFF / mean_length * size)[:, None, None]
    return errors


def _measure_depth(trained: TrainedNetwork, faces: ValidationSet) -> dict[str, SetErrors]:
    """Measure the mean absolute error of z over the face's size, guided by the true points."""
    z = faces.landmarks_3d[..., 2]
    if np.isnan(z).all():
        return {}
    guide = torch.from_numpy(np.ascontiguousarray(faces.landmarks_3d[..., :2])).to(faces.images.device)
    predicted = predict(trained, faces.images, guide).cpu().numpy()
    errors = np.abs(_centred(predicted) - _centred(z)).mean(axis=1) / box_size(tight_box(faces.landmarks_3d[..., :2]))
    return {"": SetErrors(_by_yaw({"mae": float(np.nanmean(errors))}, "mae", errors, faces.yaw), errors)}


def _centred(z: Floats) -> Doubles:
    centred: Doubles = z.astype(np.float64) - z.mean(axis=1, keepdims=True, dtype=np.float64)
    return centred


def _figures(prediction: Floats, truth: Floats, yaw: Floats) -> SetErrors:
    errors = nme(prediction, truth)
    figures = {
        "nme": float(np.nanmean(errors)),
        "median": float(np.nanmedian(errors)),
        "auc": auc(errors),
        "failures": failure_rate(errors),
        "faces": float(np.count_nonzero(~np.isnan(errors))),
    }
    return SetErrors(_by_yaw(figures, "nme", errors, yaw), errors)


def _by_yaw(figures: Figures, name: str, errors: Doubles, yaw: Floats) -> Figures:
    """Add the mean error of each bin of |yaw| that has faces."""
    for bin_name, inside in yaw_bins(np.asarray(yaw, dtype=np.float64)).items():
        chosen = inside & ~np.isnan(errors)
        if chosen.any():
            figures[f"{name} {bin_name}"] = float(errors[chosen].mean())
    return figures

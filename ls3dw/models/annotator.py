"""Annotates faces: pictures and boxes in, landmarks out, by 2D-FAN, guided 2D-to-3D FAN and depth network in a row."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ls3dw.core.annotations import Annotations
from ls3dw.core.crops import Decode, Windows, cut_window, pack_windows
from ls3dw.core.geometry import CROP_SIZE, REFERENCE_SIDE, apply, crop_placement, invert
from ls3dw.core.pose import head_pose
from ls3dw.core.sample import Floats, Picture
from ls3dw.errors import DeviceError, ModelError
from ls3dw.models import kernels
from ls3dw.models.face_batch import FaceBatch
from ls3dw.models.inference.device import check_device, using
from ls3dw.models.inference.policy import COMPILE_AFTER, Policy, choose
from ls3dw.models.inference.resampling import resample
from ls3dw.models.inference.runners import Runner, prepare
from ls3dw.models.inference.staging import StagedWindows, Stager
from ls3dw.models.networks.guidance import gaussian_guide, stamp_guide
from ls3dw.models.networks.heatmaps import CELLS, cells_to_crop, decode_quarter, decode_subpixel
from ls3dw.models.networks.wing import PointNetwork, predict_points
from ls3dw.models.weights.zoo import (
    DEFAULT_2D,
    DEFAULT_3D,
    DEFAULT_DEPTH,
    KINDS_2D,
    KINDS_3D,
    KINDS_DEPTH,
    Model,
    load,
)

log = logging.getLogger(__name__)

CPU_BATCH = 8
GPU_BATCH = 128
LARGE_BATCH = 256
"""For many faces with compiled networks: 5 % faster than 128, but every batch, however small, takes as long."""

LARGE_BATCH_MEMORY = 24 << 30
"""Free bytes needed for large batches; networks of the published size use three quarters of them."""


@dataclass(frozen=True)
class Pass:
    """Faces whose networks have been started. outputs: on the CPU, valid after the event `ready` (None: at once)."""

    faces: FaceBatch
    outputs: Tensor
    ready: torch.cuda.Event | None


class Annotator:
    """Annotates faces with 68 landmarks in 2D and 3D.

    model_2d, model_3d, model_depth: a zoo name, or a file in any format that `ls3dw models import` takes; None: the
    bundled network; "none" for the depth: z is NaN. device: "cpu", "cuda", "cuda:1". flip: average with the mirrored
    picture for networks that see only the picture (2d, 3d). decode: "subpixel", or "reference" for the published crop,
    decoding and depth input, which gives whole pixels. batch: faces a pass, None for `default_batch`; halved when the
    GPU's memory runs out. engine: "fast", "eager", "compiled" or "plain" (see `inference.policy`); they differ by
    rounding. faces: how many are expected.
    """

    def __init__(
        self,
        model_2d: str | Path | None = None,
        model_3d: str | Path | None = None,
        model_depth: str | Path | None = None,
        device: str = "cpu",
        flip: bool = True,
        decode: Decode = "subpixel",
        batch: int | None = None,
        engine: str = "fast",
        faces: int = 0,
    ) -> None:
        if decode not in ("subpixel", "reference"):
            raise ValueError(f"decode is {decode!r}; expected 'subpixel' or 'reference'")
        if batch is not None and batch < 1:
            raise ValueError(f"batch is {batch}; expected at least 1")
        self.device = check_device(device)
        self.flip = flip
        self.decode: Decode = decode
        with ThreadPoolExecutor(1) as pool:
            # Starting a GPU takes half a second, and Triton as long: meanwhile the weights are loaded.
            started = pool.submit(kernels.triton_available, self.device)
            self.model_2d, self.model_3d, self.model_depth = load_models(model_2d, model_3d, model_depth, decode)
            started.result()
        self.engine = engine
        self._policy = choose(self.device, engine)
        self._stager = Stager(self.device)
        self._runners: dict[str, Runner] = {}
        self._annotated = 0
        self._expect(faces)
        self.batch = batch or default_batch(self._policy, faces)
        if self._policy.on_gpu:
            self._prepare()

    @property
    def models(self) -> tuple[Model, ...]:
        return tuple(model for model in (self.model_2d, self.model_3d, self.model_depth) if model is not None)

    def annotate(self, images: Sequence[Picture], boxes: ArrayLike) -> Annotations:
        """Annotate N faces: images: N pictures (H, W, 3) uint8 RGB of any sizes; boxes: (N, 4) x0 y0 x1 y1."""
        box = np.asarray(boxes, dtype=np.float64)
        _check_faces(images, box)
        windows = [cut_window(image, face, self.decode) for image, face in zip(images, box, strict=True)]
        # One block a pass: a large face makes all windows of its block large.
        starts = range(0, len(windows), self.batch)
        blocks = tuple(pack_windows(windows[start : start + self.batch]) for start in starts)
        return self.annotate_windows(FaceBatch(blocks, box))

    def annotate_windows(self, faces: FaceBatch) -> Annotations:
        """Annotate faces with cut windows."""
        return self.collect(self.begin(faces))

    def begin(self, faces: FaceBatch) -> Pass:
        """Start the networks on faces, `batch` at a time; on a GPU without waiting for them."""
        parts = []
        start = 0
        while start < len(faces):
            stop = min(start + self.batch, len(faces))
            try:
                parts.append(self._outputs(faces.rows(start, stop)))
            except torch.cuda.OutOfMemoryError:
                self._halve()
                continue
            start = stop
        with using(self.device):
            return self._send_back(faces, torch.cat(parts))

    def collect(self, begun: Pass) -> Annotations:
        """Wait for a started pass and return its annotations."""
        return self.finish(begun.faces, self.result(begun))

    def result(self, begun: Pass) -> NDArray[np.float32]:
        """Wait for a started pass and return its outputs (N, 68, 7), for `finish`."""
        if begun.ready is not None:
            begun.ready.synchronize()
        if not torch.isfinite(begun.outputs).all():
            self._widen()
            return self.result(self.begin(begun.faces))
        return begun.outputs.numpy()

    def stage(self, windows: Windows) -> StagedWindows:
        """Start copying windows to the device; from another thread than `begin` it overlaps with the networks."""
        return self._stager.stage(windows)

    def _send_back(self, faces: FaceBatch, outputs: Tensor) -> Pass:
        if self.device.type == "cpu":
            return Pass(faces, outputs, None)
        target = torch.empty(outputs.shape, dtype=outputs.dtype, pin_memory=True).copy_(outputs, non_blocking=True)
        ready = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        ready.record(torch.cuda.current_stream(self.device))
        return Pass(faces, target, ready)

    def _widen(self) -> None:
        """Continue in float32 after a narrower type has overflowed."""
        if not self._policy.narrow:
            raise DeviceError("the networks gave values that are not finite; check the weights")
        log.warning("%s overflowed with these weights: going on in float32, at about half the speed", self._policy.name)
        self._policy = self._policy.widened()
        self._runners.clear()

    def _prepare(self) -> None:
        """Prepare all networks in parallel; one that fails is tried again, and its error raised, at its first use."""
        roles = {"2d": self.model_2d, "3d": self.model_3d, "depth": self.model_depth}
        with ThreadPoolExecutor(len(roles)) as pool:
            for role, model in roles.items():
                if model is not None:
                    pool.submit(self._runner, role, model)

    def _runner(self, role: str, model: Model) -> Runner:
        """Return a network prepared for the device."""
        if role not in self._runners:
            self._runners[role] = prepare(model.network, self._policy.of_batch(self.batch))
        return self._runners[role]

    def _expect(self, faces: int) -> None:
        """Compile with the fast engine on a GPU if so many faces are worth it."""
        worth_it = self.engine == "fast" and self._policy.on_gpu and faces >= COMPILE_AFTER
        if worth_it and not self._policy.compiled:
            self._policy = self._policy.compiling()
            self._runners.clear()

    @torch.inference_mode()
    def _outputs(self, faces: FaceBatch) -> Tensor:
        """Run the networks: (N, 68, 7), 2D x y, 3D x y, z and the two confidences, in the decoder's coordinates."""
        self._annotated += len(faces)
        self._expect(self._annotated)
        # In float32 cuDNN would search for two minutes with full-size networks.
        search, tf32 = self._policy.narrow, self._policy.folded
        with (
            using(self.device),
            torch.backends.cudnn.flags(enabled=True, benchmark=search, deterministic=False, allow_tf32=tf32),
        ):
            return self._run(faces, self._crops(faces))[: len(faces)]

    def _run(self, faces: FaceBatch, crops: Tensor) -> Tensor:
        points_2d, peak_2d = self._points("2d", self.model_2d, crops)
        guide = self._guidance(faces, self._as_crop(points_2d))
        points_3d, peak_3d = self._points_3d(crops, guide)
        depth = self._depth(crops, self._as_crop(points_3d))
        return torch.cat((points_2d, points_3d, depth[..., None], peak_2d[..., None], peak_3d[..., None]), dim=2)

    def _crops(self, faces: FaceBatch) -> Tensor:
        """Cut the crops of faces from their windows, on the device.

        On a GPU the batch is padded with black pictures: with one shape for all batches cuDNN searches once.
        """
        staged = [block if isinstance(block, StagedWindows) else self.stage(block) for block in faces.windows]
        crops = [resample(block.wait().to(self.device), block.to_crop) for block in staged]
        missing = self.batch - len(faces) if self.device.type == "cuda" else 0
        if missing:
            crops.append(crops[0].new_zeros(missing, *crops[0].shape[1:]))
        return crops[0] if len(crops) == 1 else torch.cat(crops)

    def _points_3d(self, crops: Tensor, guide: Tensor) -> tuple[Tensor, Tensor]:
        if self.model_3d.contract.kind == "3d":
            return self._points("3d", self.model_3d, crops)
        runner = self._runner("3d", self.model_3d)
        return self._decode(runner(crops, gaussian_guide(guide, self.model_3d.contract.guidance_std)))

    def _points(self, role: str, model: Model, crops: Tensor) -> tuple[Tensor, Tensor]:
        """Run a network that sees only the picture: points (N, 68, 2) and heatmap peaks (N, 68), 0 without heatmaps."""
        runner = self._runner(role, model)
        if isinstance(model.network, PointNetwork):
            points = predict_points(runner, crops, self.flip)
            return points, torch.zeros_like(points[..., 0])
        return self._decode(runner(crops, flip=self.flip))

    def _depth(self, crops: Tensor, points: Tensor) -> Tensor:
        if self.model_depth is None:
            return torch.zeros(points.shape[:2], device=self.device)
        make_guide = stamp_guide if self.decode == "reference" else gaussian_guide
        guide = make_guide(points, self.model_depth.contract.guidance_std)
        return self._runner("depth", self.model_depth)(crops, guide)

    def _decode(self, heatmaps: Tensor) -> tuple[Tensor, Tensor]:
        if self.decode == "reference":
            return decode_quarter(heatmaps)
        return decode_subpixel(heatmaps)

    def _as_crop(self, points: Tensor) -> Tensor:
        """Turn the decoder's coordinates into crop pixels."""
        return cells_to_crop(points - 0.5) if self.decode == "reference" else points

    def _guidance(self, faces: FaceBatch, predicted: Tensor) -> Tensor:
        if faces.guidance is None:
            return predicted
        given = torch.full_like(predicted, torch.nan)
        given[: len(faces)] = torch.from_numpy(apply(faces.crop, faces.guidance)).to(self.device)
        usable = torch.isfinite(given).all(dim=2).all(dim=1)
        return torch.where(usable[:, None, None], given, predicted)

    def finish(self, faces: FaceBatch, outputs: NDArray[np.float32]) -> Annotations:
        """Map a pass's outputs (N, 68, 7) to image pixels."""
        crop = faces.crop
        if self.decode == "reference":
            landmarks_2d, plane = (to_whole_pixels(outputs[..., i : i + 2], faces.boxes) for i in (0, 2))
        else:
            landmarks_2d, plane = (apply(invert(crop), outputs[..., i : i + 2]) for i in (0, 2))
        side = REFERENCE_SIDE * crop_placement(faces.boxes)[1]
        z = outputs[..., 4] * (side / CROP_SIZE)[:, None] if self.model_depth else np.full_like(outputs[..., 4], np.nan)
        landmarks_3d = np.concatenate((plane, z[..., None]), axis=2).astype(np.float32)
        confidence = outputs[..., 5:].clip(0, 1)
        confidence[..., [isinstance(model.network, PointNetwork) for model in (self.model_2d, self.model_3d)]] = np.nan
        return Annotations(
            landmarks_2d=landmarks_2d.astype(np.float32),
            landmarks_3d=landmarks_3d,
            confidence_2d=confidence[..., 0],
            confidence_3d=confidence[..., 1],
            pose=head_pose(landmarks_3d),
            crop=crop,
        )

    def _halve(self) -> None:
        if self.batch == 1:
            raise DeviceError(f"{self.device}: not enough memory for a single face; use --gpu none or smaller models")
        self.batch //= 2
        self._runners.clear()
        torch.cuda.empty_cache()
        log.warning("%s: out of memory, going on with batches of %d faces", self.device, self.batch)


def default_batch(policy: Policy, faces: int) -> int:
    """Return the batch size for an expected number of faces."""
    if not policy.on_gpu:
        return CPU_BATCH
    many = policy.compiled and faces >= COMPILE_AFTER
    return LARGE_BATCH if many and torch.cuda.mem_get_info(policy.device)[0] >= LARGE_BATCH_MEMORY else GPU_BATCH


def load_models(
    model_2d: str | Path | None, model_3d: str | Path | None, model_depth: str | Path | None, decode: Decode
) -> tuple[Model, Model, Model | None]:
    """Load the networks of an `Annotator`; `ModelError` for one that does not fit its role."""
    network_2d = load(model_2d or DEFAULT_2D, KINDS_2D)
    network_3d = load(model_3d or DEFAULT_3D, KINDS_3D)
    for model in (network_2d, network_3d):
        if decode == "reference" and isinstance(model.network, PointNetwork):
            raise ModelError(
                f"{model.contract.name}: gives coordinates, and decode 'reference' is the published decoding of"
                " heatmaps; use 'subpixel', or a FAN"
            )
    depth = None if model_depth == "none" else load(model_depth or DEFAULT_DEPTH, KINDS_DEPTH)
    return network_2d, network_3d, depth


def to_whole_pixels(cells: NDArray[np.float32], boxes: NDArray[Any]) -> Floats:
    """Map heatmap cells (N, P, 2) to whole image pixels as the published code does, with truncation.

    There pixel k covers [k, k+1), so truncation gives the pixel's index, our convention. With boxes of whole numbers
    many points lie on a pixel's edge, where rounding decides: so the map is inverted as there, by singular values. In
    closed form one coordinate in a thousand would differ by a pixel.
    """
    centre, scale = crop_placement(boxes)
    side = REFERENCE_SIDE * scale
    forward = np.zeros((len(boxes), 3, 3))
    forward[:, 0, 0] = forward[:, 1, 1] = CELLS / side
    forward[:, :2, 2] = CELLS * (-centre / side[:, None] + 0.5)
    forward[:, 2, 2] = 1
    left, values, right = np.linalg.svd(forward)
    back = (np.swapaxes(right, 1, 2) * (1 / values)[:, None]) @ np.swapaxes(left, 1, 2)
    points = np.concatenate((cells.astype(np.float64), np.ones((*cells.shape[:2], 1))), axis=2)
    mapped: NDArray[np.float64] = points @ np.swapaxes(back, 1, 2)
    return np.trunc(mapped[..., :2]).astype(np.float32)


def _check_faces(images: Sequence[Picture], boxes: NDArray[np.float64]) -> None:
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"boxes are {boxes.shape}; expected (N, 4)")
    if len(images) != len(boxes) or len(images) == 0:
        raise ValueError(f"{len(images)} images and {len(boxes)} boxes; expected one box an image, at least one")
    bad = ~(np.isfinite(boxes).all(axis=1) & (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1]))
    if bad.any():
        row = int(bad.argmax())
        raise ValueError(f"box {row} is {boxes[row].tolist()}; expected finite x0 < x1 and y0 < y1")
    for row, image in enumerate(images):
        if not isinstance(image, np.ndarray):
            raise ValueError(f"image {row} is a {type(image).__name__}; expected an array, uint8 (H, W, 3)")
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
            raise ValueError(f"image {row} is {image.dtype} {image.shape}; expected uint8 (H, W, 3)")

"""Writes rendered heads to a folder: as the source `heads`, or in the layout of 300W-LP."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ls3dw.core.crops import encode_picture
from ls3dw.core.files import dump_json, exclusive, read_json, remove_partial, write_atomic
from ls3dw.errors import ConfigurationError
from ls3dw.sources.layout import visible
from ls3dw.synth.options import RenderOptions
from ls3dw.synth.photo.degrade import degrade
from ls3dw.synth.renderer import Renderer
from ls3dw.synth.rng import SplitRng

Layout = Literal["heads", "300w-lp"]
LAYOUTS: Final[tuple[Layout, ...]] = get_args(Layout)

CHUNK: Final = 16
"""Heads that are rendered at a time; a chunk's pictures depend on the seed and its number alone."""

RECORD: Final = ".heads.json"
"""Says what a folder was written with. Hidden, so that no reader takes it for an annotation."""

LP_FOLDER: Final = "HEADS"

SIDE: Final = 448
ZOOM: Final = 0.625
"""Pictures of nearly the size of 300W-LP's (450; degradation needs a multiple of 16), of which the networks' crop takes
the share ZOOM."""


@dataclass(frozen=True)
class Request:
    """What to write. degraded: with occluders, blur, noise and JPEG, as training sees pictures."""

    count: int
    seed: int = 0
    layout: Layout = "heads"
    degraded: bool = True

    def __post_init__(self) -> None:
        if self.count < 1 or self.seed < 0 or self.layout not in LAYOUTS:
            raise ConfigurationError(f"{self}: expected a count from 1, a seed from 0, a layout of {LAYOUTS}")


@dataclass(frozen=True)
class Head:
    """One rendered head in numpy: the fields of `Rendered`, one picture."""

    image: NDArray[np.uint8]
    landmarks_2d: NDArray[np.float32]
    landmarks_3d: NDArray[np.float32]
    visible: NDArray[np.bool_]
    pose: NDArray[np.float32]


def write_heads(folder: Path, request: Request, renderer: Renderer) -> Iterator[int]:
    """Write what is missing of a request; yield how many heads each chunk holds, written now or before.

    Same seed, same files on the CPU. Raises ConfigurationError where the folder was written with another request, or
    holds something else; DatasetError where another process writes to it.
    """
    with exclusive(folder):
        remove_partial(folder)
        _claim(folder, _recorded(request, renderer.options))
        for start in range(0, request.count, CHUNK):
            numbers = range(start, min(start + CHUNK, request.count))
            names = [f"head_{number:06d}" for number in numbers]
            missing = {name for name in names if not (folder / _annotation(request.layout, name)).is_file()}
            if missing:
                heads = _render(renderer, request, start // CHUNK)
                for name, head in zip(names, heads, strict=False):
                    if name in missing:
                        _write(folder, request.layout, name, head)
            yield len(numbers)


def _recorded(request: Request, options: RenderOptions) -> dict[str, Any]:
    """Return what decides a head's files: all but how many there are."""
    drawn = {key: str(value) if isinstance(value, Path) else value for key, value in asdict(options).items()}
    return {**{key: value for key, value in asdict(request).items() if key != "count"}, "render": drawn}


def _claim(folder: Path, asked: dict[str, Any]) -> None:
    """Refuse to mix two requests in one folder; more heads of the same request are welcome."""
    record = folder / RECORD
    if record.is_file():
        if differences := _differences(read_json(record, ConfigurationError), asked):
            raise ConfigurationError(f"{folder}: holds heads of {differences}; choose another folder")
    elif visible(folder):
        raise ConfigurationError(f"{folder}: not empty and not written by ls3dw synth; choose a new folder")
    else:
        write_atomic(record, dump_json(asked))


def _differences(found: Any, asked: dict[str, Any]) -> str:
    """Say in which entries a record differs from what is asked for; empty where it does not."""
    if not isinstance(found, dict):
        return "an unknown request"
    there, wanted = ({**entries, **entries.pop("render", {})} for entries in (dict(found), dict(asked)))
    names = [name for name in sorted(there.keys() | wanted.keys()) if there.get(name) != wanted.get(name)]
    return ", ".join(f"{name} {there.get(name)} (asked for {wanted.get(name)})" for name in names)


def _render(renderer: Renderer, request: Request, chunk: int) -> Iterator[Head]:
    rng = SplitRng(request.seed, renderer.device).child(chunk)
    rendered = renderer.render(CHUNK, rng)
    images = rendered.images
    if request.degraded:
        images = (degrade(images.float() / 255, rng) * 255).round().clamp(0, 255).byte()
    columns = (
        images.permute(0, 2, 3, 1).cpu().numpy(),
        *(getattr(rendered, name).cpu().numpy() for name in ("landmarks_2d", "landmarks_3d", "visible", "pose")),
    )
    return (Head(*row) for row in zip(*columns, strict=True))


def _annotation(layout: Layout, name: str) -> str:
    """Return the last file that is written of a head: where it is, the others are too."""
    return f"{name}.json" if layout == "heads" else f"landmarks/{LP_FOLDER}/{name}_pts.mat"


def _write(folder: Path, layout: Layout, name: str, head: Head) -> None:
    picture = encode_picture(head.image)
    if layout == "heads":
        write_atomic(folder / f"{name}.jpg", picture.data)
        write_atomic(folder / _annotation(layout, name), _json(head))
    else:
        write_atomic(folder / LP_FOLDER / f"{name}.jpg", picture.data)
        write_atomic(folder / LP_FOLDER / f"{name}.mat", _lp_parameters(head))
        write_atomic(folder / _annotation(layout, name), _lp_points(head))


def _json(head: Head) -> bytes:
    fields = {name: getattr(head, name) for name in ("landmarks_2d", "landmarks_3d", "visible", "pose")}
    # float32 -> float64 -> shortest text -> float32 gives the same bits back.
    return dump_json({name: array.astype(float).tolist() for name, array in fields.items()})


def _lp_parameters(head: Head) -> bytes:
    """Return the `.mat` of 300W-LP: `pt2d` (2, 68) and `Pose_Para` (1, 7) = pitch, yaw, roll in radians, then zeros."""
    yaw, pitch, roll = np.radians(head.pose.astype(np.float64))
    pose = np.array([[pitch, yaw, roll, 0, 0, 0, 0]], dtype=np.float32)
    solid = head.landmarks_3d.astype(np.float32).T + np.array([[1], [1], [0]], dtype=np.float32)
    return _mat({"pt2d": head.landmarks_2d.astype(np.float64).T + 1, "Pose_Para": pose, "pt3d_68": solid})


def _lp_points(head: Head) -> bytes:
    flat, solid = head.landmarks_2d.astype(np.float64), head.landmarks_3d[:, :2].astype(np.float64)
    return _mat({"pts_2d": flat + 1, "pts_3d": solid + 1})


def _mat(fields: dict[str, Any]) -> bytes:
    """Encode 1-based arrays as Matlab does, without scipy's header, which holds the time."""
    from scipy.io import savemat

    buffer = io.BytesIO()
    savemat(buffer, fields)
    data = bytearray(buffer.getvalue())
    header = b"MATLAB 5.0 MAT-file, written by ls3dw"
    data[:116] = header.ljust(116)
    return bytes(data)

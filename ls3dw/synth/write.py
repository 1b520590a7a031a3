"""Rendered heads on disk: as the source `heads`, or in the layout of 300W-LP."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ls3dw.core.crops import encode_picture
from ls3dw.core.files import LOCK, dump_json, exclusive, read_json, remove_partial, write_atomic
from ls3dw.core.sample import Floats, Picture
from ls3dw.errors import ConfigurationError
from ls3dw.models.inference.device import one_device
from ls3dw.sources.layout import visible
from ls3dw.synth.options import RenderOptions
from ls3dw.synth.photo.degrade import degrade
from ls3dw.synth.renderer import Renderer
from ls3dw.synth.rng import SplitRng

Layout = Literal["heads", "300w-lp"]
LAYOUTS: Final[tuple[Layout, ...]] = get_args(Layout)

CHUNK: Final = 16
"""Heads rendered at a time. The pictures of a chunk depend on the seed and its number only."""

RECORD: Final = ".heads.json"
"""The options a folder was written with. Hidden, so that no reader takes it for an annotation."""

LP_FOLDER: Final = "HEADS"

SIDE: Final = 448
"""Side of the pictures: nearly that of 300W-LP (450), and a multiple of 16 for the degradation."""

ZOOM: Final = 0.625
"""Share of the picture's side that the networks' crop takes."""


@dataclass(frozen=True)
class HeadsOptions:
    """What to write. degraded: with occluders, blur, noise and JPEG, as training sees pictures."""

    count: int
    seed: int = 0
    layout: Layout = "heads"
    degraded: bool = True

    def __post_init__(self) -> None:
        if self.count < 1 or self.seed < 0 or self.layout not in LAYOUTS:
            raise ConfigurationError(f"{self}: expected a count from 1, a seed from 0, a layout of {LAYOUTS}")


@dataclass(frozen=True)
class HeadsReport:
    """The outcome of `render_heads`."""

    folder: Path
    count: int
    """Heads in the folder."""

    written: int
    """Heads written by this call; the others were there."""


@dataclass(frozen=True)
class HeadPicture:
    """One rendered head in numpy; fields as in `Rendered`, without the batch axis."""

    image: Picture
    landmarks_2d: Floats
    landmarks_3d: Floats
    visible: NDArray[np.bool_]
    pose: Floats


def render_heads(
    folder: Path,
    *,
    count: int = 64,
    seed: int = 0,
    layout: Layout = "heads",
    degraded: bool = True,
    backgrounds: Path | None = None,
    gpu: str = "auto",
    progress: Callable[[int, int], None] | None = None,
) -> HeadsReport:
    """Render heads with exact landmarks into a folder: pictures of 448 x 448 with annotations.

    Writes what is missing, so a larger count adds heads. The same seed gives the same files on the CPU. Raises
    `ConfigurationError` for a folder with other options or other files, `DatasetError` for one in use.

    layout: "heads", for the source `heads`, or "300w-lp", for the source `300wlp`
    degraded: with occluders, blur, noise and JPEG
    backgrounds: folder of pictures to put behind the heads, beside the built-in patterns
    gpu: auto, none, or the number of a GPU
    progress: called with the number of finished heads and `count`
    """
    options = HeadsOptions(count, seed, layout, degraded)
    renderer = Renderer(one_device(gpu), options=RenderOptions(size=SIDE, zoom=ZOOM, backgrounds=backgrounds))
    done = written = 0
    for finished, new in write_heads(folder, options, renderer):
        done, written = done + finished, written + new
        if progress is not None:
            progress(done, count)
    return HeadsReport(folder, count, written)


def write_heads(folder: Path, options: HeadsOptions, renderer: Renderer) -> Iterator[tuple[int, int]]:
    """Write the missing heads; yield for each chunk how many heads it has and how many of them were written now."""
    with exclusive(folder):
        _claim(folder, _recorded(options, renderer.options))
        remove_partial(folder)
        for start in range(0, options.count, CHUNK):
            numbers = range(start, min(start + CHUNK, options.count))
            names = [f"head_{number:06d}" for number in numbers]
            missing = {name for name in names if not (folder / _annotation(options.layout, name)).is_file()}
            if missing:
                for name, head in zip(names, _render(renderer, options, start // CHUNK), strict=False):
                    if name in missing:
                        _write(folder, options.layout, name, head)
            yield len(numbers), len(missing)


def _recorded(options: HeadsOptions, render: RenderOptions) -> dict[str, Any]:
    """Return the options that decide a head's files: all but the count."""
    values = {key: str(value) if isinstance(value, Path) else value for key, value in asdict(render).items()}
    return {**{key: value for key, value in asdict(options).items() if key != "count"}, "render": values}


def _claim(folder: Path, asked: dict[str, Any]) -> None:
    """Record the options in a new folder; raise `ConfigurationError` if it has others."""
    record = folder / RECORD
    if record.is_file():
        if differences := _differences(read_json(record, ConfigurationError), asked):
            raise ConfigurationError(f"{folder}: holds heads of {differences}; choose another folder")
    elif any(not path.name.startswith((RECORD, LOCK)) for path in visible(folder)):
        raise ConfigurationError(f"{folder}: not empty and not written by ls3dw synth; choose a new folder")
    else:
        write_atomic(record, dump_json(asked))


def _differences(found: Any, asked: dict[str, Any]) -> str:
    """Describe how a record differs from the options asked for; empty if it does not."""
    if not isinstance(found, dict):
        return "unknown options"
    there, wanted = ({**entries, **entries.pop("render", {})} for entries in (dict(found), dict(asked)))
    names = [name for name in sorted(there.keys() | wanted.keys()) if there.get(name) != wanted.get(name)]
    return ", ".join(f"{name} {there.get(name)} (asked for {wanted.get(name)})" for name in names)


def _render(renderer: Renderer, options: HeadsOptions, chunk: int) -> Iterator[HeadPicture]:
    rng = SplitRng(options.seed, renderer.device).child(chunk)
    rendered = renderer.render(CHUNK, rng)
    images = rendered.images
    if options.degraded:
        images = (degrade(images.float() / 255, rng) * 255).round().clamp(0, 255).byte()
    columns = (
        images.permute(0, 2, 3, 1).cpu().numpy(),
        *(getattr(rendered, name).cpu().numpy() for name in ("landmarks_2d", "landmarks_3d", "visible", "pose")),
    )
    return (HeadPicture(*row) for row in zip(*columns, strict=True))


def _annotation(layout: Layout, name: str) -> str:
    """Name the file of a head that is written last."""
    return f"{name}.json" if layout == "heads" else f"landmarks/{LP_FOLDER}/{name}_pts.mat"


def _write(folder: Path, layout: Layout, name: str, head: HeadPicture) -> None:
    picture = encode_picture(head.image)
    if layout == "heads":
        write_atomic(folder / f"{name}.jpg", picture.data)
        write_atomic(folder / _annotation(layout, name), _json(head))
    else:
        write_atomic(folder / LP_FOLDER / f"{name}.jpg", picture.data)
        write_atomic(folder / LP_FOLDER / f"{name}.mat", _lp_parameters(head))
        write_atomic(folder / _annotation(layout, name), _lp_points(head))


def _json(head: HeadPicture) -> bytes:
    fields = {name: getattr(head, name) for name in ("landmarks_2d", "landmarks_3d", "visible", "pose")}
    # The shortest decimals of float64 read back to the same float32.
    return dump_json({name: array.astype(float).tolist() for name, array in fields.items()})


def _lp_parameters(head: HeadPicture) -> bytes:
    """Return the `.mat` of 300W-LP: `pt2d` (2, 68) and `Pose_Para` (1, 7) = pitch, yaw, roll in radians, then zeros."""
    yaw, pitch, roll = np.radians(head.pose.astype(np.float64))
    pose = np.array([[pitch, yaw, roll, 0, 0, 0, 0]], dtype=np.float32)
    points_3d = head.landmarks_3d.astype(np.float32).T + np.array([[1], [1], [0]], dtype=np.float32)
    return _mat({"pt2d": head.landmarks_2d.astype(np.float64).T + 1, "Pose_Para": pose, "pt3d_68": points_3d})


def _lp_points(head: HeadPicture) -> bytes:
    points_2d, points_3d = head.landmarks_2d.astype(np.float64), head.landmarks_3d[:, :2].astype(np.float64)
    return _mat({"pts_2d": points_2d + 1, "pts_3d": points_3d + 1})


def _mat(fields: dict[str, Any]) -> bytes:
    """Encode arrays as a MAT-file with a fixed header; scipy's has the time in it."""
    from scipy.io import savemat

    buffer = io.BytesIO()
    savemat(buffer, fields)
    data = bytearray(buffer.getvalue())
    header = b"MATLAB 5.0 MAT-file, written by ls3dw"
    data[:116] = header.ljust(116)
    return bytes(data)

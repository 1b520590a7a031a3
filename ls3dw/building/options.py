"""The options of a build."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, get_args

from ls3dw.core.crops import FRAME, JPEG_QUALITY, STILL, STORED_SIDE, STORED_ZOOM, Decode
from ls3dw.core.options import parse_options, read_yaml
from ls3dw.errors import ConfigurationError
from ls3dw.sources import SOURCES

Guidance = Literal["predicted", "annotated"]
AnnotationsFrom = Literal["network", "published"]
Engine = Literal["fast", "eager", "compiled", "plain"]

SAMPLE: Final = "sample"
IN_3D: Final = tuple(name for name, source in SOURCES.items() if source.annotation_kind == "3d")
"""Sources with projected 3D points, as in LS3D-W."""

DEFAULT_SHARD_SIZE: Final = 256
DEFAULT_VERSION: Final[dict[str, str]] = {"network": "v1", "published": "published"}
"""By where the annotations come from."""


@dataclass(frozen=True)
class BuildOptions:
    """The options of `ls3dw build`.

    roots: folders of single sources; root: the folder of all others; annotations: "published" takes the sources' own
    points and runs no network; version_name: empty for the default. The others are as in `ls3dw build --help`.
    """

    sources: tuple[str, ...] = (SAMPLE,)
    root: Path | None = None
    roots: Mapping[str, Path] = field(default_factory=dict)
    out: Path = Path("ls3dw-data")
    gpu: str = "auto"
    subsets: tuple[str, ...] = ()
    limit: int | None = None
    model_2d: str | None = None
    model_3d: str | None = None
    model_depth: str | None = None
    annotations: AnnotationsFrom = "network"
    guidance: Guidance = "predicted"
    decode: Decode = "subpixel"
    flip: bool = True
    engine: Engine = "fast"
    batch: int | None = None
    workers: int | None = None
    shard_size: int = DEFAULT_SHARD_SIZE
    version_name: str = ""

    def __post_init__(self) -> None:
        faults = [
            *self._choice_faults(),
            *self._number_faults(),
            *self._root_faults(),
            *(self._published_faults() if self.annotations == "published" else ()),
        ]
        if faults:
            raise ConfigurationError("; ".join(faults))
        if not self.version_name:
            object.__setattr__(self, "version_name", DEFAULT_VERSION[self.annotations])

    def _choice_faults(self) -> list[str]:
        choices = (
            ("annotations", self.annotations, get_args(AnnotationsFrom)),
            ("guidance", self.guidance, get_args(Guidance)),
            ("decode", self.decode, get_args(Decode)),
            ("engine", self.engine, get_args(Engine)),
            *(("source", name, (*SOURCES, SAMPLE)) for name in self.sources),
            *(("root for", name, self.sources) for name in self.roots),
        )
        faults = [
            f"{key} {value!r}: expected one of {', '.join(known)}"
            for key, value, known in choices
            if value not in known
        ]
        ids = [number.strip() for number in self.gpu.split(",")]
        if self.gpu not in ("auto", "none") and not all(number.isascii() and number.isdigit() for number in ids):
            faults.append(f"gpu {self.gpu!r}: expected auto, none, or ids such as 0 or 0,1")
        if not self.sources:
            faults.append("no source: expected at least one")
        if SAMPLE in self.sources and len(self.sources) > 1:
            faults.append("source 'sample' holds samples of all four sources: it cannot be mixed with others")
        return faults

    def _number_faults(self) -> list[str]:
        numbers = (("limit", self.limit, 1), ("batch", self.batch, 1), ("workers", self.workers, 0))
        faults = [
            f"{key} {value}: expected at least {least}"
            for key, value, least in numbers
            if value is not None and value < least
        ]
        if self.shard_size < 1:
            faults.append(f"shard-size {self.shard_size}: expected at least 1")
        return faults

    def _root_faults(self) -> list[str]:
        if self.root is not None:
            return []
        return [
            f"source {name} needs its folder: --root DIR or --root {name}=DIR"
            for name in self.sources
            if name in SOURCES and name not in self.roots
        ]

    def _published_faults(self) -> list[str]:
        """Yield faults of options for networks, and of sources without 3D points."""
        faults = [
            f"annotations published: source {name!r} has no 3D points of its own; expected some of {', '.join(IN_3D)}"
            for name in self.sources
            if name not in IN_3D
        ]
        models = {"model-2d": self.model_2d, "model-3d": self.model_3d, "model-depth": self.model_depth}
        unused = [name for name, model in models.items() if model is not None]
        unused += ["guidance"] if self.guidance == "annotated" else []
        if unused:
            faults.append(f"annotations published: no network runs, so leave out {', '.join(unused)}")
        return faults

    def root_of(self, source: str) -> Path:
        root = self.roots.get(source, self.root)
        assert root is not None
        return root


def recorded(options: BuildOptions, models: Mapping[str, Any]) -> dict[str, Any]:
    """Return what decides the content of a version; runs that differ in it must not share one."""
    return {
        "annotations": options.annotations,
        "data": "embedded sample" if options.sources == (SAMPLE,) else "sources",
        "decode": options.decode,
        "flip": options.flip,
        "guidance": options.guidance,
        "limit": options.limit,
        "models": dict(models),
        "picture": {
            "chroma": {"frame": FRAME, "still": STILL},
            "jpeg_quality": JPEG_QUALITY,
            "side": STORED_SIDE,
            "zoom": STORED_ZOOM,
        },
        "shard_size": options.shard_size,
        "subsets": sorted(options.subsets),
    }


def make_options(values: Mapping[str, Any]) -> BuildOptions:
    """Build options from the plain values of a pipeline file or a command line; `ConfigurationError` if unusable."""
    return parse_options(BuildOptions, {name: value for name, value in values.items() if value is not None})


def read_pipeline(path: Path) -> dict[str, Any]:
    """Read the options of a pipeline file: YAML, with the names of `BuildOptions`, and '-' or '_' between words."""
    values = read_yaml(path)
    if not isinstance(values, dict):
        raise ConfigurationError(f"{path}: expected options of ls3dw build, one a line, as 'name: value'")
    return {str(key).replace("-", "_"): value for key, value in values.items()}

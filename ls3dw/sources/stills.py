"""Pictures, each with an annotation file of the same stem."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from ls3dw.core.files import folded
from ls3dw.core.formats.pictures import DecodedPicture, decode_picture
from ls3dw.core.sample import Media, Outcome, Picture, Reason, Sample
from ls3dw.errors import PictureError
from ls3dw.sources.base import Count, Source
from ls3dw.sources.face import Parser, Place, Rejected, make_sample, printable, read_face, reading
from ls3dw.sources.layout import visible

PICTURES: Final = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".ppm", ".pgm", ".pbm", ".pnm", ".tif", ".tiff", ".webp"}
)
"""The suffixes of the formats that `decode_picture` reads."""


@dataclass(frozen=True)
class AnnotationFormat:
    """A kind of annotation file: its suffix in lower case, and its parser.

    digests: add the SHA-256 of the picture to its samples, to find the same picture in other data sets: extra
    `file_sha256` and `pixels_sha256` (32,) uint8.
    """

    suffix: str
    parse: Parser
    digests: bool = False


@dataclass(frozen=True)
class StillFolder:
    """A folder of pairs. prefix: of the stem in the ids of its faces, e.g. `01_Indoor/`."""

    name: str
    subset: str
    path: Path
    prefix: str = ""


@dataclass(frozen=True)
class Pair:
    """The files that share a stem: one of each kind, if nothing is wrong.

    near: if a file is missing, others that may be meant: of the same stem, or one that differs only in letter case or
    in the Unicode form of its accents.
    """

    stem: str
    pictures: tuple[str, ...]
    annotations: tuple[str, ...]
    near: tuple[str, ...] = ()


def list_pairs(folder: Path, suffix: str) -> list[Pair]:
    """List the pairs of a folder by stem, sorted, files without a partner included."""
    pictures: dict[str, list[str]] = {}
    annotations: dict[str, list[str]] = {}
    alike: dict[str, list[str]] = {}
    for path in visible(folder):
        ending = path.suffix.lower()
        if ending in PICTURES:
            pictures.setdefault(path.stem, []).append(path.name)
        elif ending == suffix:
            annotations.setdefault(path.stem, []).append(path.name)
        alike.setdefault(folded(path.stem), []).append(path.name)
    pairs = []
    for stem in sorted(pictures.keys() | annotations.keys()):
        there = (tuple(pictures.get(stem, ())), tuple(annotations.get(stem, ())))
        near = () if all(there) else tuple(name for name in alike[folded(stem)] if name not in {*there[0], *there[1]})
        pairs.append(Pair(stem, *there, near))
    return pairs


@dataclass(frozen=True)
class StillMedia:
    """Some pairs of a folder. start: number of the first one in the folder."""

    name: str
    start: int
    source: str
    root: Path
    folder: StillFolder
    format: AnnotationFormat
    pairs: tuple[Pair, ...]

    @property
    def subset(self) -> str:
        """Subset of all its faces."""
        return self.folder.subset

    @property
    def expected(self) -> int:
        """Number of outcomes of `read`."""
        return len(self.pairs)

    def files(self) -> Iterator[Path]:
        """Yield the pictures and annotations of all pairs."""
        for pair in self.pairs:
            yield from (self.folder.path / name for name in (*pair.pictures, *pair.annotations))

    def read(self, skip: Callable[[int], bool]) -> Iterator[tuple[int, Outcome]]:
        """Yield a sample or a drop for every pair that is not skipped."""
        for number, pair in enumerate(self.pairs, start=self.start):
            if not skip(number):
                yield number, self._outcome(pair)

    def _outcome(self, pair: Pair) -> Outcome:
        file = self.folder.path / (*pair.pictures, *pair.annotations)[0]
        place = Place(
            id=f"{self.source}/{printable(self.folder.prefix + pair.stem)}",
            source=self.source,
            subset=self.subset,
            media=printable(file.relative_to(self.root).as_posix()),
        )
        try:
            return self._sample(pair, place)
        except Rejected as fault:
            return place.drop(fault)

    def _sample(self, pair: Pair, place: Place) -> Sample:
        picture_file = self.folder.path / only_picture(pair)
        annotation_file = self.folder.path / only_annotation(pair)
        # The annotation first: it is cheap, and without it the picture need not be decoded.
        face = read_face(annotation_file, self.format.parse)
        data = read_bytes(picture_file)
        picture = decode(data, picture_file.name)
        if self.format.digests:
            face = replace(face, extra={**face.extra, **digests(data, picture.pixels)})
        return make_sample(face, picture, place)


def only_picture(pair: Pair) -> str:
    """Return the name of the only picture; raises Rejected."""
    return _only(pair.pictures, "missing picture", pair)


def only_annotation(pair: Pair) -> str:
    """Return the name of the only annotation file; raises Rejected."""
    return _only(pair.annotations, "missing annotation", pair)


def _only(names: tuple[str, ...], missing: Reason, pair: Pair) -> str:
    if not names:
        raise Rejected(missing, "; ".join(("no file of this stem", *(_why_not(name, pair) for name in pair.near))))
    if len(names) > 1:
        raise Rejected("repeated id", f"{', '.join(names)} share a stem; keep one")
    return names[0]


def _why_not(name: str, pair: Pair) -> str:
    stem, suffix = PurePath(name).stem, PurePath(name).suffix
    if stem == pair.stem:
        return f"{name} is not read: pictures are {', '.join(sorted(PICTURES))}"
    form = "letter case" if stem.lower() == pair.stem.lower() else "Unicode form (NFC, NFD)"
    return f"{stem!a}{suffix} has another {form} than {pair.stem!a}; rename one"


def read_bytes(path: Path) -> bytes:
    """Read a picture file; raises Rejected if it is not there."""
    with reading(path, "unreadable picture"):
        return path.read_bytes()


def decode(data: bytes, name: str) -> DecodedPicture:
    """Decode the picture file `name`; raises Rejected."""
    try:
        return decode_picture(data)
    except PictureError as error:
        raise Rejected("unreadable picture", f"{name}: {error}") from error


def digests(data: bytes, picture: Picture) -> dict[str, NDArray[np.uint8]]:
    """Return the SHA-256 (32,) of a picture file, and of its pixels with their shape."""
    pixels = hashlib.sha256(repr(picture.shape).encode())
    pixels.update(np.ascontiguousarray(picture).data)
    found = {"file_sha256": hashlib.sha256(data), "pixels_sha256": pixels}
    return {name: np.frombuffer(digest.digest(), dtype=np.uint8) for name, digest in found.items()}


class StillSource(Source):
    """A source of pairs in some folders."""

    format: ClassVar[AnnotationFormat]

    def __init__(self, root: str | Path) -> None:
        super().__init__(root)
        self.folders = self.find_folders()

    @abstractmethod
    def find_folders(self) -> list[StillFolder]:
        """Find the folders by their layout. Raises SourceError if there is none."""

    @property
    def subsets(self) -> tuple[str, ...]:
        """Names of the subsets that have a folder."""
        return tuple(dict.fromkeys(folder.subset for folder in self.folders))

    def list_media(self, subset: str, piece: int) -> list[Media]:
        """List the pairs of a subset in pieces of at most `piece`."""
        return [media for folder in self.folders if folder.subset == subset for media in self._pieces(folder, piece)]

    def list_folder(self, folder: StillFolder) -> list[Pair]:
        """List the pairs of a folder."""
        return list_pairs(folder.path, self.format.suffix)

    def _pieces(self, folder: StillFolder, piece: int) -> Iterator[StillMedia]:
        pairs = self.list_folder(folder)
        for start in range(0, len(pairs), piece):
            some = tuple(pairs[start : start + piece])
            yield StillMedia(folder.name, start, self.name, self.root, folder, self.format, some)

    def report(self) -> list[Count]:
        """Count the stems of the subsets that are there or read by default."""
        listed = dict.fromkeys((*self.default_subsets, *self.subsets))
        return [Count(subset, self._found(subset), self.expected_count(subset)) for subset in listed]

    def expected_count(self, subset: str) -> int | None:
        """Return the published number of faces of a subset, None if there is none."""
        count: int | None = self.manifest["subsets"].get(subset, {}).get("expected")
        return count

    def _found(self, subset: str) -> int:
        folders = [folder for folder in self.folders if folder.subset == subset]
        return sum(len(self.list_folder(folder)) for folder in folders)

"""300-W: the test set (indoor, outdoor), and as further subsets the parts that make up its training set."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from ls3dw.sources.base import Count
from ls3dw.sources.layout import find, wrong_layout
from ls3dw.sources.pts import parse_face
from ls3dw.sources.stills import AnnotationFormat, Part, StillSource


class W300(StillSource):
    """300-W; the manifest lists each subset's folder."""

    name: ClassVar[str] = "300w"
    format: ClassVar[AnnotationFormat] = AnnotationFormat(".pts", parse_face)

    def find_parts(self) -> list[Part]:
        """Look for each subset's folder on its own: training and test parts come in separate archives."""
        parts = [part for subset in self.manifest["subsets"] if (part := self._part(subset))]
        if not parts:
            raise wrong_layout(
                self.name, self.root, "01_Indoor/indoor_001.png with .pts (or afw/, helen/trainset/, ...)"
            )
        return parts

    def _part(self, subset: str) -> Part | None:
        folder: str = self.manifest["subsets"][subset]["folder"]

        def fits(path: Path) -> bool:
            return (path / folder).is_dir()

        outer = find(self.root, fits, hint="300w")
        return Part(subset, subset, outer / folder, prefix=f"{folder}/") if outer else None

    @property
    def default_subsets(self) -> tuple[str, ...]:
        """The parts of the test set that are there."""
        known = self.manifest["subsets"]
        return tuple(subset for subset in self.subsets if known[subset].get("default", False))

    def report(self) -> list[Count]:
        """Also count as 0 a half of the test set that is missing beside the other one."""
        counts = super().report()
        if not self.default_subsets:
            return counts
        known = self.manifest["subsets"]
        missing = [name for name in known if known[name].get("default", False) and name not in self.subsets]
        return counts + [Count(subset, 0, self.expected_count(subset)) for subset in missing]

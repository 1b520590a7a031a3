"""300-W: the test set (indoor, outdoor), and the data sets of its training set as further subsets."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from ls3dw.sources.base import Count
from ls3dw.sources.layout import find, wrong_layout
from ls3dw.sources.pts import parse_face
from ls3dw.sources.stills import AnnotationFormat, StillFolder, StillSource


class W300(StillSource):
    """300-W; the manifest lists each subset's folder."""

    name: ClassVar[str] = "300w"
    format: ClassVar[AnnotationFormat] = AnnotationFormat(".pts", parse_face)

    def find_folders(self) -> list[StillFolder]:
        """Look for each subset's folder separately: training and test sets come in separate archives."""
        folders = [folder for subset in self.manifest["subsets"] if (folder := self._folder(subset))]
        if not folders:
            raise wrong_layout(
                self.name, self.root, "01_Indoor/indoor_001.png with .pts (or afw/, helen/trainset/, ...)"
            )
        return folders

    def _folder(self, subset: str) -> StillFolder | None:
        folder: str = self.manifest["subsets"][subset]["folder"]

        def fits(path: Path) -> bool:
            return (path / folder).is_dir()

        outer = find(self.root, fits, hint="300w")
        return StillFolder(subset, subset, outer / folder, prefix=f"{folder}/") if outer else None

    @property
    def default_subsets(self) -> tuple[str, ...]:
        """The halves of the test set that are there."""
        known = self.manifest["subsets"]
        return tuple(subset for subset in self.subsets if known[subset].get("default", False))

    def report(self) -> list[Count]:
        """Report a missing half of the test set as 0."""
        counts = super().report()
        if not self.default_subsets:
            return counts
        known = self.manifest["subsets"]
        missing = [name for name in known if known[name].get("default", False) and name not in self.subsets]
        return counts + [Count(subset, 0, self.expected_count(subset)) for subset in missing]

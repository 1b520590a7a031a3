"""Writes a data set for menpo: an LJSON file beside each picture."""

from __future__ import annotations

from pathlib import Path

from ls3dw.core.formats.ljson import dump_ljson
from ls3dw.dataset.exporters.base import ExportOptions, ExportReport, Layout, Points, chosen_rows, write_faces
from ls3dw.dataset.gate import relative_id
from ls3dw.dataset.open import Dataset
from ls3dw.errors import ConfigurationError, DatasetError


class MenpoLayout(Layout):
    """Groups `landmarks_2d`, `landmarks_3d` (x and y) and `annotation` in one LJSON file."""

    columns = ("landmarks_2d", "landmarks_3d", "annotation")
    suffix = ".ljson"

    def encode(self, points: Points) -> bytes:
        return dump_ljson({name: values[:, :2] for name, values in points.items()})


def export_menpo(dataset: Dataset, out: Path, options: ExportOptions) -> ExportReport:
    """Write `<id>.jpg`, the kept picture, and `<id>.ljson`, its points; `menpo.io.import_images` reads them."""
    if options.whole_pixels:
        raise ConfigurationError("--round: only of --format ls3d-w")
    places = {row: relative_id(face) for row, face, _, _ in chosen_rows(dataset, options.sources)}
    if not places:
        raise DatasetError(f"{dataset.store.root}: version {dataset.version} has no face to export")
    write_faces(dataset, out, places, MenpoLayout())
    return ExportReport(out, dataset.version, len(places), {})

"""Sheets of faces: what is drawn where, the same bytes each time."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from ls3dw.dataset.open import open_dataset
from ls3dw.errors import ConfigurationError
from ls3dw.review.sheets import CONTACT, PAPER, draw_sheet, write_worst


def test_a_sheet_has_room_for_all_tiles() -> None:
    for style in (CONTACT, PAPER):
        tiles = [Image.new("RGB", (style.tile, style.tile), (200, 30, number)) for number in range(6)]
        sheet = draw_sheet(tiles, ["name\ndetail"] * 6, "title", style)
        step = style.tile + style.gap
        assert sheet.size == (style.gap + 4 * step, style.head + 2 * (style.tile + style.caption) + style.gap)
        for number in range(6):
            place = style.gap + number % 4 * step, style.head + number // 4 * (style.tile + style.caption)
            assert sheet.getpixel(place) == (200, 30, number)


def test_the_worst_faces_of_each_source(sample_data: Path, tmp_path: Path) -> None:
    dataset = open_dataset(sample_data)
    for name in ("a.png", "b.png", "a.pdf", "b.pdf"):
        assert write_worst(dataset, tmp_path / name) == ["300vw", "300w", "aflw2000", "menpo"]
    for kind in ("png", "pdf"):
        assert (tmp_path / f"a.{kind}").read_bytes() == (tmp_path / f"b.{kind}").read_bytes()
    with pytest.raises(ConfigurationError, match=r"\.png or \.pdf"):
        write_worst(dataset, tmp_path / "a.jpg")

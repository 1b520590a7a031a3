"""docs/format.md names every file, column, attribute and key of a data set, with its type and shape."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import get_args

import h5py
import pyarrow.parquet as pq
import pytest
from subset_data import make_index, write_dataset

from ls3dw.core.sample import Reason
from ls3dw.dataset.open import open_dataset
from ls3dw.dataset.shards import ANNOTATION_COLUMNS, FACE_COLUMNS, Column
from ls3dw.dataset.subsets.balanced import BalancedOptions
from ls3dw.dataset.subsets.produce import write_balanced, write_split
from ls3dw.dataset.subsets.split import SplitOptions

DOCUMENT = Path(__file__).parents[2] / "docs" / "format.md"

Shape = tuple[int, ...]


def section(title: str) -> str:
    """The text below a heading of level 2."""
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", DOCUMENT.read_text(encoding="utf-8"), re.M | re.S)
    assert found, title
    return found[1]


def rows(title: str) -> Iterator[list[str]]:
    """The cells of all tables below a heading."""
    for line in section(title).splitlines():
        if line.startswith("|"):
            yield [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def names(cells: Iterable[str]) -> list[str]:
    """What stands in backticks."""
    return [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]


def keys(title: str) -> set[str]:
    """Names before the colon in the lists below a heading."""
    return set(names(line.split(":")[0] for line in section(title).splitlines() if line.startswith("- ")))


def columns(title: str) -> dict[str, tuple[str, Shape]]:
    """Column -> dtype and shape of a row, as the tables of shards have them."""
    found = {}
    for cells in rows(title):
        at = next((place for place, cell in enumerate(cells) if re.fullmatch(r"\(N,[ 0-9,]*\)|\(bytes,\)", cell)), None)
        if at is not None:
            shape = tuple(int(number) for number in re.findall(r"\d+", cells[at]))
            found |= dict.fromkeys(names(cells[at - 2 : at - 1]), (cells[at - 1], shape))
    return found


@pytest.mark.parametrize(("title", "known"), [("Face shards", FACE_COLUMNS), ("Annotation shards", ANNOTATION_COLUMNS)])
def test_columns_of_shards(title: str, known: tuple[Column, ...]) -> None:
    documented = {name: entry for name, entry in columns(title).items() if "/" not in name and name != "pictures"}
    assert documented == {
        column.name: ("UTF-8" if column.dtype == "str" else column.dtype, column.shape) for column in known
    }


@pytest.mark.parametrize(("folder", "title"), [("faces", "Face shards"), ("annotations", "Annotation shards")])
def test_shards_on_disk(sample_data: Path, folder: str, title: str) -> None:
    documented, attributes = columns(title), keys(title)
    paths = sorted((sample_data / folder).rglob("*.h5"))
    assert paths
    for path in paths:
        with h5py.File(path, locking=False) as shard:
            assert set(shard.attrs) <= attributes
            found: dict[str, h5py.Dataset] = {}
            shard.visititems(lambda name, item, found=found: found.update({name: item}))
            for name, data in found.items():
                if isinstance(data, h5py.Dataset):
                    dtype = "UTF-8" if h5py.check_string_dtype(data.dtype) else str(data.dtype)
                    assert documented[name] == (dtype, data.shape[1:]), (path, name)


def test_index_and_drops(sample_data: Path) -> None:
    version = sample_data / "annotations" / "v1"
    documented = {name: cells[1] for cells in rows("Index and drops") for name in names(cells[:1])}
    assert documented == {field.name: str(field.type) for field in pq.read_schema(version / "index.parquet")}
    assert keys("Index and drops") == set(pq.read_schema(version / "drops.parquet").names)
    assert set(get_args(Reason)) <= set(names([section("Index and drops")]))


def test_json_files(sample_data: Path) -> None:
    version = sample_data / "annotations" / "v1"
    manifest = json.loads((version / "manifest.json").read_text())
    marker = json.loads((version / "300w" / "indoor-0000.json").read_text())
    listed = json.loads((sample_data / "dataset.json").read_text())
    assert manifest.keys() | manifest["configuration"].keys() <= keys("Manifest")
    assert marker.keys() <= keys("Markers")
    assert listed.keys() <= keys("dataset.json")


def test_every_kind_of_file(sample_data: Path) -> None:
    """The tree at the top has each file; a gallery is a folder."""
    tree = re.search(r"^DATASET/\n(.*?)^```", DOCUMENT.read_text(encoding="utf-8"), re.M | re.S)
    assert tree
    words = (line.split()[0] for line in tree[1].splitlines())
    known = [re.sub("<[^>]+>", "*", word) for word in words] + ["galleries/*/*/*", "subsets/*/*.png", ".lock"]
    files = [path.relative_to(sample_data) for path in sample_data.rglob("*") if path.is_file()]
    assert [path for path in files if not any(path.match(pattern) for pattern in known)] == []


def test_subsets(tmp_path: Path) -> None:
    dataset = open_dataset(write_dataset(tmp_path / "ds", make_index(menpo=60, aflw2000=60)))
    path, _ = write_balanced(dataset, BalancedOptions(total=30))
    write_split(dataset, SplitOptions())
    lines = [line[2:].split(":", 1) for line in section("Subsets").splitlines() if line.startswith("- ")]
    documented = {name: set(names([text])) for files, text in lines for name in names([files])}
    for file in path.parent.glob("*.parquet"):
        assert set(pq.read_schema(file).names) <= documented[file.stem], file

"""Whatever changes in a data set, `ls3dw verify` names the file."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
from conftest import Command

from ls3dw.core.files import dump_json, sha256_file
from ls3dw.dataset.open import open_dataset
from ls3dw.dataset.store import Store, read_dataset, write_dataset

VERSION = "annotations/v1"


@pytest.fixture
def data(sample_data: Path, tmp_path: Path) -> Path:
    """A copy that may be damaged."""
    return Path(shutil.copytree(sample_data, tmp_path / "data"))


def faults(ls3dw: Command, data: Path) -> dict[str, str]:
    """What `ls3dw verify` finds, asked in both ways."""
    told, listed = ls3dw("verify", data), ls3dw("verify", data, "--json")
    found = {fault["path"]: fault["problem"] for fault in json.loads(listed.out)["faults"]}
    assert told.status == listed.status == (1 if found else 0)
    assert told.out.splitlines()[:-1] == [f"{path}: {problem}" for path, problem in found.items()]
    assert listed.err == ""
    if found:
        assert str(data) in told.error
    return found


def test_a_whole_data_set(ls3dw: Command, sample_data: Path) -> None:
    assert faults(ls3dw, sample_data) == {}
    told = ls3dw("verify", sample_data)
    assert re.fullmatch(r"\d+ files checked, 0 faults\n", told.out)
    assert int(told.out.split()[0]) >= 30
    assert told.err == ""


@pytest.mark.parametrize(
    "path",
    [
        "faces/300w/indoor-0000.h5",
        f"{VERSION}/300vw/114-0000.h5",
        f"{VERSION}/300vw/114-0000.json",
        f"{VERSION}/configuration.json",
        f"{VERSION}/index.parquet",
        f"{VERSION}/drops.parquet",
    ],
)
def test_a_flipped_bit_a_lost_byte_a_lost_file(ls3dw: Command, data: Path, path: str) -> None:
    file = data / path
    whole = bytearray(file.read_bytes())
    whole[len(whole) // 2] ^= 1
    file.write_bytes(whole)
    assert faults(ls3dw, data).keys() == {path}
    file.write_bytes(whole[:-1])
    assert "bytes, expected" in faults(ls3dw, data)[path]
    file.unlink()
    assert faults(ls3dw, data) == {path: "missing"}


def test_what_an_interrupted_build_left(ls3dw: Command, data: Path) -> None:
    path = "faces/300w/indoor-0001.h5.partial"
    (data / path).touch()
    assert faults(ls3dw, data) == {path: "left behind by an interrupted build"}


def test_an_edited_index_whose_manifest_was_edited_too(ls3dw: Command, data: Path) -> None:
    """The hashes fit, but index, counts and shards do not agree."""
    path = f"{VERSION}/index.parquet"
    whole = open_dataset(data).index

    def edited(index: pd.DataFrame) -> dict[str, str]:
        index.to_parquet(data / path)
        manifest = json.loads((data / VERSION / "manifest.json").read_text())
        (record,) = [file for file in manifest["files"] if file["path"] == path]
        record |= {"size": (data / path).stat().st_size, "sha256": sha256_file(data / path)}
        (data / VERSION / "manifest.json").write_bytes(dump_json(manifest))
        head = read_dataset(data)
        del head["manifests"]
        write_dataset(Store(data), head)
        return faults(ls3dw, data)

    assert edited(whole) == {}
    assert "11 rows, 12 read" in edited(whole[whole["id"] != "aflw2000/image00007"])[path]
    assert "stands in it twice" in str(edited(whole.assign(id=whole["id"].iloc[0]))[path])
    other = edited(whole.replace({"id": {"aflw2000/image00007": "aflw2000/image00008"}}))
    assert other.keys() == {"faces/aflw2000/all-0000.h5", f"{VERSION}/aflw2000/all-0000.h5"}


@pytest.mark.parametrize("name", ["dataset.json", f"{VERSION}/manifest.json"])
@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b"{}"])
def test_a_damaged_head_is_an_error(ls3dw: Command, data: Path, name: str, content: bytes | None) -> None:
    (data / name).unlink()
    if content is not None:
        (data / name).write_bytes(content)
    for command in ("verify", "info"):
        ended = ls3dw(command, data)
        assert ended.status == 1
        assert str(data) in ended.error


def test_not_a_data_set(ls3dw: Command, tmp_path: Path, sample_data: Path) -> None:
    assert "not a data set" in ls3dw("verify", tmp_path).error
    assert "no version 'v7'" in ls3dw("verify", sample_data, "--version", "v7").error

"""`verify` vouches for what no manifest lists: subsets, galleries, the card, and the heads themselves."""

from __future__ import annotations

import importlib
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from conftest import Command
from stress.flipped_bits import found

from ls3dw.dataset.open import open_dataset
from ls3dw.dataset.records import SUMS, check_seal, dump_sums, read_sums, seal_text
from ls3dw.dataset.store import Store, read_dataset, write_dataset
from ls3dw.dataset.subsets.produce import write_split
from ls3dw.dataset.subsets.split import SplitOptions
from ls3dw.dataset.verify import verify
from ls3dw.errors import DatasetError


@pytest.fixture
def data(sample_data: Path, tmp_path: Path) -> Path:
    root = Path(shutil.copytree(sample_data, tmp_path / "data"))
    shutil.rmtree(root / "galleries")
    shutil.rmtree(root / "subsets", ignore_errors=True)
    return root


def test_any_flipped_bit_of_a_list_of_sums_is_found(tmp_path: Path) -> None:
    path = tmp_path / SUMS
    digests = {"tiles/000001.jpg": "0a" * 32, "index.html": "ff" * 32}
    whole = dump_sums(digests)
    path.write_bytes(whole)
    assert read_sums(path) == digests
    for bit in range(8 * len(whole)):
        changed = bytearray(whole)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        try:
            assert read_sums(path) != digests
        except DatasetError:
            continue


def test_any_flipped_bit_of_a_card_is_found() -> None:
    whole = seal_text("# Card\n\nA text.\n")
    assert check_seal(whole) == "whole"
    for bit in range(8 * len(whole)):
        changed = bytearray(whole)
        changed[bit // 8] ^= 1 << bit % 8
        assert check_seal(bytes(changed)) == "damaged"
    assert check_seal(b"# Card\n\nA text.\n") == "none"


def test_flipped_bits_in_every_kind_of_file(ls3dw: Command, data: Path) -> None:
    """A small part of `make stress`."""
    write_split(open_dataset(data), SplitOptions())
    assert ls3dw("gallery", data, "--show", "random", "--limit", 2).status == 0
    assert verify(data) == (verify(data).files, [], [])
    rng = np.random.default_rng(0)
    for path in sorted(path for path in data.rglob("*") if path.is_file() and path.stat().st_size):
        whole = path.read_bytes()
        changed = bytearray(whole)
        changed[int(rng.integers(0, len(whole)))] ^= 1 << int(rng.integers(0, 8))
        path.write_bytes(changed)
        assert found(data), path
        path.write_bytes(whole)


def test_sha256sum_reads_the_lists(ls3dw: Command, data: Path) -> None:
    assert ls3dw("gallery", data, "--show", "random", "--limit", 2).status == 0
    folder = data / "galleries" / "v1" / "random"
    program = shutil.which("sha256sum")
    if program is None:
        pytest.skip("no sha256sum")
    subprocess.run([program, "--check", "--quiet", "--strict", SUMS], cwd=folder, check=True)


def test_an_old_data_set_verifies_with_notes(ls3dw: Command, data: Path) -> None:
    head = read_dataset(data)
    del head["manifests"]
    (data / "dataset.json").write_text(json.dumps(head))
    card = data / "DATASET_CARD.md"
    card.write_bytes(card.read_bytes().rpartition(b"<!--")[0])
    (data / "galleries" / "v1" / "worst").mkdir(parents=True)
    (data / "galleries" / "v1" / "worst" / "index.html").touch()
    told = ls3dw("verify", data)
    assert told.status == 0
    for name in ("dataset.json", "manifest.json", "DATASET_CARD.md", "galleries/v1/worst"):
        assert any(name in line and line.startswith("note: ") for line in told.err.splitlines())
    write_dataset(Store(data), head)
    assert [note.partition(":")[0] for note in verify(data).notes] == ["DATASET_CARD.md", "galleries/v1/worst"]


def test_what_cannot_be_read_is_no_damage(ls3dw: Command, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("ls3dw.dataset.verify")
    hashed = module.sha256_file

    def fail(path: Path) -> str:
        if path.name == "drops.parquet":
            raise OSError(5, "Input/output error", str(path))
        return hashed(path)

    monkeypatch.setattr(module, "sha256_file", fail)
    told = ls3dw("verify", data)
    assert (told.status, told.out.splitlines()[0]) == (
        1,
        "annotations/v1/drops.parquet: could not be read (Input/output error)",
    )
    assert "says nothing about its bytes" in told.error
    assert json.loads(ls3dw("verify", data, "--json").out)["faults"][0]["kind"] == "unreadable"

"""The command line: quick help, exit codes, JSON, the sample."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pandas as pd
import pytest
from conftest import Command

from ls3dw.cli import COMMANDS
from ls3dw.core.files import sha256_file
from ls3dw.dataset.open import open_dataset

HEAVY = {"torch", "numpy", "pandas", "cv2", "h5py", "scipy", "PIL", "pyarrow", "yaml"}

ASK_FOR_HELP = """
import sys
from ls3dw.cli import main
sys.argv = ["ls3dw", *sys.argv[1:], "--help"]
try:
    main()
finally:
    print(*sys.modules, file=sys.stderr)
"""


@pytest.mark.parametrize(
    "words", [[], *([name] for name in COMMANDS), *(["models", name] for name in ("list", "info", "fetch", "import"))]
)
def test_help_loads_nothing_heavy(program: list[str], words: list[str]) -> None:
    ended = subprocess.run([program[0], "-c", ASK_FOR_HELP, *words], capture_output=True, text=True, check=True)
    assert ended.stdout.startswith("Usage: ls3dw")
    assert not HEAVY & set(ended.stderr.split())


@pytest.mark.parametrize(
    "words",
    [
        ("bild",),
        ("build", "--limit", "many"),
        ("build", "--decode", "fast"),
        ("build", "--pipeline", "missing.yaml"),
        ("build", "--root", "a", "--root", "b"),
        ("build", "extra"),
        ("verify",),
        ("info",),
        ("sample",),
        ("models", "info"),
        ("models", "fetch"),
        ("models", "import"),
    ],
)
def test_wrong_usage_is_2(ls3dw: Command, words: tuple[str, ...]) -> None:
    ended = ls3dw(*words)
    assert ended.status == 2
    assert ended.out == ""
    assert "Error: " in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.parametrize(
    "words",
    [
        ("--limit", "0"),
        ("--workers", "-1"),
        ("--shard-size", "0"),
        ("--batch", "0"),
        ("--source", "lfw"),
        ("--source", "sample,300w", "--root", "x"),
        ("--source", "menpo"),
        ("--source", "menpo", "--root", "300w=x"),
    ],
)
def test_options_that_cannot_be_are_2(
    ls3dw: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = ls3dw("build", *words)
    assert (ended.status, ended.out) == (2, "")
    assert "Error: " in ended.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (("info", "missing"), "missing: not a data set"),
        (("models", "info", "missing"), "neither a file nor one of the bundled"),
        (("build", "--source", "menpo", "--root", "missing", "--dry-run"), "is not a folder"),
    ],
)
def test_what_cannot_be_done_is_1(
    ls3dw: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], fault: str
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = ls3dw(*words)
    assert (ended.status, ended.out) == (1, "")
    assert fault in ended.error
    assert list(tmp_path.iterdir()) == []


def test_version(ls3dw: Command) -> None:
    assert ls3dw("--version").out.startswith("ls3dw, version ")


def test_info(ls3dw: Command, sample_data: Path) -> None:
    listed = json.loads(ls3dw("info", sample_data, "--json").out)
    assert (listed["faces"], listed["version"], listed["versions"]) == (132, "v1", ["v1"])
    assert {name: counts["read"] for name, counts in listed["sources"].items()} == {
        "300vw": 96,
        "300w": 12,
        "aflw2000": 12,
        "menpo": 12,
    }
    assert all(model["name"].startswith("tiny-") for model in listed["models"].values())
    told = ls3dw("info", sample_data)
    assert told.status == 0
    assert "faces      132, version v1 of v1" in told.out
    assert Path(listed["gallery"]).is_file()


def test_models(ls3dw: Command, tiny_models: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LS3DW_HOME", str(tmp_path))
    listed = json.loads(ls3dw("models", "list", "--json").out)
    told = ls3dw("models", "list").out
    assert {model["kind"] for model in listed if model["status"] == "bundled"} == {"2d", "2d-to-3d", "depth"}
    assert {model["status"] for model in listed} == {"bundled", "published"}
    assert all(model["name"] in told for model in listed)
    facts = json.loads(ls3dw("models", "info", tiny_models["depth"], "--json").out)
    assert (facts["name"], facts["kind"], facts["guidance_std"]) == ("tiny-depth", "depth", 2.0)
    assert "parameters" in ls3dw("models", "info", tiny_models["depth"]).out


def test_sample_in_the_real_layouts(ls3dw: Command, tmp_path: Path, quick: list[str]) -> None:
    folder = tmp_path / "sample"
    assert ls3dw("sample", folder).status == 0
    for path in ("300W/01_Indoor/indoor_001.png", "300VW/001/vid.avi", "300VW/001/annot/000001.pts"):
        assert (folder / path).is_file()
    assert len(list((folder / "Menpo").glob("*.pts"))) == len(list((folder / "AFLW2000").glob("*.mat"))) == 12
    again = ls3dw("sample", folder)
    assert again.status == 1
    assert "not empty; choose a new folder" in again.error

    options = ("--limit", "3", *quick)
    sources = ("--source", "300w,300vw,menpo,aflw2000", "--root", folder)
    assert ls3dw("build", "--out", tmp_path / "written", *sources, *options).status == 0
    assert ls3dw("build", "--out", tmp_path / "embedded", *options).status == 0
    assert pictures(tmp_path / "written") == pictures(tmp_path / "embedded")
    written, embedded = (open_dataset(tmp_path / name).index for name in ("written", "embedded"))
    pd.testing.assert_frame_equal(written, embedded, check_exact=True)


def pictures(out: Path) -> dict[str, str]:
    return {path.name: sha256_file(path) for path in out.glob("faces/*/*.h5")}

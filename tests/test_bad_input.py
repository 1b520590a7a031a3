"""Whatever is wrong with the input: the good neighbours are kept, each fault is recorded, errors are one line."""

from __future__ import annotations

import errno
import json
import os
import pickle
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import Command
from helpers import pts

from ls3dw.core.resources import folder
from ls3dw.dataset.open import open_dataset
from ls3dw.dataset.verify import verify

EMBEDDED = folder("embedded")
PTS = (EMBEDDED / "300W/01_Indoor/indoor_001.pts").read_bytes()
PNG = (EMBEDDED / "300W/01_Indoor/indoor_001.png").read_bytes()
JPG = (EMBEDDED / "AFLW2000/image00007.jpg").read_bytes()
MAT = (EMBEDDED / "AFLW2000/image00007.mat").read_bytes()

HOLD = """
import sys
from pathlib import Path
from ls3dw.core.files import exclusive
with exclusive(Path(sys.argv[1])):
    print("held", flush=True)
    input()
"""

ODD_NAMES = ["façade 顔", 'it\'s "odd" (1)', "two\nlines", "n" * 240, "-leading --dash", "%s;$(x)&<b>", "dots..in.it"]


def numbers() -> np.ndarray:
    """The points of PTS as written."""
    return np.array(PTS.decode().partition("{")[2].partition("}")[0].split(), dtype=float).reshape(-1, 2)


def changed(x: float) -> bytes:
    points = numbers()
    points[7, 0] = x
    return pts(points)


def bad_pictures(whole: bytes) -> dict[str, bytes]:
    return {"cut": whole[: len(whole) // 2], "empty": b"", "fake": b"<html>no picture</html>"}


PTS_FAULTS = {
    "nan": (changed(float("nan")), "non-finite points"),
    "infinite": (changed(float("inf")), "non-finite points"),
    "few": (pts(numbers()[:51]), "wrong number of points"),
    "flat": (pts(numbers() * (1, 0) + 5), "empty box"),
    "outside": (pts(numbers() + 5000), "outside picture"),
    "words": (b"no points", "malformed annotation"),
    "nothing": (b"", "malformed annotation"),
}


def fill(root: Path, suffix: str, picture: bytes, annotation_suffix: str, annotation: bytes) -> dict[str, str]:
    """Write a folder of good and bad pairs; return the reason of each fault by stem."""
    root.mkdir(parents=True)
    faults = {}

    def put(stem: str, picture: bytes | None, annotation: bytes | None, reason: str | None = None) -> None:
        if picture is not None:
            (root / f"{stem}{suffix}").write_bytes(picture)
        if annotation is not None:
            (root / f"{stem}{annotation_suffix}").write_bytes(annotation)
        if reason:
            faults[stem] = reason

    for stem in ("good_1", "good_2", *ODD_NAMES):
        put(stem, picture, annotation)
    for stem, content in bad_pictures(picture).items():
        put(stem, content, annotation, "unreadable picture")
    put("lonely_annotation", None, annotation, "missing picture")
    put("lonely_picture", picture, None, "missing annotation")
    put("folder", None, annotation, "unreadable picture")
    (root / f"folder{suffix}").mkdir()
    if annotation_suffix == ".pts":
        for stem, (content, reason) in PTS_FAULTS.items():
            put(stem, picture, content, reason)
    else:
        put("cut_annotation", picture, annotation[:300], "malformed annotation")
        put("nothing", picture, b"", "malformed annotation")
    return faults


def fill_videos(root: Path) -> dict[str, str]:
    """Write good and bad videos of at most 48 frames; return the reason of each fault by what follows the source."""
    whole = EMBEDDED / "300VW/001"
    names = ("good", "more_frames", "fewer_frames", "cut", "empty", "no_video")
    for name in names:
        shutil.copytree(whole, root / name)
    avi = (whole / "vid.avi").read_bytes()
    for number in range(47, 49):
        (root / "more_frames/annot" / f"{number:06d}.pts").unlink()
        (root / "fewer_frames/annot" / f"{number + 2:06d}.pts").write_bytes(PTS)
    (root / "empty/vid.avi").write_bytes(b"")
    (root / "no_video/vid.avi").unlink()
    (root / "cut/vid.avi").write_bytes(avi[: len(avi) // 2])
    faults = {f"more_frames/{n:06d}": "frame without annotation" for n in (47, 48)}
    faults |= {f"fewer_frames/{n:06d}": "annotation without frame" for n in (49, 50)}
    faults |= {f"{name}/{n:06d}": "unreadable video" for name in ("empty", "no_video") for n in range(1, 49)}
    return faults


def build_and_check(ls3dw: Command, words: list[object], out: Path, source: str, faults: dict[str, str]) -> list[str]:
    """Build one source; check that its drops are the faults and that nothing is lost; return the ids of its faces."""
    ended = ls3dw("build", "--out", out, "--source", source, *words, "--json")
    assert ended.status == 0, ended.err
    assert "Traceback" not in ended.err
    counts = json.loads(ended.out)["sources"][source]
    assert counts["read"] == counts["written"] + sum(counts["dropped"].values())
    dataset = open_dataset(out)
    drops = pd.read_parquet(dataset.store.drops_file("v1"))
    assert dict(zip(drops["id"], drops["reason"], strict=True)) == faults
    assert drops["detail"].str.len().min() > 0
    assert drops["detail"].map(str.isprintable).all()
    assert verify(out)[1] == []
    return list(dataset.index["id"])


@pytest.mark.parametrize(
    ("source", "place", "prefix", "picture", "annotation"),
    [
        ("300w", "300W/01_Indoor", "01_Indoor/", (".png", PNG), (".pts", PTS)),
        ("menpo", "Menpo", "", (".png", PNG), (".pts", PTS)),
        ("aflw2000", "AFLW2000", "", (".jpg", JPG), (".mat", MAT)),
    ],
)
def test_a_folder_of_faults(
    ls3dw: Command,
    tmp_path: Path,
    quick: list[str],
    source: str,
    place: str,
    prefix: str,
    picture: tuple[str, bytes],
    annotation: tuple[str, bytes],
) -> None:
    faults = fill(tmp_path / "in" / place, *picture, *annotation)
    expected = {f"{source}/{prefix}{stem}": reason for stem, reason in faults.items()}
    words = ["--root", tmp_path / "in", "--shard-size", "4", *quick]
    ids = build_and_check(ls3dw, words, tmp_path / "out", source, expected)
    stems = ["good_1", "good_2", *(name.replace("\n", "\\n") for name in ODD_NAMES)]
    assert sorted(ids) == sorted(f"{source}/{prefix}{stem}" for stem in stems)


def test_videos_with_faults(ls3dw: Command, tmp_path: Path, quick: list[str]) -> None:
    faults = fill_videos(tmp_path / "in")
    out = tmp_path / "out"
    # How many frames are left of the cut video depends on its file; all that follow are dropped.
    words = ["--root", tmp_path / "in", "--shard-size", "20", *quick]
    assert ls3dw("build", "--out", out, "--source", "300vw", *words).status == 0
    last = sum(face.startswith("300vw/cut/") for face in open_dataset(out).index["id"])
    assert 0 < last < 48
    faults |= {f"cut/{n:06d}": "annotation without frame" for n in range(last + 1, 49)}
    drops = pd.read_parquet(out / "annotations/v1/drops.parquet")
    if drops.set_index("id")["reason"][f"300vw/cut/{last + 1:06d}"] == "unreadable picture":
        faults[f"cut/{last + 1:06d}"] = "unreadable picture"  # the file ends within this frame
    ids = build_and_check(ls3dw, words, out, "300vw", {f"300vw/{name}": reason for name, reason in faults.items()})
    assert len(ids) == 48 + 46 + 48 + last


def test_a_build_of_faults_only(ls3dw: Command, tmp_path: Path, quick: list[str]) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.png").write_bytes(PNG)
    (tmp_path / "in/b.pts").write_bytes(PTS)
    faults = {"menpo/a": "missing annotation", "menpo/b": "missing picture"}
    assert build_and_check(ls3dw, ["--root", tmp_path / "in", *quick], tmp_path / "out", "menpo", faults) == []
    assert ls3dw("info", tmp_path / "out").status == 0


@pytest.mark.parametrize("source", ["300w", "300vw", "menpo", "aflw2000"])
def test_roots_that_hold_nothing(ls3dw: Command, tmp_path: Path, quick: list[str], source: str) -> None:
    root, out = tmp_path / "in", tmp_path / "out"
    words = ("build", "--source", source, "--root", root, "--out", out, *quick)
    assert f"{source}: {root} is not a folder" in ls3dw(*words).error
    root.mkdir()
    assert f"{source}: {root} is empty" in ls3dw(*words).error
    (root / "readme.txt").touch()
    wrong = ls3dw(*words)
    assert wrong.status == 1
    assert f"nothing of the data set in {root}" in wrong.error
    assert f"--root {source}=DIR" in wrong.error


def test_outputs_that_cannot_be_used(ls3dw: Command, tmp_path: Path, quick: list[str]) -> None:
    words = ("build", *quick, "--limit", "1")
    (tmp_path / "other").mkdir()
    (tmp_path / "other/thesis.tex").touch()
    refused = ls3dw(*words, "--out", tmp_path / "other")
    assert (refused.status, f"{tmp_path / 'other'}: not empty and not a data set" in refused.error) == (1, True)
    assert "choose another --out" in refused.error

    (tmp_path / "file").touch()
    for out in (tmp_path / "file", tmp_path / "file/below", Path("/proc/ls3dw")):
        refused = ls3dw(*words, "--out", out)
        assert refused.status == 1
        assert str(out) in refused.error

    refused = ls3dw(*words, "--out", tmp_path / "d", "--version-name", "../v1")
    assert (refused.status, "version name '../v1'" in refused.error) == (1, True)


def test_an_output_in_use(ls3dw: Command, tmp_path: Path, quick: list[str]) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout
        other.stdout.readline()
        refused = ls3dw("build", "--out", tmp_path, *quick, "--limit", "1")
        other.communicate("\n")
    assert refused.status == 1
    assert f"{tmp_path}: in use by another ls3dw process" in refused.error
    assert ls3dw("build", "--out", tmp_path, *quick, "--limit", "1").status == 0


@pytest.mark.parametrize("gpu", ["7", "0,7"])
def test_gpus_that_are_not_there(ls3dw: Command, tmp_path: Path, quick: list[str], gpu: str) -> None:
    refused = ls3dw("build", "--out", tmp_path / "d", *quick, "--gpu", gpu)
    assert refused.status == 1
    assert "this machine shows" in refused.error
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--gpu", "x"], "gpu 'x': expected auto, none, or ids"),
        (["--gpu", "0,x"], "gpu '0,x'"),
        (["--gpu", ""], "gpu ''"),
        (["--gpu", "-1"], "gpu '-1'"),
        (["--source", "300x"], "source '300x': expected one of"),
        (["--source", "300w"], "source 300w needs its folder: --root DIR"),
        (["--limit", "0", "--batch", "-3"], "limit 0: expected at least 1; batch -3"),
        (["--root", "a", "--root", "b"], "both for all sources"),
    ],
)
def test_wrong_usage(ls3dw: Command, tmp_path: Path, words: list[str], said: str) -> None:
    refused = ls3dw("build", "--out", tmp_path / "d", *words)
    assert refused.status == 2
    assert said in refused.err
    assert "Traceback" not in refused.err
    assert not (tmp_path / "d").exists()


def test_weights_that_cannot_be_used(
    ls3dw: Command, tmp_path: Path, quick: list[str], tiny_models: dict[str, str]
) -> None:
    def refused(weights: object, option: str = "--model-2d") -> str:
        ended = ls3dw("build", "--out", tmp_path / "d", *quick, option, weights)
        assert ended.status == 1
        assert not (tmp_path / "d").exists()
        return ended.error

    assert "gives 'depth' landmarks; expected 2d" in refused(tiny_models["depth"])
    assert "gives '2d' landmarks; expected depth" in refused(tiny_models["2d"], "--model-depth")
    assert "neither a file nor one of the bundled" in refused(tmp_path / "missing.safetensors")

    pickled = tmp_path / "fan.pth.tar"
    pickled.write_bytes(pickle.dumps({"weights": 1}))
    assert "a pickle that torch.save did not write" in refused(pickled)

    good = Path(tiny_models["2d"])
    copy = tmp_path / "copy.safetensors"
    shutil.copy(good, copy)
    assert "missing; weights need their contract" in refused(copy)
    contract = json.loads(good.with_suffix(".json").read_text())

    def describe(**changes: object) -> None:
        copy.with_suffix(".json").write_text(json.dumps(contract | changes))

    describe(network={"class": "FAN", "stacks": 1, "features": 32})
    assert "weights of another network" in refused(copy)
    describe(network={"class": "FAN", "stacks": 0})
    assert "stacks" in refused(copy)
    describe(network={"class": "VGG"})
    assert "expected an object with class 'FAN'" in refused(copy)
    describe(kind="4d")
    assert "kind '4d'" in refused(copy)
    describe()
    copy.write_bytes(copy.read_bytes()[:-1] + b"!")
    assert "SHA-256" in refused(copy)
    copy.with_suffix(".json").write_text("{")
    assert "not JSON" in refused(copy)


def test_a_full_disk(ls3dw: Command, tmp_path: Path, quick: list[str], program: list[str]) -> None:
    """No file may grow beyond 100 kB: the first shards of pictures do not fit."""

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    words = ["build", "--out", str(tmp_path), *quick, "--limit", "4"]
    full = subprocess.run([*program, *words], capture_output=True, text=True, preexec_fn=limit)
    assert full.returncode == 1
    (message,) = (line for line in full.stderr.splitlines() if not line.startswith("note: "))
    assert message.startswith(f"Error: {tmp_path}/")
    assert os.strerror(errno.EFBIG) in message
    assert "make room and run the same command again" in message
    assert list(tmp_path.rglob("*.partial")) == []
    assert ls3dw(*words).status == 0
    assert verify(tmp_path)[1] == []

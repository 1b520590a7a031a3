"""Rendered heads on disk: the same whatever interrupts it, in both layouts, and read back as they were rendered."""

from __future__ import annotations

import fcntl
import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Command
from training_helpers import ALONE, NETWORKS, open_dots, options

from ls3dw.core.geometry import CROP_SIZE, apply, crop_affine, invert
from ls3dw.core.pose import head_pose
from ls3dw.core.sample import Drop, Sample
from ls3dw.dataset.open import open_dataset
from ls3dw.errors import ConfigurationError, DatasetError
from ls3dw.sources import open_source
from ls3dw.synth import renderer as rendering
from ls3dw.synth import write
from ls3dw.synth.renderer import Rendered, Renderer, RenderOptions
from ls3dw.synth.rng import SplitRng
from ls3dw.synth.shade.background import make_bank
from ls3dw.synth.write import LP_FOLDER, ZOOM, HeadsOptions, render_heads, write_heads
from ls3dw.training.loop.trainer import Trainer

CHUNK = 3
COUNT = 5
SIZE = 64
SEED = 7

Files = dict[str, bytes]


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    bank = make_bank(SplitRng(1), 8, 48)
    return Renderer("cpu", options=RenderOptions(size=SIZE, zoom=ZOOM), bank=bank)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small chunks, and on the command line small pictures before few patterns."""
    monkeypatch.setattr(write, "CHUNK", CHUNK)
    monkeypatch.setattr(write, "SIDE", SIZE)
    monkeypatch.setattr(rendering, "make_bank", lambda draws, folder: make_bank(draws, 8, 48, folder))


def files(folder: Path) -> Files:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def write_all(folder: Path, renderer: Renderer, **changes: Any) -> Path:
    with pytest.MonkeyPatch.context() as patch:  # module-wide fixtures come before those of a test
        patch.setattr(write, "CHUNK", CHUNK)
        chosen = HeadsOptions(**{"count": COUNT, "seed": SEED, **changes})
        assert sum(finished for finished, _ in write_heads(folder, chosen, renderer)) == chosen.count
    return folder


@pytest.fixture(scope="module")
def heads(renderer: Renderer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_all(tmp_path_factory.mktemp("heads") / "heads", renderer)


@pytest.fixture(scope="module")
def heads_lp(renderer: Renderer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_all(tmp_path_factory.mktemp("lp") / "heads", renderer, layout="300w-lp", degraded=False)


@pytest.fixture(scope="module")
def drawn(renderer: Renderer) -> dict[str, np.ndarray]:
    """Render once more what the folders hold."""
    parts = [renderer.render(CHUNK, SplitRng(SEED).child(chunk)) for chunk in range(-(-COUNT // CHUNK))]
    return {
        entry.name: torch.cat([getattr(part, entry.name) for part in parts])[:COUNT].numpy()
        for entry in fields(Rendered)
    }


def test_every_head_has_its_files(heads: Path, heads_lp: Path) -> None:
    names = [f"head_{number:06d}" for number in range(COUNT)]
    assert set(files(heads)) == {".heads.json", *(f"{name}{end}" for name in names for end in (".jpg", ".json"))}
    assert set(files(heads_lp)) == {
        ".heads.json",
        *(f"{LP_FOLDER}/{name}{end}" for name in names for end in (".jpg", ".mat")),
        *(f"landmarks/{LP_FOLDER}/{name}_pts.mat" for name in names),
    }


def test_points_come_back_to_the_bit(drawn: dict[str, np.ndarray], heads: Path) -> None:
    samples = list(open_source("heads", heads))
    assert [sample.id for sample in samples] == [f"heads/head_{number:06d}" for number in range(COUNT)]
    for number, sample in enumerate(samples):
        assert sample.annotation.dtype == np.float32
        assert np.array_equal(sample.annotation, drawn["landmarks_2d"][number])
        assert np.array_equal(sample.extra["landmarks_3d"], drawn["landmarks_3d"][number])
        assert np.array_equal(sample.extra["visible"], drawn["visible"][number])
        assert np.array_equal(sample.extra["pose"], drawn["pose"][number])
        assert sample.yaw == drawn["pose"][number, 0]
        assert sample.image().shape == (SIZE, SIZE, 3)


def test_300w_lp_is_one_based_in_its_files_and_not_when_read(drawn: dict[str, np.ndarray], heads_lp: Path) -> None:
    from scipy.io import loadmat

    flat, solid, pose = (drawn[name] for name in ("landmarks_2d", "landmarks_3d", "pose"))
    for number, sample in enumerate(open_source("300wlp", heads_lp)):
        points = loadmat(heads_lp / "landmarks" / LP_FOLDER / f"head_{number:06d}_pts.mat")
        assert points["pts_2d"] == pytest.approx(flat[number] + 1, abs=1e-5)
        own = loadmat(heads_lp / LP_FOLDER / f"head_{number:06d}.mat")
        assert own["pt2d"].shape == (2, 68)
        assert np.degrees(own["Pose_Para"][0, :3]) == pytest.approx(pose[number, [1, 0, 2]], abs=1e-3)
        assert sample.annotation == pytest.approx(flat[number], abs=1e-5)
        assert sample.extra["points_3d"][:, :2] == pytest.approx(solid[number, :, :2], abs=1e-5)
        depth = solid[number, :, 2]
        assert sample.extra["points_3d"][:, 2] == pytest.approx(depth - depth.mean(), abs=1e-4)
        assert sample.yaw == pytest.approx(pose[number, 0], abs=1e-3)
        picture = drawn["images"][number].transpose(1, 2, 0)
        assert abs(sample.image().astype(int) - picture).mean() < 3  # JPEG


def test_the_crop_fits_in_the_pictures() -> None:
    """What the networks see has room around it in most pictures, so that it can be turned and moved."""
    stager = Renderer("cpu", options=RenderOptions(size=SIZE, zoom=ZOOM), bank=torch.zeros(1, 3, 8, 8).byte())
    points = stager.stage(40, SplitRng(3)).landmarks_2d.numpy()
    corners = np.array([[-0.5, -0.5], [CROP_SIZE - 0.5] * 2])
    boxes = np.concatenate((points.min(1), points.max(1)), axis=1)
    placed = np.stack([apply(invert(crop_affine(box)), corners) for box in boxes])
    sides = (placed[:, 1] - placed[:, 0])[:, 0]
    assert np.median(sides) / SIZE == pytest.approx(ZOOM, rel=0.1)
    assert ((placed > -0.5) & (placed < SIZE - 0.5)).all((1, 2)).mean() > 0.9


def test_a_kill_at_any_moment_changes_nothing(renderer: Renderer, heads: Path, tmp_path: Path) -> None:
    folder = tmp_path / "killed"
    chunks = write_heads(folder, HeadsOptions(COUNT, SEED), renderer)
    assert next(chunks) == (CHUNK, CHUNK)
    chunks.close()
    (folder / "head_000001.json").unlink()  # the picture was written and the annotation was not
    (folder / f"head_000003.jpg.{'0' * 16}.partial").write_bytes(b"half a pic")
    kept = (folder / "head_000000.jpg").stat().st_mtime_ns
    write_all(folder, renderer)
    assert files(folder) == files(heads)
    assert (folder / "head_000000.jpg").stat().st_mtime_ns == kept


def test_more_heads_are_added_and_finished_ones_kept(renderer: Renderer, heads: Path, tmp_path: Path) -> None:
    folder = write_all(tmp_path / "grown", renderer, count=2)
    few = files(folder)
    write_all(folder, renderer)
    assert files(folder) == files(heads)
    assert few.items() <= files(heads).items()


def test_one_call_renders_and_reports(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    first = render_heads(tmp_path, count=2, gpu="none", progress=lambda *done: seen.append(done))
    assert (first.folder, first.count, first.written, seen) == (tmp_path, 2, 2, [(2, 2)])
    assert render_heads(tmp_path, count=4, gpu="none").written == 2


def test_seed_and_quality_matter(renderer: Renderer, heads: Path, tmp_path: Path) -> None:
    other = files(write_all(tmp_path / "other", renderer, count=1, seed=SEED + 1))
    clean = files(write_all(tmp_path / "clean", renderer, count=1, degraded=False))
    same = files(heads)
    assert other["head_000000.json"] != same["head_000000.json"] == clean["head_000000.json"]
    assert clean["head_000000.jpg"] != same["head_000000.jpg"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seed": 8}, r"seed 7 \(asked for 8\); choose another folder"),
        ({"layout": "300w-lp"}, r"layout heads \(asked for 300w-lp\)"),
        ({"degraded": False}, r"degraded True \(asked for False\)"),
    ],
)
def test_another_request_is_refused(renderer: Renderer, heads: Path, change: dict[str, Any], said: str) -> None:
    before = files(heads)
    with pytest.raises(ConfigurationError, match=said):
        write_all(heads, renderer, **change)
    wider = Renderer("cpu", renderer.head, RenderOptions(size=80), renderer._own_bank)
    with pytest.raises(ConfigurationError, match=r"size 64 \(asked for 80\), zoom 0.625 \(asked for 1.0\)"):
        write_all(heads, wider)
    assert files(heads) == before


def test_a_folder_of_something_else_is_left_alone(renderer: Renderer, tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"mine")
    with pytest.raises(ConfigurationError, match="not empty and not written by ls3dw synth"):
        write_all(tmp_path, renderer)
    assert set(files(tmp_path)) == {"holiday.jpg"}


def test_two_at_a_time_are_refused(renderer: Renderer, tmp_path: Path) -> None:
    with (tmp_path / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(DatasetError, match="in use by another"):
            write_all(tmp_path, renderer)


@pytest.mark.parametrize("values", [{"count": 0}, {"count": 1, "seed": -1}, {"count": 1, "layout": "coco"}])
def test_requests_that_make_no_sense(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="expected a count from 1"):
        HeadsOptions(**values)


def test_on_the_command_line(tmp_path: Path, ls3dw: Command, quick: list[str]) -> None:
    """From rendering to a data set and a trained network, in both layouts."""
    for layout, source in (("heads", "heads"), ("300w-lp", "300wlp")):
        folder, out = tmp_path / layout, tmp_path / f"{layout}-data"
        done = ls3dw("synth", folder, "--count", 2, "--layout", layout, "--gpu", "none")
        assert (done.status, done.out) == (0, f"2 heads in {folder}\n"), done.err
        assert ls3dw("synth", folder, "--count", 3, "--layout", layout, "--gpu", "none").status == 0
        built = ls3dw("build", "--source", source, "--root", folder, "--out", out, *quick)
        assert built.status == 0, built.err
        assert len(open_dataset(out)) == 3
    assert "seed 0 (asked for 1)" in ls3dw("synth", folder, "--seed", 1, "--layout", layout, "--gpu", "none").error
    assert "no picture there" in ls3dw("synth", tmp_path / "b", "--backgrounds", tmp_path, "--gpu", "none").error


def test_heads_in_the_layout_of_300w_lp_train(heads_lp: Path, tmp_path: Path) -> None:
    data = [{"stream": "300wlp", "root": str(heads_lp), "workers": 0}]
    networks = {name: NETWORKS[name] for name in ("flat", "guided")}
    trainer = Trainer(options(steps=2, data=data, networks=networks), tmp_path, ALONE, open_dots)
    trainer.run()
    assert float(trainer.step.losses[0]) > 0


def spoilt(**changes: Any) -> bytes:
    points = np.random.default_rng(0).uniform(10, 50, (68, 3)).round(2)
    fields: dict[str, Any] = {
        "landmarks_2d": points[:, :2].tolist(),
        "landmarks_3d": points.tolist(),
        "visible": [1.0] * 68,
        "pose": [0.0] * 3,
    }
    return json.dumps({**fields, **changes}).encode()


FAULTS: dict[str, tuple[bytes, str]] = {
    "bytes": (b"\xff\xfe\x00", "malformed annotation"),
    "cut": (spoilt()[:-9], "malformed annotation"),
    "deep": (b"[" * 100_000, "malformed annotation"),
    "empty": (b"", "malformed annotation"),
    "few": (spoilt(landmarks_2d=[[1.0, 2.0]] * 67), "wrong number of points"),
    "flat": (spoilt(landmarks_3d=[[1.0, 2.0]] * 68), "malformed annotation"),
    "huge": (spoilt(pose=[10**400, 0, 0]), "malformed annotation"),
    "infinite": (spoilt(pose=[float("inf"), 0, 0]), "non-finite points"),
    "list": (b"[1, 2]", "malformed annotation"),
    "missing": (spoilt(visible=None), "malformed annotation"),
    "nan": (spoilt(landmarks_2d=[[float("nan"), 2.0]] * 68), "non-finite points"),
    "ragged": (spoilt(landmarks_2d=[[1.0], [1.0, 2.0]]), "malformed annotation"),
    "text": (spoilt(pose=["a", "b", "c"]), "malformed annotation"),
}


def test_every_fault_of_an_annotation_is_a_drop_with_its_reason(heads: Path, tmp_path: Path) -> None:
    picture = (heads / "head_000000.jpg").read_bytes()
    for name, (annotation, _) in {**FAULTS, "good": (spoilt(), "")}.items():
        (tmp_path / f"{name}.jpg").write_bytes(picture)
        (tmp_path / f"{name}.json").write_bytes(annotation)
    (tmp_path / "alone.json").write_bytes(spoilt())
    (media,) = open_source("heads", tmp_path).media()
    outcomes = [outcome for _, outcome in media.read(lambda number: False)]
    drops = {drop.id.removeprefix("heads/"): drop.reason for drop in outcomes if isinstance(drop, Drop)}
    assert drops == {"alone": "missing picture", **{name: reason for name, (_, reason) in FAULTS.items()}}
    assert [sample.id for sample in outcomes if isinstance(sample, Sample)] == ["heads/good"]


def test_the_pose_written_is_that_of_the_points(heads: Path) -> None:
    for sample in open_source("heads", heads):
        yaw = float(sample.extra["pose"][0])
        assert float(head_pose(sample.extra["landmarks_3d"][None])[0, 0]) == pytest.approx(yaw, abs=15)

"""The streams: the same for the same step, complete over an epoch, honest about what they leave out."""

from __future__ import annotations

import io
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import REAL, pts
from PIL import Image
from scipy.io import savemat
from training_helpers import ALONE, CPU, NETWORKS, open_dots, options

from ls3dw.core.pose import mean_head
from ls3dw.errors import ConfigurationError, SourceError
from ls3dw.sources import open_source
from ls3dw.training.data.batch import Batch, StreamSlice
from ls3dw.training.data.faces import open_faces
from ls3dw.training.data.feed import make_slices, open_files, split_batch
from ls3dw.training.data.files import FileStream, face_numbers
from ls3dw.training.data.heads import HeadStream
from ls3dw.training.loop.trainer import Trainer
from ls3dw.training.options import AugmentOptions, StreamOptions

PLAIN = AugmentOptions(flip=0.0)


def head_points(seed: int) -> np.ndarray:
    """68 points (68, 3) of a face in a picture of 160 x 160, 0-based."""
    turn = np.random.default_rng(seed).uniform(-10, 10, 3)
    head = mean_head() * (1, -1, 1)
    head = head * (70 / np.ptp(head[:, 0])) + (80, 80, 0) + turn * (1, 1, 0)
    return head.astype(np.float32)


def picture(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (160, 160, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def mat(**fields: Any) -> bytes:
    buffer = io.BytesIO()
    savemat(buffer, fields)
    return buffer.getvalue()


@pytest.fixture
def folder_lp(tmp_path: Path) -> Path:
    """A 300W-LP folder: three pictures with points in `landmarks`, and two without, of which the last was turned."""
    root = tmp_path / "300W_LP"
    (root / "AFW").mkdir(parents=True)
    (root / "AFW_Flip").mkdir()
    (root / "landmarks" / "AFW").mkdir(parents=True)
    for number, stem in enumerate(("AFW_1_1_0", "AFW_1_1_1", "AFW_1_1_2", "AFW_2_1_0", "AFW_2_1_5")):
        points = head_points(number)
        (root / "AFW" / f"{stem}.jpg").write_bytes(picture(number))
        wrong = head_points(99)[:, :2] if stem[-1] != "0" else points[:, :2]
        own = mat(pt2d=wrong.T + 1, Pose_Para=np.radians([[5.0, -30.0, 2.0, 0, 0, 0, 0]]))
        (root / "AFW" / f"{stem}.mat").write_bytes(own)
        if number < 3:
            data = mat(pts_2d=points[:, :2] + 1, pts_3d=points[:, :2] + 3)
            (root / "landmarks" / "AFW" / f"{stem}_pts.mat").write_bytes(data)
    (root / "AFW_Flip" / "AFW_1_1_0.jpg").write_bytes(picture(0))
    return root


def test_300w_lp_is_read_in_its_layout(folder_lp: Path) -> None:
    source = open_source("300wlp", folder_lp.parent)
    samples = {sample.id: sample for sample in source}
    assert list(samples) == [f"300wlp/AFW/{stem}" for stem in ("AFW_1_1_0", "AFW_1_1_1", "AFW_1_1_2", "AFW_2_1_0")]
    assert source.default_subsets == ("afw",)
    assert [(drop.id, drop.reason) for drop in source.drops] == [("300wlp/AFW/AFW_2_1_5", "missing annotation")]
    for number, sample in enumerate(samples.values()):
        assert sample.annotation == pytest.approx(head_points(number)[:, :2], abs=1e-4)
        assert sample.yaw == pytest.approx(-30)
    solid = samples["300wlp/AFW/AFW_1_1_1"].extra["points_3d"]
    assert solid[:, :2] == pytest.approx(head_points(1)[:, :2] + 2, abs=1e-4)
    assert np.isnan(solid[:, 2]).all()
    assert np.isnan(samples["300wlp/AFW/AFW_2_1_0"].extra["points_3d"]).all()


def test_sets_of_ones_own_are_read_in_that_layout(folder_lp: Path) -> None:
    for outer in (folder_lp, folder_lp / "landmarks"):
        (outer / "AFW").rename(outer / "My faces")
    source = open_source("300wlp", folder_lp)
    assert source.subsets == ("afw-flip", "My faces")
    assert source.default_subsets == ("My faces",)
    assert [(count.found, count.expected) for count in source.report() if count.subset == "My faces"] == [(5, None)]
    assert next(iter(source)).id == "300wlp/My faces/AFW_1_1_0"
    shutil.rmtree(folder_lp / "landmarks")
    shutil.rmtree(folder_lp / "AFW_Flip")
    with pytest.raises(SourceError, match="or <SET>/ and landmarks/<SET>/"):
        open_source("300wlp", folder_lp)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"pts_2d": np.ones((67, 2)), "pts_3d": np.ones((68, 2))}, "wrong number of points"),
        ({"pts_2d": np.ones((68, 2))}, "missing annotation"),
        ({"pts_2d": np.full((68, 2), np.nan), "pts_3d": np.ones((68, 2))}, "non-finite points"),
    ],
)
def test_300w_lp_faults(folder_lp: Path, fields: dict[str, Any], reason: str) -> None:
    (folder_lp / "landmarks" / "AFW" / "AFW_1_1_1_pts.mat").write_bytes(mat(**fields))
    source = open_source("300wlp", folder_lp)
    assert len(list(source)) == 3
    assert {drop.id: drop.reason for drop in source.drops}["300wlp/AFW/AFW_1_1_1"] == reason


def stream(root: Path, share: StreamSlice, workers: int = 0) -> FileStream:
    return FileStream(open_faces(StreamOptions("300wlp", root=root)), share, PLAIN, CPU, workers)


def same(first: Batch, second: Batch) -> bool:
    return all(
        torch.allclose(getattr(first, name), getattr(second, name), equal_nan=True)
        for name in Batch.__dataclass_fields__
    )


def test_photographs_are_the_same_for_the_same_step(
    folder_lp: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("ls3dw"), "propagate", True)
    share = StreamSlice(3, 0, 1, 3)
    first = stream(folder_lp, share)
    batches = [first.batch(step) for step in range(4)]
    assert batches[0].images.shape == (3, 3, 256, 256)
    later = stream(folder_lp, share)
    assert same(later.batch(2), batches[2])
    assert same(later.batch(0), batches[0])
    assert not same(batches[0], batches[1])
    # The turned picture without points is left out, said once, and another takes its place.
    said = [record.getMessage() for record in caplog.records if "AFW_2_1_5" in record.getMessage()]
    assert len(said) == 2  # one a stream
    assert torch.isfinite(batches[0].landmarks_2d).all()


@pytest.mark.slow
def test_processes_decode_the_same(folder_lp: Path) -> None:
    share = StreamSlice(3, 0, 1, 3)
    assert same(stream(folder_lp, share, workers=1).batch(1), stream(folder_lp, share).batch(1))


@pytest.mark.parametrize("slices", [1, 2, 4])
def test_every_epoch_has_every_face_once_however_many_slices(slices: int) -> None:
    count = 4 // slices
    seen = [
        number
        for step in range(10)
        for index in range(slices)
        for number in face_numbers(step, 20, StreamSlice(5, index, slices, count))
    ]
    assert sorted(seen[:20]) == sorted(seen[20:]) == list(range(20))
    assert seen[:20] != seen[20:]
    whole = [number for step in range(10) for number in face_numbers(step, 20, StreamSlice(5, 0, 1, 4))]
    assert seen == whole


def test_300w_is_trained_on_its_training_set(tmp_path: Path) -> None:
    for number, name in enumerate(("afw", "ibug", "helen/trainset", "01_Indoor")):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / f"a{number}.png").write_bytes(picture(number))
        (tmp_path / name / f"a{number}.pts").write_bytes(pts(head_points(number)[:, :2] + 1))
    faces = open_faces(StreamOptions("300w", root=tmp_path))
    assert len(faces) == 2
    face = faces.face(0)
    assert np.isnan(face.landmarks_3d).all()  # type: ignore[union-attr]
    assert len(open_faces(StreamOptions("300w", root=tmp_path, subsets=("ibug",)))) == 1
    with pytest.raises(SourceError, match="no subset"):
        open_faces(StreamOptions("300w", root=tmp_path, subsets=("lfpw-train",)))


def test_a_data_set_that_ls3dw_built(sample_data: Path) -> None:
    from ls3dw.dataset.open import open_dataset

    dataset = open_dataset(sample_data)
    faces = open_faces(StreamOptions("dataset", root=sample_data))
    assert len(faces) == len(dataset)
    face, truth = faces.face(3), dataset[3]
    from ls3dw.core.geometry import apply, crop_affine

    expected = apply(crop_affine(truth.box), truth.landmarks_3d)
    assert face.landmarks_3d == pytest.approx(expected, abs=1e-3)  # type: ignore[union-attr]
    some = open_faces(StreamOptions("dataset", root=sample_data, subsets=("300w",)))
    assert 0 < len(some) < len(faces)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"stream": "300wlp", "root": "missing"}, "is not a folder"),
        ({"stream": "300w", "root": "."}, "nothing of the data set"),
        ({"stream": "dataset", "root": "."}, "dataset.json"),
    ],
)
def test_wrong_folders_end_a_run_before_it_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, values: dict[str, Any], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(Exception, match=said):
        Trainer(options(data=[values]), tmp_path / "out", ALONE, open_dots)
    assert not (tmp_path / "out").exists()


def test_faces_that_cannot_be_used_at_all_end_a_run(folder_lp: Path, tmp_path: Path) -> None:
    for path in (folder_lp / "AFW").glob("*.jpg"):
        path.write_bytes(b"broken")
    with pytest.raises(ConfigurationError, match="5 faces in a row cannot be used"):
        Trainer(options(data=[{"stream": "300wlp", "root": str(folder_lp)}]), tmp_path, ALONE, open_dots)


def test_a_300w_lp_folder_trains(folder_lp: Path, tmp_path: Path) -> None:
    data = [{"stream": "300wlp", "root": str(folder_lp), "workers": 0}]
    real = [{"source": "300wlp", "root": str(folder_lp)}]
    networks = {name: NETWORKS[name] for name in ("flat", "solid", "guided")}
    chosen = options(steps=2, data=data, networks=networks, validation={"every": 0, "real": real})
    trainer = Trainer(chosen, tmp_path / "out", ALONE, open_dots)
    trainer.run()
    assert trainer.results["300wlp/flat"]["faces"] == 4
    assert trainer.results["300wlp/guided/chain"]["faces"] == 3  # one has no points in 3D


@pytest.mark.skipif(not REAL.is_dir(), reason="needs real data")
def test_the_real_sample_of_300w_lp_trains(tmp_path: Path) -> None:
    data = [{"stream": "300wlp", "root": str(REAL / "300W_LP"), "workers": 0}]
    trainer = Trainer(options(steps=2, data=data), tmp_path, ALONE, open_dots)
    trainer.run()
    assert float(trainer.step.losses[0]) > 0


def heads(share: StreamSlice, **changes: Any) -> HeadStream:
    values: dict[str, Any] = {"pool": 12, "chunk": 4, "start": 4, "every": 2} | changes
    return HeadStream(open_dots(CPU, {}), StreamOptions("heads", **values), share, PLAIN, CPU)


def test_the_pool_of_a_step_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    share = StreamSlice(1, 0, 1, 5)
    stream = heads(share)
    batches = [stream.batch(step) for step in range(9)]
    assert stream.rendered == (1 + 8 // 2) * 4
    late = heads(share)
    assert same(late.batch(8), batches[8])
    assert late.rendered == 12  # only what is still in the pool
    assert same(late.batch(3), batches[3])
    assert not same(heads(StreamSlice(1, 1, 2, 5)).batch(0), batches[0])


def test_room_around_the_crop_does_not_move_it() -> None:
    share = StreamSlice(1, 0, 1, 2)
    wide = HeadStream(
        open_dots(CPU, {"size": 300}), StreamOptions("heads", pool=4, chunk=4, start=4), share, PLAIN, CPU
    )
    narrow = heads(share, pool=4)
    first, second = wide.batch(0), narrow.batch(0)
    assert torch.allclose(first.landmarks_3d, second.landmarks_3d, atol=1e-3)
    assert (first.images - second.images).abs().max() < 0.02


def test_streams_share_a_batch(folder_lp: Path) -> None:
    data = [
        {"stream": "heads", "share": 3, "pool": 4, "chunk": 4, "start": 4},
        {"stream": "300wlp", "root": str(folder_lp), "workers": 0},
    ]
    chosen = options(batch=8, slices=2, data=data)
    slices = make_slices(chosen, open_files(chosen), open_dots, ALONE)
    batches = [[stream.batch(0) for stream in part.streams] for part in slices]
    assert [[len(batch.images) for batch in parts] for parts in batches] == [[3, 1], [3, 1]]
    assert torch.isnan(batches[0][1].landmarks_3d[..., 2]).all()
    shares = tuple(StreamOptions("heads", share=share) for share in (0.98, 0.01, 0.01))
    assert split_batch(10, shares) == [8, 1, 1]
    assert split_batch(7, shares[:1] * 2) == [4, 3]

"""A data set from somebody else: whatever is wrong with it is one `DatasetError`, and nothing outside is touched."""

from __future__ import annotations

import contextlib
import multiprocessing
import pickle
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from conftest import Command
from stress.mutations import exercise, mutate

from ls3dw.core.files import dump_json, read_json
from ls3dw.dataset.gate import UnreadableError, reading
from ls3dw.dataset.open import Dataset, open_dataset
from ls3dw.dataset.shards import Shard
from ls3dw.errors import DatasetError

FACES = "faces/aflw2000/all-0000.h5"
ANNOTATIONS = "annotations/v1/aflw2000/all-0000.h5"


@pytest.fixture
def data(sample_data: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sample_data, tmp_path / "data"))


def external(file: h5py.File, secret: Path) -> None:
    size = file["pictures"].shape
    del file["pictures"]
    file.create_dataset("pictures", size, "u1", external=[(str(secret), 0, size[0])])


def external_link(file: h5py.File, secret: Path) -> None:
    del file["box"]
    file["box"] = h5py.ExternalLink(str(secret), "/box")


def soft_link(file: h5py.File, secret: Path) -> None:
    del file["box"]
    file["box"] = h5py.SoftLink("/pictures")


def virtual(file: h5py.File, secret: Path) -> None:
    layout = h5py.VirtualLayout(file["box"].shape, "f4")
    layout[:] = h5py.VirtualSource(str(secret), "box", file["box"].shape)
    del file["box"]
    file.create_virtual_dataset("box", layout)


def huge(file: h5py.File, secret: Path) -> None:
    del file["pictures"]
    file.create_dataset("pictures", (40 << 30,), "u1", chunks=(1 << 20,))


def other_type(file: h5py.File, secret: Path) -> None:
    del file["box"]
    file["box"] = np.zeros((2, 4), dtype="f8")


def a_group(file: h5py.File, secret: Path) -> None:
    del file["box"]
    file.create_group("box")


def pictures_elsewhere(file: h5py.File, secret: Path) -> None:
    file["picture_start"][:] = -5


@pytest.mark.parametrize(
    "change", [external, external_link, soft_link, virtual, huge, other_type, a_group, pictures_elsewhere]
)
def test_shards_that_reach_outside_or_claim_too_much(
    ls3dw: Command, data: Path, tmp_path: Path, change: Callable[[h5py.File, Path], None]
) -> None:
    secret = tmp_path / "secret.h5"
    shutil.copy(data / FACES, secret)
    with h5py.File(data / FACES, "r+") as file:
        change(file, secret)

    def read() -> None:
        with Shard(data / FACES, data) as shard:
            shard.column("box")
            shard.picture_bytes(0)

    with pytest.raises(DatasetError, match=r"all-0000\.h5"):
        read()
    out = tmp_path / "out"
    if change in (external, huge, pictures_elsewhere):
        assert ls3dw("export", data, "--format", "menpo", "--out", out).status == 1
        assert not out.exists()


def test_links_that_lead_out_are_not_followed(ls3dw: Command, data: Path, tmp_path: Path) -> None:
    (data / ANNOTATIONS).rename(tmp_path / "secret.h5")
    (data / ANNOTATIONS).symlink_to(tmp_path / "secret.h5")
    with pytest.raises(DatasetError, match="leads out"):
        open_dataset(data)["aflw2000/image00007"]
    outside = tmp_path / "outside"
    outside.mkdir()
    shutil.rmtree(data / "galleries")
    (data / "galleries").symlink_to(outside)
    assert "leads out" in ls3dw("gallery", data, "--limit", 1).error
    assert list(outside.iterdir()) == []
    (tmp_path / "link").symlink_to(data)
    assert len(open_dataset(tmp_path / "link")) == len(open_dataset(data))


@pytest.mark.parametrize(
    "change",
    [
        lambda table: table.drop(columns="yaw"),
        lambda table: table.assign(row="x"),
        lambda table: table.assign(row=-1),
        lambda table: table.assign(source="../../outside"),
        lambda table: table.assign(shard="a/b"),
        lambda table: table.assign(id=None),
    ],
)
def test_tables_are_checked(data: Path, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    path = data / "annotations/v1/index.parquet"
    change(pd.read_parquet(path)).to_parquet(path)
    with pytest.raises(DatasetError, match=r"index\.parquet"):
        open_dataset(data).index.head()


def test_rows_that_are_not_there(data: Path) -> None:
    path = data / "annotations/v1/index.parquet"
    pd.read_parquet(path).assign(row=10**6).to_parquet(path)
    dataset = open_dataset(data)
    for read in (lambda: dataset[0], lambda: dataset.column("box")):
        with pytest.raises(DatasetError, match="has no row"):
            read()


@pytest.mark.parametrize(
    "change",
    [
        {"version": "v2"},
        {"files": [{"path": "../x", "size": 1, "sha256": "0" * 64}]},
        {"counts": {"300w": {"read": -1, "written": 0, "dropped": {}}}},
        {"counts": []},
        {"configuration": {"models": {"2d": {"name": 3}}}},
        {"configuration": {"models": {}, "audited": {"decisions": "../../secret"}}},
        {"annotation_kinds": {"300w": "4d"}},
        {"annotation_kinds": {"300w": None}},
    ],
)
def test_manifests_are_checked(data: Path, change: dict[str, object]) -> None:
    path = data / "annotations/v1/manifest.json"
    path.write_bytes(dump_json(read_json(path) | change))
    with pytest.raises(DatasetError, match=r"manifest\.json"):
        _ = open_dataset(data).manifest


def test_what_could_not_be_read_is_not_called_damaged(tmp_path: Path) -> None:
    for error, kind in ((OSError(5, "Input/output error"), UnreadableError), (ValueError("x"), DatasetError)):
        with pytest.raises(kind) as caught, reading(tmp_path, "thing"):
            raise error
        assert ("could not be read" in str(caught.value)) == (kind is UnreadableError)


def test_mutated_files_give_one_kind_of_error(sample_data: Path, tmp_path: Path) -> None:
    """A small part of `make stress`."""
    rng = np.random.default_rng(0)
    root = tmp_path / "data"
    shutil.copytree(sample_data, root, ignore=shutil.ignore_patterns("*.jpg"))
    files = sorted(path for path in root.rglob("*") if path.is_file())
    for number in range(120):
        path = files[number % len(files)]
        whole = path.read_bytes()
        path.write_bytes(mutate(whole, path.suffix, rng))
        with contextlib.suppress(DatasetError):
            exercise(root)
        path.write_bytes(whole)


def points_of(dataset: Dataset, row: int) -> np.ndarray:
    return dataset[row].landmarks_3d


def test_a_data_set_goes_to_other_processes_and_threads(sample_data: Path) -> None:
    dataset = open_dataset(sample_data)
    fresh = pickle.dumps(dataset)
    truth = [points_of(dataset, row) for row in range(len(dataset))]
    assert len(pickle.dumps(dataset)) == len(fresh) < 1000, "no tables and no open files"
    rows = [int(row) for row in np.random.default_rng(0).integers(0, len(dataset), 400)]
    with ThreadPoolExecutor(8) as threads:
        read = list(threads.map(lambda row: points_of(dataset, row), rows))
    for row, points in zip(rows, read, strict=True):
        np.testing.assert_array_equal(points, truth[row])
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as processes:
        for row, points in zip(rows[:8], processes.map(points_of, [dataset] * 8, rows[:8]), strict=True):
            np.testing.assert_array_equal(points, truth[row])


def test_a_fork_while_a_thread_reads(sample_data: Path) -> None:
    dataset = open_dataset(sample_data)
    truth = points_of(dataset, 3)
    with dataset._lock:
        context = multiprocessing.get_context("fork")
        ends: list[object] = []

        def fork() -> None:
            parent, child = context.Pipe()
            process = context.Process(target=lambda: child.send(points_of(dataset, 3)))
            process.start()
            ends.append(parent.recv() if parent.poll(30) else None)
            process.join()

        thread = threading.Thread(target=fork)
        thread.start()
        thread.join()
    np.testing.assert_array_equal(ends[0], truth)


def test_shards_are_read_without_locks(sample_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    opener = h5py.File
    monkeypatch.setattr(h5py, "File", lambda *words, **options: asked.append(options) or opener(*words, **options))
    with Shard(sample_data / FACES):
        pass
    assert asked == [{"locking": False}]

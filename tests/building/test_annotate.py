"""The networks' side of a build: batches that mix chunks, and networks in processes of their own."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from test_pool import gone

from ls3dw.building import pipeline, prestart
from ls3dw.building.annotate import GpuWorkers
from ls3dw.building.batching import Batcher
from ls3dw.building.options import BuildOptions
from ls3dw.building.pipeline import Build
from ls3dw.building.prestart import Prestart
from ls3dw.core.crops import Window, Windows, pack_windows
from ls3dw.core.parallel.stage_timer import STAGES, StageTimer
from ls3dw.core.sample import Floats
from ls3dw.dataset.open import open_dataset
from ls3dw.dataset.verify import verify
from ls3dw.errors import DeviceError, Ls3dwError, WorkerError
from ls3dw.models.face_batch import FaceBatch
from ls3dw.models.inference.staging import BUFFERS, Stager
from ls3dw.models.weights.zoo import read_contract, store

LIMIT = 30


def windows_of(names: list[int]) -> Windows:
    """Make windows whose crop affines tell them apart."""
    eye = np.eye(2, 3)
    return pack_windows([Window(np.full((2, 3, 3), name, dtype=np.uint8), eye, eye * name) for name in names])


class Echo:
    """Stands in for an annotator: a face's outputs are its name. Notes the sizes of its batches."""

    def __init__(self, batch: int) -> None:
        self.batch = batch
        self.sizes: list[int] = []
        self.ahead = 0
        self.most_ahead = 0

    def stage(self, windows: Windows) -> Windows:
        return windows

    def begin(self, faces: FaceBatch) -> FaceBatch:
        self.sizes.append(len(faces))
        self.ahead += 1
        self.most_ahead = max(self.most_ahead, self.ahead)
        assert sum(map(len, faces.windows)) == len(faces)
        return faces

    def result(self, begun: FaceBatch) -> Floats:
        self.ahead -= 1
        return begun.crop[:, 0, 0].astype(np.float32)

    def finish(self, faces: FaceBatch, outputs: Floats) -> Any:
        raise NotImplementedError


@given(sizes=st.lists(st.integers(1, 9), max_size=20), batch=st.integers(1, 12), mix=st.booleans())
def test_every_face_gets_its_own_outputs(sizes: list[int], batch: int, mix: bool) -> None:
    echo = Echo(batch)
    batcher: Batcher[FaceBatch] = Batcher(echo, StageTimer(), mix=mix)
    done = []
    first = 0
    for key, size in enumerate(sizes):
        names = list(range(first, first + size))
        first += size
        own = np.array(names, dtype=np.float32)
        faces = FaceBatch((windows_of(names),), np.repeat(own[:, None], 4, axis=1))
        done += list(batcher.add(key, faces))
        assert mix or len(done) == key + 1
    done += list(batcher.finish())
    assert [key for key, *_ in done] == list(range(len(sizes)))
    for _, faces, outputs in done:
        np.testing.assert_array_equal(outputs, faces.boxes[:, 0])
    assert max(echo.sizes, default=0) <= batch
    assert echo.most_ahead <= 3 or not mix
    if mix:
        assert all(size == batch for size in echo.sizes[:-1])


def test_rows_of_faces_cut_blocks_and_guidance_alike() -> None:
    blocks = (windows_of([1, 2, 3]), windows_of([4]), windows_of([5, 6]))
    names = np.arange(1.0, 7.0, dtype=np.float32)
    faces = FaceBatch(blocks, np.repeat(names[:, None], 4, axis=1), np.repeat(names, 136).reshape(6, 68, 2))
    part = faces.rows(2, 5)
    assert [len(block) for block in part.windows] == [1, 1, 1]
    assert part.crop[:, 0, 0].tolist() == part.boxes[:, 0].tolist() == [3, 4, 5]
    assert part.guidance is not None
    assert part.guidance[:, 7, 1].tolist() == [3, 4, 5]
    assert [block.pixels.array()[0, 0, 0, 0] for block in part.windows if isinstance(block, Windows)] == [3, 4, 5]


def test_packing_puts_windows_in_the_corner_of_black() -> None:
    rng = np.random.default_rng(0)
    sizes = ((4, 7), (6, 2), (1, 1))
    cut = [rng.integers(1, 256, (*size, 3), dtype=np.uint8) for size in sizes]
    packed = pack_windows([Window(pixels, np.eye(2, 3) * n, np.eye(2, 3)) for n, pixels in enumerate(cut)])
    assert packed.pixels.shape == (3, 6, 7, 3)
    assert packed.to_crop[:, 0, 0].tolist() == [0, 1, 2]
    for whole, pixels in zip(packed.pixels.array(), cut, strict=True):
        height, width = pixels.shape[:2]
        np.testing.assert_array_equal(whole[:height, :width], pixels)
        assert whole.sum() == pixels.sum()


@pytest.fixture
def options(tiny_models: dict[str, str], tmp_path: Path) -> BuildOptions:
    return BuildOptions(
        out=tmp_path / "here",
        model_2d=tiny_models["2d"],
        model_3d=tiny_models["3d"],
        model_depth="none",
        gpu="none",
        workers=1,
        flip=False,
        limit=LIMIT,
        shard_size=13,
    )


@pytest.fixture
def as_on_gpus(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Have builds run networks in processes, as beside GPUs, but on the CPU: one for each of some devices."""

    def use(devices: int) -> None:
        monkeypatch.setattr(pipeline, "needs_process", lambda device: True)
        monkeypatch.setattr(pipeline, "devices", lambda gpu: ["cpu"] * devices)

    return use


def run(options: BuildOptions, **changes: Any) -> Build:
    done = Build(BuildOptions(**{**vars(options), **changes}))
    done.run(lambda plan: None, lambda chunk: None)
    return done


@pytest.mark.slow
def test_processes_give_what_one_gives_here(
    options: BuildOptions, tmp_path: Path, as_on_gpus: Callable[[int], None]
) -> None:
    here = run(options)
    expected = open_dataset(here.store.root)
    for devices in (1, 2):
        as_on_gpus(devices)
        apart = run(options, out=tmp_path / f"apart{devices}", workers=2)
        assert verify(apart.store.root)[1] == []
        made = open_dataset(apart.store.root)
        assert made.index["id"].tolist() == expected.index["id"].tolist()
        for column in ("landmarks_2d", "landmarks_3d", "pose", "crop"):
            np.testing.assert_allclose(made.column(column), expected.column(column), atol=0.01)
        faces = {path.name: path.read_bytes() for path in apart.store.root.glob("faces/*/*.h5")}
        assert faces == {path.name: path.read_bytes() for path in here.store.root.glob("faces/*/*.h5")}
        stages = set(STAGES) - {"wait: others are behind"}
        assert {stage for stage in stages if apart.pipeline.timer.seconds.get(stage, 0) <= 0} == set()


def count_threads() -> Any:
    raise DeviceError(f"torch has {torch.get_num_threads()} threads")


@pytest.mark.skipif(torch.get_num_threads() == 1, reason="needs two cores")
def test_a_network_process_leaves_the_cores_to_others() -> None:
    with (
        pytest.raises(DeviceError, match="torch has 1 threads"),
        GpuWorkers([count_threads], print, StageTimer(), guided=False),
    ):
        pass


def test_processes_wait_where_there_seems_to_be_a_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(prestart, "DEVICES", tmp_path)
    with Prestart("auto") as none:
        assert none.take() is None
    (tmp_path / "nvidia0").touch()
    with Prestart("none") as none:
        assert none.take() is None
    with Prestart("0,1") as two:
        processes = [two.take(), two.take()]
        assert two.take() is None
    with Prestart("auto") as untaken:
        (waiting,) = untaken._processes
    assert gone(waiting.pid)
    for process in filter(None, processes):
        assert not gone(process.pid), "who has taken it ends it"
        process.end()
    assert len(processes) == 2


def test_a_build_on_the_cpu_ends_the_processes_that_wait(
    options: BuildOptions, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "nvidia0").touch()
    monkeypatch.setattr(prestart, "DEVICES", tmp_path)
    with Prestart("auto") as waiting:
        (process,) = waiting._processes
        Build(options, waiting)
        assert gone(process.pid)


@pytest.mark.slow
def test_a_build_takes_a_process_that_waits(
    options: BuildOptions, as_on_gpus: Callable[[int], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    as_on_gpus(1)
    (tmp_path / "nvidia0").touch()
    monkeypatch.setattr(prestart, "DEVICES", tmp_path)
    with Prestart("auto") as waiting:
        (process,) = waiting._processes
        Build(options, waiting).run(lambda plan: None, lambda chunk: None)
        assert waiting.take() is None
    assert gone(process.pid)


@pytest.mark.slow
def test_an_error_of_the_networks_is_the_builds(
    options: BuildOptions, tmp_path: Path, as_on_gpus: Callable[[int], None]
) -> None:
    as_on_gpus(1)
    good = Path(str(options.model_2d))
    tensors = load_file(good)
    key = next(key for key in tensors if key.endswith("bias"))
    tensors[key] = torch.full(tensors[key].shape, 3e38)  # finite itself; sums of it are not
    bad = tmp_path / "bad.safetensors"
    store(tensors, bad, read_contract(good))
    with pytest.raises(DeviceError, match="not finite"):
        run(options, model_2d=str(bad))


def kill_parent_of_networks(make: Callable[[], Any]) -> Any:
    """Stand for networks that are killed as soon as they have loaded."""
    make()
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_networks_that_are_killed_end_the_build_and_it_goes_on_later(
    options: BuildOptions, as_on_gpus: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    as_on_gpus(1)
    whole = pipeline.annotator_maker
    with monkeypatch.context() as broken:
        broken.setattr(pipeline, "annotator_maker", lambda *given: partial(kill_parent_of_networks, whole(*given)))
        with pytest.raises(WorkerError, match=r"network process \d+ was terminated by SIGKILL"):
            run(options)
    assert len(open_dataset(run(options).store.root)) > LIMIT
    assert issubclass(WorkerError, Ls3dwError)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_staged_windows_arrive_as_they_are() -> None:
    rng = np.random.default_rng(1)
    stager = Stager(torch.device("cuda:0"))
    cut = [rng.integers(0, 256, (3, *rng.integers(20, 90, 2), 3), dtype=np.uint8) for _ in range(3 * BUFFERS)]
    eye = np.eye(2, 3)
    staged = [stager.stage(pack_windows([Window(pixels, eye, eye) for pixels in block])) for block in cut]
    for block, there in zip(cut, staged, strict=True):
        np.testing.assert_array_equal(there.wait().cpu().numpy(), block)

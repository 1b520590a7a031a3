"""The same input gives the same bytes: with any number of processes, and after being killed at any moment."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ls3dw.core.files import sha256_file
from ls3dw.dataset.verify import verify

SHARD_SIZE = 7
MARKERS = "annotations/*/*/*.json"


@pytest.fixture(scope="module")
def words(program: list[str], quick: list[str]) -> list[str]:
    """A build of 48 faces in shards that divide nothing evenly; the last --workers counts."""
    return [*program, "build", *quick, "--shard-size", str(SHARD_SIZE), "--limit", "12"]


@pytest.fixture(scope="module")
def plain(words: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The files of a build that nothing interrupted."""
    out = tmp_path_factory.mktemp("plain")
    subprocess.run([*words, "--out", str(out)], check=True, capture_output=True)
    files = contents(out)
    assert len(files) == 24, "3 shards a source with 2 parts, 2 with one part; faces, annotations and a marker each"
    return files


def contents(out: Path) -> dict[str, str]:
    """SHA-256 of every shard and marker."""
    paths = [*out.glob("faces/*/*.h5"), *out.glob("annotations/*/*/*")]
    return {path.relative_to(out).as_posix(): sha256_file(path) for path in paths}


def start(words: list[str], out: Path) -> subprocess.Popen[bytes]:
    """Start a build in a session of its own, so that its processes can be found."""
    return subprocess.Popen(
        [*words, "--out", str(out), "--workers", "2"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def living(session: int) -> list[int]:
    """The processes of a session that have not ended."""
    return [process for process, of_session, state in processes() if of_session == session and state not in "ZX"]


def processes() -> Iterator[tuple[int, int, str]]:
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, session = entry.read_text().rpartition(")")[2].split()[:4]
        except (FileNotFoundError, ProcessLookupError):
            continue
        yield int(entry.parent.name), int(session), state


def wait_for_shard(build: subprocess.Popen[bytes], out: Path) -> None:
    """Wait until a build has finished one more shard."""
    before = len(list(out.glob(MARKERS)))
    while build.poll() is None and len(list(out.glob(MARKERS))) <= before:
        time.sleep(0.02)
    assert build.poll() is None, "it ended before it could be interrupted"


def wait_for_end(session: int, seconds: float) -> list[int]:
    """Wait until a session has no process any more; return those that are left after all."""
    end = time.monotonic() + seconds
    while living(session) and time.monotonic() < end:
        time.sleep(0.1)
    return living(session)


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
def test_any_number_of_processes_gives_the_same_bytes(
    words: list[str], plain: dict[str, str], tmp_path: Path, workers: str
) -> None:
    subprocess.run([*words, "--out", str(tmp_path), "--workers", workers], check=True, capture_output=True)
    assert contents(tmp_path) == plain


@pytest.mark.slow
def test_a_killed_build_goes_on_and_ends_the_same(words: list[str], plain: dict[str, str], tmp_path: Path) -> None:
    chance = random.Random(20)
    for _ in range(5):
        build = start(words, tmp_path)
        # The first shards come after 3 to 5 seconds.
        time.sleep(chance.uniform(1.5, 6))
        build.kill()
        build.communicate()
        assert wait_for_end(build.pid, 5) == [], "decoding processes outlived their parent"
    kept = set(tmp_path.rglob("*.json"))
    subprocess.run([*words, "--out", str(tmp_path)], check=True, capture_output=True)
    assert kept <= set(tmp_path.rglob("*.json"))
    assert contents(tmp_path) == plain
    assert list(tmp_path.rglob("*.partial")) == []
    assert verify(tmp_path)[1] == []


@pytest.mark.slow
def test_a_killed_parent_leaves_no_process_behind(words: list[str], tmp_path: Path) -> None:
    build = start(words, tmp_path)
    wait_for_shard(build, tmp_path)
    assert len(living(build.pid)) > 1, "no decoding process"
    build.kill()
    build.communicate()
    assert wait_for_end(build.pid, 3) == []


def interrupt(build: subprocess.Popen[bytes], again_after: float) -> None:
    """Press Ctrl-C twice: a terminal sends it to all processes. The build ends at once, with one line."""
    os.killpg(build.pid, signal.SIGINT)
    time.sleep(again_after)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(build.pid, signal.SIGINT)
    message = build.communicate(timeout=20)[1].decode()
    assert build.returncode == 130, message
    assert message.strip() == "interrupted; what was finished is kept, run the same command again to go on"
    assert wait_for_end(build.pid, 5) == []


def wait_for(build: subprocess.Popen[bytes], modules: str) -> None:
    """Wait until a process has mapped a file whose name has this in it."""
    while modules not in Path(f"/proc/{build.pid}/maps").read_text():
        assert build.poll() is None
        time.sleep(0.005)


@pytest.mark.slow
@pytest.mark.parametrize("modules", ["numpy", "libtorch_cpu", "h5py"])
def test_ctrl_c_while_it_loads(words: list[str], tmp_path: Path, modules: str) -> None:
    build = start(words, tmp_path)
    wait_for(build, modules)
    interrupt(build, again_after=0.1)


@pytest.mark.slow
def test_ctrl_c_keeps_what_is_finished(words: list[str], tmp_path: Path) -> None:
    whole = [*words, "--limit", "96"]  # long enough to be interrupted in the middle
    for again_after in (0.05, 0.3):
        build = start(whole, tmp_path)
        wait_for_shard(build, tmp_path)
        interrupt(build, again_after)
    kept = contents(tmp_path)
    assert kept
    subprocess.run([*whole, "--out", str(tmp_path)], check=True, capture_output=True)
    assert kept.items() < contents(tmp_path).items()
    assert verify(tmp_path)[1] == []


@pytest.fixture(scope="module")
def apart(program: list[str], words: list[str]) -> list[str]:
    """The same build with its networks in a process of their own, as beside a GPU."""
    code = "from ls3dw import build; build.apart = lambda device: True; from ls3dw.cli import main; main()"
    return [program[0], "-c", code, *words[len(program) :]]


@pytest.mark.slow
def test_networks_in_a_process_end_with_a_killed_parent_and_it_goes_on(
    apart: list[str], plain: dict[str, str], tmp_path: Path
) -> None:
    build = start(apart, tmp_path)
    wait_for_shard(build, tmp_path)
    assert len(living(build.pid)) > 1, "no process for the networks"
    build.kill()
    build.communicate()
    assert wait_for_end(build.pid, 3) == []
    subprocess.run([*apart, "--out", str(tmp_path)], check=True, capture_output=True)
    assert verify(tmp_path)[1] == []
    made = contents(tmp_path)
    assert made.keys() == plain.keys()
    assert {path: made[path] for path in made if path.startswith("faces/")}.items() <= plain.items()


@pytest.mark.slow
def test_ctrl_c_ends_networks_in_a_process(apart: list[str], tmp_path: Path) -> None:
    build = start([*apart, "--limit", "96"], tmp_path)
    wait_for_shard(build, tmp_path)
    interrupt(build, again_after=0.05)

"""Files are whole or not there, a data set has one writer, and a version one configuration."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ls3dw.building.options import BuildOptions, make_options, read_pipeline, recorded
from ls3dw.core.files import (
    TEMPORARY,
    dump_json,
    exclusive,
    is_safe_name,
    partial_path,
    read_json,
    remove_partial,
    safe_name,
    sha256,
    sha256_file,
    write_atomic,
)
from ls3dw.core.resources import folder, manifest
from ls3dw.core.sample import Drop
from ls3dw.dataset.store import (
    FORMAT,
    FileRecord,
    ShardRecord,
    Store,
    check_version,
    claim_version,
    configuration_hash,
    publish_version,
    read_dataset,
)
from ls3dw.errors import ConfigurationError, DatasetError


def test_a_file_is_written_whole_and_over_another(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.bin"
    for data in (b"first", b"", b"second"):
        write_atomic(path, data)
        assert path.read_bytes() == data
        assert sha256_file(path) == sha256(data)
    assert [entry.name for entry in path.parent.iterdir()] == ["file.bin"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_a_failed_write_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, error: BaseException
) -> None:
    def fail(*arguments: object) -> None:
        raise error

    (tmp_path / "old").write_bytes(b"whole")
    monkeypatch.setattr(os, call, fail)
    for name in ("old", "new"):
        with pytest.raises(type(error)):
            write_atomic(tmp_path / name, b"half")
    assert {entry.name: entry.read_bytes() for entry in tmp_path.iterdir()} == {"old": b"whole"}


def test_half_written_files_of_an_interrupted_run_are_removed(tmp_path: Path) -> None:
    (tmp_path / "faces").mkdir()
    (tmp_path / "galleries" / f"v1{TEMPORARY}" / "deep").mkdir(parents=True)
    for name in (
        "faces/x.h5",
        f"faces/y.h5{TEMPORARY}",
        partial_path(Path("faces/a.h5")),
        partial_path(Path("z.json")),
    ):
        (tmp_path / name).touch()
    remove_partial(tmp_path)
    assert [path.name for path in tmp_path.rglob("*.*")] == ["x.h5"]


def test_what_a_user_keeps_is_not_removed(tmp_path: Path) -> None:
    other = tmp_path / "other" / "faces"
    other.mkdir(parents=True)
    (other / f"a.h5{TEMPORARY}").touch()
    root = tmp_path / "data"
    (root / f"movie{TEMPORARY}").mkdir(parents=True)
    (root / "faces").symlink_to(other)
    (root / "galleries").mkdir()
    (root / "galleries" / f"v1{TEMPORARY}").symlink_to(other)
    for name in (f"thesis{TEMPORARY}", f"thesis.tex{TEMPORARY}"):
        (root / name).touch()
    before = sorted(tmp_path.rglob("*"))
    remove_partial(root)
    assert sorted(tmp_path.rglob("*")) == before


def test_writing_does_not_follow_links(tmp_path: Path) -> None:
    (tmp_path / "victim").write_bytes(b"whole")
    (tmp_path / "file").symlink_to("victim")
    (tmp_path / f"file{TEMPORARY}").symlink_to("victim")
    write_atomic(tmp_path / "file", b"new")
    assert (tmp_path / "victim").read_bytes() == b"whole"
    assert (tmp_path / "file").read_bytes() == b"new"
    assert not (tmp_path / "file").is_symlink()
    store = Store(tmp_path / "data")
    (tmp_path / "data").mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "data" / "subsets").symlink_to(tmp_path / "outside")
    with pytest.raises(DatasetError, match="link that leads out"):
        store.write(store.subset_file("v1", "a"), b"")
    assert list((tmp_path / "outside").iterdir()) == []


@given(st.lists(st.text(max_size=200), unique=True))
def test_safe_names_are_safe_and_unlike(names: list[str]) -> None:
    safe = [safe_name(name) for name in names]
    assert all(map(is_safe_name, safe))
    assert len(set(safe)) == len(names)
    for name, spelling in zip(names, safe, strict=True):
        if is_safe_name(name):
            assert spelling == name


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "../up", "a..b", ".hidden", "-option", "a b", "ü", "a\n", "\udce9", "x" * 129, "a\0"]
)
def test_names_that_cannot_be_part_of_a_path(name: str) -> None:
    assert not is_safe_name(name)
    assert is_safe_name(safe_name(name))


def test_json_is_the_same_for_the_same_value(tmp_path: Path) -> None:
    value = {"b": [1, None, "ü"], "a": {"y": 0.1, "x": True}}
    assert dump_json(value) == dump_json({"a": {"x": True, "y": 0.1}, "b": [1, None, "ü"]})
    write_atomic(tmp_path / "a.json", dump_json(value))
    assert read_json(tmp_path / "a.json") == value
    with pytest.raises(ValueError, match="JSON compliant"):
        dump_json(float("nan"))


def test_json_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with pytest.raises(DatasetError, match=r"a\.json.*No such file"):
        read_json(path)
    for content in (b"", b"{", b"\xff\xfe\x00", b"9" * 5000):
        path.write_bytes(content)
        with pytest.raises(DatasetError, match=r"a\.json: damaged, not JSON"):
            read_json(path)
    path.write_bytes(b"[" * 100_000)
    with pytest.raises(DatasetError, match="nested too deeply"):
        read_json(path)
    with pytest.raises(DatasetError, match="cannot be read"):
        read_json(tmp_path)


def test_a_data_set_has_one_writer(tmp_path: Path) -> None:
    root = tmp_path / "new" / "data"
    with exclusive(root):
        with pytest.raises(DatasetError, match="in use by another ls3dw process"), exclusive(root):
            pass
        with exclusive(tmp_path / "other"):
            pass
    with pytest.raises(KeyError), exclusive(root):
        raise KeyError
    with exclusive(root):
        pass


def test_a_killed_writer_lets_go(tmp_path: Path) -> None:
    hold = (
        "import sys, time; from pathlib import Path; from ls3dw.core.files import exclusive\n"
        "with exclusive(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", hold, str(tmp_path)], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(DatasetError, match="in use"), exclusive(tmp_path):
            pass
        other.kill()
    with exclusive(tmp_path):
        pass


CONFIGURATION: dict[str, Any] = {"decode": "subpixel", "flip": True, "models": {"2d": "abc"}}


def test_a_version_keeps_its_configuration(tmp_path: Path) -> None:
    store = Store(tmp_path)
    check_version(store, "v1", CONFIGURATION)
    claim_version(store, "v1", CONFIGURATION)
    check_version(store, "v1", dict(reversed(CONFIGURATION.items())))
    assert read_json(store.configuration_file("v1")) == CONFIGURATION
    changed = {**CONFIGURATION, "decode": "reference", "models": {"2d": "xyz"}, "limit": 3}
    with pytest.raises(ConfigurationError) as caught:
        check_version(store, "v1", changed)
    message = str(caught.value)
    for part in ("'subpixel', now 'reference'", "'abc'", "'xyz'", "limit: None, now 3", "--version-name"):
        assert part in message
    assert "flip" not in message
    assert "\n" not in message
    assert read_json(store.configuration_file("v1")) == CONFIGURATION
    claim_version(store, "v2", changed)
    assert configuration_hash(CONFIGURATION) != configuration_hash(changed)
    assert configuration_hash(CONFIGURATION) == configuration_hash(dict(reversed(CONFIGURATION.items())))


def test_other_peoples_folders_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "photographs").mkdir()
    with exclusive(tmp_path), pytest.raises(ConfigurationError, match="not empty and not a data set"):
        claim_version(Store(tmp_path), "v1", CONFIGURATION)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [".lock", "photographs"]


@pytest.mark.parametrize("version", ["", "a/b", "..", ".v1", "v1.partial"])
def test_a_version_name_is_part_of_a_path(tmp_path: Path, version: str) -> None:
    with pytest.raises(ConfigurationError, match="version name"):
        check_version(Store(tmp_path), version, CONFIGURATION)


def test_the_newest_version_is_the_last_that_was_finished(tmp_path: Path) -> None:
    store = Store(tmp_path)
    claim_version(store, "v1", CONFIGURATION)
    assert read_dataset(tmp_path) == {"format": FORMAT, "newest": None, "versions": []}
    for version in ("v1", "v2", "v1"):
        publish_version(store, version)
        assert read_dataset(tmp_path)["newest"] == version
    assert read_dataset(tmp_path)["versions"] == ["v2", "v1"]


@pytest.mark.parametrize(
    "change",
    [
        {"newest": "/abs/dir"},
        {"newest": "v2"},
        {"newest": None},
        {"versions": ["v1", "v1"]},
        {"versions": ["v1", "../v2"]},
        {"versions": {"v1": 1}},
        {"versions": "v1"},
        {"pinned": [1]},
        {"lineage": {"v1": {"parent": "../.."}}},
        {"lineage": []},
        {"manifests": {"v1": "0"}},
        {"sha256": 3},
    ],
)
def test_names_in_a_head_are_checked(tmp_path: Path, change: dict[str, Any]) -> None:
    claim_version(Store(tmp_path), "v1", CONFIGURATION)
    publish_version(Store(tmp_path), "v1")
    path = tmp_path / "dataset.json"
    path.write_bytes(dump_json(read_json(path) | change))
    with pytest.raises(DatasetError, match=r"dataset\.json"):
        read_dataset(tmp_path)


def test_what_is_no_data_set(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"no dataset\.json"):
        read_dataset(tmp_path)
    for content in (b"[]", b'{"format": 0}', b"{}"):
        (tmp_path / "dataset.json").write_bytes(content)
        with pytest.raises(DatasetError, match=f"expected format {FORMAT}"):
            read_dataset(tmp_path)


def test_markers_come_back_in_order(tmp_path: Path) -> None:
    store = Store(tmp_path)
    drop = Drop("300w/x", "300w", "empty box", "x 1 to 1")
    file = store.write(store.faces("300w", "indoor-0000"), b"pictures")
    assert file == FileRecord("faces/300w/indoor-0000.h5", 8, sha256(b"pictures"))

    def files(source: str, number: int) -> tuple[FileRecord, ...]:
        return (FileRecord(f"faces/{source}/indoor-{number:04d}.h5", 8, file.sha256),)

    records = [
        ShardRecord(source, "indoor", number, number == 1, 9, 5, 4, (drop,), files(source, number), sha256(b""))
        for source in ("300w", "menpo")
        for number in (0, 1)
    ]
    for record in reversed(records):
        store.write_marker("v1", record)
    assert list(store.markers("v1")) == records
    marker = store.marker("v1", "300w", "indoor-0000")
    whole = read_json(marker)
    outside = [whole["files"][0] | {"path": path} for path in ("../../secret", "/etc/passwd", "faces/menpo/a-0000.h5")]
    for change in (
        {"source": "../../../outside"},
        {"source": "menpo"},
        {"part": "indoor/../x"},
        {"number": 1},
        {"number": -1},
        {"read": True},
        {"drops": [{}]},
        {"drops": None},
        *({"files": [file]} for file in outside),
        {"files": [whole["files"][0] | {"sha256": "0"}]},
        {"more": 1},
    ):
        marker.write_bytes(dump_json(whole | change))
        with pytest.raises(DatasetError, match=r"not a marker|another shard"):
            list(store.markers("v1"))
    for content in (b"{}", b"[]", b"0"):
        marker.write_bytes(content)
        with pytest.raises(DatasetError, match="not a marker"):
            list(store.markers("v1"))


def test_every_fault_of_the_options_is_listed() -> None:
    with pytest.raises(ConfigurationError) as caught:
        BuildOptions(sources=("300w", "lfw", "sample"), decode="exact", batch=0, workers=-1, shard_size=0)  # type: ignore[arg-type]
    for part in (
        "'exact'",
        "'lfw'",
        "cannot be mixed",
        "batch 0",
        "workers -1",
        "shard-size 0",
        "300w needs its folder",
    ):
        assert part in str(caught.value)
    with pytest.raises(ConfigurationError, match="unknown option pictures"):
        make_options({"pictures": 3})
    with pytest.raises(ConfigurationError, match="many"):
        make_options({"batch": "many"})


def test_options_from_plain_values(tmp_path: Path) -> None:
    options = make_options({"sources": "300w, menpo", "root": str(tmp_path), "roots": {"menpo": "m"}, "limit": None})
    assert options.sources == ("300w", "menpo")
    assert (options.root_of("300w"), options.root_of("menpo")) == (tmp_path, Path("m"))
    assert make_options({}) == BuildOptions()


def test_what_decides_the_content_is_recorded() -> None:
    plain = recorded(BuildOptions(), {})
    assert recorded(BuildOptions(workers=3, batch=2, gpu="none", out=Path("x")), {}) == plain
    for other in (BuildOptions(flip=False), BuildOptions(decode="reference"), BuildOptions(shard_size=8)):
        assert recorded(other, {}) != plain
    dump_json(plain)


def test_pipeline_files(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("sources: [300w]\nshard-size: 8\n")
    assert read_pipeline(path) == {"sources": ["300w"], "shard_size": 8}
    for content in (b"- 1", b"a: [", b"\xff", b""):
        path.write_bytes(content)
        with pytest.raises(ConfigurationError, match=r"a\.yaml"):
            read_pipeline(path)
    with pytest.raises(ConfigurationError, match=r"b\.yaml"):
        read_pipeline(tmp_path / "b.yaml")


def test_data_that_travels_with_the_code_is_found() -> None:
    assert (folder("bundled") / "mean_head.csv").is_file()
    assert manifest("300w")["subsets"]["indoor"]["expected"] == 300
    with pytest.raises(FileNotFoundError, match="reinstall"):
        folder("no-such-folder")


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_without_locks_a_warning_says_what_is_at_risk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, number: int
) -> None:
    def refuse(file: object, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with exclusive(tmp_path):
        pass
    assert "has no locks" in caplog.text
    assert "do not run a second ls3dw" in caplog.text


def test_other_faults_of_a_lock_are_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(file: object, operation: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(fcntl, "flock", fail)
    with pytest.raises(OSError, match="Input/output"), exclusive(tmp_path):
        pass

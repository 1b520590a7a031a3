"""`ls3dw versions`: listed with what they build on, pinned, deleted; a kill leaves no half of one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from conftest import Command

from ls3dw.building.options import BuildOptions
from ls3dw.building.pipeline import Build
from ls3dw.building.regenerate import Regeneration, resolve_options
from ls3dw.core.files import remove_partial, sha256_file
from ls3dw.dataset import store, versions
from ls3dw.dataset.open import open_dataset
from ls3dw.dataset.verify import verify
from ls3dw.errors import ConfigurationError, DatasetError


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory, tiny_models: dict[str, str]) -> Path:
    """v1, v2 of all its faces, v3 with one source of v2 made again; only for reading."""
    networks = {"model_2d": tiny_models["2d"], "model_3d": tiny_models["3d"], "model_depth": "none"}
    common = {**networks, "gpu": "none", "workers": 0}
    out = tmp_path_factory.mktemp("three") / "data"
    Build(BuildOptions(out=out, flip=False, limit=3, **common)).run(lambda plan: None, lambda chunk: None)
    for given in ({"flip": True}, {"flip": False, "only": ("source:menpo",)}):
        Regeneration(resolve_options(out, {**common, **given})).run(lambda plan: None, lambda chunk: None)
    return out


@pytest.fixture
def data(three: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(three, tmp_path / "data"))


def contents(root: Path) -> dict[str, str]:
    files = (path for path in root.rglob("*") if path.is_file() and path.name != ".lock")
    return {path.relative_to(root).as_posix(): sha256_file(path) for path in files}


def names(root: Path) -> list[str]:
    return [version.name for version in versions.list_versions(root)]


def test_the_list(ls3dw: Command, three: Path) -> None:
    first, second, third = json.loads(ls3dw("versions", three, "--json").out)
    assert [v["name"] for v in (first, second, third)] == ["v1", "v2", "v3"]
    assert [v["parent"] for v in (first, second, third)] == [None, "v1", "v2"]
    assert third["builds_on"] == ["v1", "v2"]
    assert (second["origin"], second["only"], third["only"]) == ("stored", [], ["source:menpo"])
    assert [v["newest"] for v in (first, second, third)] == [False, False, True]
    assert first["networks"] == {"2d": "tiny-2d", "3d": "tiny-3d", "depth": None}
    assert {v["faces"] for v in (first, second, third)} == {12}
    told = ls3dw("versions", three).out.splitlines()
    assert len(told) == 4
    assert "NEWEST" in told[3]
    assert "source:menpo" in told[3]


def test_an_unfinished_version_is_listed_as_begun(data: Path) -> None:
    listed = json.loads((data / "dataset.json").read_text())
    (data / "dataset.json").write_text(json.dumps(listed | {"versions": ["v1", "v2"], "newest": "v2"}))
    last = versions.list_versions(data)[-1]
    assert (last.name, last.faces, last.parent) == ("v3", None, "v2")
    with pytest.raises(ConfigurationError, match="v3 built on v2"):
        versions.delete(data, "v2")


def test_a_pin_protects_and_does_not_choose(ls3dw: Command, data: Path) -> None:
    assert "PINNED" in ls3dw("versions", data, "pin", "v3").out
    for force in ((), ("--force",)):
        assert "v3 is pinned; unpin it first" in ls3dw("versions", data, "delete", "v3", *force).error
    assert ls3dw("versions", data, "pin", "v1").status == 0
    assert open_dataset(data).version == "v3"
    assert ls3dw("versions", data, "unpin", "v3").status == 0
    assert "'v3' is not pinned" in ls3dw("versions", data, "unpin", "v3").error
    assert ls3dw("versions", data, "delete", "v3").status == 0
    assert [v.pinned for v in versions.list_versions(data)] == [True, False]


def test_deleted_it_leaves_the_others_to_the_byte(ls3dw: Command, data: Path) -> None:
    (data / "subsets" / "v3").mkdir(parents=True)
    (data / "subsets" / "v3" / "some.parquet").touch()
    before = contents(data)
    assert ls3dw("versions", data, "delete", "v3").status == 0
    after = contents(data)
    own = ("annotations/v3/", "subsets/v3/", "galleries/v3/")
    changed = {"dataset.json", "DATASET_CARD.md"}
    assert {path for path in before if path not in after} == {path for path in before if path.startswith(own)}
    assert {path for path in after if after[path] != before[path]} == changed
    assert not any((data / folder).exists() for folder in own)
    assert open_dataset(data).version == "v2"
    assert json.loads((data / "dataset.json").read_text())["lineage"].keys() == {"v2"}
    assert "version v2" in (data / "DATASET_CARD.md").read_text().splitlines()[0]
    assert [verify(data, version)[1] for version in ("v1", "v2")] == [[], []]


def test_what_others_build_on_and_the_last_one_need_force(ls3dw: Command, data: Path) -> None:
    before = contents(data)
    assert "v2, v3 built on v1; --force" in ls3dw("versions", data, "delete", "v1").error
    assert contents(data) == before
    assert ls3dw("versions", data, "delete", "v1", "--force").status == 0
    assert [verify(data, version)[1] for version in ("v2", "v3")] == [[], []]
    lineage = open_dataset(data, "v3").manifest["lineage"]
    assert lineage[0]["configuration"]["models"]["2d"]["name"] == "tiny-2d", "what made v1's rows is still known"
    for name in ("v3", "v2"):
        ended = ls3dw("versions", data, "delete", name)
    assert "v2 is the last version" in ended.error
    assert ls3dw("versions", data, "delete", "v2", "--force").status == 0
    assert {path.split("/")[0] for path in contents(data)} == {"dataset.json", "faces"}
    with pytest.raises(DatasetError, match="no finished version"):
        open_dataset(data)


class Killed(BaseException):
    """Stands for a kill: nothing of the program runs after it."""


def dying(step, left):  # type: ignore[no-untyped-def]
    def run(*words, **options):  # type: ignore[no-untyped-def]
        if next(left, None) is None:
            raise Killed
        return step(*words, **options)

    return run


def delete_until(steps: int, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Delete v3, killed after so many steps that change the disk."""
    left = iter(range(steps))
    with monkeypatch.context() as patch:
        for owner, name in ((store, "write_atomic"), (Path, "rename"), (versions.shutil, "rmtree")):
            patch.setattr(owner, name, dying(getattr(owner, name), left))
        versions.delete(data, "v3")


def test_killed_at_any_step_it_is_whole_or_not_listed(
    three: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = contents(three)
    for steps in range(6):  # dataset.json; annotations and galleries each renamed and removed; the card
        data = Path(shutil.copytree(three, tmp_path / str(steps)))
        with pytest.raises(Killed):
            delete_until(steps, data, monkeypatch)
        if steps == 0:
            assert contents(data) == whole
            continue
        assert open_dataset(data).versions == ("v1", "v2")
        assert names(data) == ["v1", "v2", *["v3"] * (data / "annotations" / "v3").exists()]
        if any((data / folder / "v3").exists() for folder in ("annotations", "galleries")):
            versions.delete(data, "v3")
        else:
            remove_partial(data)
        assert names(data) == ["v1", "v2"]
        assert not any("/v3" in path for path in contents(data))
        assert verify(data, "v2")[1] == []
    delete_until(6, data := Path(shutil.copytree(three, tmp_path / "all")), monkeypatch)
    assert open_dataset(data).versions == ("v1", "v2")


@pytest.mark.parametrize(
    ("words", "status", "fault"),
    [
        (("delete", "v9"), 1, "no version 'v9'; it has v1, v2, v3"),
        (("delete", "../faces"), 1, "no version '../faces'"),
        (("delete", ".."), 1, "no version '..'"),
        (("pin", "v9"), 1, "no version 'v9'"),
        (("pin",), 2, "name the version"),
        (("pin", "v1", "--force"), 2, "--force is for delete"),
        (("drop", "v1"), 2, "'drop' is not one of"),
    ],
)
def test_faults(ls3dw: Command, data: Path, words: tuple[str, ...], status: int, fault: str) -> None:
    before = contents(data)
    ended = ls3dw("versions", data, *words)
    assert ended.status == status
    assert fault in ended.err
    assert contents(data) == before


def test_not_a_data_set(ls3dw: Command, tmp_path: Path) -> None:
    for words in ((), ("delete", "v1"), ("pin", "v1"), ("unpin", "v1")):
        assert "not a data set" in ls3dw("versions", tmp_path, *words).error
    assert list(tmp_path.iterdir()) == []

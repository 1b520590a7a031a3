"""`ls3dw audit apply`: what people decided becomes a version; shards stay, index, subsets and drops follow."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import Command
from gallery_data import decide
from hypothesis import given
from hypothesis import strategies as st

from ls3dw.building.finish import finish_version
from ls3dw.dataset.decisions import VERDICTS, Audit, Decision, merge
from ls3dw.dataset.open import open_dataset
from ls3dw.dataset.store import AUDITED, Store, claim_version, read_dataset, write_dataset
from ls3dw.dataset.subsets.lists import write_subset
from ls3dw.dataset.verify import verify
from ls3dw.errors import AuditError

GONE = "300w/01_Indoor/indoor_002"
WRONG = "menpo/aflw__face_00011"
FINE = "aflw2000/image00007"
FRAME = "300vw/001/000003"


@pytest.fixture
def data(sample_data: Path, tmp_path: Path) -> Path:
    return shutil.copytree(sample_data, tmp_path / "data")


def ids(root: Path, version: str | None = None) -> set[str]:
    return set(open_dataset(root, version).index["id"])


def test_rejected_faces_leave_index_and_subsets(ls3dw: Command, data: Path, tmp_path: Path) -> None:
    store = Store(data)
    names = sorted(ids(data))
    columns = {"id": np.array(names, dtype=object), "weight": np.arange(len(names))}
    write_subset(open_dataset(data), "balanced", columns, {"kind": "made up"})
    file = decide(data, tmp_path / "ada.json", "Ada", [(GONE, "reject", "09", "blurred"), (WRONG, "annotation wrong")])
    told = json.loads(ls3dw("audit", "apply", data, file, "--json").out)
    assert (told["version"], told["parent"], told["rejected"], told["subsets"]) == ("v2", "v1", 1, {"balanced": 1})
    after = open_dataset(data)
    assert after.version == "v2"
    assert ids(data, "v1") - ids(data) == {GONE}
    subset = pd.read_parquet(store.subset_file("v2", "balanced"))
    assert set(subset["id"]) == set(names) - {GONE}
    assert subset.set_index("id")["weight"].to_dict() == {name: n for n, name in enumerate(names) if name != GONE}
    marks = after.index.set_index("id")["audit"]
    assert marks[WRONG] == "annotation wrong"
    assert (marks.drop(WRONG) == "").all()
    drops = pd.read_parquet(store.drops_file("v2"))
    assert drops.to_dict("records") == [
        {
            "id": GONE,
            "source": "300w",
            "reason": "rejected in audit",
            "detail": "Ada, 2026-03-01T09:00:00.000Z: blurred",
        }
    ]
    manifest = after.manifest
    assert (manifest["parent"], manifest["counts"]["300w"]) == (
        "v1",
        {"read": 12, "written": 11, "dropped": {"rejected in audit": 1}},
    )
    assert manifest["audit"] == {
        "people": [
            {
                "who": "Ada",
                "decisions": 2,
                "first": "2026-03-01T09:00:00.000Z",
                "last": "2026-03-01T12:00:00.000Z",
            }
        ],
        "verdicts": {"annotation wrong": 1, "reject": 1},
        "conflicts": 0,
        "resolve": None,
    }


def test_the_shards_stay(ls3dw: Command, data: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in data.glob("*/**/*.h5")}
    ls3dw("audit", "apply", data, decide(data, tmp_path / "a.json", "Ada", [(GONE, "reject")]))
    assert {path: path.read_bytes() for path in before} == before
    store = Store(data)
    for record in store.markers("v1"):
        old, new = (store.annotations(version, record.source, record.name) for version in ("v1", "v2"))
        assert old.samefile(new), "a second name for the same bytes"
    for version in ("v1", "v2"):
        assert verify(data, version)[1] == []
    first, second = open_dataset(data, "v1"), open_dataset(data)
    for face in (FINE, FRAME):
        assert (first[face].landmarks_3d == second[face].landmarks_3d).all()
    with pytest.raises(KeyError):
        second[GONE]
    assert second.column("nme").shape == (len(first) - 1,)


def test_a_face_that_is_missing_without_a_decision_is_a_fault(ls3dw: Command, data: Path, tmp_path: Path) -> None:
    ls3dw("audit", "apply", data, decide(data, tmp_path / "a.json", "Ada", [(GONE, "reject")]))
    store = Store(data)
    manifest = json.loads(store.manifest_file("v2").read_text())
    name = "annotations/v2/drops.parquet"
    store.write(store.drops_file("v2"), pd.read_parquet(store.drops_file("v2")).iloc[:0].to_parquet(index=False))
    manifest["files"] = [file for file in manifest["files"] if file["path"] != name]
    store.manifest_file("v2").write_text(json.dumps(manifest))
    head = read_dataset(data)
    write_dataset(store, head | {"manifests": {}})
    assert {fault.problem for fault in verify(data)[1]} == {"its ids are not those of the index"}


def test_the_same_again_is_nothing_new(ls3dw: Command, data: Path, tmp_path: Path) -> None:
    file = decide(data, tmp_path / "a.json", "Ada", [(GONE, "reject")])
    assert ls3dw("audit", "apply", data, file).status == 0
    again = ls3dw("audit", "apply", data, file)
    assert (again.status, again.out) == (0, "version v2 has all of these decisions already\n")
    assert open_dataset(data).versions == ("v1", "v2")


def test_the_next_name_is_the_one_that_regenerate_takes(
    ls3dw: Command, data: Path, tmp_path: Path, quick: list[str]
) -> None:
    """A name of a version that was deleted may still stand in rows and lineages: it is never used again."""
    regenerate = ("regenerate", data, *quick)
    assert ls3dw(*regenerate).status == ls3dw(*regenerate, "--only", "source:menpo").status == 0
    assert ls3dw("versions", data, "delete", "v2", "--force").status == 0
    planned = ls3dw(*regenerate, "--only", "source:300w", "--dry-run").out
    file = decide(data, tmp_path / "a.json", "Ada", [(GONE, "reject")])
    assert ls3dw("audit", "apply", data, file).out.startswith("version v4: version v3 without 1 face")
    assert "version v4; nothing was written" in planned


def test_broken_off_it_goes_on(ls3dw: Command, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = decide(data, tmp_path / "a.json", "Ada", [(GONE, "reject")])
    with monkeypatch.context() as patch:
        patch.setattr(
            "ls3dw.building.audit.finish_version", lambda *words: (_ for _ in ()).throw(OSError(28, "No space"))
        )
        assert ls3dw("audit", "apply", data, file).status == 1
    assert open_dataset(data).versions == ("v1",)
    assert ls3dw("audit", "apply", data, file).status == 0
    assert open_dataset(data).versions == ("v1", "v2")
    assert verify(data)[1] == []


def test_decisions_carry_on(ls3dw: Command, data: Path, tmp_path: Path) -> None:
    """Onto a further audit, and onto any version whose configuration comes from this one."""
    ls3dw("audit", "apply", data, decide(data, tmp_path / "a.json", "Ada", [(GONE, "reject"), (WRONG, "accept")]))
    ls3dw("audit", "apply", data, decide(data, tmp_path / "b.json", "Bob", [(FRAME, "reject")]))
    assert ids(data, "v1") - ids(data, "v3") == {GONE, FRAME}
    assert [person["who"] for person in open_dataset(data).manifest["audit"]["people"]] == ["Ada", "Bob"]
    store, configuration = Store(data), dict(open_dataset(data).manifest["configuration"])
    claim_version(store, "v4", configuration)
    for record in store.markers("v3"):
        old, new = (store.annotations(version, record.source, record.name) for version in ("v3", "v4"))
        new.parent.mkdir(exist_ok=True)
        shutil.copyfile(old, new)
        store.write_marker("v4", record)
    finish_version(store, "v4", configuration)
    assert ids(data, "v4") == ids(data, "v3")


def test_one_can_change_ones_mind(ls3dw: Command, data: Path, tmp_path: Path) -> None:
    ls3dw("audit", "apply", data, decide(data, tmp_path / "a.json", "Ada", [(GONE, "reject", "09")]))
    later = decide(data, tmp_path / "b.json", "Ada", [(GONE, "accept", "10")], version="v1")
    assert ls3dw("audit", "apply", data, later).status == 0
    assert ids(data) == ids(data, "v1")
    assert ls3dw("audit", "apply", data, tmp_path / "a.json").out == "version v3 has all of these decisions already\n"


def test_people_differ(ls3dw: Command, data: Path, tmp_path: Path) -> None:
    files = [
        decide(data, tmp_path / "a.json", "Ada", [(GONE, "reject", "09"), (WRONG, "accept", "11"), (FINE, "reject")]),
        decide(data, tmp_path / "b.json", "Bob", [(GONE, "accept", "10"), (WRONG, "reject", "10"), (FINE, "reject")]),
    ]
    refused = ls3dw("audit", "apply", data, *files)
    assert refused.status == 1
    assert "people differ on 2 faces" in refused.error
    assert f"{GONE}: Ada 'reject', Bob 'accept'" in refused.error
    shown = ls3dw("audit", "apply", data, *files, "--dry-run")
    assert shown.status == 0
    assert f"{WRONG}  Ada: accept (2026-03-01T11:00:00.000Z), Bob: reject" in shown.out
    assert open_dataset(data).versions == ("v1",)
    assert not (data / "audits").exists()
    for resolve, rejected in (("latest", {FINE}), ("reject", {GONE, WRONG, FINE})):
        words = ("--resolve", resolve, "--version", "v1", "--version-name", resolve)
        assert ls3dw("audit", "apply", data, *files, *words).status == 0
        assert ids(data, "v1") - ids(data, resolve) == rejected


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"kind": "other"}, "not a decisions.json"),
        ({"format": 2}, "not a decisions.json of format 1"),
        ({"who": " "}, "who ' ': expected text"),
        ({"decisions": {}}, "decisions: expected a list"),
        ({"decisions": [{"id": GONE}]}, "decision 0: expected texts id, verdict, note, when"),
        ({"decisions": [{"id": GONE, "verdict": "bin", "note": "", "when": "2026-01-01T00:00:00Z"}]}, "verdict 'bin'"),
        ({"decisions": [{"id": GONE, "verdict": "reject", "note": "", "when": "today"}]}, "when 'today'"),
        ({"decisions": [{"id": GONE, "verdict": "reject", "note": "", "when": "2026-01-01"}]}, "with its zone"),
        (
            {"decisions": [{"id": "x/1", "verdict": "reject", "note": "", "when": "2026-01-01T00:00:00Z"}]},
            "'x/1': no such face",
        ),
        ({"manifest": "0" * 64}, "made on a gallery of another data set"),
    ],
)
def test_decisions_that_cannot_be(
    ls3dw: Command, data: Path, tmp_path: Path, changes: dict[str, Any], fault: str
) -> None:
    ended = ls3dw("audit", "apply", data, decide(data, tmp_path / "a.json", "Ada", [], **changes))
    assert (ended.status, ended.out) == (1, "")
    assert fault in ended.error
    assert open_dataset(data).versions == ("v1",)


def test_files_that_are_none(ls3dw: Command, data: Path, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{")
    for name in ("a.json", "missing.json"):
        ended = ls3dw("audit", "apply", data, tmp_path / name)
        assert (ended.status, name in ended.error) == (1, True)
    assert ls3dw("audit", "apply", data).status == 2
    taken = ls3dw(
        "audit", "apply", data, decide(data, tmp_path / "b.json", "A", [(GONE, "reject")]), "--version-name", "v1"
    )
    assert (taken.status, "version v1 is there already" in taken.error) == (1, True)


TIMES = st.integers(0, 3).map(lambda hour: f"2026-03-01T0{hour}:00:00+00:00")
MADE = st.builds(
    Decision,
    id=st.sampled_from(["a", "b"]),
    verdict=st.sampled_from(["", *VERDICTS]),
    note=st.sampled_from(["", "x"]),
    who=st.sampled_from(["Ada", "Bob"]),
    when=TIMES,
    version=st.just("v1"),
    gallery=st.just("worst"),
)


@given(st.lists(st.lists(MADE, max_size=4), max_size=3))
def test_the_order_of_files_never_matters(sets: list[list[Decision]]) -> None:
    merged = merge(*sets)
    assert all(merge(*order) == merged for order in itertools.permutations(sets))
    assert merge(merged, *sets) == merged
    assert len({(decision.id, decision.who) for decision in merged}) == len(merged)
    for resolve in ("latest", "reject"):
        audit = Audit(merged, resolve)
        for face, decision in audit.outcomes.items():
            own = [each for each in merged if each.id == face and each.verdict]
            best = max(own, key=lambda each: each.time).time if resolve == "latest" else None
            strictest = min(VERDICTS.index(each.verdict) for each in own)
            assert decision.time == best or (best is None and VERDICTS.index(decision.verdict) == strictest)
    if Audit(merged).conflicts:
        with pytest.raises(AuditError, match="people differ"):
            _ = Audit(merged).outcomes


def test_an_audit_is_part_of_the_configuration(ls3dw: Command, data: Path, tmp_path: Path) -> None:
    ls3dw("audit", "apply", data, decide(data, tmp_path / "a.json", "Ada", [(GONE, "reject")]))
    configuration = open_dataset(data).manifest["configuration"]
    kept = Store(data).audit_file(configuration[AUDITED]["decisions"])
    assert kept.is_file()
    assert kept.relative_to(data).as_posix() in {file["path"] for file in open_dataset(data).manifest["files"]}


def test_regenerating_keeps_decisions(ls3dw: Command, data: Path, tmp_path: Path, tiny_models: dict[str, str]) -> None:
    ls3dw("audit", "apply", data, decide(data, tmp_path / "a.json", "Ada", [(GONE, "reject"), (WRONG, "accept")]))
    networks = [f"--model-{kind}={tiny_models[kind]}" for kind in ("2d", "3d")]
    words = (*networks, "--model-depth", "none", "--gpu", "none", "--workers", "0", "--flip", "--only", "source:300w")
    ended = ls3dw("regenerate", data, *words)
    assert ended.status == 0, ended.err
    assert open_dataset(data).version == "v3"
    assert ids(data) == ids(data, "v2")
    assert open_dataset(data).index.set_index("id")["audit"][WRONG] == "accept"
    assert verify(data)[1] == []
    assert ls3dw("gallery", data, "--show", "changed:v2").status == 0
    shown = (data / "galleries" / "v3" / "changed-v2" / "data.js").read_text()
    assert '"total":11' in shown, "the faces of 300-W that are left moved, and no other"

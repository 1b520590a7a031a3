"""`ls3dw evaluate`: any method's landmarks against the sources' own, compared with plain loops."""

from __future__ import annotations

import csv
import io
import json
import math
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import Command
from helpers import pts
from PIL import Image

from ls3dw.core.formats import t7
from ls3dw.dataset.open import Dataset, open_dataset
from ls3dw.errors import PredictionError
from ls3dw.evaluation.measure import EvaluationProtocol, measure_predictions, read_truth
from ls3dw.evaluation.paper import PUBLISHED
from ls3dw.evaluation.predictions import Predictions, read_predictions
from ls3dw.evaluation.scores import Score, evaluate

Table = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def sample(sample_data: Path) -> Dataset:
    return open_dataset(sample_data)


@pytest.fixture(scope="module")
def shaken(sample: Dataset) -> Table:
    """The sources' own points, shaken by 0 to 12 % of the face, as another method might give them; NaN as there."""
    rng = np.random.default_rng(0)
    table = {}
    for face in sample:
        size = math.sqrt((face.box[2] - face.box[0]) * (face.box[3] - face.box[1]))
        noise = rng.normal(0, rng.uniform(0, 0.06) * size, (68, 2))
        table[face.id] = (face.annotation + noise).astype(np.float32)
    return table


def plain_nme(predicted: np.ndarray, truth: np.ndarray) -> float:
    """The paper's formula, one point after the other."""
    xs, ys = [float(x) for x, _ in truth], [float(y) for _, y in truth]
    size = math.sqrt((max(xs) - min(xs)) * (max(ys) - min(ys)))
    far = [math.dist(map(float, p), map(float, t)) for p, t in zip(predicted, truth, strict=True)]
    far = [value for value in far if not math.isnan(value)]
    return sum(far) / len(far) / size if far else math.nan


def plain_scores(sample: Dataset, table: Table, threshold: float, chosen: Callable[[Any], bool]) -> dict[str, Any]:
    errors, missing = [], 0
    for row, face in zip(sample.index.itertuples(), sample, strict=True):
        if not chosen(row) or np.isnan(face.annotation).any():
            continue
        error = plain_nme(table[face.id], face.annotation) if face.id in table else math.nan
        if math.isnan(error):
            missing += 1
        else:
            errors.append(error)
    steps = [step / 999 for step in range(round(threshold * 1000))]
    return {
        "faces": len(errors),
        "missing": missing,
        "nme_mean": sum(errors) / len(errors),
        "nme_median": float(np.median(errors)),
        "auc": sum(max(0.0, threshold - error) for error in errors) / len(errors) / threshold,
        "auc_published": sum(sum(error < step for error in errors) / len(errors) for step in steps) / len(steps),
        "failures": sum(error > threshold for error in errors),
        "failure_rate": sum(error > threshold for error in errors) / len(errors),
    }


def write_npz(path: Path, table: Table) -> Path:
    np.savez(path, id=np.array(list(table)), landmarks=np.stack(list(table.values())))
    return path


@pytest.mark.parametrize("threshold", [0.07, 0.04])
def test_scores_are_those_of_a_plain_loop(
    ls3dw: Command, sample: Dataset, shaken: Table, tmp_path: Path, threshold: float
) -> None:
    table = {face: points for face, points in shaken.items() if face not in ("300w/01_Indoor/indoor_002",)}
    table["menpo/aflw__face_00011"] = np.full((68, 2), np.nan, dtype=np.float32)
    table["aflw2000/image00007"] = np.where(np.arange(68)[:, None] < 17, np.nan, shaken["aflw2000/image00007"])
    file = write_npz(tmp_path / "p.npz", table)
    ended = ls3dw("evaluate", sample.store.root, "--predictions", file, "--threshold", threshold, "--json")
    told = json.loads(ended.out)
    (method,) = told["methods"]
    assert (method["method"], method["unknown"], told["version"]) == (str(file), 0, "v1")
    assert told["question"]["threshold"] == threshold
    rows = {(row["group"], row["name"]): row for row in method["scores"]}
    groups: dict[tuple[str, str], Callable[[Any], bool]] = {
        ("all", "all"): lambda row: True,
        ("source", "300w"): lambda row: row.source == "300w",
        ("source", "menpo"): lambda row: row.source == "menpo",
        ("subset", "300vw/A"): lambda row: row.source == "300vw" and row.subset == "A",
        ("subset", "300w/indoor"): lambda row: row.subset == "indoor",
        ("yaw", "0-30"): lambda row: abs(row.yaw) <= 30,
        ("yaw", "30-60"): lambda row: 30 < abs(row.yaw) <= 60,
        ("source and yaw", "300vw 0-30"): lambda row: row.source == "300vw" and abs(row.yaw) <= 30,
    }
    for key, chosen in groups.items():
        expected = plain_scores(sample, table, threshold, chosen)
        found = {name: rows[key][name] for name in expected}
        assert found == pytest.approx(expected, rel=1e-5, abs=1e-9), key
    assert rows["all", "all"]["missing"] == 2
    assert rows["all", "all"]["faces"] == 132 - 3 - 2, "three faces of Menpo have no 68 points to compare with"
    assert 0 < rows["all", "all"]["failures"] < rows["all", "all"]["faces"]


def test_the_version_itself(ls3dw: Command, sample: Dataset) -> None:
    told = json.loads(ls3dw("evaluate", sample.store.root, "--json").out)
    (told,) = told["methods"]
    assert told["method"] == "version v1"
    errors = sample.index["nme"].dropna()
    whole = told["scores"][0]
    assert (whole["faces"], whole["missing"]) == (len(errors), 0)
    assert whole["nme_mean"] == pytest.approx(errors.mean(), rel=1e-6)
    assert whole["nme_interval"][0] < whole["nme_mean"] < whole["nme_interval"][1]
    video = next(row for row in told["scores"] if row["name"] == "300vw/A")
    assert video["nme_interval"] is None, "the frames of one video say nothing of others"
    text = ls3dw("evaluate", sample.store.root).out
    assert "by yaw" in text
    assert f"right eye {100 * told['parts']['right eye']['mean']:.2f}" in text
    assert f"{100 * errors.mean():.2f}" in text.splitlines()[3]


def test_bins_of_yaw_share_no_face(sample: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    turned = sample.index.assign(yaw=np.resize([0.0, 30.0, -30.001, 60.0, -60.5, 90.0, 95.0, np.nan], len(sample)))
    opened = open_dataset(sample.store.root)
    monkeypatch.setitem(opened.__dict__, "index", turned)
    counts = {row.name: row.faces + row.missing for row in evaluate(opened).scores if row.group == "yaw"}
    known = sample.index["nme"].notna().to_numpy()
    place = np.arange(len(sample)) % 8
    expected = {"0-30": (0, 1), "30-60": (2, 3), "60-90": (4, 5), "above 90": (6,)}
    assert counts == {name: int((np.isin(place, places) & known).sum()) for name, places in expected.items()}


def test_every_form_gives_the_same_scores(sample: Dataset, shaken: Table, tmp_path: Path) -> None:
    deep = {face: np.column_stack((points, points[:, :1])) for face, points in shaken.items()}
    np.savez(tmp_path / "each.npz", **shaken)
    t7.save(tmp_path / "each.t7", dict(shaken))
    t7.save(tmp_path / "table.t7", {"id": list(shaken), "landmarks": np.stack(list(shaken.values()))})
    for face, points in shaken.items():
        for folder, suffix in (("pts", ".pts"), ("tensors", ".t7")):
            (tmp_path / folder / face).parent.mkdir(parents=True, exist_ok=True)
            file = tmp_path / folder / f"{face}{suffix}"
            file.write_bytes(pts(points.astype(float) + 1) if folder == "pts" else t7.dumps(points.astype(float)))
    reference = evaluate(sample, read_predictions(write_npz(tmp_path / "p.npz", shaken))).scores
    deep_file = write_npz(tmp_path / "deep.npz", deep)
    for other in (deep_file, *(tmp_path / name for name in ("each.npz", "each.t7", "table.t7", "tensors"))):
        assert evaluate(sample, read_predictions(other)).scores == reference, other
    # A profile face has no points here, and a .pts file with NaN is one without points; its numbers are text.
    for found, expected in zip(evaluate(sample, read_predictions(tmp_path / "pts")).scores, reference, strict=True):
        assert close(found, expected)


def close(found: Score, expected: Score) -> bool:
    return found.faces == expected.faces and found.nme_mean == pytest.approx(expected.nme_mean, rel=1e-5)


@pytest.mark.parametrize("face", ['it\'s "so"/a b', "300w/ümläut/ß-写真", "x/%00..//", "'"])
def test_any_id_is_read(tmp_path: Path, face: str) -> None:
    points = np.arange(136, dtype=np.float32).reshape(68, 2)
    write_npz(tmp_path / "a.npz", {face: points})
    np.savez(tmp_path / "b.npz", id=np.array([face.encode()]), landmarks=points[None])
    t7.save(tmp_path / "c.t7", {face: points})
    t7.save(tmp_path / "d.t7", {"id": [face], "landmarks": points[None]})
    for name in ("a.npz", "b.npz", "c.t7", "d.t7"):
        found = read_predictions(tmp_path / name)
        assert found.ids == {face}
        np.testing.assert_array_equal(found.take([face, "other"]), [points, np.full((68, 2), np.nan)])


def test_files_of_quoted_and_unicode_names(tmp_path: Path) -> None:
    points = np.arange(136, dtype=np.float64).reshape(68, 2)
    names = ["300w/01_Indoor/it's_ü", 'menpo/"x".y']
    for name in names:
        file = tmp_path / f"{name}.pts"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(pts(points + 1))
    found = read_predictions(tmp_path)
    assert found.ids == set(names)
    np.testing.assert_array_equal(found.take(names), [points, points])


def test_predictions_of_other_faces_are_counted(ls3dw: Command, sample: Dataset, shaken: Table, tmp_path: Path) -> None:
    points = shaken["300w/01_Indoor/indoor_001"]
    some = {"300w/01_Indoor/indoor_001": points, "elsewhere/1": points, "elsewhere/2": points}
    told = ls3dw("evaluate", sample.store.root, "--predictions", write_npz(tmp_path / "p.npz", some)).out
    assert "2 predictions are of faces that are not in the data set" in told
    del some["300w/01_Indoor/indoor_001"]
    ended = ls3dw("evaluate", sample.store.root, "--predictions", write_npz(tmp_path / "p.npz", some))
    assert ended.status == 1
    assert "none of its 2 ids" in ended.error
    assert "it has 'elsewhere/1', the data set '300vw/001/000001'" in ended.error


GOOD = np.zeros((68, 2))


def test_an_array_that_claims_too_much_is_refused(tmp_path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (1 << 45, 68, 2)})
    with zipfile.ZipFile(tmp_path / "p.npz", "w") as archive:
        archive.writestr("a.npy", header.getvalue())
    with pytest.raises(PredictionError, match=r"p\.npz: a claims \d+ bytes; at most 1073741824 are read"):
        read_predictions(tmp_path / "p.npz")


@pytest.mark.parametrize("junk", ["300w/01_Indoor/._a.pts", "__MACOSX/300w/01_Indoor/._a.pts"])
def test_files_of_operating_systems_are_no_predictions(tmp_path: Path, junk: str) -> None:
    for name, data in (("300w/01_Indoor/a.pts", pts(np.random.default_rng(0).random((68, 2)))), (junk, b"\0\5\x16\7")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    assert read_predictions(tmp_path).ids == {"300w/01_Indoor/a"}


def test_ids_of_another_letter_case_are_named(sample: Dataset) -> None:
    truth = read_truth(sample, EvaluationProtocol())
    other = Predictions("p.npz", {face.upper(): np.zeros((68, 2), np.float32) for face in sample.index["id"]})
    with pytest.raises(PredictionError, match=r"differ .* in letter case or Unicode form \(NFC, NFD\): '300VW/"):
        measure_predictions(sample, truth, other)


def npz(path: Path, **arrays: Any) -> None:
    np.savez(path, **arrays)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, "no predictions in it"),
        ({"a": np.zeros((67, 2))}, r"a: float64 \(67, 2\); expected 68 points of 2 or 3 numbers"),
        ({"a": np.zeros((2, 68))}, r"\(2, 68\); expected"),
        ({"a": np.zeros(136)}, r"\(136,\); expected"),
        ({"a": np.full((68, 2), "1")}, r"<U1 \(68, 2\); expected"),
        ({"a": np.zeros((68, 2), dtype=complex)}, r"complex128 \(68, 2\); expected"),
        ({"a": np.where(GOOD == 0, np.inf, 0)}, "infinite coordinate"),
        ({"a": np.full((68, 2), 1e300)}, "infinite coordinate"),
        ({"id": np.array(["a"]), "landmarks": np.zeros((2, 68, 2))}, "2 landmarks and 1 in id"),
        ({"landmarks": np.zeros((2, 68, 2))}, "2 landmarks and 0 in id"),
        ({"id": np.array("a"), "landmarks": np.float64(3)}, r"landmarks: \(\); expected"),
        ({"id": np.array(["a", "a"]), "landmarks": np.zeros((2, 68, 2))}, "two predictions of 'a'"),
        ({"a": np.array([None])}, "a is an array of Python objects, .*; save numbers"),
        ({"a": np.zeros((68, 2)), "b": np.array(["x", 1], dtype=object)}, "b is an array of Python objects"),
    ],
)
def test_wrong_arrays_are_refused(tmp_path: Path, arrays: Table, message: str) -> None:
    npz(tmp_path / "p.npz", **arrays)
    with pytest.raises(PredictionError, match=message):
        read_predictions(tmp_path / "p.npz")


def test_wrong_files_are_refused(ls3dw: Command, sample: Dataset, tmp_path: Path) -> None:
    whole = write_npz(tmp_path / "whole.npz", {"a": GOOD}).read_bytes()
    files = {"cut.npz": whole[:-40], "text.npz": b"id,x,y\n", "empty.npz": b"", "p.csv": b"id,x,y\n", "x.t7": b"\x04"}
    bad = bytearray(whole)
    bad[200] ^= 255
    files["bad.npz"] = bytes(bad)
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    t7.save(tmp_path / "tensor.t7", GOOD)
    t7.save(tmp_path / "words.t7", {"a": "words"})
    with zipfile.ZipFile(tmp_path / "other.npz", "w") as archive:
        archive.writestr("readme.txt", "nothing")
    (tmp_path / "nothing").mkdir()
    (tmp_path / "points").mkdir()
    (tmp_path / "points" / "a.pts").write_bytes(pts(np.zeros((5, 2))))
    names = [*files, "tensor.t7", "words.t7", "other.npz", "nothing", "points", "missing.npz"]
    for name in names:
        ended = ls3dw("evaluate", sample.store.root, "--predictions", tmp_path / name)
        assert ended.status == 1, name
        assert name.partition(".")[0] in ended.error
    twice = tmp_path / "twice"
    twice.mkdir()
    (twice / "a.pts").write_bytes(pts(GOOD))
    t7.save(twice / "a.t7", GOOD)
    with pytest.raises(PredictionError, match="two predictions of 'a'"):
        read_predictions(twice)


def test_a_data_set_without_faces(ls3dw: Command, tmp_path: Path) -> None:
    folder = tmp_path / "LS3D-W" / "Menpo-3D"
    folder.mkdir(parents=True)
    (folder / "a.t7").write_bytes(b"")
    words = ("--root", tmp_path / "LS3D-W", "--out", tmp_path / "data", "--annotations", "published", "--workers", "0")
    assert ls3dw("build", "--source", "ls3dw", *words).status == 0
    assert open_dataset(tmp_path / "data").column("landmarks_3d").shape == (0, 68, 3)
    ended = ls3dw("evaluate", tmp_path / "data")
    assert (ended.status, "no faces to score" in ended.error) == (1, True)


def test_whole_columns_are_those_of_the_faces(sample: Dataset) -> None:
    for name in ("landmarks_3d", "crop", "id"):
        column = sample.column(name)
        assert len(column) == len(sample)
        for row in range(0, len(sample), 7):
            np.testing.assert_array_equal(column[row], getattr(sample[row], name))
    with pytest.raises(KeyError, match="no column 'landmarks'; choose from id"):
        sample.column("landmarks")


@pytest.fixture(scope="module")
def two_versions(sample_data: Path, tiny_models: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stills of the sample in two versions, the second with the 2D network's points in both."""
    from ls3dw.building.options import BuildOptions
    from ls3dw.building.pipeline import Build

    out = tmp_path_factory.mktemp("versions") / "data"
    for name, model_3d in (("v1", tiny_models["2d-to-3d"]), ("v2", tiny_models["3d"])):
        options = BuildOptions(
            out=out,
            model_2d=tiny_models["2d"],
            model_3d=model_3d,
            model_depth=tiny_models["depth"],
            gpu="none",
            workers=0,
            flip=False,
            limit=4,
            version_name=name,
        )
        Build(options).run(lambda plan: None, lambda record: None)
    return out


def test_one_version_against_another(ls3dw: Command, two_versions: Path) -> None:
    first, second = (open_dataset(two_versions, name) for name in ("v1", "v2"))
    words = ("evaluate", two_versions, "--version", "v1", "--against", "v2", "--points", "3d", "--json")
    (told,) = json.loads(ls3dw(*words).out)["methods"]
    ours, theirs = first.column("landmarks_3d"), second.column("landmarks_3d")
    rows = [plain_nme(a[:, :2], b[:, :2]) for a, b in zip(ours, theirs, strict=True)]
    whole = told["scores"][0]
    assert whole["faces"] == len(first)
    assert whole["nme_mean"] == pytest.approx(np.mean(rows), rel=1e-5)
    gaps = (ours - theirs)[..., 2].astype(float)
    sizes = np.sqrt(np.ptp(theirs[..., 0], axis=1) * np.ptp(theirs[..., 1], axis=1))
    z = np.abs(gaps - gaps.mean(axis=1, keepdims=True)).mean(axis=1) / sizes
    assert whole["z_mean"] == pytest.approx(z.mean(), rel=1e-4)
    (flat,) = json.loads(ls3dw(*words[:-2], "2d", "--json").out)["methods"]
    assert flat["scores"][0]["nme_mean"] == 0, "both have the same 2D network"
    ended = ls3dw("evaluate", two_versions, "--version", "v2", "--against", "v2")
    assert (ended.status, "against itself" in ended.error) == (1, True)
    ended = ls3dw("evaluate", two_versions, "--against", "v9")
    assert (ended.status, "no version 'v9'" in ended.error) == (1, True)


def test_a_version_that_lacks_faces(two_versions: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset, other = open_dataset(two_versions, "v1"), open_dataset(two_versions, "v2")
    kept = other.index.iloc[3:].sample(frac=1, random_state=0).reset_index(drop=True)
    monkeypatch.setitem(other.__dict__, "index", kept)
    monkeypatch.setattr("ls3dw.evaluation.measure._sibling", lambda dataset, version: other)
    question = EvaluationProtocol(against="v2", points="2d")
    truth = read_truth(dataset, question)
    assert np.isnan(truth.points[:3]).all()
    assert truth.known.tolist() == [False] * 3 + [True] * (len(dataset) - 3)
    np.testing.assert_array_equal(truth.points[3:], dataset.column("landmarks_2d")[3:])


def test_several_methods_in_one_report(ls3dw: Command, sample: Dataset, shaken: Table, tmp_path: Path) -> None:
    exact = {face.id: face.annotation for face in sample}
    files = {"shaken": write_npz(tmp_path / "s.npz", shaken), "$exact$": write_npz(tmp_path / "e=1.npz", exact)}
    given = [word for name, file in files.items() for word in ("--predictions", f"{name}={file}")]
    words = ("evaluate", sample.store.root, "--version", "v1", *given, "--normaliser", "outer-eye")
    told = json.loads(ls3dw(*words, "--out", tmp_path / "a", "--json").out)
    assert [method["method"] for method in told["methods"]] == ["version v1", "shaken", "$exact$"]
    assert told["methods"][2]["scores"][0]["nme_mean"] == 0
    assert told == json.loads((tmp_path / "a" / "evaluation.json").read_text())
    text = ls3dw(*words, "--out", tmp_path / "b").out
    assert "per cent by outer-eye" in text
    names = {path.name for path in (tmp_path / "a").iterdir()}
    tables = {"evaluation.json", "scores.csv", "landmarks.csv", "failures.parquet", "failures.json"}
    assert names == tables | {"ced.png", "ced.svg"}
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name
    drawing = (tmp_path / "a" / "ced.svg").read_text()
    assert all(f">{name} (AUC" in drawing for name in ("version v1", "shaken", "$exact$"))
    with (tmp_path / "a" / "landmarks.csv").open() as file:
        landmarks = list(csv.DictReader(file))
    assert len(landmarks) == 3 * 68
    assert landmarks[68 + 30]["group"] == "nose ridge"


def test_failures_are_listed_worst_first(ls3dw: Command, sample: Dataset, shaken: Table, tmp_path: Path) -> None:
    file = write_npz(tmp_path / "s.npz", shaken)
    out = tmp_path / "out"
    told = json.loads(ls3dw("evaluate", sample.store.root, "--predictions", file, "--out", out, "--json").out)
    listed = json.loads((out / "failures.json").read_text())
    errors = {face.id: plain_nme(shaken[face.id], face.annotation) for face in sample}
    expected = sorted((name for name, error in errors.items() if error > 0.07), key=lambda name: -errors[name])
    assert [row["id"] for row in listed] == expected
    assert len(expected) == told["methods"][0]["scores"][0]["failures"] > 3
    table = pd.read_parquet(out / "failures.parquet")
    assert table["id"].tolist() == expected
    assert table["nme"].to_numpy() == pytest.approx([errors[name] for name in expected], rel=1e-5)
    assert {"id", "method", "source", "subset", "yaw", "nme"} == set(table)


def test_papers_figures_stand_beside_what_they_are_figures_of(ls3dw: Command, sample: Dataset) -> None:
    words = ("evaluate", sample.store.root)
    (beside,) = json.loads(ls3dw(*words, "--json").out)["methods"][0]["paper"]
    assert (beside["published"], beside["faces"]) == (0.669, 12)
    assert "ICCV 2017" in beside["where"]
    assert "66.9 %" in ls3dw(*words).out
    for other in (("--normaliser", "diagonal"), ("--threshold", 0.08), ("--points", "3d")):
        assert json.loads(ls3dw(*words, *other, "--json").out)["methods"][0]["paper"] == []
    assert [(figure.title, figure.auc) for figure in PUBLISHED] == [
        ("300-VW category C", 0.641),
        ("300-W test set", 0.669),
    ]


def test_the_command_line_knows_what_the_library_knows() -> None:
    from ls3dw.cli import evaluate as command
    from ls3dw.core.normalisers import NORMALISERS
    from ls3dw.evaluation.ablations import ABLATIONS

    assert command.NORMALISERS == NORMALISERS
    assert command.ABLATIONS == ABLATIONS


def test_two_methods_of_one_name(ls3dw: Command, sample: Dataset, shaken: Table, tmp_path: Path) -> None:
    file = write_npz(tmp_path / "s.npz", shaken)
    ended = ls3dw("evaluate", sample.store.root, "--predictions", file, "--predictions", file)
    assert (ended.status, "two methods of one name" in ended.err) == (2, True)


def test_heads_have_their_3d_points_too(tmp_path: Path, ls3dw: Command, quick: list[str]) -> None:
    """A source that annotates the contour and carries exact 3D points beside it, as rendered heads do."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "heads"
    folder.mkdir()
    true = rng.uniform(40, 160, (3, 68, 3)).astype(np.float32)
    for number, points in enumerate(true):
        fields = {"landmarks_2d": (points[:, :2] + 1).tolist(), "landmarks_3d": points.tolist()}
        fields |= {"visible": [1] * 68, "pose": [0.0, 0.0, 0.0]}
        (folder / f"head_{number:06d}.json").write_text(json.dumps(fields))
        Image.fromarray(rng.integers(0, 255, (200, 200, 3), dtype=np.uint8)).save(folder / f"head_{number:06d}.jpg")
    out = tmp_path / "data"
    assert ls3dw("build", "--source", "heads", "--root", folder, "--out", out, *quick).status == 0
    dataset = open_dataset(out)
    rows = [int(name[-6:]) for name in dataset.index["id"]]
    truth = read_truth(dataset, EvaluationProtocol(points="3d"))
    np.testing.assert_array_equal(truth.points, true[rows, :, :2])
    np.testing.assert_array_equal(truth.z, true[rows, :, 2])
    contour = read_truth(dataset, EvaluationProtocol(points="source"))
    np.testing.assert_array_equal(contour.points, true[rows, :, :2] + 1)
    assert np.isnan(contour.z).all()
    ended = ls3dw("evaluate", out, "--temporal")
    assert (ended.status, "is a frame of a video" in ended.error) == (1, True)

"""LS3D-W Balanced: equal bins, each picture once, frames spread out, the same draw again; its files and command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from conftest import Command
from hypothesis import given, settings
from hypothesis import strategies as st
from subset_data import flip, make_index, write_dataset

from ls3dw.dataset.open import open_dataset
from ls3dw.dataset.subsets.balanced import BalancedDraw, BalancedOptions, draw_balanced
from ls3dw.dataset.subsets.duplicates import NEAR, near_duplicates
from ls3dw.dataset.subsets.ranks import ranks
from ls3dw.errors import ConfigurationError, DatasetError

SMALL = BalancedOptions(total=90)


def check_draw(index: pd.DataFrame, drawn: BalancedDraw, options: BalancedOptions) -> pd.DataFrame:
    """Check what holds of every draw; return the drawn rows."""
    chosen = index.iloc[drawn.rows].assign(bin=drawn.bin, gap=drawn.gap)
    turned = chosen["yaw"].abs()
    for name, low, high in (("0-30", -1, 30), ("30-60", 30, 60), ("60-90", 60, 90)):
        rows = chosen["bin"] == name
        assert rows.sum() == len(chosen) / 3
        assert ((turned > low) & (turned <= high))[rows].all()
    assert chosen["id"].is_unique
    assert not chosen["broken"].any()
    assert not (chosen["nme"] > options.failure).any()
    assert (chosen["pose_residual"] <= options.residual).all()
    films = chosen[chosen["frame"] > 0]
    share = max(1, int(options.video_share * len(chosen)))
    assert films["media"].value_counts().max() <= share if len(films) else True
    # No two faces of different media are near-duplicates.
    found = near_duplicates(chosen["phash"].to_numpy(), pd.factorize(chosen["media"])[0], options.near)
    assert not len(found.pairs)
    assert not set(drawn.excluded) & set(drawn.rows.tolist())
    return chosen


def test_bins_have_equal_numbers() -> None:
    index = make_index(menpo=400, aflw2000=100, v001=900)
    drawn = draw_balanced(index, SMALL)
    chosen = check_draw(index, drawn, SMALL)
    assert len(chosen) == 90
    assert drawn.report["complete"]
    assert drawn.report["sources"]["0-30"] == chosen[chosen["bin"] == "0-30"]["source"].value_counts().to_dict()


def test_edges_belong_to_the_lower_bin() -> None:
    index = make_index(menpo=6).assign(yaw=np.array([0, -30, 30.001, -60, 60.001, 90], np.float32))
    chosen = check_draw(index, draw_balanced(index, BalancedOptions(total=6)), BalancedOptions(total=6))
    assert sorted(zip(chosen["yaw"].abs().round().astype(int), chosen["bin"], strict=True)) == [
        (0, "0-30"),
        (30, "0-30"),
        (30, "30-60"),
        (60, "30-60"),
        (60, "60-90"),
        (90, "60-90"),
    ]


def test_too_few_faces_give_the_most_they_can() -> None:
    index = make_index(menpo=60)
    index.loc[:49, "yaw"] = 5
    index.loc[50:55, "yaw"] = 45
    index.loc[56:, "yaw"] = -80
    drawn = draw_balanced(index, SMALL)
    check_draw(index, drawn, SMALL)
    assert drawn.report["drawn"] == 12
    assert not drawn.report["complete"]
    with pytest.raises(DatasetError, match="no usable face with \\|yaw\\| in 60-90"):
        draw_balanced(index.iloc[:56], SMALL)


def test_the_share_of_a_video_falls_with_the_total() -> None:
    """Two videos alone may give 5 % each, whatever the total: with few stills the total has to shrink."""
    index = make_index(menpo=45, v001=3000, v002=3000)
    drawn = draw_balanced(index, BalancedOptions(total=300, video_share=0.2))
    chosen = check_draw(index, drawn, BalancedOptions(total=300, video_share=0.2))
    assert 45 <= len(chosen) < 90
    assert drawn.report["largest medium"][1] <= 0.2 * len(chosen)


def test_what_is_left_out_is_told() -> None:
    index = make_index(menpo=300)
    index.loc[0:9, "broken"] = True
    index.loc[10:19, "nme"] = 0.0701
    index.loc[20:29, "nme"] = np.nan
    index.loc[30:34, "yaw"] = np.nan
    index.loc[35:39, "yaw"] = 90.5
    index.loc[40:49, "pose_residual"] = 0.21
    index.loc[50:59, "pose_residual"] = np.nan
    drawn = draw_balanced(index, SMALL)
    reasons = {row: reason for row, reason in drawn.excluded.items() if not reason.startswith("same")}
    expected = dict.fromkeys(range(10), "broken frame") | dict.fromkeys(range(10, 20), "failure")
    expected |= dict.fromkeys(range(30, 40), "no pose within 90 degrees")
    assert reasons == expected | dict.fromkeys(range(40, 60), "unlikely pose")
    assert drawn.report["excluded"]["failure"] == 10
    everything = draw_balanced(index, BalancedOptions(total=240))
    assert everything.report["without nme"] > 0, "a face that cannot be judged is no failure"


def test_a_picture_is_drawn_once_whatever_its_source() -> None:
    index = make_index(menpo=150, aflw2000=150, v001=2)
    twins = [flip(value, *range(number % (NEAR + 1))) for number, value in enumerate(index["phash"][:150])]
    index.loc[150:299, "phash"] = np.array(twins, dtype=np.uint64)
    index.loc[150:299, "yaw"] = index["yaw"].to_numpy()[:150]
    drawn = draw_balanced(index, BalancedOptions(total=300))
    chosen = check_draw(index, drawn, BalancedOptions(total=300))
    pairs = {row % 150 for row in drawn.rows if row < 300}
    assert len(pairs) == len(chosen[chosen["source"] != "300vw"])
    duplicate = next(reason for reason in drawn.excluded.values() if reason.startswith("same picture as "))
    assert duplicate.removeprefix("same picture as ") in set(chosen["id"])
    assert drawn.report["near-duplicates"]["pairs of hashes"]["aflw2000+menpo"] == 150 - 150 // (NEAR + 1) - 1


def test_mirrored_copies_are_never_drawn() -> None:
    index = make_index(**{"300w": 60, "menpo": 60})
    index["id"] = [f"{face}_mirror" if row % 2 else face for row, face in enumerate(index["id"])]
    drawn = draw_balanced(index, BalancedOptions(total=30))
    assert {row: reason for row, reason in drawn.excluded.items() if row % 2} == dict.fromkeys(
        range(1, 120, 2), "mirrored copy"
    )
    assert len(drawn.rows) == 30
    assert not (drawn.rows % 2).any()


def test_turned_copies_of_one_picture_count_once() -> None:
    index = make_index(**{"300wlp": 12})
    copies = [f"300wlp/HELEN{flip}/HELEN_2_1_{number}" for flip in ("", "_Flip") for number in range(6)]
    index["id"] = copies
    index["yaw"] = np.tile([10, 40, 70], 4).astype(np.float32)
    with pytest.raises(DatasetError, match="picture of one in another"):
        draw_balanced(index, BalancedOptions(total=3))


def test_frames_are_spread_while_others_remain() -> None:
    index = make_index({"yaw": np.float32(0)}, v001=640, v002=640)
    dice = np.random.default_rng(0)
    index["yaw"] = dice.permutation(np.repeat([10, 40, 70], [1000, 200, 80])).astype(np.float32)
    options = BalancedOptions(total=30, gap=32, video_share=0.6)
    drawn = draw_balanced(index, options)
    chosen = check_draw(index, drawn, options)
    assert set(chosen["gap"]) == {32}
    for _, film in chosen.sort_values("frame").groupby("media"):
        assert film["frame"].diff().min() >= 32
    crowded = draw_balanced(index, BalancedOptions(total=240, gap=32, video_share=0.6))
    assert crowded.report["drawn"] > 90
    assert min(crowded.gap) < 32 <= max(crowded.gap)


def test_frames_that_look_alike_come_last() -> None:
    """Half of a video stands still: its frames are drawn only when the others are used up."""
    index = make_index(v001=1200)
    index.loc[600:, "phash"] = index["phash"].iloc[600]
    moving = draw_balanced(index, BalancedOptions(total=30, gap=8, video_share=1))
    still = (moving.rows >= 600).sum()
    assert still <= 1
    assert moving.report["alike frames"] == 0
    crowded = draw_balanced(index, BalancedOptions(total=900, gap=8, video_share=1))
    assert (crowded.rows >= 600).sum() > 50
    assert crowded.report["alike frames"] > 0


@settings(deadline=None, max_examples=8)
@given(st.integers(0, 1000), st.integers(0, 2**32 - 1))
def test_the_same_seed_draws_the_same_whatever_the_order(seed: int, shuffle: int) -> None:
    index = make_index(menpo=200, v001=300)
    options = BalancedOptions(total=60, seed=seed)
    other = index.sample(frac=1, random_state=shuffle).reset_index(drop=True)
    drawn, again = draw_balanced(index, options), draw_balanced(other, options)
    assert index["id"].iloc[drawn.rows].tolist() == other["id"].iloc[again.rows].tolist()


def test_another_seed_draws_others() -> None:
    index = make_index(menpo=900)
    draws = [set(draw_balanced(index, BalancedOptions(total=90, seed=seed)).rows.tolist()) for seed in (0, 1)]
    assert len(draws[0] & draws[1]) < 45


def test_a_further_source_changes_no_more_than_its_share() -> None:
    old = make_index(menpo=900)
    new = pd.concat([make_index(aflw2000=100), old], ignore_index=True)
    before = set(old["id"].iloc[draw_balanced(old, BalancedOptions(total=300)).rows])
    after = set(new["id"].iloc[draw_balanced(new, BalancedOptions(total=300)).rows])
    added = {face for face in after if face.startswith("aflw2000/")}
    assert after - before == added, "every new face is one of the new source"
    assert 10 <= len(added) <= 50, "a tenth of all faces gives about a tenth of the draw"


def test_ranks_depend_on_seed_and_id_alone() -> None:
    names = ["a", "b", "c"]
    assert ranks(names, 1).tolist() == [ranks([name], 1)[0] for name in names]
    assert len({*ranks(names, 1).tolist(), *ranks(names, 2).tolist()}) == 6


@pytest.mark.parametrize(
    "wrong", [{"total": 100}, {"total": 0}, {"video_share": 0}, {"failure": 0}, {"gap": 0}, {"near": 12}]
)
def test_options_that_cannot_be(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="expected"):
        BalancedOptions(**wrong)


def test_an_index_of_before_says_so() -> None:
    with pytest.raises(DatasetError, match=r"no phash.*build the data set again"):
        draw_balanced(make_index(menpo=9).drop(columns="phash"), SMALL)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "data", make_index(menpo=400, aflw2000=100, v001=900))


def test_balanced_command(ls3dw: Command, data: Path) -> None:
    ended = ls3dw("subset", data, "balanced", "--total", 90, "--seed", 3, "--json")
    assert ended.status == 0, ended.err
    report = json.loads(ended.out)
    dataset = open_dataset(data)
    table = dataset.subset("balanced")
    file = data / "subsets" / "v1" / "balanced.parquet"
    assert report["file"] == str(file)
    assert table["bin"].value_counts().to_dict() == {"0-30": 30, "30-60": 30, "60-90": 30}
    assert {"id", "source", "media", "frame", "x0", "y1", "yaw", "nme", "phash", "model", "shard", "row"} <= set(table)
    assert set(table["model"]) == {"ab" * 32}
    again = dataset.index.set_index("id").loc[table["id"]]
    np.testing.assert_array_equal(again["phash"], table["phash"])
    note = json.loads(pq.read_schema(file).metadata[b"ls3dw"])
    assert note == json.loads(file.with_suffix(".json").read_bytes())
    assert note["options"]["seed"] == 3
    assert note["edges"]["30-60"] == [30, 60]
    assert set(dataset.subset("balanced-excluded")) == {"id", "reason"}
    first = file.read_bytes()
    assert ls3dw("subset", data, "balanced", "--total", 90, "--seed", 3).status == 0
    assert file.read_bytes() == first
    assert not list(data.rglob("*.partial"))


def test_less_than_asked_is_said(ls3dw: Command, data: Path) -> None:
    ended = ls3dw("subset", data, "balanced")
    assert ended.status == 0, ended.err
    assert "of the 7200 asked for: the most that this version can give equally" in ended.out


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("balanced", "--total", "100"), 2, "multiple of 3"),
        (("balanced", "--name", "../x"), 1, "subset name"),
        (("balanced", "--name", "origins"), 1, "the build wrote it"),
        (("balanced", "--failure", "0.001"), 1, "no usable face"),
    ],
)
def test_subsets_that_cannot_be(ls3dw: Command, data: Path, words: tuple[str, ...], status: int, said: str) -> None:
    ended = ls3dw("subset", data, *words)
    assert ended.status == status
    assert said in ended.error
    assert not (data / "subsets").exists()


def test_an_unknown_subset_names_those_there_are(ls3dw: Command, data: Path) -> None:
    assert ls3dw("subset", data, "balanced", "--total", 9).status == 0
    with pytest.raises(DatasetError, match="there are: balanced, balanced-excluded"):
        open_dataset(data).subset("other")

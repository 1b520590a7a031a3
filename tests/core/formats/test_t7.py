"""Torch7 files: what was written is read, what was shared is shared, and damage is an error whatever it is."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import REAL
from hypothesis import given, settings
from hypothesis import strategies as st
from t7_spelling import NAMES, Spelling, spell
from t7_values import assert_same, values

import ls3dw.core.formats.t7 as t7
from ls3dw.core.formats.t7 import Key, Layout, T7Function, T7Object
from ls3dw.errors import T7Error

FILES = REAL / "t7" / "landmarks"
LAYOUTS = [Layout(big_endian=big, long_size=size) for big in (False, True) for size in (8, 4)]
LAYOUTS.append(Layout(text=True))
POINTS = np.random.default_rng(0).uniform(0, 450, (68, 2))

real = pytest.mark.skipif(not FILES.is_dir(), reason="needs files written by Torch7")


@real
@pytest.mark.parametrize("name", ["pts_double", "pts_double_ascii", "pts_float", "view_transposed"])
def test_files_of_torch7_are_read_exactly(name: str) -> None:
    found, wanted = t7.load(FILES / f"{name}.t7"), np.load(FILES / f"{name}.npy")
    assert found.dtype == wanted.dtype
    np.testing.assert_array_equal(found, wanted)


@real
def test_tables_and_several_objects_of_torch7() -> None:
    wanted = [np.load(FILES / "pts2d.npy"), np.load(FILES / "pts3d.npy")]
    table, both = t7.load(FILES / "table_pts2d_pts3d.t7"), t7.load_all(FILES / "two_objects.t7")
    assert list(table) == [1, 2]
    for found in (t7.as_list(table), both, [t7.load(FILES / "two_objects.t7"), both[1]]):
        assert len(found) == 2
        for one, other in zip(found, wanted, strict=True):
            np.testing.assert_array_equal(one, other)


@real
@pytest.mark.parametrize("name", ["pts_double", "pts_float", "view_transposed", "table_pts2d_pts3d"])
def test_what_is_written_is_what_torch7_wrote(name: str) -> None:
    path = FILES / f"{name}.t7"
    assert t7.dumps(t7.load(path)) == path.read_bytes()


def test_the_bytes_of_a_tensor() -> None:
    array = np.array([[1, 2, 3]], np.int16)
    head = struct.pack("<iii3si17s", 4, 1, 3, b"V 1", 17, b"torch.ShortTensor")
    sizes = struct.pack("<iqqqqq", 2, 1, 3, 3, 1, 1)
    storage = struct.pack("<iii3si18sq3h", 4, 2, 3, b"V 1", 18, b"torch.ShortStorage", 3, 1, 2, 3)
    assert t7.dumps(array) == head + sizes + storage


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("prefix", ["", "Cuda"])
@pytest.mark.parametrize("dtype", NAMES)
def test_every_type_in_every_layout(dtype: str, prefix: str, layout: Layout) -> None:
    low = -100 if np.dtype(dtype).kind != "u" else 0
    array = np.random.default_rng(1).integers(low, 120, (3, 4, 2)).astype(dtype)
    value = {1: array, "empty": np.empty(0, dtype), "text\n\udcff": "", "nested": {1: True, 2: -2.5, 3: {}}}
    data = spell(value, layout, prefix)
    for found in (t7.loads(data), t7.loads(data, layout)):
        assert_same(value, found)
        assert found[1].dtype.isnative
        found[1] += 1  # arrays can be written to


def test_special_numbers_in_text() -> None:
    array = np.array([np.nan, np.inf, -np.inf, 1e-320, 0.1])
    assert_same({1: array}, t7.loads(spell({1: array}, Layout(text=True))))


@pytest.mark.parametrize(
    ("sizes", "strides", "offset", "wanted"),
    [
        ((2, 3), (3, 1), 1, [[0, 1, 2], [3, 4, 5]]),
        ((3, 2), (1, 3), 3, [[2, 5], [3, 6], [4, 7]]),
        ((2, 3), (0, 2), 2, [[1, 3, 5], [1, 3, 5]]),
        ((3,), (-2,), 8, [7, 5, 3]),
        ((1, 1), (10**15, -(10**15)), 10, [[9]]),
        ((2, 0), (5, 5), 3, [[], []]),
        ((3,), (1,), 9, None),
        ((3,), (1,), 0, None),
        ((3,), (-1,), 2, None),
        ((-3,), (1,), 1, None),
        ((2**40, 2**40), (0, 0), 1, None),
        ((2**31, 2**32), (2**32, 2**32), 1, None),
    ],
)
def test_views_stay_in_their_storage(sizes: Any, strides: Any, offset: int, wanted: Any) -> None:
    spelling = Spelling(Layout())
    spelling.head("torch.DoubleTensor")
    spelling.ints(len(sizes))
    spelling.numbers([*sizes, *strides, offset], "q")
    spelling.storage("Double", np.arange(10.0))
    if wanted is None:
        with pytest.raises(T7Error, match=r"bytes: byte \d+: "):
            t7.loads(spelling.data)
    else:
        np.testing.assert_array_equal(t7.loads(spelling.data), np.array(wanted))


def test_a_tensor_of_any_size_takes_no_memory() -> None:
    spelling = Spelling(Layout())
    spelling.head("torch.DoubleTensor")
    spelling.ints(2)
    spelling.numbers([2**25, 2**25, 0, 0, 1], "q")
    spelling.storage("Double", np.arange(1.0))
    assert t7.loads(spelling.data).shape == (2**25, 2**25)


def test_what_overlaps_shares_memory() -> None:
    base = np.arange(24.0).reshape(4, 6)
    value = {1: base, 2: base[1:, ::2], 3: base.T, 4: base, 5: base[::-1], 6: base.copy()}
    found = t7.loads(t7.dumps(value))
    assert_same(value, found)
    found[1][1, 2] = -1
    assert found[2][0, 1] == found[3][2, 1] == -1
    assert found[4] is found[1]
    assert found[5][2, 2] == found[6][1, 2] == 8


def test_only_what_is_used_is_written() -> None:
    big = np.zeros((1000, 100))
    assert len(t7.dumps(big[3])) < 1200
    assert len(t7.dumps([big[:, 5]])) < 8000 + 300
    assert len(t7.dumps([big[3], big[900]])) < 1600 + 500
    assert len(t7.dumps(np.broadcast_to(np.float64(2), (1000, 1000)))) < 300


def test_keys_of_any_kind() -> None:
    table: dict[Any, Any] = {"inner": 1.0}
    array = np.arange(3)
    value = {1: "a", 1.5: "b", "1": "c", Key(True): "d", Key(table): table, Key(array): "e", T7Object("x.Y"): "f"}
    found = t7.loads(t7.dumps(value))
    assert_same(value, found)
    assert found[1] == "a"
    assert found[Key(True)] == "d"
    with pytest.raises(T7Error, match=r"7 entries is no list of 1 to 7: one of its keys is 1\.5"):
        t7.as_list(found)


def test_functions_are_skipped() -> None:
    spelling = Spelling(Layout())
    spelling.ints(3, 9, 4)
    for number, kind in enumerate((6, 7, 8), 1):
        spelling.value(number)
        spelling.ints(*((kind,) if kind == 6 else (kind, 10 + number)))
        spelling.string("\x1bLuaos.exit()")
        spelling.value({1: 5.0})
    spelling.value(4)
    spelling.ints(8, 13)  # the last one again
    found = t7.as_list(t7.loads(spelling.data))
    assert [type(function) for function in found] == [T7Function] * 4
    assert [(function.size, function.upvalues) for function in found] == [(13, {1: 5.0})] * 4
    assert found[3] is found[2]
    with pytest.raises(T7Error, match="a T7Function cannot be written"):
        t7.dumps(found)


def test_classes_from_before_versions() -> None:
    spelling = Spelling(Layout())
    spelling.ints(4, 1)
    spelling.string("nn.Tanh")
    spelling.ints(3, 2, 0)
    found = t7.loads(spelling.data)
    assert (found.class_name, found.version, found.fields) == ("nn.Tanh", 0, {})


def test_several_objects_share() -> None:
    spelling = Spelling(Layout())
    spelling.value({"a": 1.0})
    spelling.ints(3, 1)
    spelling.value("last")
    assert t7.loads(spelling.data) == {"a": 1.0}


def test_load_all_shares(tmp_path: Path) -> None:
    spelling = Spelling(Layout(long_size=4))
    spelling.value({"a": POINTS})
    spelling.ints(3, 1)
    spelling.value("last")
    path = tmp_path / "three.t7"
    path.write_bytes(spelling.data)
    first, again, last = t7.load_all(path)
    assert first is again
    assert last == "last"
    np.testing.assert_array_equal(first["a"], POINTS)


@pytest.mark.parametrize(("kind", "levels"), [("table", 100_000), ("list", 10_000), ("object", 10_000)])
def test_depth_costs_nothing(kind: str, levels: int) -> None:
    value: Any = "bottom"
    for _ in range(levels):
        value = {"table": {"in": value}, "list": [value], "object": T7Object("x.Y", 1, {"in": value})}[kind]
    found = t7.loads(t7.dumps(value))
    for _ in range(levels):
        found = found.fields if isinstance(found, T7Object) else found
        found = found[1 if kind == "list" else "in"]
    assert found == "bottom"


@settings(max_examples=300, deadline=None)
@given(values())
def test_round_trip(value: Any) -> None:
    data = t7.dumps(value)
    found = t7.loads(data)
    assert_same(value, found)
    assert_same(found, t7.loads(t7.dumps(found)))


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_value_or_an_error(data: bytes) -> None:
    for layout in (None, *LAYOUTS):
        try:
            t7.loads(data, layout)
        except T7Error as error:
            assert str(error).startswith("bytes: byte ")  # noqa: PT017


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_a_file_cut_anywhere_is_an_error(layout: Layout) -> None:
    data = spell({"points": POINTS[:3], 2: {1: "text", 2: True}, "flags": np.zeros(3, np.uint8)}, layout)
    for size in range(len(data) - (1 if layout.text else 0)):  # the last newline of a text says nothing
        with pytest.raises(T7Error):
            t7.loads(data[:size])


REFUSED = {
    "uint16": np.zeros(3, np.uint16),
    "bool": np.zeros(3, bool),
    "complex": np.zeros(3, complex),
    "text": np.array(["a"]),
    "no dimension": np.array(3.0),
    "empty, of a shape": np.zeros((0, 3)),
    "large": 2**53 + 1,
    "huge": 10**400,
    "surrogate": "\ud800",
    "bytes": b"a",
    "set": {1, 2},
    "nil key": {None: 1},
    "nan key": {float("nan"): 1},
}


@pytest.mark.parametrize("value", REFUSED.values(), ids=REFUSED)
def test_what_torch7_cannot_hold_is_refused(value: Any, tmp_path: Path) -> None:
    with pytest.raises(T7Error):
        t7.save(tmp_path / "value.t7", {"in": [value]})
    assert list(tmp_path.iterdir()) == []


def test_errors_say_where(tmp_path: Path) -> None:
    path = tmp_path / "points.t7"
    path.write_bytes(t7.dumps(POINTS)[:-9])
    with pytest.raises(
        T7Error, match=r"points\.t7: byte 127: 136 times 8 bytes announced, 1079 left in the file; .*again"
    ):
        t7.load(path)
    path.write_bytes(b"\xff\xd8\xff\xe0 a JPEG file")
    with pytest.raises(T7Error, match=r"points\.t7: byte 4: type -520103681 of an object; known are 0 to 8"):
        t7.load(path)
    path.write_bytes(b"")
    with pytest.raises(T7Error, match=r"points\.t7: byte 0: .* 0 left in the file"):
        t7.load(path)
    with pytest.raises(T7Error, match=r"none\.t7: cannot be read \(No such file"):
        t7.load(tmp_path / "none.t7")
    with pytest.raises(T7Error, match="not a file"):
        t7.load(tmp_path)
    os.mkfifo(tmp_path / "pipe.t7")
    with pytest.raises(T7Error, match="not a file"):
        t7.load(tmp_path / "pipe.t7")


def test_a_large_file_is_mapped_and_never_changed(tmp_path: Path) -> None:
    array = np.random.default_rng(0).random((3, 70_000))
    path = tmp_path / "large.t7"
    t7.save(path, {"a": array})
    data = path.read_bytes()
    found = t7.load(path)["a"]
    np.testing.assert_array_equal(found, array)
    found[:] = 0
    assert path.read_bytes() == data


def test_damaged_files_are_values_or_errors_within_memory() -> None:
    """The fuzzer in a process of its own, whose memory is limited and which may crash."""
    words = [sys.executable, str(Path(__file__).parents[2] / "fuzz_t7.py"), "--count", "2000", "--seed", "5"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    ended = subprocess.run(words, capture_output=True, text=True, check=False, env=environment, timeout=250)
    assert ended.returncode == 0, ended.stderr
    assert "2000 files" in ended.stdout

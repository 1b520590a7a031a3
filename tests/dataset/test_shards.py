"""Shards come back as they were written, and are the same bytes for the same rows."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ls3dw.dataset.shards import ANNOTATION_COLUMNS, FACE_COLUMNS, Column, Rows, Shard, encode_shard
from ls3dw.errors import DatasetError

# Ids are printable: NUL, which ends an HDF5 string, and lone surrogates cannot be among them.
IDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
ATTRIBUTES = {"version": "v1", "configuration": '{"größe": 1}', "format": 1}


def cells(column: Column, rows: int) -> st.SearchStrategy[np.ndarray]:
    if column.dtype == "str":
        return st.lists(IDS, min_size=rows, max_size=rows).map(lambda ids: np.array(ids, dtype=object))
    return arrays(np.dtype(column.dtype), (rows, *column.shape), fill=st.just(0))


@st.composite
def tables(draw: st.DrawFn, columns: tuple[Column, ...]) -> Rows:
    rows = draw(st.integers(1, 5))
    return {column.name: draw(cells(column, rows)) for column in columns}


def plain(columns: tuple[Column, ...], rows: int) -> dict[str, np.ndarray]:
    return {
        column.name: np.array(["a"] * rows, dtype=object)
        if column.dtype == "str"
        else np.zeros((rows, *column.shape), dtype=column.dtype)
        for column in columns
    }


@settings(max_examples=25, deadline=None)
@given(tables(FACE_COLUMNS), tables(ANNOTATION_COLUMNS))
def test_round_trip(faces: Rows, annotations: Rows) -> None:
    for columns, rows in ((FACE_COLUMNS, faces), (ANNOTATION_COLUMNS, annotations)):
        data = encode_shard(columns, rows, {}, ATTRIBUTES)
        assert data == encode_shard(columns, dict(reversed(rows.items())), {}, dict(reversed(ATTRIBUTES.items())))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "shard.h5")
            path.write_bytes(data)
            with Shard(path) as shard:
                assert len(shard) == len(rows["id"])
                assert shard.attributes == ATTRIBUTES
                for column in columns:
                    values = shard.column(column.name)
                    np.testing.assert_array_equal(values, rows[column.name])
                    np.testing.assert_array_equal(shard.cell(column.name, len(values) - 1), values[-1])
                    assert column.dtype == "str" or values.dtype == column.dtype


def test_pictures_and_extras(tmp_path: Path) -> None:
    pictures = [b"first", b"", b"the third"]
    rows = plain(FACE_COLUMNS, 3)
    sizes = [len(picture) for picture in pictures]
    rows["picture_size"] = np.array(sizes)
    rows["picture_start"] = np.cumsum([0, *sizes[:-1]])
    depth = np.arange(6, dtype=np.float32).reshape(3, 2)
    others = {"pictures": np.frombuffer(b"".join(pictures), dtype=np.uint8), "extra/z": depth, "extra/a": depth[:, 0]}
    (tmp_path / "a.h5").write_bytes(encode_shard(FACE_COLUMNS, rows, others, {}))
    with Shard(tmp_path / "a.h5") as shard:
        assert [shard.picture_bytes(row).tobytes() for row in range(3)] == pictures
        assert shard.extras == ["a", "z"]
        np.testing.assert_array_equal(shard.column("extra/z"), depth)
    (tmp_path / "b.h5").write_bytes(encode_shard(FACE_COLUMNS, rows, {}, {}))
    with Shard(tmp_path / "b.h5") as shard:
        assert shard.extras == []


def test_no_clock_time_is_kept() -> None:
    rows, others = plain(FACE_COLUMNS, 1), {"pictures": np.zeros(3, dtype=np.uint8), "extra/z": np.zeros(1)}
    first = encode_shard(FACE_COLUMNS, rows, others, ATTRIBUTES)
    time.sleep(1.1)  # HDF5 keeps times in whole seconds
    assert encode_shard(FACE_COLUMNS, rows, others, ATTRIBUTES) == first


def test_every_column_says_what_it_means() -> None:
    for columns in (FACE_COLUMNS, ANNOTATION_COLUMNS):
        assert all(column.meaning for column in columns)
        assert len({column.name for column in columns}) == len(columns)


@pytest.mark.parametrize("shape", [(2, 68), (2, 68, 3), (2, 67, 2), (2,)])
def test_rows_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    rows = plain(ANNOTATION_COLUMNS, 2) | {"landmarks_2d": np.zeros(shape, dtype=np.float32)}
    with pytest.raises(ValueError, match=r"landmarks_2d.*expected \(68, 2\)"):
        encode_shard(ANNOTATION_COLUMNS, rows, {}, {})


def test_a_damaged_shard_is_a_fault_of_the_data_set(tmp_path: Path) -> None:
    data = encode_shard(ANNOTATION_COLUMNS, plain(ANNOTATION_COLUMNS, 2), {}, {})
    for content in (b"", b"not HDF5", data[: len(data) // 2]):
        (tmp_path / "a.h5").write_bytes(content)
        with pytest.raises(DatasetError, match=r"a\.h5.*ls3dw verify"):
            Shard(tmp_path / "a.h5")
    with pytest.raises(DatasetError, match=r"missing\.h5"):
        Shard(tmp_path / "missing.h5")

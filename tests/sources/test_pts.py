"""The `.pts` parser: round trips, the menpo reference, faults."""

from __future__ import annotations

import contextlib
import warnings
from pathlib import Path

import numpy as np
import pytest
from helpers import pts
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ls3dw.sources.face import Rejected
from ls3dw.sources.pts import BARE, parse_face, parse_pts

COORDINATES = st.floats(allow_nan=True, allow_infinity=True)
SPACE = st.sampled_from(["", " ", "  ", "\t"])


def write(points: np.ndarray, before: str = "", after: str = " ", newline: str = "\n") -> bytes:
    rows = [f"{before}{x!r}{after or ' '}{y!r}" for x, y in points.tolist()]
    header = [f"version{before}:{after}1", f"n_points{before}:{after}{len(points)}", "{"]
    return newline.join([*header, *rows, "}", ""]).encode()


@given(
    points=arrays(np.float64, st.tuples(st.integers(0, 80), st.just(2)), elements=COORDINATES),
    before=SPACE,
    after=SPACE,
    newline=st.sampled_from(["\n", "\r\n", "\r"]),
)
def test_round_trip(points: np.ndarray, before: str, after: str, newline: str) -> None:
    np.testing.assert_array_equal(parse_pts(write(points, before, after, newline)), points)


@given(st.binary(max_size=200))
def test_any_bytes_are_points_or_malformed(data: bytes) -> None:
    for candidate in (data, b"n_points: 1\n{" + data + b"}"):
        with contextlib.suppress(Rejected):
            assert parse_pts(candidate).shape[1] == 2


@given(st.data())
def test_a_cut_file_is_never_read(data: st.DataObject) -> None:
    whole = write(np.arange(136.0).reshape(68, 2)).rstrip()
    with pytest.raises(Rejected, match="malformed"):
        parse_pts(whole[: data.draw(st.integers(0, len(whole) - 1))])


def test_agrees_with_menpo(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import menpo.io as mio

        points = np.random.default_rng(0).uniform(1, 500, (68, 2))
        (tmp_path / "face.pts").write_bytes(write(points))
        reference = mio.import_landmark_file(tmp_path / "face.pts")["PTS"].points[:, ::-1]  # menpo: y, x, 0-based
    face = parse_face((tmp_path / "face.pts").read_bytes())
    assert face.annotation.dtype == np.float32
    np.testing.assert_allclose(face.annotation, reference, atol=2e-5)
    np.testing.assert_array_equal(face.annotation, (points - 1).astype(np.float32))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"n_points: 1\n{\n1 2\n",
        b"n_points: 1\n1 2\n}",
        b"version: 1\n{\n1 2\n}",
        b"n_points: 2\n{\n1 2\n}",
        b"n_points: 1\n{\n1 2\n3 4\n}",
        b"n_points: 1\n{\n1 x\n}",
        b"n_points: 1\n{\n1_0 2\n}",
        b"n_points: 1\n{\n1 2 3\n}",
        b"n_points: 1\n{\n1\n2\n}",
        b"n_points: 1\n{\n1 2\n}\nmore",
        b"n_points: " + b"9" * 5000 + b"\n{\n1 2\n}",
    ],
)
def test_malformed(data: bytes) -> None:
    with pytest.raises(Rejected) as caught:
        parse_pts(data)
    assert caught.value.reason == "malformed annotation"


def test_wrong_number_of_points() -> None:
    with pytest.raises(Rejected) as caught:
        parse_face(write(np.ones((67, 2))))
    assert caught.value.reason == "wrong number of points"


def test_bare_lines_are_read_and_flagged() -> None:
    rows = "\n".join(f"{x}.5 {x + 1}e0" for x in range(68))
    for data in (f"{rows}\n".encode(), rows.replace("\n", "\r\n").encode()):
        face = parse_face(data)
        assert face.flags == (BARE,)
        np.testing.assert_array_equal(face.points[3], [2.5, 3])
    assert parse_face(pts(np.ones((68, 2)))).flags == ()


@pytest.mark.parametrize("rows", ["1 2\n" * 67, "1 2\n" * 69, "1 2 3\n" * 68, "1 x\n" * 68, "1 2\n" * 68 + "}"])
def test_other_text_is_no_bare_list(rows: str) -> None:
    with pytest.raises(Rejected, match="malformed annotation"):
        parse_face(rows.encode())

"""Perceptual hashes: the same face keeps its hash, others do not."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.fft import dctn

from ls3dw.core.phash import distances, face_hash, hash_grey, nearest
from ls3dw.core.resources import folder
from ls3dw.core.sample import Sample
from ls3dw.dataset.balanced_origins import FARTHEST
from ls3dw.dataset.open import open_dataset
from ls3dw.sources import open_source

WHOLE = np.eye(2, 3)
HASHES = st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=9).map(lambda some: np.array(some, dtype=np.uint64))


@pytest.fixture(scope="module")
def faces() -> list[Sample]:
    return list(open_source("aflw2000", folder("embedded")))


def whole_hash(picture: np.ndarray, box: np.ndarray) -> int:
    return int(face_hash(picture, WHOLE, box))


def bits_apart(first: int, second: int) -> int:
    return (first ^ second).bit_count()


def test_bits_are_the_low_frequencies_above_their_median() -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (20, 32, 32), dtype=np.uint8)
    for picture, found in zip(pictures, hash_grey(pictures), strict=True):
        low = dctn(picture.astype(float))[:8, :8]
        # scipy's transform of type 2 is twice the plain sum in each direction, for all frequencies alike.
        median = np.median(low.ravel()[1:])
        expected = sum(1 << (8 * v + u) for v in range(8) for u in range(8) if (v or u) and low[v, u] > median)
        assert int(found) == expected


def test_a_picture_without_detail_has_no_bits() -> None:
    assert hash_grey(np.full((2, 32, 32), 255, dtype=np.uint8)).tolist() == [0, 0]


@given(HASHES, HASHES)
def test_distances_count_different_bits(first: np.ndarray, second: np.ndarray) -> None:
    expected = [[bits_apart(int(a), int(b)) for b in second] for a in first]
    assert distances(first, second).tolist() == expected


@settings(max_examples=25)
@given(st.integers(1, 300), st.integers(1, 40), st.integers(0, 5), st.integers(0, 99))
def test_nearest_is_as_a_plain_loop_finds_it(count: int, others: int, slack: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    first, second = (rng.integers(0, 2**64, size, dtype=np.uint64) for size in (count, others))
    for value, found in zip(first, nearest(first, second, slack), strict=True):
        apart = [bits_apart(int(value), int(other)) for other in second]
        assert found.tolist() == [place for place, far in enumerate(apart) if far <= min(apart) + slack]


def test_different_heads_are_far_apart(faces: list[Sample]) -> None:
    hashes = np.array([whole_hash(sample.image(), sample.box) for sample in faces], dtype=np.uint64)
    table = distances(hashes, hashes)
    assert table[np.triu_indices(len(faces), 1)].min() > FARTHEST + 4


@pytest.mark.parametrize("quality", [30, 75])
@pytest.mark.parametrize("scale", [0.4, 1, 2])
def test_encoded_and_resized_faces_stay_near(faces: list[Sample], quality: int, scale: float) -> None:
    for sample in faces:
        image = np.ascontiguousarray(sample.image())
        how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        resized = cv2.resize(image, None, fx=scale, fy=scale, interpolation=how)
        buffer = io.BytesIO()
        Image.fromarray(resized).save(buffer, "JPEG", quality=quality)
        again = np.asarray(Image.open(buffer))
        box = (sample.box.astype(float) + 0.5) * scale - 0.5
        assert bits_apart(whole_hash(image, sample.box), whole_hash(again, box)) <= FARTHEST - 2


def test_only_the_face_counts_not_where_it_lies(faces: list[Sample]) -> None:
    sample = faces[0]
    image = sample.image()
    moved = np.zeros((600, 700, 3), dtype=np.uint8)
    moved[50 : 50 + image.shape[0], 120 : 120 + image.shape[1]] = image
    box = sample.box + np.array([120, 50, 120, 50])
    assert whole_hash(moved, box) == whole_hash(image, sample.box)
    shifted = np.array([[1.0, 0, 120], [0, 1.0, 50]])
    assert int(face_hash(moved, shifted, sample.box)) == whole_hash(image, sample.box)


def test_hashes_are_in_the_index_and_near_those_of_the_kept_pictures(sample_data: Path) -> None:
    dataset = open_dataset(sample_data)
    hashes = dataset.index["phash"]
    assert hashes.dtype == np.uint64
    for row in range(0, len(dataset), 5):
        face = dataset[row]
        again = int(face_hash(face.image, face.picture_affine, face.box))
        assert bits_apart(int(hashes[row]), again) <= 4

"""What is cut from a picture stays where it was, to a fraction of a pixel, and shows no aliasing."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from helpers import square_box
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ls3dw.core.crops import (
    FRAME,
    STILL,
    STORED_SIDE,
    STORED_ZOOM,
    Chroma,
    Window,
    cut_stored,
    cut_window,
    decode_stored,
    encode_picture,
)
from ls3dw.core.geometry import CROP_SIZE, REFERENCE_SIDE, apply, crop_affine, crop_placement, invert
from ls3dw.errors import PictureError
from ls3dw.models.inference.resampling import find_taps, resample
from ls3dw.review.overlay import Layer, draw_face, in_tile, tile_affine

SLOPE = 2
"""Grey levels a pixel of the ramps: even, so that the mean of any block of pixels is a whole number."""


def crop_of(window: Window) -> np.ndarray:
    """Resample a window as the annotator does: (256, 256, 3), 0 to 255."""
    pixels, affine = torch.from_numpy(np.ascontiguousarray(window.pixels)), torch.from_numpy(window.to_crop)
    return 255 * resample(pixels[None], affine[None])[0].permute(1, 2, 0).double().numpy()


def zigzag(places: np.ndarray) -> np.ndarray:
    """Rise and fall by `SLOPE` a pixel between 0 and 254."""
    return 254 - np.abs(254 - (SLOPE * places) % 508)


def ramps(width: int, height: int) -> np.ndarray:
    """Draw a picture whose red shows the column, green the row, blue that there is a picture."""
    columns, rows = np.meshgrid(zigzag(np.arange(width)), zigzag(np.arange(height)))
    return np.stack((columns, rows, np.full_like(rows, 255)), axis=2).astype(np.uint8)


@pytest.mark.parametrize(
    ("x", "y", "crop_side"),
    [
        (150.3, 120.8, 40.0),
        (150.0, 120.0, 256.0),
        (161.7, 133.2, 300.0),
        (500.4, 390.1, 611.0),
        (600.2, 450.9, 1100.0),
        (590.0, 470.5, 1700.0),
        (12.3, 30.7, 180.0),
        (1190.1, 880.2, 420.0),
        (-40.0, 905.0, 900.0),
    ],
)
def test_a_crop_shows_the_picture_at_the_place_that_its_affine_says(x: float, y: float, crop_side: float) -> None:
    width, height = 1200, 900
    box = square_box(x, y, crop_side)
    window = cut_window(ramps(width, height), box)
    np.testing.assert_array_equal(window.crop, crop_affine(box))
    grid = np.stack(np.meshgrid(*[np.arange(CROP_SIZE, dtype=np.float64)] * 2), axis=-1)
    places = apply(invert(window.crop), grid.reshape(-1, 2)).reshape(grid.shape)
    # What an output pixel sees: twice the wider of an output and an input pixel, and a block of a reduced window.
    reach = max(1.0, crop_side / CROP_SIZE) + crop_side / (STORED_ZOOM * CROP_SIZE) + 1
    crop = crop_of(window)
    last = np.array([width - 1, height - 1])
    outside = ((places < -reach) | (places > last + reach)).any(axis=2)
    inside = ((places > reach) & (places < last - reach)).all(axis=2)
    assert inside.sum() > 1000
    assert (crop[outside] == 0).all()
    np.testing.assert_allclose(crop[inside][:, 2], 255, atol=0.01)
    for axis in range(2):
        bent = np.abs(places[..., axis] - 127 * np.round(places[..., axis] / 127)) < reach
        straight = inside & ~bent
        assert straight.sum() > 1000
        rising = 1 - 2 * (places[..., axis] // 127 % 2)
        error = ((crop[..., axis] - zigzag(places[..., axis])) * rising)[straight] / SLOPE
        assert np.abs(error.mean()) < 0.02
        # Exact when it enlarges; a sampled triangle of broken width wavers by up to 0.07 pixels of the crop.
        assert np.abs(error).max() < 0.001 + 0.09 * (crop_side > CROP_SIZE) * crop_side / CROP_SIZE


@pytest.mark.parametrize("crop_side", [700.0, 1300.0, 2900.0])
def test_a_whole_picture_keeps_its_area_and_its_middle(crop_side: float) -> None:
    width, height = 401, 303
    window = cut_window(np.full((height, width, 3), 255, dtype=np.uint8), square_box(180, 170, crop_side))
    light = crop_of(window)[..., 0] / 255
    pixel = crop_side / CROP_SIZE
    assert light.sum() * pixel**2 == pytest.approx(width * height, rel=2e-3)
    rows, columns = np.mgrid[:CROP_SIZE, :CROP_SIZE]
    middle = np.array([[(light * columns).sum(), (light * rows).sum()]]) / light.sum()
    np.testing.assert_allclose(apply(invert(window.crop), middle)[0], [200, 151], atol=0.05 * pixel)


def test_large_faces_are_reduced_before_they_travel() -> None:
    picture = np.zeros((3000, 3000, 3), dtype=np.uint8)
    for crop_side in (900.0, 1400.0, 2800.0):
        window = cut_window(picture, square_box(1500, 1500, crop_side))
        assert STORED_ZOOM * CROP_SIZE <= max(window.pixels.shape) <= 2 * STORED_ZOOM * CROP_SIZE


@pytest.mark.parametrize(("zoom", "field"), [(2.0, 1), (3.3, 1), (4.6, 1), (9.2, 1), (4.0, 2), (6.6, 2), (9.2, 2)])
def test_a_checkerboard_that_is_shrunk_is_grey(zoom: float, field: int) -> None:
    size = round(zoom * CROP_SIZE) + 40
    rows, columns = np.mgrid[:size, :size] // field
    board = np.repeat(((rows + columns) % 2 * 254).astype(np.uint8)[..., None], 3, axis=2)
    crop = crop_of(cut_window(board, square_box(size / 2 + 0.3, size / 2 - 0.2, zoom * CROP_SIZE)))
    assert np.abs(crop[8:-8, 8:-8] - 127).max() < 4


@settings(deadline=None)
@given(
    zooms=st.lists(st.floats(0.15, 3.0), min_size=2, max_size=4),
    shift=st.floats(-40, 40),
    seed=st.integers(0, 2**16),
)
def test_a_crop_is_the_same_to_the_bit_in_any_company(zooms: list[float], shift: float, seed: int) -> None:
    pixels = torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (len(zooms), 61, 53, 3), dtype=np.uint8))
    affines = torch.tensor([[[zoom, 0.0, shift], [0.0, zoom * 1.1, -shift]] for zoom in zooms], dtype=torch.float64)
    together = resample(pixels, affines, 32)
    for row in range(len(zooms)):
        torch.testing.assert_close(
            resample(pixels[row : row + 1], affines[row : row + 1], 32)[0], together[row], rtol=0, atol=0
        )


def test_taps_hold_all_that_a_pixel_sees() -> None:
    zoom, shift = torch.tensor([0.37, 1.9], dtype=torch.float64), torch.tensor([3.2, -7.7], dtype=torch.float64)
    length, size, span = 70, 24, 3
    dense = find_taps(zoom, shift, length, size, span).dense(length).double()
    centre = (torch.arange(size)[None] - shift[:, None]) / zoom[:, None]
    reach = (1 / zoom).clamp(min=1)[:, None, None]

    def seen(pixels: Tensor) -> Tensor:
        return (1 - (pixels - centre[..., None]).abs() / reach).clamp(min=0)

    # Also what lies outside counts in the sum.
    expected = seen(torch.arange(length)) / seen(torch.arange(-100, 200)).sum(dim=2, keepdim=True)
    assert (expected.sum(dim=2) < 0.5).any()
    torch.testing.assert_close(dense, expected, rtol=0, atol=1e-7)


def reference_by_hand(picture: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Crop as published: whole corners from the 1-based map cut toward zero, black outside, then a bilinear resize."""
    x0, y0, x1, y1 = box.tolist()
    side = 200 * (x1 - x0 + y1 - y0) / 195
    corners = []
    for middle in ((x0 + x1) / 2, (y0 + y1) / 2 - 0.12 * (y1 - y0)):
        for place in (1, 256):
            exact = middle + (place / 256 - 0.5) * side
            assert abs(exact - round(exact)) > 1e-3, "too near a whole number for single precision"
            corners.append(int(exact))
    left, right, top, bottom = corners
    border = 2000
    padded = np.pad(picture, ((border, border), (border, border), (0, 0)))
    cut = padded[top + border : bottom + border, left + border : right + border]
    return cv2.resize(cut, (256, 256), interpolation=cv2.INTER_LINEAR)


@pytest.mark.parametrize(
    "box",
    [
        (60.3, 50.2, 120.9, 130.4),
        (10.7, 12.1, 180.2, 170.6),
        (-50.4, -61.3, 40.8, 33.9),
        (150.1, 120.7, 301.6, 260.2),
        (-200.3, -150.9, 500.2, 430.8),
        (80.3, 70.2, 84.4, 75.1),
    ],
)
def test_reference_window_is_the_published_crop_to_the_bit(box: tuple[float, ...]) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (150, 200, 3), dtype=np.uint8)
    window = cut_window(picture, np.array(box), "reference")
    np.testing.assert_array_equal(window.pixels, reference_by_hand(picture, np.array(box)))
    np.testing.assert_array_equal(window.to_crop, np.eye(2, 3))


@pytest.mark.parametrize("crop_side", [256.0, 333.0, 700.0])
def test_reference_affine_says_where_its_pixels_lie(crop_side: float) -> None:
    spot = np.array([[210.3, 195.6]])
    window = cut_window(blob(450, spot[0], 6.0), square_box(205.2, 201.9, crop_side), "reference")
    np.testing.assert_allclose(centroid(window.pixels), apply(window.crop, spot)[0], atol=0.1)


def test_reference_window_without_a_whole_pixel_is_refused() -> None:
    with pytest.raises(PictureError, match="no whole pixel"):
        cut_window(np.zeros((9, 9, 3), dtype=np.uint8), square_box(4.5, 4.5, 0.4), "reference")


def blob(size: int, place: np.ndarray, std: float) -> np.ndarray:
    """Draw a Gaussian of `std` pixels on black."""
    grid = np.arange(size)
    profile_x, profile_y = (np.exp(-((grid - middle) ** 2) / (2 * std**2)) for middle in place)
    return np.repeat(np.rint(255 * np.outer(profile_y, profile_x)).astype(np.uint8)[..., None], 3, axis=2)


def centroid(pixels: np.ndarray) -> np.ndarray:
    """Return the centre of what is bright, (x, y)."""
    light = pixels[..., 0].astype(np.float64)
    rows, columns = np.mgrid[: light.shape[0], : light.shape[1]]
    return np.array([(light * columns).sum(), (light * rows).sum()]) / light.sum()


@pytest.mark.parametrize("crop_side", [150.0, 256.0, 530.0, 1000.0, 1234.5])
@pytest.mark.parametrize("spot", [(700.4, 650.7), (90.2, 1210.6)])
def test_kept_picture_shows_every_place_where_its_affine_says(crop_side: float, spot: tuple[float, float]) -> None:
    place = np.array(spot)
    picture = blob(1400, place, max(4.0, crop_side / 60))
    kept = cut_stored(picture, square_box(place[0] + 20.3, place[1] - 11.8, crop_side))
    assert np.abs(centroid(kept.pixels) - apply(kept.to_picture, place[None])[0]).max() < 0.1


@pytest.mark.parametrize(
    ("x", "y", "crop_side"), [(400.2, 300.7, 100.0), (500.5, 500.5, 900.0), (30.0, 580.0, 200.0), (990.0, 4.0, 640.0)]
)
def test_kept_picture_holds_the_margin_unless_the_picture_ends(x: float, y: float, crop_side: float) -> None:
    size = 1000
    box = square_box(x, y, crop_side)
    kept = cut_stored(np.zeros((size, size, 3), dtype=np.uint8), box)
    height, width = kept.pixels.shape[:2]
    low, high = apply(invert(kept.to_picture), np.array([[-0.5, -0.5], [width - 0.5, height - 0.5]]))
    centre, scale = crop_placement(box)
    half = STORED_SIDE * REFERENCE_SIDE * scale / 2
    assert (low >= -0.5 - 1e-9).all()
    assert (high <= size - 0.5 + 1e-9).all()
    assert (low <= np.maximum(-0.5, centre - half) + 1e-9).all()
    assert (high >= np.minimum(size - 0.5, centre + half) - 1e-9).all()
    assert max(width, height) <= STORED_ZOOM * CROP_SIZE * STORED_SIDE + 8
    assert np.abs(kept.to_picture[[0, 1], [0, 1]]).max() <= 1.01


@pytest.mark.parametrize("box", [(-900, -900, -800, -800), (500, 20, 600, 120)])
def test_a_box_beside_the_picture_gives_black(box: tuple[float, ...]) -> None:
    picture = np.full((60, 80, 3), 255, dtype=np.uint8)
    assert crop_of(cut_window(picture, np.array(box))).max() == 0
    assert cut_window(picture, np.array(box), "reference").pixels.max() == 0
    assert min(cut_stored(picture, np.array(box)).pixels.shape) >= 1


def texture(size: int) -> np.ndarray:
    """Draw smooth colours with some grain, as photographs have."""
    rng = np.random.default_rng(3)
    coarse = cv2.resize(rng.uniform(0, 255, (size // 16, size // 16, 3)), (size, size), interpolation=cv2.INTER_CUBIC)
    return np.clip(coarse + rng.normal(0, 2, coarse.shape), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("chroma", [STILL, FRAME])
def test_kept_picture_survives_its_encoding(chroma: Chroma) -> None:
    picture = texture(256)
    data = encode_picture(picture, chroma)
    np.testing.assert_array_equal(data, encode_picture(picture.copy(), chroma))
    np.testing.assert_array_equal(data, encode_picture(np.ascontiguousarray(picture[..., ::-1]), chroma, "BGR"))
    assert len(data) < picture.nbytes / 3
    decoded = decode_stored(data)
    assert decoded.shape == picture.shape
    error = decoded.astype(np.float64) - picture
    assert 10 * np.log10(255**2 / np.square(error).mean()) > 38
    assert np.abs(error.mean(axis=(0, 1))).max() < 0.5


def test_what_is_no_jpeg_is_refused() -> None:
    for data in (np.frombuffer(b"nothing", dtype=np.uint8), encode_picture(texture(32))[:10]):
        with pytest.raises(PictureError, match="ls3dw verify"):
            decode_stored(data)


def test_drawn_points_lie_on_what_they_mark() -> None:
    spot = np.array([140.3, 95.8])
    tile = tile_affine(np.array([100.0, 60.0, 180.0, 120.0]), 200, 0.5)
    place = in_tile(tile, spot[None])
    drawn = np.asarray(draw_face(blob(240, spot, 5.0), tile, 200, []))
    np.testing.assert_allclose(centroid(drawn), place[0], atol=0.1)
    points = np.full((68, 2), np.nan)
    points[5] = place[0]
    black = np.zeros((240, 240, 3), dtype=np.uint8)
    dotted = np.asarray(draw_face(black, tile, 200, [Layer(points, (255, 0, 0), radius=3.0, lines=True)]))
    np.testing.assert_allclose(centroid(dotted), place[0], atol=0.35)
    assert dotted[..., 1:].max() == 0

"""Changed pictures: boxes follow the pixels, labels keep their mass, and the same seed gives the same picture."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.data import augment_images as augment
from tunesmith.data.augment_images import Geometry, Pixels, Rng

NONE = np.empty((0, 4))


def noise(seed: int = 0, size: tuple[int, ...] = (48, 64, 3)) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)


def bounds(mask: np.ndarray) -> list[int]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]


CHANGES: dict[str, Callable[[Pixels, Rng], Pixels]] = {
    "colour": lambda p, rng: augment.colour(p, 0.4, rng),
    "erase": lambda p, rng: augment.erase(p, (0.05, 0.3), rng),
    "rand_augment": lambda p, rng: augment.rand_augment(p, 3, 0.5, rng),
    "geometry": lambda p, rng: augment.warp(p, NONE, augment.random_matrix(*p.shape[:2], Geometry(), rng)).pixels,
    "crop": lambda p, rng: augment.warp(p, NONE, augment.crop_matrix(*p.shape[:2], (0.3, 1.0), rng)).pixels,
    "mixup": lambda p, rng: augment.mixup(p, p[::-1], (np.ones(1), np.ones(1)), 0.4, rng)[0],
    "cutmix": lambda p, rng: augment.cutmix(p, p[::-1], (np.ones(1), np.ones(1)), 1.0, rng)[0],
}


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("size", [(48, 64, 3), (28, 28), (17, 40)])
def test_shape_and_type_stay_and_the_seed_decides(name: str, size: tuple[int, ...]) -> None:
    picture = noise(1, size)
    before = picture.copy()
    results = [CHANGES[name](picture, augment.row_rng(3, row, 1)) for row in ("a", "a", "b", "c", "d")]
    assert all(r.shape == picture.shape and r.dtype == np.uint8 for r in results)
    np.testing.assert_array_equal(results[0], results[1])
    assert any((results[0] != r).any() for r in results[2:])
    np.testing.assert_array_equal(picture, before)


def test_rows_and_epochs_have_streams_of_their_own() -> None:
    draws = {augment.row_rng(seed, row, epoch).integers(2**62) for seed in (1, 2) for row in ("a", "b") for epoch in (0, 1)}
    assert len(draws) == 8


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([(64, 96), (80, 50)]))
def test_boxes_follow_the_pixels(seed: int, size: tuple[int, int]) -> None:
    rng = np.random.default_rng(seed)
    height, width = size
    left, top = rng.integers(5, width - 22), rng.integers(5, height - 22)
    box = np.array([[left, top, left + rng.integers(8, 18), top + rng.integers(8, 18)]], float)
    picture = np.zeros(size, np.uint8)
    picture[top : int(box[0, 3]), left : int(box[0, 2])] = 255
    ranges = Geometry(degrees=0, scale=(0.7, 1.4), shift=0.15, mirror=0.5, upside_down=0.5)
    matrix = augment.random_matrix(height, width, ranges, rng)
    if rng.random() < 0.5:
        matrix = augment.crop_matrix(height, width, (0.5, 1.0), rng) @ matrix
    if rng.random() < 0.3:
        matrix = augment.rotated(90, (width / 2, height / 2)) @ matrix
    warped = augment.warp(picture, box, matrix)
    found = warped.pixels > 170
    if warped.dropped:
        assert len(warped.boxes_B4) == 0
    else:
        assert found.any()
        assert np.abs(warped.boxes_B4[0] - bounds(found)).max() <= 1.5


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 2**32))
def test_turned_boxes_hold_the_pixels(seed: int) -> None:
    rng = np.random.default_rng(seed)
    picture = np.zeros((60, 60), np.uint8)
    picture[20:34, 24:44] = 255
    warped = augment.warp(picture, np.array([[24.0, 20, 44, 34]]), augment.rotated(rng.uniform(-180, 180), (30, 30)))
    left, top, right, bottom = bounds(warped.pixels > 170)
    box = warped.boxes_B4[0]
    assert box[0] <= left + 1 and box[1] <= top + 1 and box[2] >= right - 1 and box[3] >= bottom - 1
    assert np.abs(box - [left, top, right, bottom]).max() <= 2.5


def test_flips_are_exact() -> None:
    picture, box = noise(), np.array([[3.0, 4, 10, 20]])
    there = augment.warp(picture, box, augment.mirrored(64))
    np.testing.assert_array_equal(there.pixels, picture[:, ::-1])
    np.testing.assert_allclose(there.boxes_B4, [[54, 4, 61, 20]])
    back = augment.warp(there.pixels, there.boxes_B4, augment.mirrored(64))
    np.testing.assert_array_equal(back.pixels, picture)
    np.testing.assert_allclose(back.boxes_B4, box)
    np.testing.assert_array_equal(augment.warp(picture, box, augment.upside_down(48)).pixels, picture[::-1])
    turned = augment.warp(noise(0, (40, 40)), NONE, augment.rotated(90, (20, 20))).pixels
    np.testing.assert_allclose(turned.astype(int), np.rot90(noise(0, (40, 40)), -1).astype(int), atol=1)


def test_boxes_that_leave_are_dropped_and_counted() -> None:
    boxes = np.array([[0.0, 0, 10, 10], [30, 10, 40, 20], [52, 0, 62, 10]])
    warped = augment.warp(noise(), boxes, augment.shifted(8, 0), visible=0.5)
    assert (warped.kept.tolist(), warped.dropped) == ([0, 1], 1)
    np.testing.assert_allclose(warped.boxes_B4, [[8, 0, 18, 10], [38, 10, 48, 20]])
    assert augment.warp(noise(), boxes, augment.shifted(8, 0), visible=0.3).boxes_B4[2].tolist() == [60, 0, 64, 10]


def test_no_strength_changes_nothing() -> None:
    picture = noise()
    for name, change in augment.RAND_OPS.items():
        np.testing.assert_array_equal(change(picture, 0.0), picture, err_msg=name)
    for change in (augment.brightness, augment.contrast, augment.saturation):
        np.testing.assert_array_equal(change(picture, 1.0), picture)
    assert (augment.saturation(picture, 0.0).std(axis=2) < 1).all()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.floats(0.1, 4))
def test_labels_keep_their_mass(seed: int, alpha: float) -> None:
    rng = np.random.default_rng(seed)
    one, other = np.zeros((20, 30), np.uint8), np.full((20, 30), 255, np.uint8)
    labels = (np.array([1.0, 0, 0]), np.array([0, 0.25, 0.75]))
    for mix in (augment.mixup, augment.cutmix):
        picture, weights = mix(one, other, labels, alpha, rng)
        assert weights.sum() == pytest.approx(1)
        assert picture.mean() / 255 == pytest.approx(1 - weights[0], abs=0.003)


def test_a_mosaic_places_boxes_where_their_pixels_are() -> None:
    pictures, boxes = [], []
    for level, size in ((50, (40, 40)), (90, (60, 30)), (160, (20, 50)), (220, (64, 64))):
        picture = np.zeros(size, np.uint8)
        picture[5:15, 10:25] = level
        pictures.append(picture)
        boxes.append(np.array([[10.0, 5, 25, 15]]))
    made = augment.mosaic(pictures, boxes, (96, 80), np.random.default_rng(5))
    assert (made.pixels.shape, made.kept.tolist(), made.dropped) == ((96, 80), [0, 1, 2, 3], 0)
    for box, level in zip(made.boxes_B4, (50, 90, 160, 220), strict=True):
        x, y = round((box[0] + box[2]) / 2), round((box[1] + box[3]) / 2)
        assert made.pixels[y, x] == level

"""Copies among pictures: the radius is exact, planted copies are found, other pictures are not."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow
from PIL import ImageEnhance, ImageOps
from scipy.ndimage import gaussian_filter

from tunesmith.data import image_duplicates
from tunesmith.data.hamming import hash_index, within_radius
from tunesmith.data.image_duplicates import SIDE, find_image_pairs, image_hashes, image_pairs, thumbnail

FASHION = Path(__file__).parents[2] / "shared" / "data" / "fashion_mnist_10k" / "images" / "test"


def scene(seed: int) -> Pillow.Image:
    rng = np.random.default_rng(seed)
    layers = [gaussian_filter(rng.standard_normal((72, 88)), s) * s for s in (1.5, 4, 9)]
    grey = np.sum(layers, axis=0)
    return Pillow.fromarray(np.uint8(255 * (grey - grey.min()) / np.ptp(grey)))


def jpeg(picture: Pillow.Image) -> Pillow.Image:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=50)
    return Pillow.open(buffer).copy()


CHANGES: dict[str, tuple[Callable[[Pillow.Image], Pillow.Image], str]] = {
    "bytes": (lambda p: p.copy(), "as it is"),
    "jpeg": (jpeg, "as it is"),
    "smaller": (lambda p: p.resize((40, 40)), "as it is"),
    "brighter": (lambda p: ImageEnhance.Brightness(p).enhance(0.8), "as it is"),
    "cropped": (lambda p: p.crop((8, 3, 84, 66)), "as it is, cropped"),
    "mirrored": (ImageOps.mirror, "mirrored"),
    "flipped": (ImageOps.flip, "upside down"),
    "left": (lambda p: p.transpose(Pillow.Transpose.ROTATE_90), "turned left"),
    "right": (lambda p: p.transpose(Pillow.Transpose.ROTATE_270), "turned right"),
    "half": (lambda p: p.transpose(Pillow.Transpose.ROTATE_180), "turned by 180"),
    "transposed": (lambda p: p.transpose(Pillow.Transpose.TRANSPOSE), "transposed"),
    "mirrored crop": (lambda p: ImageOps.mirror(p.crop((0, 6, 80, 72))), "mirrored, cropped"),
}


def thumbnails(pictures: list[Pillow.Image]) -> np.ndarray:
    return np.stack([thumbnail(np.asarray(picture)) for picture in pictures])


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 11), st.integers(0, 60))
def test_the_radius_is_exact(seed: int, radius: int, near: int) -> None:
    rng = np.random.default_rng(seed)
    hashes = rng.integers(0, 2**64, 60, dtype=np.uint64)
    hashes[:near] = hashes[-1]
    for row in range(near):
        for bit in rng.choice(64, rng.integers(0, 14), replace=False):
            hashes[row] ^= np.uint64(1) << np.uint64(bit)
    left, right, distance = image_pairs(hashes, radius)
    all_distances = np.bitwise_count(hashes[:, None] ^ hashes)
    expected = np.argwhere(np.triu(all_distances <= radius, 1))
    assert np.stack([left, right], axis=1).tolist() == expected.tolist()
    assert distance.tolist() == all_distances[left, right].tolist()


def test_each_pair_comes_once() -> None:
    rng = np.random.default_rng(0)
    base = rng.integers(0, 2**64, 300, dtype=np.uint64) & np.uint64(0xF0F0F)
    found = [(int(q), int(n)) for qs, ns, _ in within_radius(base[:50], hash_index(base), 9) for q, n in zip(qs, ns, strict=True)]
    assert len(found) == len(set(found)) == int((np.bitwise_count(base[:50, None] ^ base) <= 9).sum())


def test_planted_copies_are_found_and_nothing_else() -> None:
    originals = [scene(seed) for seed in range(60)]
    copies = [change(originals[n]) for n, (change, _) in enumerate(CHANGES.values())]
    found = find_image_pairs(thumbnails(originals + copies))
    assert list(zip(found.left, found.right, strict=True)) == [(n, 60 + n) for n in range(len(CHANGES))]
    assert (found.similarity >= 0.97).all() and (found.similarity <= 1).all()
    assert found.statement.startswith(f"{len(CHANGES)} pairs with a similarity of at least 0.97 among {60 + len(CHANGES)} pictures")


@pytest.mark.parametrize("name", CHANGES)
def test_the_change_is_named(name: str) -> None:
    change, expected = CHANGES[name]
    found = find_image_pairs(thumbnails([scene(1), scene(2), change(scene(1))]))
    assert list(zip(found.left, found.right, strict=True)) == [(0, 2)]
    assert found.transform == (expected,)


def test_pictures_without_detail_are_counted_not_paired() -> None:
    flat = [Pillow.new("L", (40, 40), level) for level in (0, 0, 90, 90)]
    found = find_image_pairs(thumbnails([scene(0), *flat]))
    assert found.flat.tolist() == [1, 2, 3, 4]
    assert len(found.left) == 0


def test_many_copies_of_one_are_paired_with_the_first() -> None:
    found = find_image_pairs(thumbnails([scene(0)] * 5 + [scene(1)]))
    assert list(zip(found.left, found.right, strict=True)) == [(0, 1), (0, 2), (0, 3), (0, 4)]


def test_few_pictures() -> None:
    assert len(find_image_pairs(thumbnails([scene(0)])).left) == 0
    assert len(find_image_pairs(np.empty((0, 32, 32), np.float32)).left) == 0


def test_symmetric_pictures_keep_their_hash_after_noise() -> None:
    half = np.asarray(scene(3))[:, :44]
    symmetric = Pillow.fromarray(np.concatenate([half, half[:, ::-1]], axis=1))
    one, other = image_hashes(thumbnails([symmetric, jpeg(symmetric)]))
    assert np.bitwise_count(one ^ other) <= 4


@pytest.mark.skipif(not FASHION.is_dir(), reason="the data for measuring is not there")
def test_small_grey_pictures_that_look_alike() -> None:
    originals = [Pillow.open(path) for path in sorted(FASHION.glob("*.png"))[::10]]
    copies = [ImageOps.mirror(picture.crop((2, 0, 28, 26))) for picture in originals[:40]] + [jpeg(p) for p in originals[40:80]]
    found = find_image_pairs(thumbnails(originals + copies))
    pairs = set(zip(found.left.tolist(), found.right.tolist(), strict=True))
    planted = {(n, len(originals) + n) for n in range(80)}
    assert len(planted & pairs) >= 79
    assert len(pairs - planted) <= 3


def test_no_candidate_left_to_align_is_no_trouble() -> None:
    none = np.zeros((0, SIDE, SIDE), np.float32)
    assert image_duplicates._coefficients(none, np.zeros((0, 9, 4))).shape == (0, 9, image_duplicates.TERMS)
    assert image_duplicates._coefficients(none, np.zeros((0, 4))).shape == (0, image_duplicates.TERMS)

"""Random changes of pictures that keep the label: geometry as one matrix for pixels and boxes, colour, erasing, mixing.

Every function is pure: (picture, ..., rng) gives a new picture. Take the rng from `row_rng`, so that a row's change depends
on nothing but the seed, the row and the epoch.

Axis legend: H height, W width, C channels, B boxes, L labels. Pictures are uint8 HxW or HxWxC. Boxes are (left, top, right,
bottom) in pixels, with pixel (x, y) covering [x, x + 1) x [y, y + 1).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tunesmith.core.seeding import seed_for

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float64]
Rng = np.random.Generator

VISIBLE = 0.25
"""Share of a box's area that must stay in the picture; a smaller rest no longer shows what the box names."""
FILL = 114
"""Grey of what comes into view from outside, near the mean of natural pictures."""


@dataclass(frozen=True)
class Warped:
    """A picture after a matrix, its boxes clipped to it, the rows of `boxes_B4` before that stayed, and how many went."""

    pixels: Pixels
    boxes_B4: Floats
    kept: NDArray[np.int64]
    dropped: int


@dataclass(frozen=True)
class Geometry:
    """Ranges from which `random_matrix` draws: degrees to either side, scale, shift as a share, shares of flips."""

    degrees: float = 10.0
    scale: tuple[float, float] = (0.8, 1.25)
    shift: float = 0.1
    mirror: float = 0.5
    upside_down: float = 0.0


def row_rng(seed: int, row: str, epoch: int) -> Rng:
    """The random numbers of one row in one epoch: they do not depend on order, workers or other rows."""
    return np.random.default_rng(seed_for(seed, f"augment:{epoch}:{row}"))


def mirrored(width: int) -> Floats:
    """3x3 matrix that swaps left and right."""
    return np.array([[-1.0, 0, width], [0, 1, 0], [0, 0, 1]])


def upside_down(height: int) -> Floats:
    """3x3 matrix that swaps top and bottom."""
    return np.array([[1.0, 0, 0], [0, -1, height], [0, 0, 1]])


def rotated(degrees: float, centre: tuple[float, float]) -> Floats:
    """3x3 matrix that turns clockwise on the screen about a point (x, y)."""
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return _about(np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]]), centre)


def scaled(factor_x: float, factor_y: float, centre: tuple[float, float] = (0.0, 0.0)) -> Floats:
    """3x3 matrix that scales about a point (x, y)."""
    return _about(np.diag([factor_x, factor_y, 1.0]), centre)


def shifted(right: float, down: float) -> Floats:
    """3x3 matrix that moves by pixels."""
    return np.array([[1.0, 0, right], [0, 1, down], [0, 0, 1]])


def random_matrix(height: int, width: int, ranges: Geometry, rng: Rng) -> Floats:
    """One matrix for flips, rotation, scale and shift drawn from the ranges; the scale is uniform in its logarithm."""
    centre = (width / 2, height / 2)
    matrix = np.eye(3)
    if rng.random() < ranges.mirror:
        matrix = mirrored(width) @ matrix
    if rng.random() < ranges.upside_down:
        matrix = upside_down(height) @ matrix
    factor = float(np.exp(rng.uniform(*np.log(ranges.scale))))
    matrix = scaled(factor, factor, centre) @ rotated(rng.uniform(-ranges.degrees, ranges.degrees), centre) @ matrix
    right, down = rng.uniform(-ranges.shift, ranges.shift, 2)
    return shifted(right * width, down * height) @ matrix


def crop_matrix(height: int, width: int, area: tuple[float, float], rng: Rng) -> Floats:
    """Matrix that blows a random window of this share of the area (sides in ratio 3:4 to 4:3) up to the whole picture."""
    share, ratio = rng.uniform(*area), np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
    window_width = min(width, width * np.sqrt(share * ratio))
    window_height = min(height, height * np.sqrt(share / ratio))
    left, top = rng.uniform(0, width - window_width), rng.uniform(0, height - window_height)
    return scaled(width / window_width, height / window_height) @ shifted(-left, -top)


def warp(pixels: Pixels, boxes_B4: Floats, matrix: Floats, size: tuple[int, int] | None = None, visible: float = VISIBLE) -> Warped:
    """The picture and its boxes after one 3x3 affine matrix, in a picture of `size` (height, width; by default unchanged).

    A box becomes the smallest upright one about its four turned corners, clipped to the picture; it goes where less than
    `visible` of its area stays in view.
    """
    from PIL import Image

    height, width = size or (pixels.shape[0], pixels.shape[1])
    inverse = np.linalg.inv(matrix)
    fill = FILL if pixels.ndim == 2 else (FILL,) * pixels.shape[2]
    picture = Image.fromarray(pixels).transform(
        (width, height), Image.Transform.AFFINE, tuple(inverse[:2].ravel()), Image.Resampling.BILINEAR, fillcolor=fill
    )
    moved_B4 = move_boxes(boxes_B4, matrix)
    clipped_B4 = np.clip(moved_B4, 0, [width, height, width, height])
    kept = np.flatnonzero((_areas(clipped_B4) >= visible * _areas(moved_B4)) & (_areas(clipped_B4) > 0))
    return Warped(np.asarray(picture, dtype=np.uint8), clipped_B4[kept], kept, len(boxes_B4) - len(kept))


def move_boxes(boxes_B4: Floats, matrix: Floats) -> Floats:
    """The smallest upright boxes about the four corners of each box after the matrix."""
    boxes_B4 = np.asarray(boxes_B4, dtype=np.float64).reshape(-1, 4)
    corners = np.stack([boxes_B4[:, [0, 2, 0, 2]], boxes_B4[:, [1, 1, 3, 3]], np.ones((len(boxes_B4), 4))], axis=1)
    moved = np.einsum("ij,bjk->bik", matrix, corners)[:, :2]
    return np.concatenate([moved.min(axis=2), moved.max(axis=2)], axis=1)


def brightness(pixels: Pixels, factor: float) -> Pixels:
    """All levels times the factor."""
    return _levels(pixels * factor)


def contrast(pixels: Pixels, factor: float) -> Pixels:
    """Levels further from their mean by the factor."""
    mean = pixels.mean()
    return _levels(mean + (pixels - mean) * factor)


def saturation(pixels: Pixels, factor: float) -> Pixels:
    """Colours further from grey by the factor; grey pictures stay."""
    if pixels.ndim == 2:
        return pixels.copy()
    grey = (pixels @ np.array([0.299, 0.587, 0.114]))[..., None]
    return _levels(grey + (pixels - grey) * factor)


def colour(pixels: Pixels, strength: float, rng: Rng) -> Pixels:
    """Brightness, contrast and saturation each by a factor from 1 - strength to 1 + strength."""
    for change in (brightness, contrast, saturation):
        pixels = change(pixels, rng.uniform(1 - strength, 1 + strength))
    return pixels


def erase(pixels: Pixels, area: tuple[float, float], rng: Rng) -> Pixels:
    """With noise in a random rectangle of this share of the area (Zhong et al. 2020, random erasing)."""
    top, bottom, left, right = _rectangle(pixels.shape[:2], rng.uniform(*area), rng)
    out = pixels.copy()
    out[top:bottom, left:right] = rng.integers(0, 256, out[top:bottom, left:right].shape, dtype=np.uint8)
    return out


RAND_OPS: dict[str, Callable[[Pixels, float], Pixels]] = {
    "brightness": lambda p, m: brightness(p, 1 + 0.9 * m),
    "contrast": lambda p, m: contrast(p, 1 + 0.9 * m),
    "saturation": lambda p, m: saturation(p, 1 + 0.9 * m),
    "rotate": lambda p, m: _warped(p, rotated(30 * m, (p.shape[1] / 2, p.shape[0] / 2))),
    "shear_x": lambda p, m: _warped(p, np.array([[1, 0.3 * m, 0], [0, 1, 0], [0, 0, 1]])),
    "shear_y": lambda p, m: _warped(p, np.array([[1, 0, 0], [0.3 * m, 1, 0], [0, 0, 1]])),
    "shift_x": lambda p, m: _warped(p, shifted(0.3 * m * p.shape[1], 0)),
    "shift_y": lambda p, m: _warped(p, shifted(0, 0.3 * m * p.shape[0])),
    "posterise": lambda p, m: p & np.uint8(0xFF << round(4 * abs(m)) & 0xFF),
    "solarise": lambda p, m: np.where(p >= 256 * (1 - abs(m)), 255 - p, p).astype(np.uint8),
}
"""Operations of RandAugment as functions of the picture and a signed magnitude in [-1, 1]; at 0 they change nothing."""


def rand_augment(pixels: Pixels, count: int, magnitude: float, rng: Rng, names: Sequence[str] = tuple(RAND_OPS)) -> Pixels:
    """After `count` operations drawn with replacement, each at this magnitude in [0, 1] and a random sign (Cubuk et al. 2020)."""
    for name in rng.choice(list(names), count):
        pixels = RAND_OPS[str(name)](pixels, magnitude * rng.choice([-1, 1]))
    return pixels


def mixup(one: Pixels, other: Pixels, labels_L: tuple[Floats, Floats], alpha: float, rng: Rng) -> tuple[Pixels, Floats]:
    """A weighted mean of two pictures of one shape and of their label weights; weight from Beta(a, a) (Zhang et al. 2018)."""
    weight = rng.beta(alpha, alpha)
    return _levels(weight * one + (1 - weight) * other.astype(np.float64)), weight * labels_L[0] + (1 - weight) * labels_L[1]


def cutmix(one: Pixels, other: Pixels, labels_L: tuple[Floats, Floats], alpha: float, rng: Rng) -> tuple[Pixels, Floats]:
    """One picture with a rectangle of the other, labels weighed by the pixels each has (Yun et al. 2019)."""
    top, bottom, left, right = _rectangle(one.shape[:2], 1 - rng.beta(alpha, alpha), rng)
    out = one.copy()
    out[top:bottom, left:right] = other[top:bottom, left:right]
    weight = 1 - (bottom - top) * (right - left) / (one.shape[0] * one.shape[1])
    return out, weight * labels_L[0] + (1 - weight) * labels_L[1]


def mosaic(pictures: Sequence[Pixels], boxes: Sequence[Floats], size: tuple[int, int], rng: Rng) -> Warped:
    """Four pictures of one mode about a random point, each scaled to its quarter (Bochkovskiy et al. 2020).

    `kept` numbers the boxes of all four one after the other.
    """
    height, width = size
    x, y = round(width * rng.uniform(0.3, 0.7)), round(height * rng.uniform(0.3, 0.7))
    out = np.full((height, width, *pictures[0].shape[2:]), FILL, np.uint8)
    parts, kept, before, dropped = [], [], 0, 0
    for pixels, own, (left, top, right, bottom) in zip(
        pictures, boxes, ((0, 0, x, y), (x, 0, width, y), (0, y, x, height), (x, y, width, height)), strict=True
    ):
        matrix = scaled((right - left) / pixels.shape[1], (bottom - top) / pixels.shape[0])
        part = warp(pixels, own, matrix, (bottom - top, right - left))
        out[top:bottom, left:right] = part.pixels
        parts.append(part.boxes_B4 + np.array([left, top, left, top]))
        kept.append(part.kept + before)
        before, dropped = before + len(own), dropped + part.dropped
    return Warped(out, np.concatenate(parts), np.concatenate(kept), dropped)


def _about(matrix: Floats, centre: tuple[float, float]) -> Floats:
    return shifted(*centre) @ matrix @ shifted(-centre[0], -centre[1])


def _areas(boxes_B4: Floats) -> Floats:
    return np.maximum(boxes_B4[:, 2] - boxes_B4[:, 0], 0) * np.maximum(boxes_B4[:, 3] - boxes_B4[:, 1], 0)


def _levels(values: NDArray[np.floating]) -> Pixels:
    return np.clip(np.round(values), 0, 255).astype(np.uint8)


def _warped(pixels: Pixels, matrix: Floats) -> Pixels:
    return warp(pixels, np.empty((0, 4)), matrix).pixels


def _rectangle(size: tuple[int, ...], share: float, rng: Rng) -> tuple[int, int, int, int]:
    """Top, bottom, left, right of a random rectangle in the picture with this share of its area and its ratio of sides."""
    height, width = round(size[0] * np.sqrt(share)), round(size[1] * np.sqrt(share))
    top, left = int(rng.integers(0, size[0] - height + 1)), int(rng.integers(0, size[1] - width + 1))
    return top, top + height, left, left + width

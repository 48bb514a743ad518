"""A contact sheet of what each change does to pictures: originals in the first column, a change in each of the others, boxes drawn.

Strengths are those at which a change can be seen and the picture still be recognised. Each cell has its own seed.

Axis legend: H height, W width, C channels, B boxes.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tunesmith.data import augment_images as augment
from tunesmith.data.augment_images import Floats, Pixels, Rng, row_rng

CELL, GAP, HEADING = 176, 6, 24
COLOURS = ("#e6550d", "#3182bd", "#31a354", "#756bb1", "#d6c400", "#e7298a", "#17becf", "#8c564b")
LEVELS = ("brightness", "contrast", "saturation", "posterise", "solarise")
"""Operations of RandAugment that leave boxes where they are."""


@dataclass(frozen=True)
class Boxed:
    """A picture with its name and class, its boxes in pixels, and the label of each."""

    name: str
    pixels: Pixels
    label: str | None = None
    boxes_B4: Floats | None = None
    labels_B: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sheet:
    """The PNG, names of its columns after the first, names of its rows, and what was done in each cell as [row][column]."""

    png: bytes
    columns: tuple[str, ...]
    rows: tuple[str, ...]
    captions: tuple[tuple[str, ...], ...]


Change = Callable[[Boxed, Sequence[Boxed], Rng], tuple[Boxed, str]]


def flip(one: Boxed, others: Sequence[Boxed], rng: Rng) -> tuple[Boxed, str]:
    """Left and right swapped."""
    return _moved(one, augment.mirrored(one.pixels.shape[1]), "left and right swapped")


def rotate(one: Boxed, others: Sequence[Boxed], rng: Rng) -> tuple[Boxed, str]:
    """Turned by 8 to 20 degrees either way."""
    degrees = rng.uniform(8, 20) * rng.choice([-1, 1])
    return _moved(one, augment.rotated(degrees, _centre(one)), f"{abs(degrees):.0f}° {'right' if degrees > 0 else 'left'}")


def scale(one: Boxed, others: Sequence[Boxed], rng: Rng) -> tuple[Boxed, str]:
    """Larger or smaller by 15 to 35 %, and shifted by up to a tenth."""
    factor = float(np.exp(rng.uniform(*np.log([1.15, 1.35])) * rng.choice([-1, 1])))
    height, width = one.pixels.shape[:2]
    right, down = rng.uniform(-0.1, 0.1, 2)
    return _moved(one, augment.shifted(right * width, down * height) @ augment.scaled(factor, factor, _centre(one)), f"{factor:.2f} times")


def crop(one: Boxed, others: Sequence[Boxed], rng: Rng) -> tuple[Boxed, str]:
    """A window of 40 to 75 % of the area blown up."""
    height, width = one.pixels.shape[:2]
    matrix = augment.crop_matrix(height, width, (0.4, 0.75), rng)
    return _moved(one, matrix, f"{1 / (matrix[0, 0] * matrix[1, 1]):.0%} of the area")


def colour(one: Boxed, others: Sequence[Boxed], rng: Rng) -> tuple[Boxed, str]:
    """Brightness, contrast and saturation each changed by up to 30 %."""
    return replace(one, pixels=augment.colour(one.pixels, 0.3, rng)), "brightness, contrast, saturation"


def erase(one: Boxed, others: Sequence[Boxed], rng: Rng) -> tuple[Boxed, str]:
    """Noise in a rectangle of 5 to 15 % of the area."""
    return replace(one, pixels=augment.erase(one.pixels, (0.05, 0.15), rng)), "a rectangle of noise"


def rand_augment(one: Boxed, others: Sequence[Boxed], rng: Rng) -> tuple[Boxed, str]:
    """Two operations of RandAugment at three tenths of their strength; with boxes only those that move nothing."""
    names = tuple(augment.RAND_OPS) if one.boxes_B4 is None else LEVELS
    return replace(one, pixels=augment.rand_augment(one.pixels, 2, 0.3, rng, names)), "two of " + ", ".join(names)


def mixup(one: Boxed, others: Sequence[Boxed], rng: Rng) -> tuple[Boxed, str]:
    """A weighted mean with another picture; boxes of both."""
    other = _fitted(others[int(rng.integers(len(others)))], one)
    mixed, weights = augment.mixup(one.pixels, other.pixels, (np.array([1.0, 0.0]), np.array([0.0, 1.0])), 20.0, rng)
    boxes = None if one.boxes_B4 is None else np.concatenate([_boxes(one), _boxes(other)])
    return replace(one, pixels=mixed, boxes_B4=boxes, labels_B=one.labels_B + other.labels_B), _weighed(one, other, weights)


def cutmix(one: Boxed, others: Sequence[Boxed], rng: Rng) -> tuple[Boxed, str]:
    """A rectangle of another picture."""
    other = _fitted(others[int(rng.integers(len(others)))], one)
    mixed, weights = augment.cutmix(one.pixels, other.pixels, (np.array([1.0, 0.0]), np.array([0.0, 1.0])), 20.0, rng)
    return replace(one, pixels=mixed), _weighed(one, other, weights)


def mosaic(one: Boxed, others: Sequence[Boxed], rng: Rng) -> tuple[Boxed, str]:
    """Four pictures about a random point, of which the first is this one."""
    four = [one, *(others[int(place)] for place in rng.choice(len(others), 3, replace=len(others) < 3))]
    made = augment.mosaic([part.pixels for part in four], [_boxes(part) for part in four], one.pixels.shape[:2], rng)
    labels = [label for part in four for label in part.labels_B]
    boxes = None if one.boxes_B4 is None else made.boxes_B4
    kept = tuple(labels[place] for place in made.kept)
    return replace(one, pixels=made.pixels, boxes_B4=boxes, labels_B=kept), "with " + ", ".join(_short(part) for part in four[1:])


CHANGES: dict[str, Change] = {
    "flip": flip, "rotate": rotate, "scale": scale, "crop": crop, "colour": colour, "erase": erase,
    "rand_augment": rand_augment, "mixup": mixup, "cutmix": cutmix, "mosaic": mosaic,
}  # fmt: skip
WITHOUT_BOXES = ("cutmix",)
"""Changes that have no rule for boxes: one may be cut through by the rectangle."""


def picture_sheet(pictures: Sequence[Boxed], partners: Sequence[Boxed], names: Sequence[str], seed: int) -> Sheet:
    """The sheet of these changes to each picture; mixing ones take others from `partners`, which hold the pictures.

    All pictures are of one mode. The same pictures, names and seed give the same bytes. A cell depends on its
    picture, its change, the seed and the partners.
    """
    rows, captions = [], []
    colours = box_colours(partners)
    for one in pictures:
        others = [other for other in partners if other.name != one.name] or [one]
        made = [CHANGES[name](one, others, row_rng(seed, f"{one.name}:{name}", 0)) for name in names]
        rows.append([_drawn(one, colours), *(_drawn(changed, colours) for changed, _ in made)])
        captions.append(tuple(said for _, said in made))
    return Sheet(png_bytes(sheet_of(rows, ("original", *names))), tuple(names), tuple(one.name for one in pictures), tuple(captions))


def box_colours(pictures: Sequence[Boxed]) -> dict[str, str]:
    """The colour of each label of boxes, as in a sheet of these pictures."""
    return {
        label: COLOURS[place % len(COLOURS)] for place, label in enumerate(sorted({label for one in pictures for label in one.labels_B}))
    }


def png_bytes(pixels: Pixels) -> bytes:
    """The picture as a PNG file; the same pixels give the same bytes."""
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG", optimize=False)
    return out.getvalue()


def of_one_mode(pixels: Pixels, coloured: bool) -> Pixels:
    """Grey levels as HxWx3 where other pictures have colours."""
    return np.repeat(pixels[..., None], 3, axis=2) if coloured and pixels.ndim == 2 else pixels


def _moved(one: Boxed, matrix: Floats, said: str) -> tuple[Boxed, str]:
    warped = augment.warp(one.pixels, _boxes(one), matrix)
    if one.boxes_B4 is None:
        return replace(one, pixels=warped.pixels), said
    lost = f", {warped.dropped} of {len(one.boxes_B4)} boxes out of view" if warped.dropped else ""
    labels = tuple(one.labels_B[place] for place in warped.kept)
    return replace(one, pixels=warped.pixels, boxes_B4=warped.boxes_B4, labels_B=labels), said + lost


def _boxes(one: Boxed) -> Floats:
    return np.empty((0, 4)) if one.boxes_B4 is None else one.boxes_B4


def _centre(one: Boxed) -> tuple[float, float]:
    return one.pixels.shape[1] / 2, one.pixels.shape[0] / 2


def _fitted(other: Boxed, one: Boxed) -> Boxed:
    """The other picture squeezed to the size of the one, with its boxes."""
    height, width = one.pixels.shape[:2]
    matrix = augment.scaled(width / other.pixels.shape[1], height / other.pixels.shape[0])
    warped = augment.warp(other.pixels, _boxes(other), matrix, (height, width))
    return replace(other, pixels=warped.pixels, boxes_B4=warped.boxes_B4, labels_B=tuple(other.labels_B[place] for place in warped.kept))


def _weighed(one: Boxed, other: Boxed, weights: Floats) -> str:
    names = (one.label or _short(one), other.label or _short(other))
    return f"{weights[0]:.0%} {names[0]}, {weights[1]:.0%} {names[1]}"


def _short(one: Boxed) -> str:
    return one.name.rpartition("/")[2]


def _drawn(one: Boxed, colours: Mapping[str, str]) -> Pixels:
    """The picture in at most CELL x CELL x 3: small ones in whole-numbered enlargement, boxes as frames of two pixels."""
    from PIL import Image, ImageDraw

    height, width = one.pixels.shape[:2]
    factor = CELL / max(height, width)
    factor = float(int(factor)) if factor >= 2 else factor
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    method = Image.Resampling.NEAREST if factor >= 2 else Image.Resampling.BICUBIC
    small = Image.fromarray(one.pixels).convert("RGB").resize(size, method)
    draw = ImageDraw.Draw(small)
    for (left, top, right, bottom), label in zip(_boxes(one), one.labels_B, strict=True):
        ends = np.round(np.array([left, top, right, bottom]) * factor)
        x, y = np.maximum(ends[2:] - 1, ends[:2])
        draw.rectangle((*ends[:2].tolist(), float(x), float(y)), outline=colours[label], width=2)
    return np.asarray(small)


def sheet_of(rows: Sequence[Sequence[Pixels]], names: Sequence[str]) -> Pixels:
    """One picture of all cells, with the names of the columns above, and the number of each row before it."""
    from PIL import Image, ImageDraw, ImageFont

    height, width = (max(cell.shape[axis] for cells in rows for cell in cells) for axis in (0, 1))
    sheet = Image.new("RGB", (HEADING + len(names) * (width + GAP), HEADING + len(rows) * (height + GAP)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for column, name in enumerate(names):
        draw.text((HEADING + column * (width + GAP) + width // 2, HEADING // 2), name, fill="black", font=font, anchor="mm")
    for number, cells in enumerate(rows):
        draw.text((HEADING // 2, HEADING + number * (height + GAP) + height // 2), str(number + 1), fill="black", font=font, anchor="mm")
        for column, cell in enumerate(cells):
            left, top = (width - cell.shape[1]) // 2, (height - cell.shape[0]) // 2
            sheet.paste(Image.fromarray(cell), (HEADING + column * (width + GAP) + left, HEADING + number * (height + GAP) + top))
    return np.asarray(sheet)

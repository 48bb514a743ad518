"""Pictures as pixels in one form, and what is wrong with those that have none or carry no content."""

from __future__ import annotations

import hashlib
import struct
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

MOST_PIXELS = 100_000_000
"""Pictures of more pixels are refused by their header: 300 MB once decoded."""
TINY = 8
"""Sides below this many pixels carry no content; sets of 28x28 or 16x16 pictures are legitimate."""
NEAR_CONSTANT = 2.0
"""Grey levels (of 255) of standard deviation below which a picture shows nothing."""
ODD_ASPECT, ASPECT_DEVIATIONS, ASPECT_FACTOR = 5.0, 6.0, 2.0
SCHEMA: dict[str, Any] = {
    "path": pl.String, "problems": pl.List(pl.String), "detail": pl.String, "width": pl.Int64, "height": pl.Int64,
    "mode": pl.String, "converted": pl.List(pl.String), "mean": pl.Float64, "std": pl.Float64, "content": pl.String,
}  # fmt: skip


class ImageProblem(StrEnum):
    """What is wrong with a picture; the first six mean that it has no pixels."""

    MISSING = "missing"
    EMPTY = "empty"
    NOT_AN_IMAGE = "not_an_image"
    TOO_MANY_PIXELS = "too_many_pixels"
    TRUNCATED = "truncated"
    CORRUPT = "corrupt"
    TINY = "tiny"
    NEAR_CONSTANT = "near_constant"
    ODD_ASPECT = "odd_aspect"


IMAGE_EXPLANATIONS: dict[ImageProblem, str] = {
    ImageProblem.MISSING: "There is no file at this path, or it cannot be opened.",
    ImageProblem.EMPTY: "The file has no bytes.",
    ImageProblem.NOT_AN_IMAGE: "The bytes are in no known image format, whatever the name says.",
    ImageProblem.TOO_MANY_PIXELS: "The header declares more pixels than the limit; it was not decoded.",
    ImageProblem.TRUNCATED: "The file ends before the picture does.",
    ImageProblem.CORRUPT: "The header is that of a picture, but its data cannot be decoded.",
    ImageProblem.TINY: f"A side is shorter than {TINY} pixels.",
    ImageProblem.NEAR_CONSTANT: f"The grey levels (0-255) have a standard deviation below {NEAR_CONSTANT}: nothing is shown.",
    ImageProblem.ODD_ASPECT: f"One side is more than {ODD_ASPECT:g} times the other, or the ratio is far from that of the other pictures.",
}


@dataclass(frozen=True)
class Image:
    """A picture: pixels uint8 HxW (mode L) or HxWx3 (mode RGB), what was converted, or the problem that left no pixels."""

    path: str
    pixels: NDArray[np.uint8] | None = None
    mode: str = ""
    converted: tuple[str, ...] = ()
    problem: ImageProblem | None = None
    detail: str = ""


def read_image(path: str | Path, most_pixels: int = MOST_PIXELS) -> Image:
    """The picture upright, as L or RGB of 8 bits, on white, first frame; or the problem. Never raises for a damaged file."""
    from PIL import Image as Pillow
    from PIL import UnidentifiedImageError

    record = Image(str(path))
    try:
        if Path(path).stat().st_size == 0:
            return replace(record, problem=ImageProblem.EMPTY)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Pillow.open(path) as picture:
                width, height = picture.size
                if width * height > most_pixels:
                    return replace(record, problem=ImageProblem.TOO_MANY_PIXELS, detail=f"{width}x{height}")
                picture.load()
                pixels, mode, converted = _canonical(picture)
    except UnidentifiedImageError:
        return replace(record, problem=ImageProblem.NOT_AN_IMAGE)
    except Pillow.DecompressionBombError as error:
        return replace(record, problem=ImageProblem.TOO_MANY_PIXELS, detail=str(error))
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        return replace(record, problem=ImageProblem.MISSING, detail=str(error))
    except (OSError, SyntaxError, ValueError, TypeError, EOFError, IndexError, KeyError, struct.error, MemoryError) as error:
        truncated = any(word in str(error).lower() for word in ("truncat", "not enough", "end of file", "premature"))
        return replace(record, problem=ImageProblem.TRUNCATED if truncated else ImageProblem.CORRUPT, detail=str(error))
    return replace(record, pixels=pixels, mode=mode, converted=converted)


def content_hash(pixels: NDArray[np.uint8]) -> str:
    """SHA-256 of shape and pixels: equal for lossless copies in any format. Grey stored as RGB counts as grey."""
    if pixels.ndim == 3 and (pixels == pixels[:, :, :1]).all():
        pixels = pixels[:, :, 0]
    return hashlib.sha256(f"{pixels.shape}".encode() + np.ascontiguousarray(pixels).tobytes()).hexdigest()


def check_images(paths: Sequence[str | Path], most_pixels: int = MOST_PIXELS) -> pl.DataFrame:
    """One row a path in order: problems (empty where sound), detail, width, height, mode, converted, mean, std, content hash."""
    rows = [_row(read_image(path, most_pixels)) for path in paths]
    return pl.DataFrame(_with_odd_aspects(rows), schema=SCHEMA)


def _row(image: Image) -> dict[str, Any]:
    row: dict[str, Any] = {"path": image.path, "problems": [], "detail": image.detail, "converted": list(image.converted)}
    if image.pixels is None:
        return {**dict.fromkeys(SCHEMA), **row, "problems": [str(image.problem)]}
    height, width = image.pixels.shape[:2]
    grey = image.pixels if image.pixels.ndim == 2 else image.pixels @ np.array([0.299, 0.587, 0.114], np.float32)
    mean, std = float(grey.mean(dtype=np.float64)), float(grey.std(dtype=np.float64))
    problems = [str(ImageProblem.TINY)] if min(width, height) < TINY else []
    problems += [str(ImageProblem.NEAR_CONSTANT)] if std < NEAR_CONSTANT else []
    row.update(width=width, height=height, mode=image.mode, mean=mean, std=std, content=content_hash(image.pixels))
    return {**row, "problems": problems}


def _with_odd_aspects(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows with the problem where the ratio of sides is beyond 1:5, or far from the median (both in deviations and factor)."""
    sound = [row for row in rows if row["width"]]
    ratios = np.log([row["width"] / row["height"] for row in sound])
    centre = np.median(ratios) if len(ratios) else 0.0
    deviation = 1.4826 * np.median(np.abs(ratios - centre)) if len(ratios) else 0.0
    far = np.abs(ratios - centre) > max(ASPECT_DEVIATIONS * float(deviation), float(np.log(ASPECT_FACTOR)))
    for row, ratio, outlier in zip(sound, ratios, far, strict=True):
        if abs(ratio) > np.log(ODD_ASPECT) or (outlier and len(sound) >= 10):
            row["problems"].append(str(ImageProblem.ODD_ASPECT))
    return rows


def _canonical(picture: Any) -> tuple[NDArray[np.uint8], str, tuple[str, ...]]:
    """Pixels, mode (L or RGB) and the names of all conversions, from a loaded Pillow picture."""
    from PIL import Image as Pillow
    from PIL import ImageOps

    converted = []
    frames = int(picture.n_frames) if "n_frames" in dir(picture) else 1
    if frames > 1:
        converted.append(f"first of {frames} frames")
    turn = picture.getexif().get(0x0112, 1)
    if turn in range(2, 9):
        picture = ImageOps.exif_transpose(picture)
        converted.append("turned as EXIF says")
    if picture.mode in ("I", "F") or picture.mode.startswith("I;16"):
        levels, how = _eight_bit(np.asarray(picture))
        converted.append(how)
        picture = Pillow.fromarray(levels)
    if picture.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        white = Pillow.new("RGBA", picture.size, "white")
        picture = Pillow.alpha_composite(white, picture).convert("RGB")
        converted.append("transparency on white")
    if picture.mode not in ("L", "RGB"):
        target = "L" if picture.mode == "1" else "RGB"
        converted.append(f"{picture.mode} to {target}")
        picture = picture.convert(target)
    return np.asarray(picture, dtype=np.uint8), picture.mode, tuple(converted)


def _eight_bit(values: NDArray[Any]) -> tuple[NDArray[np.uint8], str]:
    """Levels 0-65535 scaled to 0-255; floats and other ranges stretched from their lowest to their highest value."""
    lowest, highest = float(values.min()), float(values.max())
    if values.dtype.kind in "iu" and lowest >= 0 and highest <= 65535:
        return np.round(values / 257.0).astype(np.uint8), "16 bit to 8"
    if not np.isfinite([lowest, highest]).all():
        raise ValueError("values that are not finite")
    span = highest - lowest or 1.0
    return np.round((values.astype(np.float64) - lowest) / span * 255).astype(np.uint8), "stretched to 8 bit"

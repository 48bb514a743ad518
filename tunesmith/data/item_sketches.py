"""Small drawings of items for a report: JPEG thumbnails of pictures, envelopes of recordings."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from tunesmith.data.audio import read_audio
from tunesmith.data.images import read_image

SIDE, LARGE_SIDE = 112, 360
COLUMNS, LEVELS = 160, 100
QUALITY = 80
SCHEMA: dict[str, Any] = {"row": pl.Int64, "jpeg": pl.Binary, "wave": pl.List(pl.Int64), "seconds": pl.Float64}


def picture_sketches(paths: Mapping[int, Path], large: Iterable[int] = ()) -> pl.DataFrame:
    """The JPEG bytes of each picture by its row, at most SIDE (or LARGE_SIDE) pixels a side; those without pixels have no row."""
    from PIL import Image

    wide, rows = set(large), []
    for row, path in sorted(paths.items()):
        pixels = read_image(path).pixels
        if pixels is not None:
            side = LARGE_SIDE if row in wide else SIDE
            small, out = Image.fromarray(pixels), io.BytesIO()
            small.thumbnail((side, side))
            small.save(out, "JPEG", quality=QUALITY)
            rows.append((row, out.getvalue(), None, None))
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def sound_sketches(paths: Mapping[int, Path]) -> pl.DataFrame:
    """The envelope of each recording by its row: low and high of COLUMNS equal parts in turn, -LEVELS to LEVELS, at full height."""
    rows = []
    for row, path in sorted(paths.items()):
        samples = read_audio(path).samples
        if samples is not None and len(samples):
            edges = np.linspace(0, len(samples), min(COLUMNS, len(samples)) + 1).astype(np.int64)[:-1]
            scale = LEVELS / max(float(np.abs(samples).max()), 1e-9)
            ends = np.stack([np.minimum.reduceat(samples, edges), np.maximum.reduceat(samples, edges)], 1)
            rows.append((row, None, np.round(ends * scale).astype(np.int64).ravel().tolist(), round(len(samples) / 16_000, 3)))
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")

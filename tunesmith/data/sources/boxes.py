"""Boxes and pictures that every detection format shares: what is a good box, where its picture is, how large it is.

Boxes are absolute pixels from the top left corner: x, y, width, height.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunesmith.core.records import Issue
from tunesmith.data.sources.base import DETECTION, Items, Left, Reason, counted, dropped_table, frame, held
from tunesmith.data.sources.place import MAX_PIXELS, Place, inside, size_of_image

TOLERANCE_PX = 1.0
ROUNDING_PX = 1e-6


@dataclass
class Pictures:
    """Rows of pictures as they are read: `rows` of the final table, what was `left` out, how many boxes were `clipped`."""

    root: Path
    extra: dict[str, Any] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    left: list[Left] = field(default_factory=list)
    clipped: int = 0

    def picture(self, source: str, name: object, size: tuple[Any, Any] = (None, None), boxes: int = 0) -> dict[str, Any] | None:
        """The row of a picture with no box yet, added; None, and a reason in `left`, where it cannot be used.

        `size` as declared, in pixels; the header of the image says it where it is not. `boxes` would be lost.
        """
        lost = f"{name}" + (f", with its {boxes} boxes" if boxes else "")
        path = inside(self.root, name)
        if isinstance(path, Reason):
            self.left.append((source, path, lost))
            return None
        found = _declared(*size) or size_of_image(self.root / path)
        if isinstance(found[0], Reason):
            self.left.append((source, found[0], f"{lost}: {found[1]}"))
            return None
        row = {"source": source, "image": path, "width": found[0], "height": found[1], "boxes": []}
        self.rows.append(row)
        return row

    def box(self, source: str, row: dict[str, Any], label: str, corners: Sequence[object]) -> None:
        """Add a box (x, y, width, height) to a picture, clipped where it is at most a pixel outside; or say why not."""
        values = [as_number(value) for value in corners]
        shape = f"{label} {[round(value, 3) for value in values]} in {row['width']} x {row['height']}"
        problem = problem_of_box(values, row["width"], row["height"])
        if problem:
            self.left.append((source, problem, shape))
            return
        x, y, width, height = values
        left, top = max(x, 0.0), max(y, 0.0)
        right, bottom = min(x + width, row["width"]), min(y + height, row["height"])
        if right - left <= 0 or bottom - top <= 0:
            self.left.append((source, Reason.BOX_OUTSIDE, shape))
            return
        moved = max(left - x, top - y, x + width - right, y + height - bottom)
        self.clipped += moved > ROUNDING_PX
        if moved > 0:
            width, height = right - left, bottom - top
        row["boxes"].append({"label": label, "x": left, "y": top, "width": width, "height": height})

    def items(self, form: str, why: str, place: Place, issues: Sequence[Issue] = ()) -> Items:
        """The items read so far.

        Raises:
            DataError: no picture is left.
        """
        table = frame(self.rows, DETECTION | self.extra)
        told = counted(place.name, self.clipped, "boxes should lie within the picture", "boxes up to a pixel outside were clipped")
        table = held(str(place.path), table, self.left)
        return Items("object-detection", form, why, self.root, table, dropped_table(self.left), (*issues, *told))


def problem_of_box(values: Sequence[float], width: int, height: int) -> Reason | None:
    """Why a box (x, y, width, height) in a picture of this size cannot be used; None for a good one."""
    if len(values) != 4:
        return Reason.MALFORMED
    if not all(map(math.isfinite, values)):
        return Reason.BOX_NOT_FINITE
    x, y, wide, high = values
    if wide <= 0 or high <= 0:
        return Reason.BOX_EMPTY
    outside = max(-x, -y, x + wide - width, y + high - height)
    return Reason.BOX_OUTSIDE if outside > TOLERANCE_PX else None


def as_number(value: object) -> float:
    """The value as a number; NaN for what is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return math.nan
    try:
        return float(value)
    except (ValueError, OverflowError):
        return math.nan


def _declared(width: object, height: object) -> tuple[int, int] | None:
    """The size that a record declares, where it is possible: whole positive numbers, of an image that can be decoded."""
    wide, high = as_number(width), as_number(height)
    if not (math.isfinite(wide) and math.isfinite(high)) or wide < 1 or high < 1 or wide * high > MAX_PIXELS:
        return None
    return (int(wide), int(high)) if wide.is_integer() and high.is_integer() else None

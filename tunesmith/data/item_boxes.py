"""What the boxes of a detection set look like, and which lie on each other.

Shape suffix: B = boxes of one picture.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import polars as pl

from tunesmith.data.item_contents import quantiles

SAME_IOU = 0.95
EXAMPLES, PICTURES = 8, 6
FEW_BOXES = 40


def boxes_of(table: pl.DataFrame) -> dict[str, Any]:
    """Counts of boxes, pictures without one, quantiles of boxes per picture and of areas by class, and boxes that coincide.

    Areas are shares of the picture. Two boxes coincide where their intersection is at least SAME_IOU of their union; with one
    label the thing was marked twice, with two labels they contradict each other.
    """
    areas: dict[str, list[float]] = {}
    twice: list[dict[str, Any]] = []
    counts = Counter({"twice": 0, "contradicting": 0})
    for row, (name, width, height, boxes) in enumerate(table.select("image", "width", "height", "boxes").iter_rows()):
        for box in boxes:
            areas.setdefault(box["label"], []).append(box["width"] * box["height"] / (width * height))
        for first, second in _coinciding(boxes):
            kind = "twice" if first["label"] == second["label"] else "contradicting"
            counts[kind] += 1
            twice.append({"row": row, "name": name, "label": first["label"], "other_label": second["label"], "kind": kind})
    per_picture = table["boxes"].list.len().to_list()
    by_class = [quantiles(label, found) for label, found in sorted(areas.items(), key=lambda entry: (-len(entry[1]), entry[0]))]
    return {
        "count": int(sum(per_picture)),
        "pictures_without": sum(count == 0 for count in per_picture),
        "per_picture": quantiles("boxes in a picture", per_picture),
        "areas": [entry for entry in (quantiles("all", [a for found in areas.values() for a in found]), *by_class) if entry],
        **counts,
        "examples": sorted(twice, key=lambda entry: entry["kind"])[:EXAMPLES],
        "pictures": _shown(table),
    }


def _coinciding(boxes: list[dict[str, Any]]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    if len(boxes) < 2:
        return []
    left_B, top_B, width_B, height_B = (np.array([box[key] for box in boxes]) for key in ("x", "y", "width", "height"))
    right_B, bottom_B, area_B = left_B + width_B, top_B + height_B, width_B * height_B
    across = np.minimum(right_B[:, None], right_B) - np.maximum(left_B[:, None], left_B)
    down = np.minimum(bottom_B[:, None], bottom_B) - np.maximum(top_B[:, None], top_B)
    shared = np.clip(across, 0, None) * np.clip(down, 0, None)
    same = shared >= SAME_IOU * (area_B[:, None] + area_B - shared)
    return [(boxes[a], boxes[b]) for a, b in np.argwhere(np.triu(same, 1))]


def _shown(table: pl.DataFrame) -> list[dict[str, Any]]:
    """Some pictures with their boxes, in shares of the picture: one or more for each class as far as they go."""
    out: list[dict[str, Any]] = []
    seen: Counter[str] = Counter()
    for row, (name, width, height, boxes) in enumerate(table.select("image", "width", "height", "boxes").iter_rows()):
        labels = {box["label"] for box in boxes}
        if len(out) < PICTURES and labels and (min(seen[label] for label in labels) < 2):
            seen.update(labels)
            drawn = [
                {
                    "label": box["label"],
                    "x": round(box["x"] / width, 4),
                    "y": round(box["y"] / height, 4),
                    "width": round(box["width"] / width, 4),
                    "height": round(box["height"] / height, 4),
                }
                for box in boxes[:FEW_BOXES]
            ]
            out.append({"row": row, "name": name, "ratio": round(height / width, 4), "boxes": drawn, "more": len(boxes) - len(drawn)})
    return out

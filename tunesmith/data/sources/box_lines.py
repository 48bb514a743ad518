"""Detection as JSON lines: a picture a line, with `objects` of a `bbox` [x, y, width, height] in pixels and a `category`.

`objects` is a list of such pairs, or one object of two lists (`bbox` and `category`) of the same length.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import polars as pl

from tunesmith.core.records import Issue
from tunesmith.data.sources.base import Items, Left, Reason
from tunesmith.data.sources.boxes import Pictures
from tunesmith.data.sources.place import Place, joined, split_of_file

PATHS = ("file_name", "image", "image_path", "path", "filename")
LABELS = ("category", "categories", "label", "labels", "category_name")


def recognise(place: Place) -> str | None:
    """Why this is detection as JSON lines: objects with an image path and `objects` of boxes; None otherwise."""
    files = _files(place)
    more = f" (and {len(files) - 1} more)" if files[1:] else ""
    return f"the objects of {files[0].name}{more} name an image and hold `objects` with `bbox`" if files else None


def read(place: Place, why: str) -> Items:
    """Pictures with their boxes; with a `split` column where there are several files, by their names.

    Raises:
        DataError: no picture is left.
    """
    files = _files(place)
    pictures = Pictures(place.folder, {"split": pl.String} if len(files) > 1 else {})
    issues: list[Issue] = []
    for file in files:
        issues += file.encoding[1]
        below = file.path.parent.relative_to(place.folder).as_posix()
        for source, record in file.objects(pictures.left):
            name = next((record[key] for key in PATHS if key in record), None)
            things = list(_objects(source, record.get("objects"), pictures.left))
            row = pictures.picture(source, joined(below, name), (record.get("width"), record.get("height")), len(things))
            if row is not None:
                row["split"] = split_of_file(file.path)
                for number, (label, corners) in enumerate(things, start=1):
                    _box(f"{source} object {number}", label, corners, (row, pictures))
    return pictures.items("box-lines", why, place, issues)


def _files(place: Place) -> list[Place]:
    """The file itself, or the JSON lines of a folder at most one level down."""
    if place.shape != "folder":
        return [place] if _holds_boxes(place) else []
    names = [name for name in place.listing.files if name.lower().endswith((".jsonl", ".jsonl.gz")) and name.count("/") <= 1]
    return [file for file in (Place(place.path / name) for name in names) if _holds_boxes(file)]


def _holds_boxes(place: Place) -> bool:
    if place.shape not in ("lines", "list"):
        return False
    for record in place.first_objects:
        things = record.get("objects")
        first = things[0] if isinstance(things, list) and things else things
        if isinstance(first, dict) and "bbox" in first and any(key in record for key in PATHS):
            return True
    return False


def _objects(source: str, value: object, left: list[Left]) -> Iterator[tuple[Any, Any]]:
    """Pairs of label and bbox."""
    if isinstance(value, dict):
        boxes, labels = value.get("bbox"), next((value[key] for key in LABELS if key in value), None)
        if isinstance(boxes, list) and isinstance(labels, list) and len(boxes) == len(labels):
            yield from zip(labels, boxes, strict=True)
        else:
            left.append((source, Reason.MALFORMED, "objects need as many labels as boxes"))
    elif isinstance(value, list):
        for thing in value:
            yield (
                (next((thing[key] for key in LABELS if key in thing), None), thing.get("bbox")) if isinstance(thing, dict) else (None, None)
            )
    elif value is not None:
        left.append((source, Reason.MALFORMED, "objects must be a list"))


def _box(source: str, label: object, corners: object, state: tuple[dict[str, Any], Pictures]) -> None:
    row, pictures = state
    if not isinstance(label, (str, int)) or isinstance(label, bool) or not str(label).strip() or not isinstance(corners, list):
        pictures.left.append((source, Reason.MALFORMED, "an object needs a bbox and a category"))
    else:
        pictures.box(source, row, str(label).strip(), corners)

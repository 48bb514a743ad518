"""COCO detection JSON: one file, or a folder with one per split. Boxes are [x, y, width, height] in pixels from the top left."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl

from tunesmith.core.errors import DataError
from tunesmith.core.records import Issue
from tunesmith.data.sources.base import Items, Left, Reason, counted, warning
from tunesmith.data.sources.boxes import Pictures
from tunesmith.data.sources.place import Place, joined, prefix_of, split_of_file

FOLDERS = ("", "images", "../images", "..", "train", "val", "test")


def recognise(place: Place) -> str | None:
    """Why this is COCO: the three lists of a JSON object; None otherwise."""
    if place.shape == "folder":
        names = [file.path.name for file in _files(place)]
        return (
            f"{names[0]} {f'and {len(names) - 1} more hold' if names[1:] else 'holds'} images, annotations, categories" if names else None
        )
    return f"{place.name} is a JSON object with the lists images, annotations and categories" if _is_coco(place) else None


def read(place: Place, why: str) -> Items:
    """Pictures with their boxes; with a `split` column where there is a file per split.

    Image paths are looked for beside the JSON, in images/ and in a folder called like the split; a file in
    annotations/ may name images of the folder above. Boxes of crowds (iscrowd 1) are left out, with the reason.

    Raises:
        DataError: the JSON is damaged, or no picture is left.
    """
    files = list(_files(place)) if place.shape == "folder" else [place]
    root = place.folder
    if place.shape != "folder" and root.name.lower() == "annotations":
        root = root.parent
    splits = [split_of_file(file.path) for file in files]
    pictures = Pictures(root, {"split": pl.String} if len(files) > 1 else {})
    issues: list[Issue] = []
    for file, split in zip(files, splits, strict=True):
        start = len(pictures.rows)
        issues += [*file.encoding[1], *_read_one(file, pictures)]
        for row in pictures.rows[start:]:
            row["split"] = split
    if len(files) > 1 and None in splits:
        unnamed = ", ".join(file.name for file, split in zip(files, splits, strict=True) if split is None)
        issues.append(warning(place.name, "each COCO file should name its split", unnamed, "The split of its images is empty."))
    return pictures.items("coco", why, place, issues)


def _is_coco(place: Place) -> bool:
    value = place.document if place.shape == "object" else None
    return isinstance(value, dict) and isinstance(value.get("images"), list) and isinstance(value.get("annotations"), list)


def _files(place: Place) -> Iterator[Place]:
    """The COCO files of a folder: at most two levels down, called *.json."""
    for name in place.listing.files:
        if name.lower().endswith(".json") and name.count("/") <= 1:
            file = Place(place.path / name)
            try:
                found = _is_coco(file)
            except DataError:
                found = "coco" in name.lower() or "instances" in name.lower()  # damaged, and must be told when it is read
            if found:
                yield file


def _read_one(place: Place, pictures: Pictures) -> list[Issue]:
    value = place.document
    if not isinstance(value, dict):
        raise DataError(Issue(str(place.path), "must be a COCO object", f"JSON {type(value).__name__}", "Write it again."))
    names, issues = _categories(place, value.get("categories"), pictures.left)
    records = list(_records(place, "annotation", value.get("annotations"), pictures.left))
    boxes_of: dict[object, int] = {}
    for _, record in records:
        boxes_of[_key(record.get("image_id"))] = boxes_of.get(_key(record.get("image_id")), 0) + 1
    rows = _pictures(place, value["images"], boxes_of, pictures)
    return issues + _boxes(place, records, rows, names, pictures)


def _pictures(place: Place, images: list[Any], boxes_of: dict[object, int], pictures: Pictures) -> dict[object, dict[str, Any] | None]:
    """The row of each image id; None for an image that could not be used."""
    folder = _folder_of_images(place, pictures.root, images)
    rows: dict[object, dict[str, Any] | None] = {}
    for source, image in _records(place, "image", images, pictures.left):
        key, name = _key(image.get("id")), image.get("file_name")
        if key is None:
            pictures.left.append((source, Reason.MALFORMED, "no id"))
        elif key in rows:
            pictures.left.append((source, Reason.DUPLICATE_ID, f"image id {key[1]}"))
        else:
            rows[key] = pictures.picture(source, joined(folder, name), (image.get("width"), image.get("height")), boxes_of.get(key, 0))
    return rows


def _boxes(
    place: Place,
    records: list[tuple[str, dict[str, Any]]],
    rows: dict[object, dict[str, Any] | None],
    names: dict[object, str],
    pictures: Pictures,
) -> list[Issue]:
    seen: dict[object, str] = {}
    reused = 0
    for source, record in records:
        number, image = _key(record.get("id")), _key(record.get("image_id"))
        content = repr((image, record.get("category_id"), record.get("bbox")))
        corners = record.get("bbox")
        row, label = rows.get(image), names.get(_key(record.get("category_id")))
        if number is not None and seen.get(number) == content:
            pictures.left.append((source, Reason.DUPLICATE_ID, f"annotation id {number[1]}"))
        elif image not in rows:
            pictures.left.append((source, Reason.UNKNOWN_IMAGE, f"image id {record.get('image_id')}"))
        elif row is None:
            continue  # counted with its picture
        elif label is None:
            pictures.left.append((source, Reason.UNKNOWN_CATEGORY, f"category id {record.get('category_id')}"))
        elif record.get("iscrowd") in (1, True):
            pictures.left.append((source, Reason.CROWD, label))
        elif not isinstance(corners, list) or len(corners) != 4:
            pictures.left.append((source, Reason.MALFORMED, "bbox is no list of four numbers"))
        else:
            reused += number in seen
            pictures.box(source, row, label, corners)
        if number is not None:
            seen[number] = content
    return counted(place.name, reused, "annotation ids should be unique", "ids were used again for another box; the boxes are kept")


def _categories(place: Place, value: object, left: list[Left]) -> tuple[dict[object, str], list[Issue]]:
    """Names by category id, the first one where an id is given twice."""
    names: dict[object, str] = {}
    again = 0
    for source, record in _records(place, "category", value, left):
        key, name = _key(record.get("id")), record.get("name")
        if key is None or not isinstance(name, str) or not name.strip():
            left.append((source, Reason.MALFORMED, "a category needs an id and a name"))
        elif key in names:
            again += names[key] != name
        else:
            names[key] = name
    return names, counted(place.name, again, "category ids should be unique", "ids have a second name; the first one is used")


def _records(place: Place, kind: str, value: object, left: list[Left]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Objects of a list with their source, such as "train.json annotation 12" (its place in the list, from 1)."""
    for number, record in enumerate(value if isinstance(value, list) else (), start=1):
        source = f"{place.name} {kind} {number}"
        if isinstance(record, dict):
            yield source, record
        else:
            left.append((source, Reason.MALFORMED, "not a JSON object"))


def _key(value: object) -> tuple[str, object] | None:
    """An id that can be looked up; 1 and "1" are different, as they are in JSON."""
    return (type(value).__name__, value) if isinstance(value, (int, str)) and not isinstance(value, bool) else None


def _folder_of_images(place: Place, root: Path, images: list[Any]) -> str:
    """The folder below `root` where most of the first images are, as a POSIX prefix without its slash."""
    names = [image.get("file_name") for image in images[:50] if isinstance(image, dict)]
    stem = place.path.stem.removeprefix("instances_")
    return prefix_of(root, place.path.parent, [*FOLDERS, stem, f"../{stem}", f"images/{stem}", f"../images/{stem}"], names)

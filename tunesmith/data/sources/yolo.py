"""YOLO: images/, labels/ with a text file per image, and data.yaml or classes.txt with the class names.

A line is `class centre_x centre_y width height`, each a share of the picture's size. Paths in data.yaml are not
followed: images are those that lie in the folder.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import polars as pl

from tunesmith.core.errors import DataError
from tunesmith.core.records import Issue
from tunesmith.data.decode import readable
from tunesmith.data.sources.base import Items, Reason, counted, warning
from tunesmith.data.sources.boxes import Pictures
from tunesmith.data.sources.place import IMAGES, Place, split_of

LISTS = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml", "classes.txt", "obj.names", "labels/classes.txt")
MAX_LIST_BYTES = 1 << 20
SAMPLE = 20


def recognise(place: Place) -> str | None:
    """Why this is YOLO: text files of five numbers a line in labels/, or images/ beside a class list; None otherwise."""
    place = _whole(place)
    if place.shape != "folder":
        return None
    labels = [name for name in place.listing.files if _is_label(name)]
    for name in labels[:SAMPLE]:
        lines = _lines(place.path / name)
        if lines and any(_numbers(line) for line in lines):
            return f"{name} and {len(labels) - 1} other files in labels/ hold `class x y width height` lines"
    with_images = any("/images/" in f"/{name}" for name in place.listing.ending(IMAGES))
    named = next((name for name in LISTS if name in place.listing.files), None)
    return f"labels/ and images/ lie beside {named}" if labels and with_images and named else None


def read(place: Place, why: str) -> Items:
    """Pictures with their boxes; with a `split` column where folders are called train, val or test.

    An image without a label file has no boxes, which is told; a label file without an image is left out.

    Raises:
        DataError: no picture is left.
    """
    place = _whole(place)
    images = [name for name in place.listing.ending(IMAGES) if "/images/" in f"/{name}"] or place.listing.ending(IMAGES)
    names, issues = _class_names(place)
    has_splits = any(map(split_of, images))
    pictures = Pictures(place.path, {"split": pl.String} if has_splits else {}, left=list(place.listing.left))
    unread = {name for name in place.listing.files if _is_label(name)}
    without = 0
    unknown: set[int] = set()
    for image in images:
        label = _label_of(image)
        without += label not in unread
        lines = _lines(place.path / label) if label in unread else []
        unread.discard(label)
        if lines is None:  # without its boxes the image would teach that there is nothing on it
            pictures.left.append((label, Reason.MALFORMED, f"not UTF-8 text; {image} is left out with it"))
            continue
        row = pictures.picture(image, image, boxes=len(lines))
        if row is None:
            continue
        row["split"] = split_of(image)
        for number, line in enumerate(lines, start=1):
            _box(f"{label}:{number}", line, row, (names, unknown, pictures))
    pictures.left += [(label, Reason.MISSING_FILE, "no image of that name") for label in sorted(unread)]
    issues += counted(place.name, without, "each image should have a label file", "images have none and count as images without boxes")
    issues += counted(place.name, place.listing.hidden, "hidden files are passed over", "hidden files or folders were found")
    issues += _about_classes(place, names, unknown)
    return pictures.items("yolo", why, place, issues)


def _whole(place: Place) -> Place:
    """The folder of a data.yaml that was named itself."""
    return Place(place.path.parent) if place.path.name in LISTS and place.path.is_file() else place


def _is_label(name: str) -> bool:
    return "/labels/" in f"/{name}" and name.endswith(".txt") and not name.endswith("classes.txt")


def _label_of(image: str) -> str:
    """The label file that belongs to an image: the last folder `images` becomes `labels`, the ending .txt."""
    before, found, after = f"/{image}".rpartition("/images/")
    path = f"{before}/labels/{after}" if found else f"/labels/{image}"
    return path[1:].rpartition(".")[0] + ".txt"


def _lines(path: Path) -> list[str] | None:
    """Lines of a label file, trailing blank ones gone; None where it is no UTF-8 text."""
    try:
        with readable(path):
            return path.read_bytes().decode("utf-8-sig").rstrip().splitlines()
    except (UnicodeDecodeError, DataError):
        return None


def _numbers(line: str) -> list[float] | None:
    try:
        values = [float(part) for part in line.split()]
    except ValueError:
        return None
    return values if len(values) == 5 and values[0].is_integer() else None


def _box(source: str, line: str, row: dict[str, Any], state: tuple[dict[int, str], set[int], Pictures]) -> None:
    names, unknown, pictures = state
    values = _numbers(line)
    if values is None:
        parts = len(line.split())
        found = f"{parts} values" if parts != 5 else f"not five numbers: {line[:60]!r}"
        pictures.left.append((source, Reason.MALFORMED, found))
        return
    number, (x, y, width, height) = int(values[0]), values[1:]
    if not all(map(math.isfinite, values)):
        pictures.left.append((source, Reason.BOX_NOT_FINITE, line[:60]))
        return
    if names and number not in names:
        unknown.add(number)
        pictures.left.append((source, Reason.UNKNOWN_CATEGORY, f"class {number}"))
        return
    wide, high = row["width"], row["height"]
    corners = ((x - width / 2) * wide, (y - height / 2) * high, width * wide, height * high)
    pictures.box(source, row, names.get(number, str(number)), corners)


def _class_names(place: Place) -> tuple[dict[int, str], list[Issue]]:
    """Class names by number, from the first list that there is; empty, with a warning, where there is none."""
    name = next((name for name in LISTS if name in place.listing.files), None)
    if name is None:
        return {}, [warning(place.name, "should hold data.yaml or classes.txt", "neither", "Classes are called by their numbers.")]
    path = place.path / name
    with readable(path):
        content = path.read_bytes()[:MAX_LIST_BYTES]
    if not name.endswith((".yaml", ".yml")):
        lines = content.decode("utf-8-sig", "replace").rstrip().splitlines()
        return {number: line.strip() for number, line in enumerate(lines) if line.strip()}, []
    return _names_of_yaml(path, content)


def _names_of_yaml(path: Path, content: bytes) -> tuple[dict[int, str], list[Issue]]:
    """`names` as a list or as a map from number to name; every scalar is text, so that `no` is a name."""
    import yaml

    try:
        value = yaml.load(content, Loader=yaml.BaseLoader)
    except (yaml.YAMLError, ValueError, RecursionError, TypeError) as error:
        problem = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(Issue(str(path), "must be YAML with the class names", problem, "Write `names: [first, second]`.")) from error
    value = value if isinstance(value, dict) else {}
    names = value.get("names")
    if isinstance(names, list):
        pairs = list(enumerate(names))
    elif isinstance(names, dict):
        pairs = [(int(key), name) for key, name in names.items() if isinstance(key, str) and key.isascii() and key.isdigit()]
    else:
        pairs = []
    found = {number: name.strip() for number, name in pairs if isinstance(name, str) and name.strip() and _is_unicode(name)}
    issues = []
    if not found:
        issues.append(warning(str(path), "should hold `names` of the classes", "none", "Classes are called by their numbers."))
    if isinstance(value.get("nc"), str) and value["nc"] != str(len(found)):
        issues.append(warning(str(path), "`nc` should be the number of names", f"nc {value['nc']} and {len(found)} names"))
    return found, issues


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _about_classes(place: Place, names: dict[int, str], unknown: set[int]) -> list[Issue]:
    if not unknown:
        return []
    found = f"class numbers {', '.join(map(str, sorted(unknown)[:10]))}, and {len(names)} names"
    return [warning(place.name, "every class number should have a name", found, "Boxes of these classes are left out: complete the list.")]

"""Folders of images or sounds: a sub-folder per class, and above these, if there are any, folders called train, val, test."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import polars as pl

from tunesmith.core.records import Issue
from tunesmith.data.sources.base import Items, Left, Reason, counted, dropped_table, frame, held, warning
from tunesmith.data.sources.place import AUDIO, IMAGES, KINDS, SPLIT_NAMES, Place, ending_of


def recognise(place: Place) -> str | None:
    """Why this is a folder of images or sounds: most of its files end so; None where there is no such file."""
    if place.shape != "folder":
        return None
    word, names = _media(place)
    if not names:
        return None
    depth = _depth(names)
    classes = {name.split("/")[depth] for name in names if name.count("/") > depth}
    layout = f"in {len(classes)} sub-folders" if classes else "without sub-folders"
    return f"{place.name} holds {len(names):,} {word} files {layout}"


def read(place: Place, why: str) -> Items:
    """A row per file: `image` or `audio`, its `label` (null without a class folder), and `split` where folders give one.

    Folders that all files share are no classes; neither is a single folder. Files of no known ending, empty files and
    links out of the folder are left out; hidden files, Thumbs.db and .DS_Store are passed over and counted.

    Raises:
        DataError: no file is left.
    """
    word, names = _media(place)
    depth = _depth(names)
    left: list[Left] = list(place.listing.left)
    left += [(name, Reason.NOT_MEDIA, "") for name in place.listing.files if ending_of(name) not in (IMAGES if word == "image" else AUDIO)]
    empty = {name for name in names if (place.path / name).stat().st_size == 0}
    left += [(name, Reason.EMPTY_FILE, "") for name in sorted(empty)]
    splits = _splits(names, depth)
    at = depth + bool(splits)
    labels = {name: name.split("/")[at] if name.count("/") > at else None for name in names}
    classes = Counter(label for label in labels.values() if label is not None)
    single = len(classes) == 1
    rows = [
        {"source": name, word: name, "label": None if single else labels[name], "split": splits.get(name)}
        for name in names
        if name not in empty
    ]
    schema = {"source": pl.String, word: pl.String, "label": pl.String} | ({"split": pl.String} if splits else {})
    table = held(str(place.path), frame(rows, schema), left)
    issues = _about_classes(place, names, at, left) + _about_labels(place, table, classes, splits)
    issues += counted(place.name, place.listing.hidden, "hidden files are passed over", "hidden files or folders were found")
    return Items(KINDS[word], f"{word}-folder", why, place.path, table, dropped_table(left), tuple(issues))


def _media(place: Place) -> tuple[str, list[str]]:
    """Whether there are more images or sounds, and their names."""
    images, sounds = place.listing.ending(IMAGES), place.listing.ending(AUDIO)
    return ("image", images) if len(images) >= len(sounds) else ("audio", sounds)


def _depth(names: Sequence[str]) -> int:
    """How many outer folders all files share: these are no classes, unless they name a split."""
    folders = [name.split("/")[:-1] for name in names]
    depth = 0
    for parts in zip(*folders, strict=False):
        if len(set(parts)) > 1 or parts[0].lower() in SPLIT_NAMES:
            break
        depth += 1
    return depth


def _splits(names: Sequence[str], depth: int) -> dict[str, str]:
    """The split of each file when all folders at this depth name one; else none."""
    found = {name: SPLIT_NAMES.get(name.split("/")[depth].lower()) for name in names if name.count("/") > depth}
    return {name: split for name, split in found.items() if split} if found and all(found.values()) else {}


def _about_classes(place: Place, names: Sequence[str], at: int, left: Sequence[Left]) -> list[Issue]:
    """Class folders all of whose files were left out."""
    gone = {source for source, *_ in left}
    full = {_folder(name, at) for name in names if name not in gone}
    empty = {_folder(name, at) for name in gone if name.count("/") > at} - full
    shown = ", ".join(sorted(empty)[:5]) + (" …" if len(empty) > 5 else "")
    return [warning(place.name, "each class folder should hold a file that can be read", f"none in {shown}")] if empty else []


def _folder(name: str, at: int) -> str:
    return "/".join(name.split("/")[: at + 1])


def _about_labels(place: Place, table: pl.DataFrame, classes: Counter[str], splits: dict[str, str]) -> list[Issue]:
    issues = []
    if len(classes) < 2:
        found = f"one, {next(iter(classes))!r}" if classes else "none"
        issues.append(warning(place.name, "should hold a sub-folder for each class", found, "The items have no label."))
    else:
        without = int(table["label"].is_null().sum())
        issues += counted(place.name, without, "each file should lie in a class folder", "files do not and have no label")
    like_splits = sorted(name for name in classes if name.lower() in SPLIT_NAMES)
    if like_splits and not splits:
        found = f"{', '.join(like_splits)} beside others"
        issues.append(warning(place.name, "folders should all name splits, or all classes", found, "All were taken as classes."))
    return issues

"""Which format a source has, told by its content, and its items. The table `FORMATS` is the order of decision."""

from __future__ import annotations

import difflib
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

import polars as pl

from tunesmith.core.errors import DataError
from tunesmith.core.records import Issue
from tunesmith.data.sources import (
    box_lines,
    chat,
    coco,
    conll,
    hub,
    label_studio,
    media_folder,
    media_table,
    remote,
    split_files,
    sql,
    squad,
    table,
    tag_lines,
    voc,
    yolo,
)
from tunesmith.data.sources.archive import located
from tunesmith.data.sources.base import EXPLANATIONS, Items, Left, Reason, counted, dropped_table
from tunesmith.data.sources.place import Place


def _splits(place: Place) -> str | None:
    return split_files.recognise(place, _of_texts)


def _read_splits(place: Place, why: str) -> Items:
    return split_files.read(place, why, _of_texts)


def _of_texts(place: Place) -> tuple[str, Callable[[Place, str], Items]] | None:
    """Name and reader of the format of a file of texts that is more than a table; None for others."""
    form = next((form for form in FORMATS if form.name in split_files.FORMATS and form.recognise(place)), None)
    return (form.name, form.read) if form else None


@dataclass(frozen=True)
class Format:
    """A format: its name in words, how it is recognised, and how it is read."""

    name: str
    recognise: Callable[[Place], str | None]
    read: Callable[[Place, str], Items]


FORMATS: tuple[Format, ...] = (
    Format("Label Studio export", label_studio.recognise, label_studio.read),
    Format("COCO JSON", coco.recognise, coco.read),
    Format("SQuAD questions", squad.recognise, squad.read),
    Format("conversations", chat.recognise, chat.read),
    Format("boxes as JSON lines", box_lines.recognise, box_lines.read),
    Format("Pascal VOC", voc.recognise, voc.read),
    Format("YOLO", yolo.recognise, yolo.read),
    Format("CoNLL columns", conll.recognise, conll.read),
    Format("tags or spans as JSON lines", tag_lines.recognise, tag_lines.read),
    Format("files named like splits", _splits, _read_splits),
    Format("table of images or sounds", media_table.recognise, media_table.read),
    Format("folder of images or sounds", media_folder.recognise, media_folder.read),
    Format("table", table.recognise, table.read),
)


def open_source(path: str, cache: Path | None = None) -> Items:
    """The items of a file, folder, database (`sqlite:///…`), hub dataset (`hf://…`), remote address (`s3://…`) or archive.

    The format is told by content; where several fit, the first of `FORMATS` is taken and `why` names the others.
    `cache`: where copies of remote files are kept (see `remote.fetched`).

    Raises:
        DataError: nothing there, of no known format (the error lists those that were tried), or damaged.
    """
    if found := sql.recognise(path):
        return sql.read(path, f"Read as a database: {found}.")
    if found := hub.recognise(path):
        return hub.read(path, f"Read as a dataset of the hub: {found}.")
    there = located(path, cache)
    local = there.path
    if not local.exists():
        folder = local.parent
        near = difflib.get_close_matches(local.name, os.listdir(folder) if folder.is_dir() else [], 1)
        raise DataError(Issue(path, "must exist", "nothing there", f"Did you mean {folder / near[0]}?" if near else "Check the path."))
    place = Place(local)
    fit = recognised(place)
    items = fit[0].read(place, fit[1]) if fit else _refuse(place)
    return with_refused(items, there.left, remote.without_secrets(path))


def with_refused(items: Items, refused: Sequence[Left], where: str) -> Items:
    """The items, and the members of their archive that were refused among what was left out, told by reason."""
    issues = [told for reason, count in Counter(reason for _, reason, _ in refused).most_common() for told in _told(where, reason, count)]
    left = pl.concat([items.dropped, dropped_table(refused)])
    return replace(items, dropped=left, issues=(*items.issues, *issues)) if refused else items


def _told(where: str, reason: Reason, count: int) -> list[Issue]:
    return counted(where, count, "an archive should hold plain files of its own folder", f"members refused: {EXPLANATIONS[reason]}")


def recognised(place: Place) -> tuple[Format, str] | None:
    """The format, and the sentence that says why; None where none fits.

    Raises:
        DataError: the first format that might fit finds damage.
    """
    fits: list[tuple[Format, str]] = []
    for form in FORMATS:
        if form.name == "table" and fits:
            break  # nearly every text file is a table, too
        try:
            why = form.recognise(place)
        except DataError:
            if not fits:
                raise
            break  # damage that does not matter to the format that was found
        if why:
            fits.append((form, why))
    if not fits:
        return None
    (first, why), others = fits[0], [form.name for form, _ in fits[1:]]
    also = f"; it also looks like {' and '.join(others)}, which come later in the order of formats" if others else ""
    return first, f"Read as {first.name}: {why}{also}."


def _refuse(place: Place) -> NoReturn:
    tried = f"Tried: {', '.join(form.name for form in FORMATS)}."
    if place.shape == "folder":
        files = place.listing.files
        found = f"a folder with {len(files):,} files, such as {', '.join(files[:3])}" if files else "an empty folder"
        raise DataError(Issue(str(place.path), "must be of a format that is known", found, tried))
    try:
        table.read(place, "")
    except DataError as error:
        raise DataError([*error.issues, Issue(str(place.path), "must be of a format that is known", "none fits", tried)]) from error
    raise DataError(Issue(str(place.path), "must be of a format that is known", "none fits", tried))

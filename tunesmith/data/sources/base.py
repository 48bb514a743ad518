"""What a source gives back, whatever its format: a row per item, what was left out with reasons, and warnings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

import polars as pl

from tunesmith.core.errors import DataError
from tunesmith.core.records import Issue

Kind = Literal[
    "table",
    "image-classification",
    "audio-classification",
    "object-detection",
    "token-classification",
    "question-answering",
    "chat",
    "text-spans",
]


class Reason(StrEnum):
    """Why an item, a box, an answer or a file was left out."""

    OUTSIDE_FOLDER = "outside_folder"
    REMOTE_FILE = "remote_file"
    MISSING_FILE = "missing_file"
    EMPTY_FILE = "empty_file"
    LINKED_FOLDER = "linked_folder"
    BAD_NAME = "bad_name"
    NOT_MEDIA = "not_media"
    UNREADABLE_IMAGE = "unreadable_image"
    TOO_MANY_PIXELS = "too_many_pixels"
    UNLISTED = "unlisted"
    NOT_ANNOTATED = "not_annotated"
    CANCELLED = "cancelled"
    UNSUPPORTED = "unsupported"
    MALFORMED = "malformed"
    XML_DOCTYPE = "xml_doctype"
    DUPLICATE_ID = "duplicate_id"
    UNKNOWN_IMAGE = "unknown_image"
    UNKNOWN_CATEGORY = "unknown_category"
    CROWD = "crowd"
    BOX_NOT_FINITE = "box_not_finite"
    BOX_EMPTY = "box_empty"
    BOX_OUTSIDE = "box_outside"
    BOX_ROTATED = "box_rotated"
    COLUMN_COUNT = "column_count"
    TEXT_NOT_THERE = "text_not_there"
    NO_ANSWER_LEFT = "no_answer_left"
    NO_ASSISTANT = "no_assistant"
    UNKNOWN_ROLE = "unknown_role"
    EMPTY_CONTENT = "empty_content"
    TOOL_CALLS = "tool_calls"
    ARCHIVE_LINK = "archive_link"
    ARCHIVE_DEVICE = "archive_device"
    NESTED_ARCHIVE = "nested_archive"
    NAME_TWICE = "name_twice"
    ENCRYPTED = "encrypted"
    DAMAGED = "damaged"


EXPLANATIONS: dict[Reason, str] = {
    Reason.OUTSIDE_FOLDER: "The path is absolute, goes up with .., or follows a link out of the data folder; such paths are never opened.",
    Reason.REMOTE_FILE: "The path is an address on the network; nothing is downloaded for an item.",
    Reason.MISSING_FILE: "The file that the item names does not exist.",
    Reason.EMPTY_FILE: "The file holds no byte.",
    Reason.LINKED_FOLDER: "A folder that is a link is not entered: links can lead in circles or out of the data.",
    Reason.BAD_NAME: "The file name is not valid Unicode, so no table can hold it.",
    Reason.NOT_MEDIA: "The file is of no kind that is read here.",
    Reason.UNREADABLE_IMAGE: "The header of the image cannot be read, so its size is unknown.",
    Reason.TOO_MANY_PIXELS: "The image says that it has more pixels than can be decoded safely.",
    Reason.UNLISTED: "The file lies beside the others, but no table row names it.",
    Reason.NOT_ANNOTATED: "Nobody has annotated the item, or its annotation holds nothing.",
    Reason.CANCELLED: "The annotator skipped the item.",
    Reason.UNSUPPORTED: "The annotation is of a type that is not read here.",
    Reason.MALFORMED: "The record is damaged or not of the shape that the format asks for.",
    Reason.XML_DOCTYPE: "The XML declares a document type; entities can be abused, so such files are refused.",
    Reason.DUPLICATE_ID: "The same record with the same id appears before.",
    Reason.UNKNOWN_IMAGE: "The annotation names an image id that the file does not list.",
    Reason.UNKNOWN_CATEGORY: "The class id or name is not in the list of classes.",
    Reason.CROWD: "The box marks a crowd, not one object (iscrowd).",
    Reason.BOX_NOT_FINITE: "A number of the box is missing, infinite or not a number.",
    Reason.BOX_EMPTY: "The box has no area, or a negative side.",
    Reason.BOX_OUTSIDE: "The box reaches more than one pixel beyond the picture.",
    Reason.BOX_ROTATED: "The box is rotated; boxes here are upright.",
    Reason.COLUMN_COUNT: "A line of the sentence has another number of columns than the file.",
    Reason.TEXT_NOT_THERE: "The marked text is not at the given position, and not exactly once elsewhere.",
    Reason.NO_ANSWER_LEFT: "The question has an answer, but none that could be kept.",
    Reason.NO_ASSISTANT: "No turn is the assistant's, so there is nothing to learn.",
    Reason.UNKNOWN_ROLE: "A turn has a role that is none of system, user, assistant and tool.",
    Reason.EMPTY_CONTENT: "A turn is empty.",
    Reason.TOOL_CALLS: "A turn calls a tool; its call would be lost.",
    Reason.ARCHIVE_LINK: "The member of the archive is a link; links in archives are not made.",
    Reason.ARCHIVE_DEVICE: "The member of the archive is a device, pipe or another thing that is no file.",
    Reason.NESTED_ARCHIVE: "The member is an archive itself; archives in archives are not opened.",
    Reason.NAME_TWICE: "The archive holds a member with this name before; the first one was taken.",
    Reason.ENCRYPTED: "The member of the archive is encrypted.",
    Reason.DAMAGED: "The member of the archive is damaged or packed in a way that cannot be read.",
}

Left = tuple[str, Reason, str]  # source, reason, detail

BOXES = pl.List(pl.Struct({"label": pl.String, "x": pl.Float64, "y": pl.Float64, "width": pl.Float64, "height": pl.Float64}))
DETECTION: dict[str, Any] = {"source": pl.String, "image": pl.String, "width": pl.Int64, "height": pl.Int64, "boxes": BOXES}


@dataclass(frozen=True)
class Items:
    """Items of one source.

    kind, format: what the items are for, and how they were written ("coco", "conll", …).
    why: one sentence, by what the format was recognised.
    root: the folder that paths in `table` are relative to; None where it holds no paths.
    table: a row per item; `source` names file and row, line or annotation.
    dropped: `source`, `reason` (a `Reason`), `detail` of everything left out: items, boxes, answers, files.
    issues: warnings; nothing in them stops a run.
    """

    kind: Kind
    format: str
    why: str
    root: Path | None
    table: pl.DataFrame
    dropped: pl.DataFrame
    issues: tuple[Issue, ...]


def dropped_table(left: Iterable[Left]) -> pl.DataFrame:
    """The table of what was left out: source, reason, detail."""
    rows = [(source, str(reason), detail) for source, reason, detail in left]
    return pl.DataFrame(rows, schema={"source": pl.String, "reason": pl.String, "detail": pl.String}, orient="row")


def frame(rows: Sequence[Mapping[str, Any]], schema: Mapping[str, Any]) -> pl.DataFrame:
    """Rows as a frame with exactly the columns of `schema`, in its order; a key that a row lacks is null."""
    return pl.DataFrame([[row.get(name) for name in schema] for row in rows], schema=dict(schema), orient="row")


def held(where: str, table: pl.DataFrame, left: Sequence[Left]) -> pl.DataFrame:
    """The same table.

    Raises:
        DataError: it has no row; the error counts the reasons.
    """
    if table.height:
        return table
    counts = Counter(reason for _, reason, _ in left).most_common(3)
    found = "; ".join(f"{count} left out: {EXPLANATIONS[reason]}" for reason, count in counts) or "none"
    first = f"First: {left[0][0]} {left[0][2]}".rstrip() + "." if left else "Check that this is the right place."
    raise DataError(Issue(where, "must hold at least one item that can be used", found.rstrip("."), first))


def warning(where: str, expected: str, found: str, remedy: str = "") -> Issue:
    """An issue that is told and stops nothing."""
    return Issue(where, expected, found, remedy, fatal=False)


def counted(where: str, count: int, expected: str, found: str, remedy: str = "") -> list[Issue]:
    """One warning that starts with the count, or none when the count is 0."""
    return [warning(where, expected, f"{count:,} {found}", remedy)] if count else []

"""CSV and TSV: the delimiter, the header, and rows that are checked one by one, in constant memory."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from tunesmith.core.errors import DataError
from tunesmith.core.records import Issue
from tunesmith.data.decode import opened_text, readable

DELIMITERS = {",": "comma", "\t": "tab", ";": "semicolon", "|": "pipe"}
SAMPLE_CHARACTERS = 1 << 16
BATCH_CHARACTERS = 1 << 25
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
USUAL_NAMES = {
    "text", "label", "labels", "class", "category", "target", "intent", "id", "topic", "tag", "tags", "title", "body", "query", "document",
    "sentence", "sentence1", "sentence2", "premise", "hypothesis", "question", "message", "review", "comment", "content", "utterance",
    "text_a", "text_b",
}  # fmt: skip

csv.field_size_limit(2**31 - 1)  # the default, 128 KiB, refuses long texts


@dataclass(frozen=True)
class Layout:
    """How a delimited file is laid out: its delimiter and the names in its first row."""

    delimiter: str
    names: tuple[str, ...]


def find_layout(path: Path, encoding: str, given: str | None, known: Sequence[str]) -> Layout:
    """Delimiter and header of a file, from its first rows. `known` are column names that the spec expects.

    Raises:
        DataError: the given delimiter does not split the file, there is no header, or names appear twice.
    """
    with readable(path), opened_text(path, encoding) as file:
        sample = file.read(SAMPLE_CHARACTERS)
        whole = not file.read(1)
    likely = likely_delimiter(sample, whole)
    usual = "\t" if ".tsv" in path.name.lower() else ","
    delimiter = given or likely or usual
    records = _sample_records(sample, whole, delimiter)
    if not records:
        raise DataError(Issue(str(path), "must hold a table", "only blank lines", "Check how it was written."))
    if given is not None and len(records[0]) == 1 and likely not in (None, given):
        found = f"{shown(given)}, which gives one column"
        raise DataError(
            Issue("data.delimiter", f"must split the columns of {path}", found, f"{shown(str(likely)).capitalize()} seems right.")
        )
    if not {name.strip().lower() for name in records[0]} & {*USUAL_NAMES, *(name.lower() for name in known)}:
        _check_header(path, records[0], records[1:])
    names = [name.strip() or f"column_{number}" for number, name in enumerate(records[0], start=1)]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(Issue(f"{path} line 1", "must name each column once", f"{twice[0]!r} more than once", "Rename one of them."))
    return Layout(delimiter, tuple(names))


def shown(delimiter: str) -> str:
    """A delimiter's name in words, or itself in quotes."""
    return f"the {DELIMITERS[delimiter]}" if delimiter in DELIMITERS else repr(delimiter)


def likely_delimiter(sample: str, whole: bool) -> str | None:
    """The usual delimiter that splits most sampled rows into as many cells as the header has; None if none gives two."""
    scored = []
    for order, delimiter in enumerate(DELIMITERS):
        widths = [len(record) for record in _sample_records(sample, whole, delimiter)]
        if widths and widths[0] > 1:
            scored.append((sum(width == widths[0] for width in widths) / len(widths), widths[0], -order, delimiter))
    return max(scored)[-1] if scored else None


def batches(path: Path, encoding: str, layout: Layout, rows: int) -> Iterator[pl.DataFrame]:
    """Frames of at most `rows` rows, all columns as text; an empty cell is an empty string.

    Raises:
        DataError: a row has more or fewer cells than the header, or a quote is never closed.
    """
    pending: list[list[str]] = []
    characters = 0
    for record in _records(path, encoding, layout):
        pending.append(record)
        characters += sum(map(len, record))
        if len(pending) == rows or characters > BATCH_CHARACTERS:
            yield _frame(pending, layout)
            pending, characters = [], 0
    if pending:
        yield _frame(pending, layout)


def _frame(records: list[list[str]], layout: Layout) -> pl.DataFrame:
    cells = zip(*records, strict=True)
    return pl.DataFrame([pl.Series(name, column, pl.String) for name, column in zip(layout.names, cells, strict=True)])


def _records(path: Path, encoding: str, layout: Layout) -> Iterator[list[str]]:
    """The data rows. Blank lines carry no row, except in a table of one column, where they are empty cells."""
    width, number, start = len(layout.names), -1, 1
    with readable(path), opened_text(path, encoding) as file:
        reader = csv.reader(file, delimiter=layout.delimiter, strict=True)
        try:
            for record in reader:
                if not record and (width > 1 or number < 0):
                    start = reader.line_num + 1
                    continue
                number += 1
                record = record or [""]
                if len(record) != width:
                    raise DataError(_ragged(path, number, start, len(record), layout))
                start = reader.line_num + 1
                if number > 0:
                    yield record
        except csv.Error as error:
            raise DataError(_bad_quote(path, number + 1, start, str(error))) from error


def _ragged(path: Path, number: int, line: int, found: int, layout: Layout) -> Issue:
    remedy = f"Put cells that hold {shown(layout.delimiter)} in double quotes, or set data.delimiter."
    return Issue(f"{path} row {number} (line {line})", f"must have {len(layout.names)} cells like the header", str(found), remedy)


def _bad_quote(path: Path, number: int, line: int, message: str) -> Issue:
    remedy = 'Close it, and write a double quote inside a quoted cell as "".'
    if message.startswith("unexpected end"):
        return Issue(f"{path} row {number} (line {line})", "must close its quotes", "a double quote that is never closed", remedy)
    return Issue(f"{path} row {number} (line {line})", "must be a well-formed row", message, remedy)


def _sample_records(sample: str, whole: bool, delimiter: str) -> list[list[str]]:
    """Rows of the sample under a delimiter, tolerant of bad quotes; the last one may be cut and is left out."""
    reader = csv.reader(io.StringIO(sample, newline=""), delimiter=delimiter)
    records = [record for record in reader if record]
    return records if whole or len(records) < 2 else records[:-1]


def _check_header(path: Path, header: list[str], rows: list[list[str]]) -> None:
    """Refuse a first row that looks like data: it would be lost, and its cells would become column names."""
    reason = next((reason for reason in map(_data_like, header) if reason), None) or _repeated(header, rows)
    if reason:
        remedy = "Add a first row with the names of the columns, such as text and label."
        raise DataError(Issue(f"{path} line 1", "must name the columns", reason, remedy))


def _data_like(cell: str) -> str | None:
    text = cell.strip()
    if len(text) > 60 and text.count(" ") >= 6:
        return f"a sentence: {text[:40]!r}…"
    if text.count(" ") >= 3 and text.endswith((".", "!", "?")):
        return f"a sentence: {text[:40]!r}"
    return f"the number {text}" if NUMBER.fullmatch(text) else None


def _repeated(header: list[str], rows: list[list[str]]) -> str | None:
    """A header cell that is also a value of its column is a value; rows that repeat the whole header do not count."""
    for column, name in enumerate(header):
        if name.strip() and any(len(row) > column and row[column] == name and row != header for row in rows):
            return f"{name!r}, which is also a value of that column"
    return None

"""Plain text files, a text a line, for tasks that need no labels."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import polars as pl

from tunesmith.core.errors import DataError
from tunesmith.core.records import Issue
from tunesmith.core.rundir import sha256_file
from tunesmith.data.decode import compression_of, find_encoding, opened_text, readable
from tunesmith.data.load import LOAD_ROWS, SOURCE, FileRecord, Part
from tunesmith.spec.schema import Data

COLUMN = "text"


def holds_lines(path: Path, data: Data) -> bool:
    """True for a .txt file, compressed or not, unless the spec names a delimiter of columns."""
    ending = next((suffix.lower() for suffix in reversed(path.suffixes) if suffix.lower() not in (".gz", ".zst")), "")
    return ending == ".txt" and data.delimiter is None


def read_lines(path: Path, name: str, data: Data) -> Part:
    """All texts of a file; `name` is what its rows are called by.

    Raises:
        DataError: the file holds nothing but blank lines, or cannot be read.
    """
    encoding, issues = find_encoding(path, data.encoding)
    frames = list(line_batches(path, name, encoding, LOAD_ROWS))
    if not frames:
        raise DataError(Issue(str(path), "must hold a text a line", "blank lines alone", "Check how it was written."))
    table = pl.concat(frames)
    identity = str(path), sha256_file(path), path.stat().st_size
    why = "a .txt file is a text a line where no labels are needed"
    return Part(table, FileRecord(*identity, "lines", why, compression_of(path), encoding, None, len(table)), tuple(issues))


def line_batches(path: Path, name: str, encoding: str, rows: int) -> Iterator[pl.DataFrame]:
    """Frames of at most `rows` texts with the number of the line as `__source__`; blank lines are no texts."""
    texts, places = list[str](), list[str]()
    with readable(path), opened_text(path, encoding) as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                texts.append(line.rstrip("\r\n"))
                places.append(f"{name}:{number}")
            if len(texts) == rows:
                yield _frame(texts, places)
                texts, places = [], []
    if texts:
        yield _frame(texts, places)


def _frame(texts: list[str], places: list[str]) -> pl.DataFrame:
    return pl.DataFrame({COLUMN: pl.Series(texts, dtype=pl.String), SOURCE: pl.Series(places, dtype=pl.String)})

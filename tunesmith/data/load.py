"""Tables from files: CSV, TSV, JSONL, JSON and Parquet, plain or compressed, one file or many."""

from __future__ import annotations

import difflib
import io
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import polars as pl

from tunesmith.core.errors import DataError
from tunesmith.core.records import Issue
from tunesmith.core.rundir import sha256_file
from tunesmith.data import delimited
from tunesmith.data.decode import PARQUET, Compression, compression_of, find_encoding, opened, opened_text, readable
from tunesmith.spec.check import matching_files
from tunesmith.spec.schema import Data

Format = Literal["csv", "jsonl", "json", "parquet"]

SOURCE = "__source__"
FORMATS: dict[str, Format] = {
    ".csv": "csv", ".tsv": "csv", ".txt": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json",
    ".parquet": "parquet", ".pq": "parquet",
}  # fmt: skip
LOAD_ROWS = 32768


@dataclass(frozen=True)
class FileRecord:
    """What a file, or the rows of a database, were when they were read: identity (sha256, size) and how they were understood.

    `why`: by what the format was recognised. Rows without a file are hashed and counted in bytes as JSON, in any order.
    """

    path: str
    sha256: str
    bytes: int
    format: str
    why: str
    compression: Compression
    encoding: str | None
    delimiter: str | None
    rows: int

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready fields."""
        return asdict(self)


@dataclass(frozen=True)
class Part:
    """Rows of one file with a `__source__` column, what the file was, and warnings."""

    frame: pl.DataFrame
    file: FileRecord
    issues: tuple[Issue, ...]


@dataclass(frozen=True)
class Loaded:
    """Rows of all files of a table in order, with a `__source__` column, the files, and warnings."""

    table: pl.DataFrame
    files: tuple[FileRecord, ...]
    issues: tuple[Issue, ...]


@dataclass(frozen=True)
class TableFile:
    """A file whose format, encoding and header are known and good; its rows are still on disk."""

    path: Path
    format: Format
    compression: Compression
    encoding: str | None = None
    layout: delimited.Layout | None = None
    issues: tuple[Issue, ...] = field(default=())

    def batches(self, rows: int) -> Iterator[pl.DataFrame]:
        """Frames of at most `rows` rows, read as they are asked for; a JSON file is read whole."""
        if self.format == "parquet":
            yield from _parquet_batches(self, rows)
        elif self.format == "csv" and self.layout:
            yield from delimited.batches(self.path, self.encoding or "utf-8", self.layout, rows)
        else:
            objects = _json_lines(self) if self.format == "jsonl" else iter(_json_objects(self))
            yield from _object_batches(self.path, objects, rows)


def load(patterns: Sequence[str], data: Data) -> Loaded:
    """All rows that the paths and globs name, text columns as they are in the file.

    Raises:
        DataError: with a problem for each file that cannot be read.
    """
    paths, issues = _paths(patterns)
    parts: list[Part] = []
    for path, name in zip(paths, short_names(paths), strict=True):
        try:
            parts.append(read_file(path, name, data))
        except DataError as error:
            issues += error.issues
    if issues:
        raise DataError(issues)
    return joined(parts)


def read_file(path: Path, name: str, data: Data) -> Part:
    """All rows of a file; `name` is what its rows are called by.

    Raises:
        DataError: the file cannot be read.
    """
    file = open_table(path, data)
    frame = _united([_sourced(batch, name, start) for start, batch in _counted(file.batches(LOAD_ROWS))], str(path))
    return Part(frame, _record(file, frame.height), file.issues)


def joined(parts: Sequence[Part]) -> Loaded:
    """The rows of all parts in order; a column that a part lacks is null there, with a warning.

    Raises:
        DataError: a column holds lists in one part and single values in another.
    """
    warnings = [*(issue for part in parts for issue in part.issues), *_different_columns(parts)]
    return Loaded(_united([part.frame for part in parts], parts[0].file.path), tuple(part.file for part in parts), tuple(warnings))


def iter_batches(patterns: Sequence[str], data: Data, rows: int = 8192) -> Iterator[pl.DataFrame]:
    """Frames of at most `rows` rows with `__source__`, in the order of the files, in constant memory.

    Memory grows with the file only for .json (see `reads_whole`) and for compressed Parquet.

    Raises:
        DataError: before the first frame for files that cannot be understood; later for a bad row.
    """
    paths, issues = _paths(patterns)
    files = []
    for path in paths:
        try:
            files.append(open_table(path, data))
        except DataError as error:
            issues += error.issues
    if issues:
        raise DataError(issues)
    for file, name in zip(files, short_names(paths), strict=True):
        for start, batch in _counted(file.batches(rows)):
            yield _sourced(batch, name, start)


def reads_whole(patterns: Sequence[str]) -> list[str]:
    """The files that `iter_batches` must hold in memory whole: JSON, which has no rows to read one by one."""
    return [str(path) for path in _paths(patterns)[0] if _format(path) == "json"]


def open_table(path: Path, data: Data) -> TableFile:
    """A file that is understood: format, compression, encoding, delimiter and header are known.

    Raises:
        DataError: missing, empty, damaged, binary, no header, wrong delimiter.
    """
    if path.is_dir():
        raise DataError(Issue(str(path), "must be a file", "a folder", f"Name its files, such as {path}/*.csv."))
    compression = compression_of(path)
    if path.stat().st_size == 0:
        raise DataError(Issue(str(path), "must hold a table", "an empty file", "Check how it was written."))
    form = _format(path)
    if form == "parquet":
        return TableFile(path, form, compression)
    encoding, issues = find_encoding(path, data.encoding)
    issues += _misnamed(path, compression)
    if form == "csv":
        known = [*(data.text or ()), *((data.label,) if isinstance(data.label, str) else data.label or ())]
        layout = delimited.find_layout(path, encoding, data.delimiter, known)
        return TableFile(path, form, compression, encoding, layout, tuple(issues))
    return TableFile(path, form, compression, encoding, None, tuple(issues))


def files_of(pattern: str) -> list[Path]:
    """The files that a path or glob names.

    Raises:
        DataError: none; the closest name is told.
    """
    found = matching_files(pattern)
    if not found:
        folder = Path(pattern).parent
        near = difflib.get_close_matches(Path(pattern).name, os.listdir(folder) if folder.is_dir() else [], 1)
        remedy = f"Did you mean {folder / near[0]}?" if near else "Check the path."
        raise DataError(Issue(pattern, "must exist", "no such file", remedy))
    return [Path(path) for path in found]


def _paths(patterns: Sequence[str]) -> tuple[list[Path], list[Issue]]:
    paths: dict[Path, None] = {}
    issues: list[Issue] = []
    for pattern in patterns:
        try:
            paths |= dict.fromkeys(files_of(pattern))
        except DataError as error:
            issues += error.issues
    return list(paths), issues


def short_names(paths: Sequence[Path]) -> list[str]:
    """What the rows of each file are called: the file name, or the path where two files share a name."""
    names = [path.name for path in paths]
    return [path.name if names.count(path.name) == 1 else str(path) for path in paths]


def _format(path: Path) -> Format:
    """The format by the name without its compression ending; by content when the name says nothing."""
    if (ending := _ending(path)) in FORMATS:
        return FORMATS[ending]
    with readable(path), opened(path) as file:
        first = file.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()
    if first.startswith(PARQUET):
        return "parquet"
    return "jsonl" if first.startswith(b"{") else "json" if first.startswith(b"[") else "csv"


def _ending(path: Path) -> str:
    """The last part of the name that does not speak of compression, such as .csv; empty where there is none."""
    return next((s.lower() for s in reversed(path.suffixes) if s.lower() not in (".gz", ".zst")), "")


def _misnamed(path: Path, compression: Compression) -> list[Issue]:
    named = {".gz": "gzip", ".zst": "zstd"}.get(path.suffix.lower(), "none")
    if named == compression:
        return []
    words = {"none": "not compressed", "gzip": "compressed with gzip", "zstd": "compressed with zstd"}
    return [Issue(str(path), f"should be {words[named]}, as its name says", words[compression], "It was read by its content.", fatal=False)]


def _record(file: TableFile, rows: int) -> FileRecord:
    layout = file.layout.delimiter if file.layout else None
    why = f"its name ends in {ending}" if (ending := _ending(file.path)) in FORMATS else "its first bytes say so"
    identity = str(file.path), sha256_file(file.path), file.path.stat().st_size
    return FileRecord(*identity, file.format, why, file.compression, file.encoding, layout, rows)


def _counted(batches: Iterable[pl.DataFrame]) -> Iterator[tuple[int, pl.DataFrame]]:
    start = 0
    for batch in batches:
        yield start, batch
        start += batch.height


def _sourced(batch: pl.DataFrame, name: str, start: int) -> pl.DataFrame:
    numbers = pl.int_range(start + 1, start + batch.height + 1, eager=True).cast(pl.String)
    return batch.with_columns((pl.lit(f"{name}:") + numbers).alias(SOURCE))


def _united(frames: list[pl.DataFrame], where: str) -> pl.DataFrame:
    """One frame; a column with several types becomes a number if all are numbers, else text.

    Raises:
        DataError: there are no rows, or a column holds lists in one place and single values in another.
    """
    if not frames:
        raise DataError(Issue(where, "must hold rows", "none", "Check how it was written."))
    kinds: dict[str, set[pl.DataType]] = {}
    for frame in frames:
        for name, kind in frame.schema.items():
            kinds.setdefault(name, set()).add(kind)
    mixed = [name for name, found in kinds.items() if len(found) > 1 and not all(kind.is_numeric() for kind in found)]
    nested = [name for name in mixed if any(kind.is_nested() for kind in kinds[name])]
    if nested:
        raise DataError(
            Issue(f"{where} column {nested[0]!r}", "must hold one kind of value", "lists and single values", "Write lists everywhere.")
        )
    as_text = [frame.with_columns(pl.col(name).cast(pl.String) for name in mixed if name in frame.columns) for frame in frames]
    return pl.concat(as_text, how="diagonal_relaxed", rechunk=False)


def _different_columns(parts: Sequence[Part]) -> list[Issue]:
    expected, first = "should have the same columns as the first file", set(parts[0].frame.columns)
    return [
        Issue(part.file.path, expected, ", ".join(sorted(set(part.frame.columns) ^ first)), "Missing cells are null.", fatal=False)
        for part in parts
        if set(part.frame.columns) != first
    ]


def _parquet_batches(file: TableFile, rows: int) -> Iterator[pl.DataFrame]:
    try:
        with readable(file.path):
            if file.compression == "none":
                lazy = pl.scan_parquet(file.path, glob=False)
            else:
                with opened(file.path) as stream:
                    lazy = pl.scan_parquet(io.BytesIO(stream.read()))
            names = {name: kind for name, kind in lazy.collect_schema().items() if kind in (pl.Categorical, pl.Enum, pl.Null)}
            for batch in lazy.with_columns(pl.col(name).cast(pl.String) for name in names).collect_batches(chunk_size=rows):
                yield from batch.iter_slices(rows) if batch.height else ()
    except pl.exceptions.PanicException as error:  # some damaged files end in a panic of the reader
        raise DataError(
            Issue(str(file.path), "must be a whole Parquet file", str(error).splitlines()[0], "Write or copy it again.")
        ) from error


def _json_lines(file: TableFile) -> Iterator[tuple[int, Any]]:
    with readable(file.path), opened_text(file.path, file.encoding or "utf-8") as stream:
        for number, line in enumerate(stream, start=1):
            if line.strip():
                try:
                    yield number, json.loads(line)
                except (ValueError, RecursionError) as error:
                    reason = str(error).partition(": line")[0]
                    remedy = "Write one JSON object a line; the file may be cut off."
                    raise DataError(Issue(f"{file.path} line {number}", "must be a JSON object", reason, remedy)) from error


def _json_objects(file: TableFile) -> Iterator[tuple[int, Any]]:
    """Objects of a JSON list with their 1-based number; a .json file with one object a line is read as JSONL."""
    with readable(file.path), opened_text(file.path, file.encoding or "utf-8") as stream:
        text = stream.read()
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        if str(error).startswith("Extra data") and text.lstrip().startswith("{"):
            return _json_lines(file)
        remedy = "The file is damaged or cut off: write it again, or use one JSON object a line in a .jsonl file."
        raise DataError(Issue(str(file.path), "must be a JSON list of objects", str(error), remedy)) from error
    if isinstance(value, dict):
        value = [value] if text.count("\n") < 2 else value
    if not isinstance(value, list):
        raise DataError(
            Issue(str(file.path), "must be a JSON list of objects", f"a JSON {_kind(value)}", "Write a list with one object a row.")
        )
    return iter(list(enumerate(value, start=1)))


def _kind(value: object) -> str:
    return {dict: "object", list: "list", str: "string", bool: "boolean", type(None): "null"}.get(type(value), "number")


def _object_batches(path: Path, objects: Iterator[tuple[int, Any]], rows: int) -> Iterator[pl.DataFrame]:
    pending: list[dict[str, Any]] = []
    for number, value in objects:
        if not isinstance(value, dict):
            raise DataError(
                Issue(f"{path} object {number}", "must be a JSON object", f"a {_kind(value)}", 'Write {"text": …, "label": …}.')
            )
        pending.append(value)
        if len(pending) == rows:
            yield _object_frame(path, pending)
            pending = []
    if pending:
        yield _object_frame(path, pending)


def _object_frame(path: Path, objects: list[dict[str, Any]]) -> pl.DataFrame:
    names = dict.fromkeys(name for value in objects for name in value)
    if not names:
        raise DataError(Issue(str(path), "must hold objects with keys", "empty objects", 'Write {"text": …, "label": …}.'))
    try:
        return pl.DataFrame([_series(name, [value.get(name) for value in objects]) for name in names])
    except UnicodeEncodeError as error:
        raise DataError(
            Issue(str(path), "must hold valid Unicode", f"half a surrogate pair ({error.reason})", "Write it again as UTF-8.")
        ) from error


def _series(name: str, values: list[Any]) -> pl.Series:
    """A typed column: text, boolean, integer, float or lists of text; anything mixed becomes text."""
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {str}:
        return pl.Series(name, values, pl.String)
    if kinds == {bool}:
        return pl.Series(name, values, pl.Boolean)
    if kinds == {int} and all(value is None or -(2**63) <= value < 2**63 for value in values):
        return pl.Series(name, values, pl.Int64)
    if kinds <= {int, float} and all(value is None or abs(value) < 2**53 or value != value or type(value) is float for value in values):
        return pl.Series(name, [None if value is None else float(value) for value in values], pl.Float64)
    if kinds == {list}:
        return pl.Series(name, [None if value is None else [_text(item) for item in value] for value in values], pl.List(pl.String))
    return pl.Series(name, [None if value is None else _text(value) for value in values], pl.String)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)

"""The sources of a run, opened: tables on this machine and elsewhere, databases, datasets of the hub, Label Studio exports.

What every source becomes here is one table with `__source__`, a `FileRecord` of what it was, and warnings. Sources that
are no texts with labels are refused with the name of what they are.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import polars as pl

from tunesmith.core.errors import DataError
from tunesmith.core.records import Issue
from tunesmith.core.rundir import sha256_file
from tunesmith.data.columns import choose_columns
from tunesmith.data.consensus import judgements
from tunesmith.data.decode import compression_of, find_encoding
from tunesmith.data.lines import holds_lines, line_batches, read_lines
from tunesmith.data.load import SOURCE, FileRecord, Loaded, Part, files_of, iter_batches, joined, open_table, read_file, short_names
from tunesmith.data.sources import hub, remote, sql
from tunesmith.data.sources.archive import files_in, located
from tunesmith.data.sources.base import EXPLANATIONS, Items, Kind, Reason
from tunesmith.data.sources.detect import Format, open_source, recognised
from tunesmith.data.sources.mixed import chosen, shares
from tunesmith.data.sources.place import Place
from tunesmith.spec.addresses import archive_of, is_address
from tunesmith.spec.kinds import KINDS
from tunesmith.spec.schema import Data

WORDS: dict[Kind, str] = {
    "table": "a table",
    "image-classification": "pictures",
    "audio-classification": "recordings",
    "object-detection": "pictures with boxes",
    "token-classification": "tokens with tags",
    "question-answering": "questions with answers in a text",
    "chat": "conversations",
    "text-spans": "texts with marked spans",
}
HEAD_ROWS = 1000
SPANS = "token-classification"
READ_BY = {"text-spans": SPANS}
"""The task that reads a kind of items, where it has another name."""
OWN_FORMATS = ("question-answering", SPANS)
"""Tasks whose own formats are read besides tables."""
LINES = "fill-mask"
"""The task for which a .txt file is a text a line."""


@dataclass(frozen=True)
class Source:
    """One entry of the spec's data paths: its rows, how many its weight keeps, and what could not be used, by reason."""

    name: str
    weight: float | None
    rows: int
    kept: int
    left_out: int
    unusable: dict[str, int]

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready fields."""
        return asdict(self)


@dataclass(frozen=True)
class _Read:
    """A part, the number of the entry that it belongs to, and what of it could not be used, by reason."""

    part: Part
    entry: int
    unusable: Counter[str]


def open_tables(
    patterns: Sequence[str], data: Data, weights: Sequence[float] | None = None, seed: int = 0, tasks: Sequence[str] = ()
) -> tuple[Loaded, list[Source]]:
    """All rows that paths, globs and addresses name, and the counts of each entry.

    With `weights`, one for each entry: as many rows as there can be without repeating one, the entries' shares of them
    proportional to the weights. A hash of seed, entry and `__source__` decides which rows stay. Files of another format than a table
    are rows where it is that of one of the `tasks`.

    Raises:
        DataError: with a problem for each source that cannot be read, or holds something else than texts with labels.
    """
    read: list[_Read] = []
    issues: list[Issue] = []
    files: dict[Path, tuple[int, str]] = {}
    refused: dict[int, Counter[str]] = {}
    for entry, pattern in enumerate(patterns):
        try:
            if is_database(pattern):
                read.append(_from_items(open_source(pattern), shown(pattern), entry))
            else:
                files |= {path: (entry, name) for path, name in _files(pattern) if path not in files}
                if archive := archive_of(pattern):
                    refused[entry] = Counter(str(reason) for _, reason, _ in located(archive[0]).left)
        except DataError as error:
            issues += error.issues
    for (path, (entry, own)), name in zip(files.items(), short_names(list(files)), strict=True):
        try:
            read.append(_without(_from_file(path, (own, name), entry, data, tasks), refused.pop(entry, Counter())))
        except DataError as error:
            issues += [replace(issue, where=issue.where.replace(str(path), own)) for issue in error.issues]
    if issues:
        raise DataError(issues)
    return _mixed(sorted(read, key=lambda one: one.entry), patterns, weights, seed)


def open_batches(source: str, data: Data, rows: int, tasks: Sequence[str] = ()) -> Iterator[pl.DataFrame]:
    """Frames of at most `rows` rows with `__source__`, of a table to predict on. Rows of a database are held in memory whole.

    Raises:
        DataError: it cannot be read.
    """
    if is_database(source):
        yield from _from_items(open_source(source), shown(source), 0).part.frame.iter_slices(rows)
    elif LINES in tasks and all(holds_lines(path, data) for path, _ in _files(source)):
        for path, own in _files(source):
            yield from line_batches(path, own, find_encoding(path, data.encoding)[0], rows)
    else:
        for path, own in _files(source) if set(tasks) & set(OWN_FORMATS) else ():
            found = _other_format(path, data, tasks)
            items = found[0].read(Place(path), found[1]) if found else None
            if items is not None and _is_read_by(items, tasks):  # another format can be a table to predict on as well
                yield from _from_items(items, own, 0, path, tasks).part.frame.iter_slices(rows)
                return
        yield from iter_batches([str(path) for path, _ in _files(source)], data, rows)


def source_hashes(patterns: Iterable[str]) -> dict[str, str]:
    """SHA-256 of every source: of each file, of the copy of a remote file, of the rows of a database or hub dataset in any order.

    Raises:
        DataError: a source cannot be read, or is a folder.
        OSError: a file cannot be read.
    """
    hashes: dict[str, str] = {}
    for pattern in patterns:
        if is_database(pattern):
            found = {shown(pattern): rows_identity(open_source(pattern).table)[0]}
        else:
            found = {own: sha256_file(_no_folder(path, own)) for path, own in _files(pattern)}
        # Addresses that differ in what is not shown, such as a key, are told apart by a number.
        hashes |= {own if hashes.get(own, value) == value else f"{own} #{len(hashes) + 1}": value for own, value in found.items()}
    return hashes


def refuse_other_folder(path: Path, own: str) -> None:
    """Nothing.

    Raises:
        DataError: the folder holds pictures, recordings or another known format; the error names it.
    """
    found = recognised(Place(path))
    if found:
        _refuse_other(found[0].read(Place(path), found[1]), own)


def shown(pattern: str) -> str:
    """A path as it is; an address without user, password and other secrets, of a database with its table or query."""
    if not is_address(pattern) or hub.recognise(pattern):
        return pattern
    clean, query = remote.without_secrets(pattern), pattern.partition("?")[2]
    told = query if query.startswith("query=") else "&".join(p for p in query.split("&") if p.startswith(("table=", "query=")))
    return f"{clean}?{told}" if sql.recognise(pattern) and told else clean


def rows_identity(rows: pl.DataFrame) -> tuple[str, int]:
    """SHA-256 and bytes of rows as lines of JSON, in any order, without their numbers: another order is no change."""
    lines = [json.dumps(row, default=str, ensure_ascii=False).encode() for row in rows.drop(SOURCE, "source", strict=False).iter_rows()]
    digests = sorted(hashlib.sha256(line).digest() for line in lines)
    names = json.dumps(rows.columns).encode()
    return hashlib.sha256(names + b"".join(digests)).hexdigest(), sum(map(len, lines))


def is_database(pattern: str) -> bool:
    """True for sources of rows that are no files: databases and datasets of the hub."""
    return bool(sql.recognise(pattern) or hub.recognise(pattern))


def _files(pattern: str) -> list[tuple[Path, str]]:
    """The files that a path, glob or address of a file names (copied to this machine where they are elsewhere), and what to call them."""
    if archive := archive_of(pattern):
        found = [(path, shown(own)) for path, own in files_in(pattern)]
        if len(found) > 1 and not archive[1]:
            own = shown(pattern)
            refuse_other_folder(located(archive[0]).path, own)
            names = ", ".join(name for _, name in found[:5])
            raise DataError(Issue(own, "must hold one table", f"{len(found):,} files: {names}", f"Name one of them, or {own}/*.csv."))
        return found
    if is_address(pattern):
        return [(remote.fetched(pattern), shown(pattern))]
    return [(path, str(path)) for path in files_of(pattern)]


def _from_file(path: Path, names: tuple[str, str], entry: int, data: Data, tasks: Sequence[str]) -> _Read:
    own, name = names
    if LINES in tasks and holds_lines(_no_folder(path, own), data):
        part = read_lines(path, name, data)
        return _Read(replace(part, file=replace(part.file, path=own)), entry, Counter())
    found = _other_format(_no_folder(path, own), data, tasks)
    if found is None:
        part = read_file(path, name, data)
        return _Read(replace(part, file=replace(part.file, path=own)), entry, Counter())
    return _from_items(found[0].read(Place(path), found[1]), own, entry, path, tasks)


def _without(read: _Read, refused: Counter[str]) -> _Read:
    """The same, with the members of its archive that were refused counted and told."""
    issues = [_left(read.part.file.path, reason, count) for reason, count in refused.most_common()]
    return replace(read, part=replace(read.part, issues=(*read.part.issues, *issues)), unusable=read.unusable + refused)


def _other_format(path: Path, data: Data, tasks: Sequence[str] = ()) -> tuple[Format, str] | None:
    """The format of a file that is no table, and why; None for tables, and for damage, which the table reader tells better.

    Many formats are tables as well. A table whose text and label columns are known is one, whatever else is in it.
    """
    try:
        found = recognised(Place(path))
    except DataError:
        return None
    if found is None or found[0].name == "table":
        return None
    if found[0].name == "Label Studio export" or (found[0].name == "CoNLL columns" and SPANS in tasks):
        return found
    try:
        head = judgements(next(open_table(path, data).batches(HEAD_ROWS)), data)
    except (DataError, StopIteration):
        return found
    tried = (task for task, kind in KINDS.items() if task in tasks or kind in ("class", "number"))
    return None if any(_is_table_of(task, *head) for task in tried) else found


def _is_table_of(task: str, head: pl.DataFrame, data: Data) -> bool:
    """True when the columns of a table fit a task."""
    try:
        choose_columns(head, data, task)
    except DataError:
        return False
    return True


def _is_read_by(items: Items, tasks: Sequence[str]) -> bool:
    """True when one of the tasks reads items of this kind as rows."""
    return items.kind == "table" or READ_BY.get(items.kind, items.kind) in tasks


def _no_folder(path: Path, own: str) -> Path:
    """The same path.

    Raises:
        DataError: it is a folder; the error names what it holds.
    """
    if path.is_dir():
        refuse_other_folder(path, own)
        raise DataError(Issue(own, "must be a file", "a folder", f"Name its files, such as {own.rstrip('/')}/*.csv."))
    return path


def _from_items(items: Items, own: str, entry: int, path: Path | None = None, tasks: Sequence[str] = ()) -> _Read:
    if not _is_read_by(items, tasks):
        _refuse_other(items, own)
    frame = items.table.rename({"source": SOURCE})
    sha256, size = rows_identity(frame) if path is None else (sha256_file(path), path.stat().st_size)
    packed = "none" if path is None else compression_of(path)
    record = FileRecord(own, sha256, size, items.format, items.why, packed, None, None, frame.height)
    unusable = Counter(items.dropped["reason"].to_list())
    issues = [*items.issues, *(_left(own, reason, count) for reason, count in unusable.most_common())]
    return _Read(Part(frame, record, tuple(issues)), entry, unusable)


def _left(own: str, reason: str, count: int) -> Issue:
    return Issue(own, "should hold nothing that cannot be used", f"{count:,} left out", EXPLANATIONS[Reason(reason)], fatal=False)


def _refuse_other(items: Items, own: str) -> NoReturn:
    remedy = f"Examine it with: tunesmith check {own}"
    raise DataError(Issue(own, "must hold texts with labels for text-classification", f"{WORDS[items.kind]}: {items.why}", remedy))


def _mixed(read: list[_Read], patterns: Sequence[str], weights: Sequence[float] | None, seed: int) -> tuple[Loaded, list[Source]]:
    """The parts, which are in the order of their entries, as one table, and what of each entry is in it."""
    whole = joined([one.part for one in read])
    heights = [sum(one.part.frame.height for one in read if one.entry == entry) for entry in range(len(patterns))]
    if weights is not None and 0 in heights:
        found = f"none in {shown(patterns[heights.index(0)])} that an earlier source does not name"
        raise DataError(Issue("data.weights", "must weigh sources with rows of their own", found, "Name each file once."))
    takes = heights if weights is None else shares(heights, weights)
    if takes != heights:
        rows: list[int] = []
        for entry, take in enumerate(takes):
            start = sum(heights[:entry])
            rows += [start + row for row in chosen(whole.table[SOURCE][start : start + heights[entry]], take, seed, entry)]
        whole = replace(whole, table=whole.table[rows])
    sources: dict[str, Source] = {}
    for entry, pattern in enumerate(patterns):
        if not heights[entry]:
            continue  # all its files belong to earlier entries
        name = shown(pattern) if shown(pattern) not in sources else f"{shown(pattern)} #{entry + 1}"
        unusable = sum((one.unusable for one in read if one.entry == entry), Counter[str]())
        weight = None if weights is None else weights[entry]
        sources[name] = Source(name, weight, heights[entry], takes[entry], heights[entry] - takes[entry], dict(unusable))
    return whole, list(sources.values())

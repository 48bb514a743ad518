"""A first spec for some data: what `tunesmith init` writes. Only the dials that matter, each with the reason for its value."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl
import yaml

from tunesmith.core.errors import DataError
from tunesmith.core.records import Issue
from tunesmith.data.clean import SPLITS
from tunesmith.data.columns import Columns, choose_columns
from tunesmith.data.consensus import annotator_column, label_columns
from tunesmith.data.load import FORMATS, Loaded
from tunesmith.data.marked import check_spans, read_spans
from tunesmith.data.numbers import numbers
from tunesmith.data.open import OWN_FORMATS, is_database, open_tables, refuse_other_folder
from tunesmith.data.relevant import check_relevant, read_relevant, speaks_of_ranking
from tunesmith.data.sources import hub
from tunesmith.data.sources.archive import files_in, located, stem_of
from tunesmith.data.sources.place import SPLIT_NAMES, split_of_name, without_split
from tunesmith.data.spans import check_answers, read_answers
from tunesmith.data.targets import pair_of, task_of
from tunesmith.spec.addresses import archive_of, is_address, seen_from
from tunesmith.spec.check import matching_files
from tunesmith.spec.kinds import Kind
from tunesmith.spec.schema import Data

MOST_GRADES = 10
OWN_TARGETS = 0.5
"""Share of the targets that must differ for a table of texts to be written."""
SEPARATORS = ("|", ";", ",")
FEW_ROWS = 300
SAMPLE_ROWS = 500
WRITER = """\
model:
  # An encoder with a decoder, such as T5 or BART: a folder on this machine, or a Hugging Face id. The starter writes no texts.
  name: google-t5/t5-small

"""
GUIDANCE = """\
strategy:
  # full: every weight; the best score with enough rows.     layers: the top blocks only; less memory.
  # lora: small adapters; little memory, small files.        features: a head on frozen features; seconds, few rows.
  kind: {kind}  # {why}
"""
REST = """\
# Left out, these are set from the data and the model; `tunesmith plan` shows the values and why.
# train:
#   epochs: 5
#   learning_rate: 2.0e-4

# What only you can say about the model. It enters the model card; what is left out stays "unknown" there.
# card:
#   license: apache-2.0
#   language: [en]
#   intended_use: what the model is meant for
#   out_of_scope: what it must not be used for
#   data_origin: where the rows come from, who labelled them and how
#   contact: who answers for the model
"""


@dataclass(frozen=True)
class Found:
    """The files of each split, how they were found, and the files of a folder that are of no split."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]
    why: str
    left: tuple[str, ...] = ()


def draft_spec(paths: str | Sequence[str], folder: Path, text: Sequence[str] = (), label: str | None = None) -> str:
    """Text of a spec that `load_spec` accepts.

    Args:
        paths: a table, a folder, a glob, an address, or a list of them. Files named train, validation (dev, valid) and test that
            stand beside each other with the same columns are used as splits.
        folder: where the spec will be written; its data paths are relative to it.
        text: text column, or two, when the user named them.
        label: label column, when the user named it.

    Raises:
        DataError: no table can be read, or no columns fit.
    """
    found = _find([paths] if isinstance(paths, str) else list(paths))
    hints = Data(train=found.train, text=tuple(text) or None, label=label)
    loaded, _ = open_tables(found.train, hints, tasks=OWN_FORMATS)
    found = _with_siblings(found, loaded, hints)
    task, why, columns = recognise_task(loaded.table, hints)
    lines = [
        f"# Drafted from {', '.join(_comment(seen_from(path, folder)) for path in found.train[:3])}: {loaded.table.height} rows.",
        *(f"# Left out: {_comment(seen_from(path, folder))}; add it to data.train if it holds rows." for path in found.left),
        "# Next: tunesmith plan, then tunesmith run, with this file.",
        f"name: {_quoted(_name(Path(found.train[0])))}",
        f"task: {task}  # {_comment(why)}",
        "seed: 0  # another seed gives another split and another training run",
        "",
        "data:",
        *_paths(found, folder),
        *_columns(loaded.table, columns),
        *_split_column(loaded.table, found),
        *_shares(found),
        "",
    ]
    return "\n".join(lines) + "\n" + _strategy(loaded.table.height, columns.kind) + "\n" + REST


def recognise_task(table: pl.DataFrame, hints: Data) -> tuple[str, str, Columns]:
    """The task that the columns speak for, why, and the columns.

    Raises:
        DataError: no columns fit a task.
    """
    if asked := _answer_columns(table, hints):
        return "question-answering", f"the answers in {asked.label} are words of {asked.text[1]}", asked
    if marked := _span_columns(table, hints):
        return "token-classification", f"the column {marked.label} holds {marked.why[str(marked.label)].rpartition('; ')[2]}", marked
    if ranked := _ranked_columns(table, hints):
        why = f"a text that each {ranked.text[0]} finds; task: text-ranking reads both together, to rank a few candidates"
        return "feature-extraction", why, ranked
    if written := _written_columns(table, hints):
        task = task_of(written.text[0], str(written.label))
        return task, f"{written.label} holds a text of its own for each {written.text[0]}", written
    try:
        columns = choose_columns(table, hints)
    except DataError:
        if not _has_decimals(table, numbered := _number_columns(table, hints)):
            raise
        columns = numbered
    if columns.label is not None and columns.kind == "class" and _has_decimals(table, columns):
        columns = _number_columns(table, hints)
    if columns.kind != "number":
        return "text-classification", "the label names classes", columns
    why = f"the column {columns.label} holds decimal numbers"
    return ("sentence-similarity", f"two texts, and {why}", columns) if len(columns.text) > 1 else ("text-regression", why, columns)


def _ranked_columns(table: pl.DataFrame, hints: Data) -> Columns | None:
    """Query and text where the names speak of them; else None."""
    if not speaks_of_ranking(table.columns):
        return None
    try:
        columns = choose_columns(table, hints, "feature-extraction")
        read = read_relevant(table.head(SAMPLE_ROWS), columns.text, str(columns.label), columns.negative)
    except DataError:
        return None
    return None if check_relevant(read[str(columns.label)]) else columns


def _written_columns(table: pl.DataFrame, hints: Data) -> Columns | None:
    """Source and target where the names speak of them and most targets differ, as classes do not; else None."""
    pair = pair_of([name for name, kind in table.schema.items() if kind == pl.String])
    named = {*(hints.text or ()), *([hints.label] if isinstance(hints.label, str) else [])}
    if pair is None or not named <= {*pair[:2]}:
        return None
    columns = choose_columns(table, hints, "text2text-generation")
    given = table[str(columns.label)].drop_nulls()
    return columns if given.n_unique() > max(MOST_GRADES, len(given) * OWN_TARGETS) else None


def _answer_columns(table: pl.DataFrame, hints: Data) -> Columns | None:
    """Question, text and answers, where most answers are words of their text; else None."""
    try:
        columns = choose_columns(table, hints, "question-answering")
        if table.schema[str(columns.label)] not in (pl.String, pl.List, pl.Struct):
            return None
        read, _ = read_answers(table.head(SAMPLE_ROWS), (columns.text[1], str(columns.label)), hints.answer_start, "data.train")
    except DataError:
        return None
    return None if check_answers(read[str(columns.label)]) else columns


def _span_columns(table: pl.DataFrame, hints: Data) -> Columns | None:
    """Tokens and tags, or text and spans, where most rows are sound; else None."""
    try:
        columns = choose_columns(table, hints, "token-classification")
        read, _ = read_spans(table.head(SAMPLE_ROWS), (columns.text[0], str(columns.label)), columns.why)
    except DataError:
        return None
    return None if check_spans(read[str(columns.label)]) else columns


def _number_columns(table: pl.DataFrame, hints: Data) -> Columns:
    """The columns as a regression would have them; without a label where none can be one."""
    try:
        return choose_columns(table, hints, "text-regression")
    except DataError:
        return Columns((), None, "number", {})


def _has_decimals(table: pl.DataFrame, columns: Columns) -> bool:
    """True when the label is decimal numbers, of more kinds than classes would have."""
    if columns.label is None or table.schema[columns.label].is_nested():
        return False
    if not (table.schema[columns.label].is_numeric() or table.schema[columns.label] == pl.String):
        return False
    given = numbers(table[columns.label]).drop_nulls()
    return bool(len(given) and not given.is_nan().any() and (given != given.round(0)).any() and given.n_unique() > MOST_GRADES)


def _find(paths: list[str]) -> Found:
    """The files behind the user's words: folders become the tables in them, sorted into splits by name."""
    files: list[str] = []
    listed: set[str] = set()
    for path in paths:
        tables, folder = _named(path)
        if folder:
            listed.update(tables)
        if not tables:
            if folder:
                refuse_other_folder(folder, path)
            remedy = "Name a CSV, TSV, JSONL, JSON or Parquet file, or a folder with some."
            raise DataError(Issue(path, "must be a table or a folder with tables", "none" if folder else "no such file", remedy))
        files += [table for table in tables if table not in files]
    if len(files) == 1:
        return Found((files[0],), (), (), "")
    stray = [file for file in files if file in listed and split_of(file) is None and not _holds_rows(file)]
    files = [file for file in files if file not in stray]
    sorted_files: dict[str, list[str]] = {split: [file for file in files if split_of(file) == split] for split in SPLITS}
    if sorted_files["train"]:
        others = [file for file in files if split_of(file) is None]
        named = [file for file in others if file not in listed]
        if named:
            remedy = "Name the tables to use, one by one."
            raise DataError(Issue(", ".join(named[:3]), "must be named like a split beside a train table", "another name", remedy))
        train, validation, test = (tuple(sorted_files[split]) for split in ("train", "validation", "test"))
        return Found(train, validation, test, "by their names", (*stray, *others))
    if sorted_files["validation"] or sorted_files["test"]:
        rest = tuple(file for file in files if split_of(file) is None)
        if rest:
            return Found(rest, tuple(sorted_files["validation"]), tuple(sorted_files["test"]), "by their names", tuple(stray))
    return Found(tuple(files), (), (), "", tuple(stray))


def _named(path: str) -> tuple[list[str], Path | None]:
    """The tables that a path, glob, archive or address names, and the folder that holds them where one was named."""
    archive = archive_of(path)
    if archive and (is_address(archive[0]) or os.path.isfile(archive[0])):
        tables = [name for file, name in files_in(path) if archive[1] or _is_table(file)]
        return tables, None if archive[1] else located(path).path
    if is_address(path):
        folder = None if is_database(path) else located(path).path
        if folder is None or not folder.is_dir():
            return [path], None
        return [f"{path.rstrip('/')}/{Path(name).name}" for name in _tables(str(folder))], folder
    if os.path.isdir(path):
        return _tables(path), Path(path)
    return matching_files(path), None


def _holds_rows(file: str) -> bool:
    """False for a JSON file of a folder that is no table, such as a list of label names."""
    if ".json" not in Path(file).suffixes:
        return True
    try:
        open_tables([file], Data(train=(file,)), tasks=OWN_FORMATS)
    except DataError:
        return False  # it is named in the draft as left out
    return True


def split_of(path: str) -> str | None:
    """The split that a file is named after, such as "validation" for intents-dev.csv; None when its name says nothing."""
    return split_of_name(Path(path).name)


def _tables(folder: str) -> list[str]:
    return sorted(str(path) for path in Path(folder).iterdir() if path.is_file() and not path.name.startswith(".") and _is_table(path))


def _is_table(path: Path) -> bool:
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() not in (".gz", ".zst")]
    return bool(suffixes) and suffixes[-1] in FORMATS and suffixes[-1] != ".txt"


def _with_siblings(found: Found, loaded: Loaded, hints: Data) -> Found:
    """A single table named train gets the validation and test tables beside it, if they have the same columns."""
    given = found.validation or found.test or len(found.train) != 1 or is_address(found.train[0]) or archive_of(found.train[0])
    if given or split_of(found.train[0]) != "train":
        return found
    own = Path(found.train[0])
    rest = without_split(own.name)
    beside: dict[str, tuple[str, ...]] = {"validation": (), "test": ()}
    for path in map(Path, _tables(str(own.parent))):
        split = split_of(str(path))
        if split in beside and not beside[split] and without_split(path.name) == rest and _same_columns(path, loaded.table, hints):
            beside[split] = (str(path),)
    why = "beside the train table, with the same columns"
    return replace(found, validation=beside["validation"], test=beside["test"], why=why if any(beside.values()) else "")


def _same_columns(path: Path, table: pl.DataFrame, hints: Data) -> bool:
    try:
        return set(open_tables([str(path)], hints, tasks=OWN_FORMATS)[0].table.columns) == set(table.columns)
    except DataError:
        return False  # a damaged neighbour is no split; naming it in the spec says what is wrong with it


def _paths(found: Found, folder: Path) -> list[str]:
    lines = []
    for split, files in (("train", found.train), ("validation", found.validation), ("test", found.test)):
        if files:
            shown = [_quoted(seen_from(path, folder)) for path in files]
            value = shown[0] if len(shown) == 1 else f"[{', '.join(shown)}]"
            lines.append(f"  {split}: {value}" + (f"  # found {found.why}" if found.why and split != "train" else ""))
    return lines


def _columns(table: pl.DataFrame, columns: Columns) -> list[str]:
    text = [_quoted(name) for name in columns.text]
    value = text[0] if len(text) == 1 else f"[{', '.join(text)}]"
    lines = [f"  text: {value}  # {_comment(columns.why[columns.text[0]])}"]
    lines.append(f"  label: {_quoted(str(columns.label))}  # {_comment(columns.why[str(columns.label)])}")
    label = table[str(columns.label)]
    if columns.kind in ("number", "answers", "text", "relevant"):
        pass
    elif label.dtype == pl.List:
        lines.append("  multi_label: true  # the column holds lists")
    else:
        separator = _separator(label)
        if separator:
            lines.append(f"  # multi_label: true  # many cells hold {_quoted(separator)}: uncomment both lines if it separates labels")
            lines.append(f"  # label_separator: {_quoted(separator)}")
    if one := annotator_column(table, columns):
        lines.append(f"  # annotator: {_quoted(one[0])}  # {_comment(one[1])}: uncomment if it says who gave the label")
        lines.append("  # consensus: majority  # or dawid_skene: one label for each text that several judged")
    elif several := label_columns(table, columns):
        lines.append(f"  # label: {_comment(several[0])}  # {several[1]}: uncomment in place of the label above if each is an annotator's")
    if columns.negative:
        lines.append(f"  negative: {_quoted(columns.negative)}  # {_comment(columns.why[columns.negative])}")
    others = [name for name in table.columns if name not in (*columns.text, columns.label, columns.negative, "__source__")]
    if others:
        lines.append(f"  # not used: {_comment(', '.join(others))}")
    return lines


def _separator(label: pl.Series) -> str | None:
    """A character that seems to separate labels: cells with it are made of parts that other cells share."""
    if label.dtype != pl.String:
        return None
    values = label.drop_nulls().head(5000)
    for separator in SEPARATORS:
        if values.str.contains(separator, literal=True).sum() > max(2, values.len() // 20):
            parts = values.str.split(separator).explode(empty_as_null=True).drop_nulls().str.strip_chars()
            if parts.n_unique() < values.n_unique():
                return separator
    return None


def _split_column(table: pl.DataFrame, found: Found) -> list[str]:
    """The line that takes the splits from a column `split`: in force for a dataset of the hub, whose splits these are; else proposed."""
    name = next((name for name in table.columns if name.lower() == "split"), None)
    if name is None or found.validation or found.test:
        return []
    words = {str(word).strip().lower() for word in table[name].drop_nulls().unique()}
    known = {SPLIT_NAMES.get(word) for word in words}
    if "train" not in known or len(known - {None}) < 2:
        return []
    line = f"split: {{kind: column, column: {_quoted(name)}}}  # its values: {_comment(', '.join(sorted(words)[:6]))}"
    return [f"  {line}" if hub.recognise(found.train[0]) else f"  # {line}; uncomment to keep these splits"]


def _shares(found: Found) -> list[str]:
    missing = [split for split in ("validation", "test") if not (found.validation if split == "validation" else found.test)]
    uses = {"validation": "to select the weights", "test": "for the one final score"}
    return [f"  {split}_share: 0.1  # of the training rows, set aside {uses[split]}" for split in missing]


def _strategy(rows: int, kind: Kind) -> str:
    if kind == "text":
        return WRITER + GUIDANCE.format(kind="full", why="the whole network learns to write")
    if kind == "answers":
        return GUIDANCE.format(kind="full", why="a head that reads tokens needs a network that was trained with it")
    if rows < FEW_ROWS:
        return GUIDANCE.format(kind="features", why="few rows: a head on frozen features is hard to beat")
    return GUIDANCE.format(kind="full", why="enough rows to train every weight")


def _name(train: Path) -> str:
    """A name for the run: the table's, or its folder's when the table is just called train."""
    stem = stem_of(train.name).split(".")[0]
    stem = stem_of(train.resolve().parent.name) if SPLIT_NAMES.get(stem.lower()) == "train" else stem
    return re.sub(r"[^\w.\- ]+", "-", stem).lstrip(".- ")[:100] or "run"


def _quoted(value: str) -> str:
    """A YAML scalar on one line, in quotes where YAML needs them."""
    return str(yaml.safe_dump([value], default_flow_style=True, allow_unicode=True, width=10**6)).strip()[1:-1]


def _comment(text: str) -> str:
    return re.sub(r"[^\x20-\x7e\xa0-\ud7ff]+", " ", text)

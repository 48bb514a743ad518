"""Which columns hold the text and the label, and why; then one plain table with `text`, `text_pair`, `label`, `source`."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from tunesmith.core.errors import DataError
from tunesmith.core.records import Issue
from tunesmith.data.label_forms import LISTS, TEXTS, form_of
from tunesmith.data.load import SOURCE
from tunesmith.data.marked import KEPT_BESIDE, beside, span_columns
from tunesmith.data.moments import moments
from tunesmith.data.numbers import numbers
from tunesmith.data.relevant import negative_column, ranked_columns
from tunesmith.data.sources.place import SPLIT_NAMES
from tunesmith.data.spans import answer_column, context_groups, question_columns
from tunesmith.data.targets import source_and_target, target_texts
from tunesmith.spec.kinds import PAIRED, TEXT_LABELS, Kind, kind_of
from tunesmith.spec.schema import ByColumn, ByTime, Data

TEXT_NAMES = (
    "text", "sentence", "utterance", "message", "content", "body", "comment", "review", "tweet", "post", "document",
    "description", "question", "query", "title", "headline", "subject", "summary", "input", "prompt", "docstring",
)  # fmt: skip
PAIR_NAMES = (
    ("sentence1", "sentence2"), ("premise", "hypothesis"), ("question1", "question2"), ("text_a", "text_b"), ("text1", "text2"),
    ("sentence_a", "sentence_b"), ("sentence_A", "sentence_B"), ("text", "text_pair"),
)  # fmt: skip
LABEL_NAMES = (
    "label_text", "label_name", "label", "labels", "class", "category", "target", "intent", "sentiment", "topic", "area", "emotion",
    "tag", "tags", "genre", "department", "queue", "priority", "type", "gold_label", "gold", "y",
)  # fmt: skip
NUMBER_NAMES = (
    "score", "rating", "similarity", "similarity_score", "relatedness_score", "stars", "value", "target", "label", "labels", "grade",
    "price", "y", "gold",
)  # fmt: skip
NEVER_A_LABEL = ("split", "fold", "set", "partition", "subset", "date", "time", "timestamp", "index", "lang", "language", "source")
MOST_CLASSES = 10_000
MOST_NAMES = 20
WHOLE_NUMBER = r"^\s*[+-]?\d+(\.0*)?\s*$"
NUMBER = r"^\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*$"


@dataclass(frozen=True)
class Columns:
    """The chosen columns and a readable reason for each; `label` is None where none is needed (prediction).

    `group`, `moment`, `place` and `annotator` say which rows belong together, when each was made, which split it is for, and
    who gave its label; `found` and `negative` hold texts that a query should find, and must not.
    """

    text: tuple[str, ...]
    label: str | None
    kind: Kind
    why: dict[str, str]
    group: str | None = None
    moment: str | None = None
    place: str | None = None
    annotator: str | None = None
    negative: str | None = None
    found: str | None = None


def choose_columns(table: pl.DataFrame, data: Data, task: str = "text-classification") -> Columns:
    """Text and label columns of a task: those of the spec, else inferred from names, then from what the columns hold.

    Raises:
        DataError: with every problem: a named column is missing (the closest is named), or nothing fits.
    """
    names = [name for name in table.columns if name != SOURCE]
    asked = data.label if isinstance(data.label, str) else None  # several label columns are one by now: see consensus.judgements
    named = {**({asked: "data.label"} if asked else {}), **({data.negative: "data.negative"} if data.negative else {})}
    issues = _missing({**dict.fromkeys(data.text or (), "data.text"), **named, **told(data)}, names)
    if issues:
        raise DataError(issues)
    why: dict[str, str] = {}
    free = table.drop(set(told(data)) - {*(data.text or ()), asked})
    kind = kind_of(task, data.multi_label)
    if kind == "text":
        text, label = source_and_target(free.drop(SOURCE, strict=False), data.text, asked, why)
    elif kind == "relevant":
        text, label = ranked_columns(free.drop(SOURCE, strict=False), data.text, asked, why)
    elif kind == "spans":
        tokens, label = span_columns(free, data.text, asked, why)
        text = tokens or _infer_text(free, label, why)
    elif kind == "masked":
        text, label = data.text or _only_text(free, why) or _infer_text(free, None, why), None
    else:
        text = data.text or (question_columns(free.columns) if kind == "answers" else _infer_text(free, asked, why))
        label = asked or _label_of_kind(free, text, why, kind)
    why |= {name: "named in the spec" for name in (*text, label) if name and name not in why}
    if len(names) == 1 and kind != "masked":
        found = f"one column, {names[0]!r}"
        remedy = "If cells are separated by another character, set data.delimiter."
        raise DataError(Issue("data.train", "must have a text and a label column", found, remedy))
    if not text:
        issues.append(Issue("data.text", "must be found among the columns", _listed(names), "Set data.text to the column with the text."))
    if not label and kind != "masked":
        issues.append(
            Issue("data.label", "must be found among the columns", _listed(names), "Set data.label to the column with the label.")
        )
    if text and len(text) == 1 and task in PAIRED:
        remedy = f"Set data.text to the two columns: {'[question, context]' if kind == 'answers' else '[sentence1, sentence2]'}."
        issues.append(Issue("data.text", f"must be two columns for {task}", text[0], remedy))
    if text and len(text) > 1 and kind in TEXT_LABELS:
        issues.append(Issue("data.text", f"must be one column for {task}", ", ".join(text), "Name the column with the source."))
    if issues:
        raise DataError(issues)
    why |= dict.fromkeys(told(data), "named in the spec")
    moment, place = (data.split.column if isinstance(data.split, rule) else None for rule in (ByTime, ByColumn))
    negative = negative_column([n for n in names if n not in (*text, label)], data.negative) if kind == "relevant" else None
    if negative:
        why.setdefault(negative, "named in the spec" if data.negative else "its name says that it is not what a query finds")
    return Columns(tuple(text), label, kind, why, data.group, moment, place, data.annotator, negative)


def require_columns(table: pl.DataFrame, columns: Columns, split: str) -> list[Issue]:
    """A problem for each chosen column that a validation or test table lacks."""
    names = [name for name in table.columns if name != SOURCE]
    wanted = [*columns.text, *([columns.label] if columns.label else []), *([columns.group] if columns.group else [])]
    return [
        Issue(f"data.{split}", f"must have the column {name!r}", _listed(names), _closest(name, names))
        for name in wanted
        if name not in names
    ]


def text_columns(table: pl.DataFrame, wanted: Sequence[str]) -> pl.DataFrame:
    """`text` (and `text_pair`) and `source` of a table to predict on; null stays null.

    Raises:
        DataError: a wanted column is missing; the closest is named.
    """
    names = [name for name in table.columns if name != SOURCE]
    missing = [
        Issue(f"column {name!r}", "must be in the table", _listed(names), _closest(name, names)) for name in wanted if name not in names
    ]
    if missing:
        raise DataError(missing)
    targets = zip(("text", "text_pair"), wanted, strict=False)
    return table.select(*(pl.col(name).cast(pl.String).alias(target) for target, name in targets), pl.col(SOURCE).alias("source"))


def plain_table(table: pl.DataFrame, columns: Columns, data: Data) -> pl.DataFrame:
    """The rows with columns `text`, `text_pair` (only for pairs), `label` (text, or sorted lists), `source`, and where they are told
    `group` and `annotator` (text), `moment` (microseconds since 1970) and `place` (train, validation or test); null where a
    cell says nothing.

    Raises:
        DataError: a chosen column holds values that cannot be texts or labels.
    """
    issues: list[Issue] = []
    for name in columns.text:
        if table.schema[name].is_nested() or table.schema[name] == pl.Binary:
            issues.append(Issue(f"column {name!r}", "must hold text", str(table.schema[name]), "Choose another with data.text."))
    if issues:
        raise DataError(issues)
    if columns.kind == "number":
        label = numbers(table[str(columns.label)])
    elif columns.kind == "masked":
        label = target_texts(table[columns.text[0]])
    elif columns.kind == "text":
        label = target_texts(table[str(columns.label)])
    elif columns.kind in ("answers", "spans", "relevant"):  # read before, with what stands beside them
        label = table[str(columns.label)]
    else:
        label = _label_lists(table, columns, data) if columns.kind == "classes" else _label_texts(table, columns)
    texts = text_columns(table, columns.text)
    more = [label.alias("label"), texts["source"], *(table[beside(n)].alias(n) for n in KEPT_BESIDE if beside(n) in table.columns)]
    if columns.group:
        more.append(_names(table[columns.group], "data.group").alias("group"))
    elif columns.kind == "answers" and data.contexts == "together":
        more.append(context_groups(texts["text_pair"]))
    if columns.annotator and columns.annotator in table.columns:
        more.append(_names(table[columns.annotator], "data.annotator").alias("annotator"))
    if columns.moment and columns.moment in table.columns:
        more.append(moments(table[columns.moment]).alias("moment"))
    if columns.place and columns.place in table.columns:
        more.append(_places(table[columns.place]).alias("place"))
    return texts.drop("source").with_columns(more)


def _names(column: pl.Series, field: str) -> pl.Series:
    """Groups or annotators as text; null for an empty cell; whole numbers without their decimals."""
    if column.dtype.is_nested() or column.dtype == pl.Binary:
        raise DataError(Issue(f"column {column.name!r}", "must hold one name a row", str(column.dtype), f"Choose another with {field}."))
    text = column.cast(pl.String).str.strip_chars()
    text = text.set(text == "", None)
    whole = text.drop_nulls().str.contains(WHOLE_NUMBER).all()  # 7 in one table and 7.0 in another are one name
    return text.str.replace(r"\.0*$", "") if whole else text


def _places(column: pl.Series) -> pl.Series:
    """The split that each cell names; null for any other word."""
    return column.cast(pl.String).str.strip_chars().str.to_lowercase().replace_strict(SPLIT_NAMES, default=None, return_dtype=pl.String)


def check_labels(label: pl.Series) -> list[Issue]:
    """Fatal problems of the labels of a whole training table: one class, too many, numbers to regress on; or useless numbers."""
    form = form_of(label)
    if form not in (TEXTS, LISTS):
        return form.check(label)
    values = label.explode(empty_as_null=True).drop_nulls() if label.dtype == pl.List else label.drop_nulls()
    values = values.filter(values != "")
    classes, rows = values.n_unique(), label.len()
    if classes < 2:
        found = f"only {values[0]!r}" if classes else "no label at all"
        return [Issue("data.label", "must have at least two classes", found, "Check that the right column was chosen: set data.label.")]
    numeric = bool(values.str.contains(NUMBER).all())
    if numeric and not values.str.contains(WHOLE_NUMBER).all() and classes > 10:
        found = f"{classes} different decimal numbers: it looks like regression"
        return [Issue("data.label", "must hold classes", found, "Set task: text-regression, or cut the numbers into classes.")]
    if classes >= MOST_CLASSES or (classes > 100 and classes > rows / 2):
        found = f"{classes} different values in {rows} rows: it looks like an id or free text"
        return [Issue("data.label", "must hold classes", found, "Choose another column with data.label.")]
    if classes >= rows:
        return [Issue("data.label", "must have more rows than classes", f"{rows} rows, {classes} classes", "Add rows, or merge classes.")]
    return []


def told(data: Data) -> dict[str, str]:
    """The columns that say how rows are split and who labelled them, each with the field of the spec that names it."""
    fields = {"data.group": data.group, "data.annotator": data.annotator}
    named = {column: field for field, column in fields.items() if column}
    return {**named, **({data.split.column: "data.split.column"} if isinstance(data.split, (ByTime, ByColumn)) else {})}


def _missing(wanted: Mapping[str, str], names: Sequence[str]) -> list[Issue]:
    return [
        Issue(where, f"must name a column of the table: {name!r}", _listed(names), _closest(name, names))
        for name, where in wanted.items()
        if name not in names
    ]


def _listed(names: Sequence[str]) -> str:
    """The names, the first of them if there are many."""
    return ", ".join(names[:MOST_NAMES]) + (f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else "")


def _closest(name: str, names: Sequence[str]) -> str:
    lower = {candidate.lower(): candidate for candidate in names}
    near = difflib.get_close_matches(name.lower(), lower, 1, 0.5)
    return f"Did you mean {lower[near[0]]!r}?" if near else ""


def _infer_text(table: pl.DataFrame, label: str | None, why: dict[str, str]) -> tuple[str, ...]:
    strings = [name for name, kind in table.schema.items() if kind == pl.String and name not in (SOURCE, label)]
    for first, second in PAIR_NAMES:
        if first in strings and second in strings:
            why[first] = why[second] = "the two names are those of a sentence pair"
            return first, second
    named = _by_name(strings, TEXT_NAMES)
    if named:
        why[named] = "its name says that it is the text"
        return (named,)
    facts = {name: _text_facts(table[name]) for name in strings}
    wordy = {name: length for name, (length, spaces) in facts.items() if spaces >= 1.0 and not _looks_like_id(name)}
    if not wordy:
        return ()
    best = max(wordy, key=lambda name: wordy[name])
    why[best] = f"the longest text: {wordy[best]:.0f} characters on average"
    return (best,)


def _only_text(table: pl.DataFrame, why: dict[str, str]) -> tuple[str, ...]:
    """The column of a table that has no other."""
    names = [name for name in table.columns if name != SOURCE]
    if len(names) != 1 or table.schema[names[0]] != pl.String:
        return ()
    why[names[0]] = "the only column"
    return (names[0],)


def _text_facts(column: pl.Series) -> tuple[float, float]:
    """Mean characters and mean spaces of the first rows."""
    head = column.drop_nulls().head(1000)
    if not head.len():
        return 0.0, 0.0
    return float(head.str.len_chars().mean() or 0), float(head.str.count_matches(" ").mean() or 0)  # type: ignore[arg-type]


def _looks_like_id(name: str) -> bool:
    return name.lower() in ("id", "url", "uuid", "path", "file", "filename") or name.lower().endswith(("_id", "_url", "_path"))


def _infer_label(table: pl.DataFrame, text: Sequence[str], why: dict[str, str]) -> str | None:
    names = [name for name in table.columns if name not in (SOURCE, *text)]
    named = _by_name(names, LABEL_NAMES)
    if named:
        why[named] = "its name says that it is the label"
        return named
    classes = {name: _class_count(table[name]) for name in names if not _looks_like_id(name) and name.lower() not in NEVER_A_LABEL}
    fitting = {name: count for name, count in classes.items() if count and 2 <= count <= max(20, table.height // 10)}
    if not fitting:
        return None
    kinds = dict(table.schema)
    best = min(fitting, key=lambda name: (kinds[name] != pl.String, fitting[name]))
    why[best] = f"few different values: {fitting[best]} in {table.height} rows"
    return best


def _label_of_kind(table: pl.DataFrame, text: Sequence[str], why: dict[str, str], kind: Kind) -> str | None:
    """The column of labels of a kind, where one fits."""
    if kind != "answers":
        return _infer_number(table, text, why) if kind == "number" else _infer_label(table, text, why)
    name = answer_column([name for name in table.columns if name not in text])
    if name:
        why[name] = "its name says that it holds answers"
    return name


def _infer_number(table: pl.DataFrame, text: Sequence[str], why: dict[str, str]) -> str | None:
    """The column of numbers: by name, else the one numeric column with the most different values that is no row number."""
    names = [name for name in table.columns if name not in (SOURCE, *text)]
    named = _by_name(names, NUMBER_NAMES)
    if named:
        why[named] = "its name says that it is the number"
        return named
    free = [name for name in names if table.schema[name].is_numeric() and not _looks_like_id(name) and name.lower() not in NEVER_A_LABEL]
    values = {name: table[name].n_unique() for name in free if not (table.schema[name].is_integer() and table[name].is_sorted())}
    if not values:
        return None
    best = max(values, key=lambda name: values[name])
    why[best] = f"numbers: {values[best]} different ones in {table.height} rows"
    return best


def _class_count(column: pl.Series) -> int | None:
    """Different values of a column that could be a label; None for dates, structures and decimals."""
    if column.dtype.is_nested() or column.dtype.is_temporal() or column.dtype.is_float() or column.dtype == pl.Binary:
        return None
    return column.drop_nulls().n_unique()


def _by_name(names: Sequence[str], known: Sequence[str]) -> str | None:
    lower = {name.lower(): name for name in reversed(names)}
    return next((lower[name] for name in known if name in lower), None)


def _label_texts(table: pl.DataFrame, columns: Columns) -> pl.Series:
    """Single labels as text: 3 and 3.0 become "3" when all are whole numbers; booleans become "true" and "false"."""
    label = table[str(columns.label)]
    if label.dtype == pl.List:
        raise DataError(Issue(f"column {columns.label!r}", "must hold one label a row", "lists", "Set data.multi_label: true."))
    if label.dtype.is_nested() or label.dtype == pl.Binary:
        raise DataError(Issue(f"column {columns.label!r}", "must hold labels", str(label.dtype), "Choose another with data.label."))
    if label.dtype.is_float():
        label = label.fill_nan(None)
        whole = bool(((label == label.round(0)) & label.is_finite()).drop_nulls().all()) and float(label.abs().max() or 0) < 2**53  # type: ignore[arg-type]
        return label.cast(pl.Int64).cast(pl.String) if whole else label.cast(pl.String)
    text = label.cast(pl.String)
    filled = text.drop_nulls().str.strip_chars()
    filled = filled.filter(filled != "")
    if filled.len() and filled.str.contains(WHOLE_NUMBER).all():
        return text.str.strip_chars().str.replace(r"\.0*$", "")
    return text


def _label_lists(table: pl.DataFrame, columns: Columns, data: Data) -> pl.Series:
    """Label lists, cleaned, sorted and free of repeats; an empty cell of a text column means no label, null means unknown."""
    label = table[str(columns.label)]
    if label.dtype == pl.List and not label.dtype.inner.is_nested():  # type: ignore[attr-defined]
        lists = label.cast(pl.List(pl.String))
    elif label.dtype.is_nested() or label.dtype == pl.Binary:
        raise DataError(
            Issue(f"column {columns.label!r}", "must hold lists of labels", str(label.dtype), "Choose another with data.label.")
        )
    elif data.label_separator is None:
        found = f"text, such as {label.drop_nulls().head(1).cast(pl.String).to_list()}"
        raise DataError(
            Issue("data.label_separator", f"must be given to cut the column {columns.label!r} into labels", found, 'For "a|b" it is "|".')
        )
    else:
        lists = label.cast(pl.String).str.split(data.label_separator)
    return lists.list.eval(cleaned_label(pl.element()).filter(pl.element().is_not_null())).list.eval(
        pl.element().filter(pl.element() != "").unique().sort()
    )


def cleaned_label(label: pl.Expr) -> pl.Expr:
    """A label in Unicode NFC, without outer whitespace, inner runs of whitespace as one space."""
    return label.str.normalize("NFC").str.replace_all(r"[\s\p{Cc}]+", " ").str.strip_chars()

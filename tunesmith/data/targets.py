"""Labels that are texts to be written: which columns hold source and target, what makes a row useless, how both are cleaned."""

from __future__ import annotations

import polars as pl

from tunesmith.core.errors import DataError
from tunesmith.core.records import Issue

PAIRS = (
    ("source", "target"), ("src", "tgt"), ("input", "output"), ("input_text", "target_text"), ("inputs", "targets"),
    ("prompt", "completion"), ("document", "summary"), ("article", "highlights"), ("article", "summary"), ("text", "summary"),
    ("dialogue", "summary"), ("body", "title"), ("code", "docstring"), ("function", "docstring"), ("code", "summary"), ("text", "target"),
    ("question", "answer"), ("original", "paraphrase"), ("original", "simplified"), ("incorrect", "corrected"),
)  # fmt: skip
"""Column names that speak of a text and what is to be written for it."""
SUMMARIES = ("summary", "highlights", "title")
LANGUAGES = (
    "ar", "bg", "ca", "cs", "da", "de", "el", "en", "es", "et", "fa", "fi", "fr", "he", "hi", "hr", "hu", "id", "it", "ja", "ko", "lt",
    "lv", "nl", "no", "pl", "pt", "ro", "ru", "sk", "sl", "sr", "sv", "sw", "th", "tr", "uk", "vi", "zh",
)  # fmt: skip
OTHER_WORDS = ("id", "no")
"""Codes that are also names for the number of a row: they are languages where their cells are texts."""
FEWEST_SPACES, HEAD_ROWS = 1.0, 1000
LENGTHS = {"min": 0.0, "p50": 0.5, "p99": 0.99, "max": 1.0}


def source_and_target(
    table: pl.DataFrame, text: tuple[str, ...] | None, label: str | None, why: dict[str, str]
) -> tuple[tuple[str, ...], str | None]:
    """The columns of source and target: those that the spec names, else by their names, else the two columns of text that there are."""
    strings = [name for name, kind in table.schema.items() if kind == pl.String or name in (*(text or ()), label)]
    named = pair_of(table.select(name for name in table.columns if name in strings or table.schema[name].is_nested()))
    found = named if named is not None else (*strings, "the only two columns of text, the first one taken as the source")
    if len(found) == 3:
        source, target, reason = found
        if (text or (target,))[0] == target and label in (None, source) and (text or label):
            source, target = target, source
        if (text or (source,)) == (source,) and label in (None, target):
            why |= {name: reason for name in (source, target) if name not in (*(text or ()), label)}
            return (source,), target
    return text or (), label


def pair_of(table: pl.DataFrame) -> tuple[str, str, str] | None:
    """(source, target, why) by the names of columns that may hold texts; None where they do not speak of such a pair.

    Two language codes are a translation from the one that comes first in the table.
    """
    lower = {name.lower(): name for name in reversed(table.columns)}
    for source, target in PAIRS:
        if source in lower and target in lower:
            return lower[source], lower[target], "the names are those of a text and what is written for it"
    codes = [name for name in table.columns if _is_language(table[name])]
    if len(codes) == 2:
        return codes[0], codes[1], "the names are those of two languages, the first one taken as the source"
    return None


def _is_language(column: pl.Series) -> bool:
    """True where the name is a language code, and no other word, unless the cells have several words on average."""
    name = column.name.lower()
    if name not in OTHER_WORDS:
        return name in LANGUAGES
    head = column.drop_nulls().head(HEAD_ROWS)
    return column.dtype == pl.String and float(head.str.strip_chars().str.count_matches(r"\s+").mean() or 0) >= FEWEST_SPACES  # type: ignore[arg-type]


def task_of(source: str, target: str) -> str:
    """The task that two column names speak for."""
    if source.lower() in LANGUAGES and target.lower() in LANGUAGES:
        return "translation"
    return "summarization" if target.lower() in SUMMARIES else "text2text-generation"


def target_texts(cells: pl.Series) -> pl.Series:
    """Targets as they are, as text; null stays null.

    Raises:
        DataError: the column holds lists, structures or bytes.
    """
    if cells.dtype.is_nested() or cells.dtype == pl.Binary:
        found = f"column {cells.name!r}"
        raise DataError(Issue(found, "must hold one text a row", str(cells.dtype), "Choose another with data.label."))
    return cells.cast(pl.String)


def check_targets(label: pl.Series, named: str = "data.label") -> list[Issue]:
    """Fatal problems of the targets of a whole training table: none is there, or all are the same. `named`: the field that chooses them."""
    given = label.drop_nulls()
    given = given.filter(given.str.strip_chars() != "")
    if given.n_unique() >= 2:
        return []
    found = f"only {given[0][:60]!r}" if len(given) else f"no {'text' if named == 'data.text' else 'target'} at all"
    return [Issue(named, "must hold different texts", found, f"Check that the right column was chosen: set {named}.")]


def kept_text(text: pl.Expr) -> pl.Expr:
    """A source or target as it is trained on and predicted on: Unicode NFC and nothing else, for line breaks and indentation may matter."""
    return text.fill_null("").str.normalize("NFC")


def told_targets(rows: pl.DataFrame) -> dict[str, int | None]:
    """Rows of a split, quantiles of the characters of their targets, and how many targets are the text itself."""
    length = rows["label"].str.len_chars()
    values = {name: length.quantile(share, "higher") for name, share in LENGTHS.items()}
    lengths = {name: None if value is None else int(value) for name, value in values.items()}
    return {"rows": len(rows), **lengths, "same": int((rows["text"] == rows["label"]).sum())}

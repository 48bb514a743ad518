"""Labels that are spans of a text: how cells are read, what makes them useless, and how they follow a text that is cleaned.

A span is a half-open range of characters with a type. Tables of tokens become a text of tokens with a space between them, and
keep the tokens beside it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import polars as pl

from tunesmith.core.errors import DataError
from tunesmith.core.records import Issue
from tunesmith.data.cells import json_value
from tunesmith.data.tags import runs_of, scheme_of

Span = dict[str, Any]
SPANS = pl.List(pl.Struct({"start": pl.Int64, "end": pl.Int64, "label": pl.String}))
PROBLEM = "problem"
"""Column of a plain table that says what is wrong with a row's spans; null where nothing is."""
TOKENS = "tokens"
"""Column of a plain table, and of the splits, that keeps the tokens of a text which came as tokens."""
KEPT_BESIDE = (TOKENS, PROBLEM)
MOST_TYPES = 1000
TOKEN_NAMES = ("tokens", "words", "token")
TAG_NAMES = ("tags", "ner_tags", "labels", "label", "ner", "pos_tags", "upos", "pos", "chunk_tags")
SPAN_NAMES = ("spans", "entities", "label", "labels", "annotations", "ents", "entity_spans")
STARTS, ENDS = ("start", "start_offset", "begin", "start_char"), ("end", "end_offset", "stop", "end_char")
TYPES = ("label", "slot", "type", "tag", "entity", "entity_group", "category", "labels")
QUOTES = ("text", "quote", "surface", "value")
DROPPED = re.compile("[\u200b\u2060\ufeff\x00-\x20\x7f-\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+")
"""What cleaning takes out of a text, or makes a space of."""
LOST = "\ufffd"
"""What stands for a token of which cleaning leaves nothing."""
MOST_BAD = 0.5
FEWEST_BYTES, HARDLY_ANY = 3, 0.05
"""Rows that must speak for offsets in bytes by the words that they cut otherwise, and the share of their spans that may speak against."""


@dataclass(frozen=True)
class Marked:
    """`text`, `label`, `problem` (and `tokens`) of the rows of a table, how they were understood, and warnings."""

    rows: pl.DataFrame
    why: str
    issues: tuple[Issue, ...]


def is_tokens(column: pl.Series) -> bool:
    """True for a column of lists of text."""
    return bool(column.dtype == pl.List(pl.String))


def span_columns(
    table: pl.DataFrame, text: tuple[str, ...] | None, label: str | None, why: dict[str, str]
) -> tuple[tuple[str, ...], str | None]:
    """The column of tokens (or the text column named in the spec), empty where there is none, and that of tags or spans."""
    kinds = dict(table.schema)
    if not text:
        text = tuple(name for name in TOKEN_NAMES if kinds.get(name) == pl.List(pl.String))[:1]
        why |= dict.fromkeys(text, "its name says that it holds tokens")
    tokens = bool(text) and kinds[text[0]] == pl.List(pl.String)
    known = TAG_NAMES if tokens else SPAN_NAMES
    if label is None:
        label = next((name for name in known if name in kinds and name not in text and (kinds[name] == pl.List or not tokens)), None)
        if label:
            why[label] = f"its name says that it holds {'tags' if tokens else 'spans'}"
    return text, label


def read_spans(table: pl.DataFrame, names: tuple[str, str], why: dict[str, str]) -> tuple[pl.DataFrame, tuple[Issue, ...]]:
    """The table with text and spans in the columns of these names, KEPT_BESIDE beside them; and warnings.

    How the labels were written is added to `why`.

    Raises:
        DataError: most rows are not of that form, or offsets count bytes.
    """
    text, label = names
    missing = [Issue(f"column {name!r}", "must be in the table", "no such column") for name in names if name not in table.columns]
    if missing:
        raise DataError(missing)
    made = marked(table[text], table[label])
    if made.why not in why[label]:
        why[label] += f"; {made.why}"
    columns = [
        made.rows["text"].alias(text),
        made.rows["label"].alias(label),
        *(made.rows[n].alias(beside(n)) for n in KEPT_BESIDE if n in made.rows.columns),
    ]
    return table.with_columns(columns), made.issues


def beside(name: str) -> str:
    """The name of a column that `read_spans` adds to a table, which may have one of the plain name."""
    return f"__{name}__"


def marked(text: pl.Series, label: pl.Series) -> Marked:
    """Texts with spans, or tokens with tags, as rows of one form.

    Raises:
        DataError: most rows are not of that form, or offsets count bytes.
    """
    return _tagged(text, label) if is_tokens(text) else _spanned(text, label)


def check_spans(label: pl.Series) -> list[Issue]:
    """Fatal problems of the spans of a whole training table: there is none, or nearly every one has a type of its own."""
    names = label.explode(empty_as_null=True).struct.field("label").drop_nulls()
    if not len(names):
        return [Issue("data.label", "must hold spans", "no span at all", "Check that the right column was chosen: set data.label.")]
    if names.n_unique() > MOST_TYPES:
        found = f"{names.n_unique()} types of {len(names)} spans: it looks like free text"
        return [
            Issue("data.label", f"must hold at most {MOST_TYPES} types", found, "Check that the right column was chosen: set data.label.")
        ]
    return []


def _tagged(tokens: pl.Series, tags: pl.Series) -> Marked:
    if tags.dtype.is_nested() and tags.dtype.inner.is_integer():  # type: ignore[attr-defined]
        remedy = "Write the names of the tags, such as B-person and O."
        raise DataError(Issue(f"column {tags.name!r}", "must hold lists of tags", "lists of numbers, which have no names", remedy))
    if not is_tokens(tags):
        remedy = "Choose another with data.label: a tag for each token."
        raise DataError(Issue(f"column {tags.name!r}", "must hold lists of tags", str(tags.dtype), remedy))
    scheme = scheme_of(row for row in tags.to_list() if row)
    rows, lost, broken = [], 0, 0
    for words, names in zip(tokens.to_list(), tags.to_list(), strict=True):
        row, gone, repaired = _sentence(words, names, scheme)
        rows.append(row)
        lost, broken = lost + gone, broken + repaired
    issues = []
    if broken:
        found = f"{broken} that begin with I- or E- where no span of the type stands before"
        issues.append(Issue(f"column {tags.name!r}", f"should hold tags in {scheme}", found, "Each is read as B-.", fatal=False))
    if lost:
        found = f"{lost} tokens of nothing but spaces and invisible characters"
        issues.append(Issue(f"column {tokens.name!r}", "should hold visible tokens", found, f"Each became {LOST}.", fatal=False))
    schema: dict[str, Any] = {"text": pl.String, "label": SPANS, TOKENS: pl.List(pl.String), PROBLEM: pl.String}
    return Marked(_refuse_most(pl.DataFrame(rows, schema, orient="row"), tags.name), f"tags in {scheme}", tuple(issues))


def _sentence(words: list[str | None] | None, tags: list[str | None] | None, scheme: Any) -> tuple[tuple[Any, ...], int, int]:
    """Text, spans, tokens and problem of a row; tokens that vanish; tags that were repaired."""
    if words is None or tags is None:
        return ("", None, words and [], None), 0, 0
    clean = text_of_tokens(words)
    text = " ".join(clean)
    if len(words) != len(tags) or any(tag is None for tag in tags):
        return (text, [], clean, f"{len(words)} tokens and {len([t for t in tags if t is not None])} tags"), 0, 0
    runs, broken = runs_of([str(tag).strip() for tag in tags], scheme)
    places = token_places(clean)
    spans = [{"start": places[first][0], "end": places[last - 1][1], "label": name} for first, last, name in runs]
    return (text, spans, clean, None), clean.count(LOST) - words.count(LOST), broken


def text_of_tokens(words: Sequence[str | None]) -> list[str]:
    """The tokens as they stand in the text that is made of them."""
    return [_token(word or "") for word in words]


def _token(word: str) -> str:
    """A token as cleaning leaves it inside its text: nothing of it can vanish there."""
    plain = re.sub("[\u200b\u2060\ufeff]", "", word)
    return DROPPED.sub(" ", unicodedata.normalize("NFC", plain)).strip() or LOST


def token_places(tokens: Sequence[str]) -> list[tuple[int, int]]:
    """Start and end of each token in the text of all, joined by spaces."""
    places, start = [], 0
    for token in tokens:
        places.append((start, start + len(token)))
        start += len(token) + 1
    return places


def _spanned(texts: pl.Series, label: pl.Series) -> Marked:
    if texts.dtype.is_nested() or texts.dtype == pl.Binary:
        raise DataError(
            Issue(f"column {texts.name!r}", "must hold text, or lists of tokens", str(texts.dtype), "Choose it with data.text.")
        )
    cells = [(text or "", _cell(cell)) for text, cell in zip(texts.cast(pl.String).to_list(), label.to_list(), strict=True)]
    read = [(text, None if cell is None else [_span(one) for one in cell]) for text, cell in cells]
    problems = [_problem(text, spans) for text, spans in read]
    if _counts_bytes(read):
        remedy = "Count characters: len(text.encode()[:start].decode()) is the start in characters."
        raise DataError(Issue(f"column {label.name!r}", "must count characters", "offsets in bytes of UTF-8", remedy))
    rows, trimmed = [], 0
    for (text, spans), problem in zip(read, problems, strict=True):
        kept = None if spans is None else [] if problem else [_trimmed(text, span) for span in spans if span]
        trimmed += sum(a["start"] != b["start"] or a["end"] != b["end"] for a, b in zip(kept or [], spans or [], strict=False) if b)
        empty = "a span of nothing but spaces" if any(span["start"] >= span["end"] for span in kept or []) else None
        rows.append((text, [] if empty else sorted(kept, key=lambda s: s["start"]) if kept is not None else None, problem or empty))
    found = Issue(
        f"column {label.name!r}", "should hold spans without outer spaces", f"{trimmed} with some", "They were cut off.", fatal=False
    )
    table = pl.DataFrame(rows, {"text": pl.String, "label": SPANS, PROBLEM: pl.String}, orient="row")
    return Marked(_refuse_most(table, label.name), "spans in characters", (found,) if trimmed else ())


def _cell(cell: Any) -> list[Any] | None:
    """The spans of a cell: a list, or JSON in a text; None for an empty cell; a list of one unreadable span for anything else."""
    if cell is None or cell == "":
        return None
    if isinstance(cell, str):
        try:
            cell = json_value(cell)
        except ValueError:
            return [None]
    return cell if isinstance(cell, list) else [cell]


def _span(one: Any) -> Span | None:
    """A span of any of the known forms; None for anything else."""
    if isinstance(one, str):
        try:
            one = json_value(one)
        except ValueError:
            return None
    if isinstance(one, list) and len(one) == 3:
        one = dict(zip(("start", "end", "label"), one, strict=True))
    if not isinstance(one, dict):
        return None
    start, end, name, quote = (_first(one, names) for names in (STARTS, ENDS, TYPES, QUOTES))
    name = name[0] if isinstance(name, list) and len(name) == 1 else name
    if type(start) is not int or type(end) is not int or not isinstance(name, str) or not name.strip():
        return None
    return {"start": start, "end": end, "label": " ".join(name.split()), "quote": quote if isinstance(quote, str) else None}


def _first(one: dict[str, Any], names: Sequence[str]) -> Any:
    return next((one[name] for name in names if one.get(name) is not None), None)


def _problem(text: str, spans: list[Span | None] | None) -> str | None:
    """What is wrong with the spans of a text, in words; None when nothing is."""
    end = 0
    if spans is not None and None in spans:
        return "a span without start, end and label"
    for span in sorted((s for s in spans or [] if s), key=lambda s: (s["start"], s["end"])):
        place = f"the span {span['label']} from {span['start']} to {span['end']}"
        if not 0 <= span["start"] < span["end"] <= len(text):
            return f"{place} is empty or outside the text of {len(text)} characters"
        if span["quote"] and text[span["start"] : span["end"]] != span["quote"]:
            return f"{place} does not hold the text that it says"
        if span["start"] < end:
            return f"{place} overlaps another"
        if _cuts(text, span["start"]) or _cuts(text, span["end"]):
            return f"{place} cuts a character from its marks"
        end = span["end"]
    return None


def _cuts(text: str, place: int) -> bool:
    """True when a boundary stands before a combining mark, a variation selector or a joiner, or after a joiner."""
    if not 0 < place < len(text):
        return False
    after = text[place]
    joined = "\u200d" in (after, text[place - 1])
    return joined or unicodedata.category(after) in ("Mn", "Me", "Mc") or "\U0001f3fb" <= after <= "\U0001f3ff"


def _counts_bytes(rows: list[tuple[str, list[Span | None] | None]]) -> bool:
    """True when all spans are sound as offsets in UTF-8, and as characters some hold another text than they say, or several end outside;
    or when spans end with words only so."""
    spans = [(text, span) for text, some in rows for span in some or [] if span]
    other = any(s["quote"] and text[s["start"] : s["end"]] != s["quote"] for text, s in spans)
    outside = sum(any(s and s["end"] > len(text) for s in some or []) for text, some in rows)
    return ((other or outside > 1) and all(_fits_bytes(text, some) for text, some in rows)) or _cuts_words_but_in_bytes(rows)


def _cuts_words_but_in_bytes(rows: list[tuple[str, list[Span | None] | None]]) -> bool:
    """True when, of the spans that are elsewhere in bytes than in characters, most cut words in characters and hardly any does in bytes."""
    cuts, speaking = list[list[bool]](), 0
    for text, some in rows:
        raw, before = b"" if text.isascii() else text.encode(), len(cuts)
        for span in (one for one in some or [] if one and raw):
            places = [span["start"], span["end"]]
            there = [_character(raw, place) for place in places]
            if there != places:
                cuts.append([any(_cuts_word(text, place) for place in read) for read in (places, there)])
        speaking += len(cuts) > before
    characters, bytes_ = sum(cut[0] for cut in cuts), sum(cut[1] for cut in cuts)
    return speaking >= FEWEST_BYTES and 2 * characters > len(cuts) and bytes_ <= HARDLY_ANY * len(cuts)


def _character(raw: bytes, place: int) -> int | None:
    """The number of characters before a byte; None inside a character or outside the text."""
    try:
        return len(raw[:place].decode()) if 0 <= place <= len(raw) else None
    except UnicodeDecodeError:
        return None


def _cuts_word(text: str, place: int | None) -> bool:
    """True when a boundary is inside a word, or nowhere."""
    if place is None or not 0 <= place <= len(text):
        return True
    return text[place - 1 : place].isalnum() and text[place : place + 1].isalnum()


def _fits_bytes(text: str, spans: list[Span | None] | None) -> bool:
    """True when all spans are sound as offsets in UTF-8."""
    raw = text.encode()
    for span in spans or []:
        if span is None or not 0 <= span["start"] < span["end"] <= len(raw):
            return False
        try:
            said = raw[span["start"] : span["end"]].decode()
        except UnicodeDecodeError:
            return False
        if span["quote"] and said != span["quote"]:
            return False
    return True


def _trimmed(text: str, span: Span) -> Span:
    """The span without what cleaning takes away at its ends."""
    start, end = span["start"], span["end"]
    inside = text[start:end]
    left = found.end() if (found := DROPPED.match(inside)) else 0
    right = len(inside)
    while right > left and DROPPED.match(inside[right - 1]):
        right -= 1
    return {"start": start + left, "end": start + right, "label": span["label"]}


def _refuse_most(rows: pl.DataFrame, name: str) -> pl.DataFrame:
    bad, filled = rows[PROBLEM].drop_nulls(), rows.filter(pl.col("label").list.len() > 0)
    if len(bad) > MOST_BAD * (len(bad) + len(filled)):
        found = f"{len(bad)} of {len(rows)} rows do not, such as: {bad[0]}"
        remedy = "Write spans as {start, end, label} in characters, end after the last one; or a tag for each token."
        raise DataError(Issue(f"column {name!r}", "must hold sound spans", found, remedy))
    return rows


def followed(before: pl.Series, rows: pl.DataFrame) -> pl.DataFrame:
    """Rows whose spans stand in the cleaned `text`; those of a row that cannot follow become a `problem`. `before`: the texts as they were.

    A span keeps its visible characters: places are counted in characters that are no spaces.
    """
    spans, problems = [], []
    for old, new, row, problem in zip(before.to_list(), *(rows[name].to_list() for name in ("text", "label", PROBLEM)), strict=True):
        moved = row if not row or old == new else _moved(old, new, row)
        spans.append([] if moved is None and row else moved)
        problems.append("cleaning joins what a span parts" if moved is None and row else problem)
    return rows.with_columns(pl.Series("label", spans, SPANS), pl.Series(PROBLEM, problems, pl.String))


def _moved(old: str, new: str, spans: list[Span]) -> list[Span] | None:
    """The same spans in a cleaned text; None where cleaning joined what a boundary parts."""
    places = [place for place, character in enumerate(new) if character not in " \n"]
    bounds = sorted({0, len(old), *(span[edge] for span in spans for edge in ("start", "end"))})
    pieces = [_visible(old[a:b]) for a, b in pairwise(bounds)]
    if "".join(pieces) != "".join(new[place] for place in places):
        return None
    counts = dict(zip(bounds, [0, *_sums(map(len, pieces))], strict=True))
    found = [(counts[span["start"]], counts[span["end"]], span["label"]) for span in spans]
    return [{"start": places[a], "end": places[b - 1] + 1, "label": name} for a, b, name in found]


def _sums(numbers: Any) -> list[int]:
    total, sums = 0, []
    for number in numbers:
        total += number
        sums.append(total)
    return sums


def _visible(text: str) -> str:
    return DROPPED.sub("", unicodedata.normalize("NFC", re.sub("[\u200b\u2060\ufeff]", "", text)))


def types_of(label: pl.Series) -> pl.Series:
    """Lists of the types of each row's spans, each once."""
    return label.list.eval(pl.element().struct.field("label").unique().sort())


def span_texts(name: str = "label") -> pl.Expr:
    """A column of spans as lists of texts such as "person 0-4", equal where spans are."""
    field = pl.element().struct.field
    return pl.col(name).list.eval(pl.format("{} {}-{}", field("label"), field("start"), field("end")))

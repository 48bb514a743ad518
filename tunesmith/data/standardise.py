"""Rules that make texts and labels uniform: first shown with what they would change, then applied, only those that are named.

Texts are repaired before they are cleaned (tunesmith/data/clean.py), which takes away bytes that a repair needs. Rules for labels
carry the whole mapping that was shown, so that a later table gets the same one.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from decimal import Decimal
from enum import StrEnum
from itertools import combinations
from typing import Any

import polars as pl

from tunesmith.core.errors import DataError
from tunesmith.core.records import Issue
from tunesmith.data.columns import NUMBER, Columns, cleaned_label
from tunesmith.data.writing import SEQUENCE, repaired_text

EXAMPLES = 3
EXAMPLE_CHARACTERS, BEFORE = 200, 60
NEAR_LETTERS = 6
Change = Callable[[str], str | None]


class Name(StrEnum):
    """What a rule does, in the order in which rules are applied; those of COUNTED are shown and never applied."""

    MOJIBAKE = "mojibake"
    HTML = "html"
    COMPATIBILITY = "compatibility"
    MISSING = "missing"
    LABEL_SPELLING = "label_spelling"
    LABEL_FORMAT = "label_format"
    LABEL_PERHAPS = "label_perhaps"
    CONTROL = "control_characters"
    QUOTES = "quotes_and_dashes"
    REPEATED = "repeated_characters"
    OTHER_FORMS = "other_compatibility_forms"
    DATE_ORDER = "label_date_order"


NOTES: dict[Name, str] = {
    Name.MOJIBAKE: "UTF-8 that was read in another encoding is put right.",
    Name.HTML: "Tags go, their text stays; entities are read once. Texts that would still hold some stay as they are.",
    Name.COMPATIBILITY: "Full-width and half-width letters, ligatures and mathematical letters become plain ones.",
    Name.MISSING: "Words that stand for a missing value become an empty cell.",
    Name.LABEL_SPELLING: "Spellings that differ in case, spaces and outer punctuation become the most frequent one.",
    Name.LABEL_FORMAT: "Equal numbers and dates written in several ways become one.",
    Name.LABEL_PERHAPS: "Perhaps a typing error: one letter differs.",
    Name.CONTROL: "Control and zero-width characters; cleaning takes them away.",
    Name.QUOTES: "Typographic quotes and dashes.",
    Name.REPEATED: "A letter four times in a row, or a mark three times.",
    Name.OTHER_FORMS: "Other characters with a compatibility form, such as ², ½ and ™; they carry meaning and stay.",
    Name.DATE_ORDER: "Dates of which nobody can tell the day from the month.",
}
COUNTED = (Name.CONTROL, Name.QUOTES, Name.REPEATED, Name.OTHER_FORMS, Name.DATE_ORDER)
LABEL_RULES = (Name.LABEL_SPELLING, Name.LABEL_FORMAT, Name.LABEL_PERHAPS)


@dataclass(frozen=True)
class Rule:
    """What is done to a column. `mapping` has each label that changes and what it becomes (None: missing); texts need none."""

    column: str
    name: Name
    mapping: Mapping[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Proposal:
    """A rule, the rows it would change (or only counts), up to three of them before and after, and what to know about it."""

    rule: Rule
    rows: int
    examples: tuple[tuple[str, str | None], ...]
    note: str

    @property
    def applies(self) -> bool:
        """Whether the rule can be applied; others are only counted."""
        return self.rule.name not in COUNTED

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready fields."""
        return {**asdict(self), "applies": self.applies}


def rule_from_dict(fields: Mapping[str, Any]) -> Rule:
    """The Rule whose `asdict` gave `fields`."""
    return Rule(fields["column"], Name(fields["name"]), dict(fields["mapping"]))


def proposals(table: pl.DataFrame, columns: Columns) -> list[Proposal]:
    """Every rule that would change, or counts, at least one row of the text columns and of the label column."""
    found = [proposal for name in columns.text if table.schema[name] == pl.String for proposal in _text_proposals(table[name])]
    if columns.label and table.schema[columns.label] in (pl.String, pl.List(pl.String)):
        found += _label_proposals(table[columns.label])
    return [proposal for proposal in found if proposal.rows]


def apply(table: pl.DataFrame, rules: Sequence[Rule]) -> tuple[pl.DataFrame, dict[tuple[str, Name], int]]:
    """The table with only these rules applied, and the rows that each changed, by column and name. Again, it changes nothing.

    The order of `rules` does not matter: of two for one label the first by alphabet counts. A row that several change counts for each.

    Raises:
        DataError: a column is missing or holds no text, a rule is one that only counts, or mappings go in a circle.
    """
    issues = [issue for rule in rules for issue in _wrong(table, rule)]
    if issues:
        raise DataError(issues)
    counts = {(rule.column, rule.name): 0 for rule in sorted(rules, key=_place)}
    for column in dict.fromkeys(rule.column for rule in rules):
        mine = sorted((rule for rule in rules if rule.column == column), key=_place)
        names = [rule.name for rule in mine if rule.name in TEXT_RULES and not rule.mapping]
        if names:
            table = table.with_columns(_rewritten(table[column], names, counts))
        mapped = [rule for rule in mine if rule.mapping]
        if mapped:
            table = table.with_columns(_mapped(table[column], mapped, counts))
    return table, counts


def _place(rule: Rule) -> tuple[int, str, str]:
    return list(Name).index(rule.name), rule.column, str(sorted(rule.mapping.items()))


def _wrong(table: pl.DataFrame, rule: Rule) -> Iterable[Issue]:
    where = f"rule {rule.name} on column {rule.column!r}"
    if rule.column not in table.columns:
        yield Issue(where, "must name a column of the table", ", ".join(table.columns[:20]), "Take the rule from this table's proposals.")
    elif table.schema[rule.column] not in (pl.String, pl.List(pl.String)):
        yield Issue(where, "must be on a column of text", str(table.schema[rule.column]), "Leave the rule out.")
    elif rule.name in COUNTED or (rule.name in LABEL_RULES and not rule.mapping):
        yield Issue(where, "must be a rule that changes something", "one that only counts", "Leave the rule out.")
    elif table.schema[rule.column] != pl.String and not rule.mapping:
        yield Issue(where, "must be on a column of text", "lists of labels", "Leave the rule out.")


@dataclass(frozen=True)
class _TextRule:
    """Rows worth looking at (regular expression of polars) and what the text becomes."""

    rows: str
    change: Change


def _text_proposals(texts: pl.Series) -> Iterable[Proposal]:
    for name, rule in TEXT_RULES.items():
        candidates = texts.filter(texts.str.contains(rule.rows).fill_null(False)).to_list()
        changed = [(text, after) for text in candidates if (after := rule.change(text)) != text]
        yield Proposal(Rule(texts.name, name), len(changed), _shown(changed[:EXAMPLES]), NOTES[name] + _html_left(name, candidates))
    for name, pattern in COUNTED_TEXTS.items():
        rows = texts.filter(texts.str.contains(pattern).fill_null(False))
        places = rows.head(EXAMPLES).str.extract(f"(?s)(.{{0,{BEFORE}}}(?:{pattern}).{{0,{BEFORE}}})")
        yield Proposal(Rule(texts.name, name), len(rows), _shown((place, place) for place in places), NOTES[name])
    plain = texts.filter(texts.str.contains(r"[^\x00-\x7f]").fill_null(False)).str.replace_all(COMPATIBLE, "")
    pairs = pl.DataFrame({"before": plain.str.normalize("NFC"), "after": plain.str.normalize("NFKC")}).filter(
        pl.col("before") != pl.col("after")
    )
    other = Rule(texts.name, Name.OTHER_FORMS)
    yield Proposal(other, pairs.height, _shown(pairs.head(EXAMPLES).iter_rows()), NOTES[other.name])


def _html_left(name: Name, candidates: list[str]) -> str:
    left = sum(_html_once(text) != text != _html_once(_html_once(text)) and _without_html(text) == text for text in candidates)
    return f" {left} of them." if name == Name.HTML and left else ""


def _shown(pairs: Iterable[tuple[str, str | None]]) -> tuple[tuple[str, str | None], ...]:
    """The pairs, long ones cut to what stands around the first difference."""
    shown = []
    for before, after in pairs:
        first = next((place for place, (a, b) in enumerate(zip(before, after or "", strict=False)) if a != b), len(after or ""))
        start = max(0, min(first, len(before)) - BEFORE) if before != after else 0
        shown.append((before[start:][:EXAMPLE_CHARACTERS], after if after is None else after[start:][:EXAMPLE_CHARACTERS]))
    return tuple(shown)


def _rewritten(texts: pl.Series, names: Sequence[Name], counts: dict[tuple[str, Name], int]) -> pl.Series:
    """Texts changed by all rules, over and over until none changes them. It ends: each step leaves fewer characters that rules take."""
    wanted = "|".join(f"(?:{TEXT_RULES[name].rows})" for name in names)
    frame = texts.to_frame("text").with_row_index("row").filter(pl.col("text").str.contains(wanted))
    after = []
    for text in frame["text"].to_list():
        now, before, changed = text, None, set[Name]()
        while now is not None and now != before:
            before = now
            for name in names:
                new = now if now is None else TEXT_RULES[name].change(now)
                changed |= {name} if new != now else set()
                now = new
        after.append(now)
        for name in changed:
            counts[texts.name, name] += 1
    return texts.clone().scatter(frame["row"], pl.Series(after, dtype=pl.String)) if after else texts


def _mapped(labels: pl.Series, rules: Sequence[Rule], counts: dict[tuple[str, Name], int]) -> pl.Series:
    """Labels after every mapping, followed to its end; in lists, what becomes missing or stands there already goes."""
    steps = {before: (after, rule.name) for rule in reversed(rules) for before, after in rule.mapping.items() if before != after}
    final: dict[str, str | None] = {}
    used: dict[Name, set[str]] = {}
    for start in steps:
        value: str | None = start
        seen: list[str | None] = []
        while value is not None and value in steps:
            if value in seen:
                found = " → ".join(map(str, [*seen, value]))
                raise DataError(Issue(f"rules on column {labels.name!r}", "must not go in a circle", found, "Leave one of them out."))
            seen.append(value)
            value, name = steps[value]
            used.setdefault(name, set()).add(start)
        final[start] = value
    for name, starts in used.items():
        counts[labels.name, name] += _rows_with(labels, starts)
    old, new = list(final), pl.Series(list(final.values()), dtype=pl.String)
    if labels.dtype == pl.String:
        return labels.replace(old, new)
    lists = labels.list.eval(pl.element().replace(old, new).drop_nulls().unique(maintain_order=True))
    touched = labels.list.eval(pl.element().is_in(old)).list.any().fill_null(False)
    return lists.zip_with(touched, labels)


def _rows_with(labels: pl.Series, values: Collection[str]) -> int:
    if labels.dtype == pl.String:
        return int(labels.is_in(list(values)).sum())
    return int(labels.list.eval(pl.element().is_in(list(values))).list.any().sum())


def _label_proposals(labels: pl.Series) -> Iterable[Proposal]:
    values = labels.explode(empty_as_null=True) if labels.dtype == pl.List else labels
    counts = Counter(values.drop_nulls().to_list())
    for value in sorted(counts):
        if _missing(value) is None:
            yield _label_proposal(labels, Name.MISSING, {value: None}, " It may be a class of its own.")
    counts = Counter({value: count for value, count in counts.items() if _missing(value) is not None})
    spelling = spellings(counts)
    yield _label_proposal(labels, Name.LABEL_SPELLING, spelling)
    counts = _moved(counts, spelling)
    forms, unclear = formats(counts)
    yield _label_proposal(labels, Name.LABEL_FORMAT, forms)
    yield Proposal(
        Rule(labels.name, Name.DATE_ORDER),
        _rows_with(labels, unclear),
        _shown([(v, v) for v in unclear[:EXAMPLES]]),
        NOTES[Name.DATE_ORDER],
    )
    for rare, frequent in near_spellings(_moved(counts, forms)):
        note = f" {counts[rare]} rows against {counts[frequent]}."
        yield _label_proposal(labels, Name.LABEL_PERHAPS, {rare: frequent}, note)


def _label_proposal(labels: pl.Series, name: Name, mapping: Mapping[str, str | None], note: str = "") -> Proposal:
    examples = _shown(sorted(mapping.items(), key=lambda pair: pair[0])[:EXAMPLES])
    return Proposal(Rule(labels.name, name, mapping), _rows_with(labels, mapping), examples, NOTES[name] + note)


def _moved(counts: Counter[str], mapping: Mapping[str, str]) -> Counter[str]:
    moved: Counter[str] = Counter()
    for value, count in counts.items():
        moved[mapping.get(value, value)] += count
    return moved


def spellings(counts: Counter[str]) -> dict[str, str]:
    """Each label that is another spelling of a more frequent one (case, spaces, outer punctuation), and that one."""
    names = list(counts)
    cleaned = dict(
        zip(names, pl.Series(names, dtype=pl.String).to_frame("n").select(cleaned_label(pl.col("n")))["n"].to_list(), strict=True)
    )
    groups: dict[str, Counter[str]] = {}
    for name, count in counts.items():
        key = re.sub(r"(?<=[^\W\d_])[\s_-]+(?=[^\W\d_])", " ", cleaned[name].casefold())
        groups.setdefault(re.sub(r"^[\s.,;:!'\"]+|[\s.,;:!'\"]+$", "", key) or key, Counter())[cleaned[name]] += count
    best = {name: min(group, key=lambda n: (-group[n], n)) for group in groups.values() if len(group) > 1 for name in group}
    return {name: best[clean] for name, clean in cleaned.items() if clean in best and best[clean] != name}


def formats(counts: Counter[str]) -> tuple[dict[str, str], list[str]]:
    """Numbers and dates written otherwise than the same value's usual form, and that form; dates that can be read in two ways.

    A number becomes its most frequent spelling; a date, where there are several forms of dates, 2024-05-01. Day and month of
    01/05/2024 are told from dates of the column that can be read in one way only.
    """
    groups: dict[Decimal, list[str]] = {}
    for name in counts:
        if re.match(NUMBER, name):
            groups.setdefault(Decimal(name.strip()).normalize(), []).append(name)
    best = {name: min(group, key=lambda n: (-counts[n], len(n), n)) for group in groups.values() for name in group}
    mapping = {name: form for name, form in best.items() if form != name}
    iso = {name: match for name in counts if (match := re.fullmatch(r"(\d{4})([-/.])(\d{1,2})\2(\d{1,2})", name.strip()))}
    other = {name: match for name in counts if (match := re.fullmatch(r"(\d{1,2})([-/.])(\d{1,2})\2(\d{4})", name.strip()))}
    first, second = (any(int(match[place]) > 12 for match in other.values()) for place in (1, 3))
    day, month = (1, 3) if first else (3, 1)
    parts = {name: (match[1], match[3], match[4]) for name, match in iso.items()}
    if first != second:
        parts |= {name: (match[4], match[month], match[day]) for name, match in other.items()}
    shapes = {re.sub(r"\d", "0", name) for name in (*iso, *other)}
    dates = {name: form for name, values in parts.items() if (form := _iso_date(*values)) and form != name and len(shapes) > 1}
    return mapping | dates, [name for name in other if first == second and len(shapes) > 1]


def _iso_date(year: str, month: str, day: str) -> str | None:
    try:
        return date(int(year), int(month), int(day)).isoformat()
    except ValueError:
        return None


def near_spellings(counts: Counter[str]) -> list[tuple[str, str]]:
    """Pairs of labels of six letters and more that one letter (other, more, fewer, or two swapped) sets apart; the rarer first."""
    shorter: dict[str, list[str]] = {}
    for name in counts:
        key = name.casefold()
        if sum(map(str.isalpha, key)) >= NEAR_LETTERS:
            for form in {key, *(key[:place] + key[place + 1 :] for place in range(len(key)))}:
                shorter.setdefault(form, []).append(name)
    pairs = {pair for names in shorter.values() for pair in combinations(sorted(names, key=lambda n: (counts[n], n)), 2)}
    return sorted(pair for pair in pairs if _one_edit(*(name.casefold() for name in pair)))


def _one_edit(a: str, b: str) -> bool:
    start = next((place for place, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    a, b = a[start:], b[start:]
    while a and b and a[-1] == b[-1]:
        a, b = a[:-1], b[:-1]
    return (a + b).isalpha() and (max(len(a), len(b)) == 1 or (len(a) == len(b) == 2 and a == b[::-1]))


BLOCKS = (
    "address|article|aside|blockquote|body|br|caption|center|dd|details|dialog|div|dl|dt|fieldset|figcaption|figure|footer|form|frame|"
    "frameset|h1|h2|h3|h4|h5|h6|head|header|hr|html|iframe|li|link|main|menu|meta|nav|noscript|ol|option|p|pre|section|summary|table|"
    "tbody|td|textarea|tfoot|th|thead|title|tr|ul"
)
INLINE = (
    "a|abbr|acronym|b|bdi|bdo|big|button|canvas|cite|code|data|datalist|del|dfn|em|embed|font|i|img|input|ins|kbd|label|map|area|mark|"
    "meter|object|optgroup|output|param|picture|progress|q|rp|rt|ruby|s|samp|select|small|source|span|strike|strong|sub|sup|svg|time|"
    "track|tt|u|var|video|audio|wbr"
)
FLAGS = (
    "allowfullscreen|async|autoplay|checked|controls|default|defer|disabled|hidden|loop|multiple|muted|nowrap|open|readonly|required|"
    "selected"
)
ATTRIBUTES = rf"(?:\s+(?:[\w:@.-]+\s*=\s*(?:\"[^\"<>]*\"|'[^'<>]*'|[^\s\"'<>=`]+)|(?:{FLAGS})))*"
TAG = re.compile(rf"(?i)</?({BLOCKS}|{INLINE}){ATTRIBUTES}\s*/?>|<!doctype\s[^<>]*>")
UNSEEN = re.compile(r"(?is)<!--.*?-->|<(script|style)\b[^<>]*>.*?</\1\s*>")
ENTITY = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")


def _html_once(text: str) -> str:
    """Entities read once, then tags, comments, scripts and styles gone; a tag that breaks a line becomes a space."""
    read = ENTITY.sub(lambda match: html.unescape(match[0]), text)
    return TAG.sub(lambda match: " " if re.fullmatch(BLOCKS, (match[1] or "br").lower()) else "", UNSEEN.sub(" ", read))


def _without_html(text: str) -> str:
    once = _html_once(text)
    return once if _html_once(once) == once else text


COMPATIBLE = "[\uff01-\uff5e\uff61-\uffdc\uffe0-\uffee\ufb00-\ufb06\U0001d400-\U0001d7ff][\u0300-\u036f\u3099\u309a]*"


def _compatible(text: str) -> str:
    return re.sub(f"(?:{COMPATIBLE})+", lambda match: unicodedata.normalize("NFKC", match[0]), text)


PLACEHOLDERS = (
    "n/a|na|n.a.|n.a|#n/a|<na>|null|(null)|none|(none)|nil|nan|#null!|undefined|unknown|missing|tbd|(blank)|(empty)|-|--|---|—|–|?|??|???|"
    "not available|not applicable|keine angabe|sin datos"
)


def _missing(text: str) -> str | None:
    return None if text.strip().casefold() in MISSING else text


MISSING = frozenset(PLACEHOLDERS.split("|"))
TEXT_RULES: dict[Name, _TextRule] = {
    Name.MOJIBAKE: _TextRule(SEQUENCE, repaired_text),
    Name.HTML: _TextRule(r"&#?\w+;|<[/!]?\w", _without_html),
    Name.COMPATIBILITY: _TextRule(COMPATIBLE, _compatible),
    Name.MISSING: _TextRule(r"^\s*[\p{L}#<(?—–-][\p{L} /.)>!?—–-]{0,13}\s*$", _missing),
}
LETTERS = "abcdefghijklmnopqrstuvwxyzäöüéèáàíóúñçабвгдежзийклмнопрстуфхцчшщъыьэюя"
COUNTED_TEXTS = {
    Name.CONTROL: r"[\p{Cc}--[\n\r\t]]|[\u200b-\u200f\u2060-\u2064\ufeff\u00ad]",
    Name.QUOTES: "[‘’‚‛“”„‟«»‹›‐‑‒–—―−]",
    Name.REPEATED: f"(?i:{'|'.join(letter * 4 for letter in LETTERS)})|!!!|" + r"\?\?\?",
}  # fmt: skip

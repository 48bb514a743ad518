"""More training rows from those there are: small edits of a text that keep its label, each from its own seed.

An operation is a function of a text and a generator. It works on whole characters as a reader sees them: an emoji, or a letter with
its accents, is never cut apart. No operation empties a text.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from tunesmith.core.errors import DataError
from tunesmith.core.records import Issue
from tunesmith.core.seeding import seed_for
from tunesmith.data.clean import cleaned_text
from tunesmith.data.near import canonical_text

Operation = Callable[[str, np.random.Generator], str]

CHARACTER_RATE, WORD_RATE, MARK_RATE, SPACE_RATE, LETTER_RATE = 0.05, 0.1, 0.3, 0.1, 0.2
ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
JOINER = "\u200d"
# Letters that join the character before them besides combining marks: Thai and Lao am, half-width kana marks, old Hangul.
ATTACHED = frozenset("\u0e33\u0eb3\uff9e\uff9f\u200c\u200d") | frozenset(map(chr, [*range(0x1160, 0x1200), *range(0x1F3FB, 0x1F400)]))
FLAGS = frozenset(map(chr, range(0x1F1E6, 0x1F200)))
MARKS = ".,;:!?…\"'()-"


def characters(text: str) -> list[str]:
    """The characters of a text as a reader sees them: combining marks, emoji parts and flag letters stay together."""
    if text.isascii():
        return list(text)
    found: list[str] = []
    for letter in text:
        last = found[-1] if found else ""
        joins = (
            letter in ATTACHED
            or unicodedata.category(letter)[0] == "M"
            or "\U000e0020" <= letter <= "\U000e007f"
            or (last.endswith(JOINER) and letter > "\u2000")
            or (letter in FLAGS and len(last) == 1 and last in FLAGS)
        )
        if joins and last and not last.isspace():
            found[-1] += letter
        else:
            found.append(letter)
    return found


def _neighbours() -> dict[str, str]:
    """The letters around each letter on a QWERTY keyboard: beside it, and above and below, where rows are shifted by half a key."""
    place = {letter: (row, column + 0.5 * row) for row, letters in enumerate(ROWS) for column, letter in enumerate(letters)}
    return {
        letter: "".join(other for other, (y, x) in place.items() if other != letter and abs(y - row) <= 1 and abs(x - column) <= 1)
        for letter, (row, column) in place.items()
    }


NEIGHBOURS = _neighbours()


def keyboard(text: str, rng: np.random.Generator, rate: float = CHARACTER_RATE) -> str:
    """Each letter a to z becomes one beside it on the keyboard with this chance; case stays."""
    found = characters(text)
    for place in _drawn([place for place, unit in enumerate(found) if unit.lower() in NEIGHBOURS], rng, rate):
        near = NEIGHBOURS[found[place].lower()]
        letter = near[rng.integers(len(near))]
        found[place] = letter.upper() if found[place].isupper() else letter
    return "".join(found)


def swap_letters(text: str, rng: np.random.Generator, rate: float = CHARACTER_RATE) -> str:
    """Each letter changes places with the next one of its word with this chance; none moves twice."""
    found = characters(text)
    moved = -1
    for place in _drawn([place for place in range(len(found) - 1) if _letter(found[place]) and _letter(found[place + 1])], rng, rate):
        if place > moved:
            found[place], found[place + 1] = found[place + 1], found[place]
            moved = place + 1
    return "".join(found)


def delete_letters(text: str, rng: np.random.Generator, rate: float = CHARACTER_RATE) -> str:
    """Each letter goes with this chance."""
    found = characters(text)
    gone = set(_drawn([place for place, unit in enumerate(found) if _letter(unit)], rng, rate))
    return _kept(text, "".join(unit for place, unit in enumerate(found) if place not in gone))


def insert_letters(text: str, rng: np.random.Generator, rate: float = CHARACTER_RATE) -> str:
    """Each letter stands there twice with this chance, as from a key held too long."""
    found = characters(text)
    for place in _drawn([place for place, unit in enumerate(found) if _letter(unit)], rng, rate):
        found[place] *= 2
    return "".join(found)


def drop_words(text: str, rng: np.random.Generator, rate: float = WORD_RATE) -> str:
    """Each word goes with this chance, and the space before it; one always stays."""
    words, spaces = _words(text)
    gone = set(_drawn(list(range(len(words))), rng, rate))
    if len(gone) == len(words):
        return text
    left = [(spaces[place], word) for place, word in enumerate(words) if place not in gone]
    return _joined([(spaces[0], left[0][1]), *left[1:]], spaces[-1])


def swap_words(text: str, rng: np.random.Generator, rate: float = WORD_RATE) -> str:
    """Each word changes places with the next one with this chance; none moves twice. The spaces stay where they are."""
    words, spaces = _words(text)
    moved = -1
    for place in _drawn(list(range(len(words) - 1)), rng, rate):
        if place > moved:
            words[place], words[place + 1] = words[place + 1], words[place]
            moved = place + 1
    return _joined(list(zip(spaces, words, strict=False)), spaces[-1])


def repeat_words(text: str, rng: np.random.Generator, rate: float = WORD_RATE) -> str:
    """Each word stands there twice with this chance."""
    words, spaces = _words(text)
    again = set(_drawn(list(range(len(words))), rng, rate))
    return _joined(
        [(space, f"{word} {word}" if place in again else word) for place, (space, word) in enumerate(zip(spaces, words, strict=False))],
        spaces[-1],
    )


def lower_case(text: str, rng: np.random.Generator) -> str:
    """The text in small letters."""
    return unicodedata.normalize("NFC", text.lower())


def upper_case(text: str, rng: np.random.Generator) -> str:
    """The text in capitals."""
    return unicodedata.normalize("NFC", text.upper())


def title_case(text: str, rng: np.random.Generator) -> str:
    """The first letter of each word as a capital; the others stay."""
    return _first_letters(text, lambda word: True)


def random_capitals(text: str, rng: np.random.Generator, rate: float = LETTER_RATE) -> str:
    """The first letter of each word changes between small and capital with this chance."""
    return _first_letters(text, lambda word: rng.random() < rate, flip=True)


def expand(text: str, rng: np.random.Generator, rate: float = 1.0) -> str:
    """English contractions written out with this chance: "don't" becomes "do not"; "it's" becomes "it is"."""
    return _replaced(text, SHORT, rng, rate)


def contract(text: str, rng: np.random.Generator, rate: float = 1.0) -> str:
    """English words contracted with this chance: "do not" becomes "don't", before "it is" becomes "it's"."""
    return _replaced(_replaced(text, LONG_NOT, rng, rate), LONG, rng, rate)


def drop_marks(text: str, rng: np.random.Generator, rate: float = MARK_RATE) -> str:
    """Each punctuation mark goes with this chance; those inside words stay."""
    return _kept(
        text, re.sub(rf"(?<!\w)[{re.escape(MARKS)}]|[{re.escape(MARKS)}](?!\w)", lambda m: "" if rng.random() < rate else m[0], text)
    )


def add_marks(text: str, rng: np.random.Generator, rate: float = MARK_RATE / 3) -> str:
    """A comma after words with this chance, where no mark is, and a mark at the end where there is none."""
    added = re.sub(r"(?<=\w)(?=[ ]\w)", lambda m: "," if rng.random() < rate else "", text)
    return added + ("" if not added.strip() or added.rstrip()[-1] in MARKS else str(rng.choice([".", "!", "...", "?"])))


def spaces(text: str, rng: np.random.Generator, rate: float = SPACE_RATE) -> str:
    """Each space between words doubles with half of this chance, and goes with the other half."""
    return re.sub(r"(?<=\S)[ ](?=\S)", lambda m: ("  ", "")[rng.integers(2)] if rng.random() < rate else " ", text)


OPERATIONS: dict[str, Operation] = {
    "keyboard": keyboard,
    "swap_letters": swap_letters,
    "delete_letters": delete_letters,
    "insert_letters": insert_letters,
    "drop_words": drop_words,
    "swap_words": swap_words,
    "repeat_words": repeat_words,
    "lower_case": lower_case,
    "upper_case": upper_case,
    "title_case": title_case,
    "random_capitals": random_capitals,
    "expand": expand,
    "contract": contract,
    "drop_marks": drop_marks,
    "add_marks": add_marks,
    "spaces": spaces,
}


def augmented(
    rows: pl.DataFrame, operations: Sequence[str], copies: int, seed: int, paraphrases: Mapping[str, str] | None = None
) -> pl.DataFrame:
    """`copies` new rows for each row, in its order: other columns stay, and `from` has the id of the row it comes from.

    rows: with `id` and `text`. Each new row has one operation, drawn by its own seed; where it changes nothing the next is tried.
    The new `id` is that of the row, "+" and the number of the copy; `operations` names what was done. `unchanged` is true where
    no operation changed anything: sum it, and leave these rows out. A copy whose id is in `paraphrases` has that text instead.

    Raises:
        DataError: an operation has no such name, there is none, or there are columns missing.
    """
    _check(rows, operations, copies, paraphrases)
    said = paraphrases or {}
    made = [
        (said[f"{row}+{copy}"], "paraphrase") if f"{row}+{copy}" in said else _copy(text, f"augment {row} {copy}", operations, seed)
        for row, text in rows.select("id", "text").iter_rows()
        for copy in range(1, copies + 1)
    ]
    repeated = rows[np.repeat(np.arange(rows.height), copies)]
    number = pl.Series([str(1 + place % copies) for place in range(len(made))], dtype=pl.String)
    used = pl.Series("operations", [[name] if name else [] for _, name in made], dtype=pl.List(pl.String))
    return repeated.with_columns(
        (repeated["id"] + "+" + number).alias("id"),
        repeated["id"].alias("from"),
        pl.Series("text", [text for text, _ in made], dtype=pl.String),
        used,
        pl.Series("unchanged", [not name for _, name in made], dtype=pl.Boolean),
    )


def usable_paraphrases(rows: pl.DataFrame, said: pl.DataFrame) -> tuple[dict[str, str], dict[str, int]]:
    """Text by id of the copies that have one to use, cleaned as texts are, and how many have none for which reason.

    rows: with `id` and `text`. said: `id`, `from`, `text`, `problem` of each copy. Reasons are the problems, and empty, unchanged
    (but for case, punctuation or spacing), and repeated (an earlier copy of the row says the same).
    """
    origin = rows.select(pl.col("id").alias("from"), canonical_text(rows["text"]).alias("was"))
    table = said.with_columns(cleaned_text(pl.col("text"))).join(origin, on="from", how="left", maintain_order="left")
    table = table.with_columns(canonical_text(table["text"]).alias("is"))
    reason = (
        pl.when(pl.col("problem") != "").then(pl.col("problem")).when(pl.col("text") == "").then(pl.lit("empty"))
        .when(pl.col("is") == pl.col("was")).then(pl.lit("unchanged"))
        .when(~pl.struct("from", "is").is_first_distinct()).then(pl.lit("repeated"))
    )  # fmt: skip
    table = table.with_columns(reason.alias("reason"))
    counts = table["reason"].drop_nulls().value_counts().sort("reason")
    used = table.filter(pl.col("reason").is_null())
    return dict(used.select("id", "text").iter_rows()), dict(counts.iter_rows())


def preview(
    rows: pl.DataFrame, operations: Sequence[str], seed: int, most: int = 5, paraphrases: Mapping[str, str] | None = None
) -> list[dict[str, Any]]:
    """The first rows `before` and `after` and the `operation`, None where nothing changed: what `augmented` gives as first copies."""
    first = rows.head(most)
    made = augmented(first, operations, 1, seed, paraphrases)
    return [
        {"id": row, "before": before, "after": after, "operation": used[0] if used else None}
        for (row, before), (after, used) in zip(
            first.select("id", "text").iter_rows(), made.select("text", "operations").iter_rows(), strict=True
        )
    ]


def _check(rows: pl.DataFrame, operations: Sequence[str], copies: int, paraphrases: Mapping[str, str] | None) -> None:
    issues = [
        Issue("augmentation", f"must be one of {', '.join(OPERATIONS)}", name, "Correct the name.")
        for name in operations
        if name not in OPERATIONS
    ]
    if not operations and paraphrases is None:
        issues.append(Issue("augmentation", "must have an operation", "none", f"Choose from {', '.join(OPERATIONS)}."))
    issues += [
        Issue(f"column {name!r}", "must be in the rows to augment", "", "Clean the rows first.")
        for name in ("id", "text")
        if name not in rows.columns
    ]
    if copies < 0:
        issues.append(Issue("augmentation", "must make 0 copies of each row or more", str(copies), "0 makes none."))
    if issues:
        raise DataError(issues)


def _copy(text: str, stream: str, operations: Sequence[str], seed: int) -> tuple[str, str | None]:
    """The text after the first operation, in an order drawn for it, that changes it, and that operation's name."""
    rng = np.random.Generator(np.random.PCG64(seed_for(seed, stream)))
    for place in rng.permutation(len(operations)):
        after = _kept(text, OPERATIONS[operations[place]](text, rng))
        if after != text:
            return after, operations[place]
    return text, None


def _kept(text: str, after: str) -> str:
    """What an operation made of the text, or the text itself if nothing but whitespace is left."""
    return after if after.strip() else text


def _letter(unit: str) -> bool:
    return unit[0].isalpha()


def _drawn(places: list[int], rng: np.random.Generator, rate: float) -> list[int]:
    return [place for place, draw in zip(places, rng.random(len(places)), strict=True) if draw < rate]


def _words(text: str) -> tuple[list[str], list[str]]:
    """The words, and the whitespace before each and after the last: one more than words."""
    return re.findall(r"\S+", text), re.split(r"\S+", text)


def _joined(pairs: Sequence[tuple[str, str]], end: str) -> str:
    """A text from words, each with the space before it, and the space after the last."""
    return "".join(space + word for space, word in pairs) + end


def _first_letters(text: str, wanted: Callable[[str], bool], flip: bool = False) -> str:
    """The first letter of each wanted word as a capital, or with `flip` a capital as a small letter too."""

    def changed(match: re.Match[str]) -> str:
        found = characters(match[0])
        first = next((place for place, unit in enumerate(found) if unit[0].isalnum()), None)
        if first is None or not _letter(found[first]) or not wanted(match[0]):
            return match[0]
        unit = found[first]
        found[first] = unit.lower() if flip and unit != unit.lower() else unit.title()
        return "".join(found)

    return unicodedata.normalize("NFC", re.sub(r"\S+", changed, text))


VERBS = "is are was were do does did have has had would should could must need might"


def _short_forms() -> dict[str, str]:
    """English contractions and what they stand for. Those with 'd stand for two things (had, would) and are left out."""
    not_forms = {f"{verb}n't": f"{verb} not" for verb in VERBS.split()}
    endings = {
        "'re": ("are", "you we they"),
        "'s": ("is", "he she it that there here what who where how"),
        "'ve": ("have", "i you we they"),
        "'ll": ("will", "i you he she it we they that there"),
    }
    joined = {word + end: f"{word} {verb}" for end, (verb, words) in endings.items() for word in words.split()}
    return not_forms | joined | {"won't": "will not", "can't": "cannot", "i'm": "i am", "let's": "let us"}


SHORT = _short_forms()
LONG_NOT = {long: short for short, long in SHORT.items() if short.endswith("n't")}
LONG = {long: short for short, long in SHORT.items() if not short.endswith("n't")}


def _replaced(text: str, table: Mapping[str, str], rng: np.random.Generator, rate: float) -> str:
    """The words of the table replaced with this chance, in the case they have: small, Capital or CAPITALS; others stay."""

    def changed(match: re.Match[str]) -> str:
        found = match[0].replace("’", "'")
        regular = found.isupper() or found[1:] == found[1:].lower()
        if not regular or rng.random() >= rate:
            return match[0]
        other = table[found.lower()]
        return other.upper() if found.isupper() else f"{found[0]}{other[1:]}"

    words = "|".join(re.escape(word).replace("'", "['’]") for word in table)
    return re.sub(rf"(?i)(?<![\w'’])(?:{words})(?![\w'’])", changed, text)

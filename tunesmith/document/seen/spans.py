"""Rows with spans: the windows over a text, the tag that the first token of each word carries, and which window answers which word."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

from tunesmith.data.tags import OUTSIDE, runs_of
from tunesmith.document.formats import counted, formatted
from tunesmith.document.seen.tokens import Mark, Strip
from tunesmith.document.seen.view import Chip, Fact, Learned, Look, SeenRow
from tunesmith.tasks.base import Encoded
from tunesmith.tasks.token_classification import IGNORED, TokenClassification, Words
from tunesmith.tasks.windows import WINDOW

SHOWN = 4
"""Windows of a row that are shown."""
NONE = "no span"
Span = tuple[int, int, str]


def types(learned: Learned) -> list[set[str]]:
    """The types of the spans that each row is trained on."""
    return [{name for _, _, name in trained(learned, number)} or {NONE} for number in range(len(learned.rows))]


def draw(learned: Learned, number: int) -> SeenRow:
    """The windows of the text with their tags, and the spans that the tags say."""
    windows, text = learned.encoded(number), str(learned.rows["text"][number])
    shown = sorted([*dict.fromkeys([0, len(windows) - 1, *range(len(windows))])][:SHOWN])
    hues = {name: place for place, name in enumerate(learned.task.labels)}
    strips = [_strip(learned, windows, place, hues) for place in shown]
    said, given = trained(learned, number), labelled(learned, number)
    chips = [Chip(text[start:end], hues[name], name) for start, end, name in said] or [Chip(NONE)]
    parted = ("Labelled, and not trained on as it is", given, said), ("Trained on instead", said, given)
    notes = [f"{what}: “{text[a:b]}” ({name})." for what, here, there in parted for a, b, name in here if (a, b, name) not in there]
    return SeenRow(strips, chips, notes, more=len(windows) - len(shown))


def trained(learned: Learned, number: int) -> list[Span]:
    """The spans that the tags of a row say, in characters."""
    windows = learned.encoded(number)
    places = windows[0][WINDOW].places
    tags = [OUTSIDE] * len(places)
    for row in windows:
        for token, word in zip(row[WINDOW].at_W, row[WINDOW].number_W, strict=True):
            tags[word] = _tag(learned, row, token)
    return [(places[first][0], places[end - 1][1], name) for first, end, name in runs_of(tags)[0]]


def labelled(learned: Learned, number: int) -> list[Span]:
    """The spans of the table."""
    return [(span["start"], span["end"], span["label"]) for span in learned.rows["label"][number].to_list()]


def facts(learned: Learned) -> list[Fact]:
    """How many tokens carry a tag, and how many spans training sees otherwise than they were labelled."""
    rows, total = learned.encoding.rows, len(learned.rows)
    tokens, tagged = sum(learned.encoding.lengths), sum(len(row["labels"]) - row["labels"].count(IGNORED) for row in rows)
    inside = tagged - sum(row["labels"].count(0) for row in rows)
    given = [labelled(learned, number) for number in range(total)]
    differ = sum(len(set(spans) - set(trained(learned, number))) for number, spans in enumerate(given))
    share = f"{formatted(tagged / max(tokens, 1), 'percent')} of all tokens"
    several = sum(len(windows) > 1 for windows in learned.places.values())
    return [
        Fact("tokens that carry a tag", share, f"{counted(tagged)} of {counted(tokens)}; {counted(inside)} in spans"),
        Fact("windows", counted(len(rows)), f"{counted(several)} rows have several, which share a quarter"),
        Fact("spans trained on otherwise", counted(differ), f"of {counted(sum(map(len, given)))} labelled ones"),
    ]


def legend(learned: Learned) -> list[Chip]:
    """The types, with how many spans of each are trained on."""
    counts = Counter(name for number in range(len(learned.rows)) for _, _, name in trained(learned, number))
    return [
        Chip(name, place, f"{counted(counts[name])} {'span' if counts[name] == 1 else 'spans'}")
        for place, name in enumerate(learned.task.labels)
    ]


def _strip(learned: Learned, windows: list[Encoded], place: int, hues: dict[str, int]) -> Strip:
    row = windows[place]
    words: Words = row[WINDOW]
    marks = _marks(learned, row, hues)
    name = "text" if len(windows) == 1 else f"window {place + 1} of {len(windows)}"
    answered = len(words.number_W)
    note = f"answers {counted(answered)} of {counted(len(words.places))} words"
    if answered and len(windows) > 1:
        first, last = (counted(words.number_W[end] + 1) for end in (0, -1))
        note += f", from word {first} to word {last}; pale tokens are only read here"
    return learned.strip(name, row, marks=marks, note=note)


def _marks(learned: Learned, row: Encoded, hues: dict[str, int]) -> dict[int, Mark]:
    """The tag of the first token of each word, its colour on the rest of the word, and which tokens are only read."""
    words: Words = row[WINDOW]
    ids, reader = row["input_ids"], learned.reader
    marks: dict[int, Mark] = {}
    begun = [*zip(words.at_W, words.number_W, strict=True), (len(ids), len(words.places))]
    for (token, number), (after, following) in pairwise(begun):
        tag = _tag(learned, row, token)
        hue = None if tag == OUTSIDE else hues[tag[2:]]
        marks[token] = Mark(tag, hue)
        for rest in range(token + 1, after):
            if ids[rest] in reader.special or (following != number + 1 and not reader.joins(ids[rest])):
                break
            marks[rest] = Mark("", hue)
    return {token: marks.get(token, Mark(faint=True)) for token in range(len(ids)) if ids[token] not in reader.special}


def _tag(learned: Learned, row: Encoded, token: int) -> str:
    task = learned.task
    assert isinstance(task, TokenClassification), "spans are of this task"
    place: int = row["labels"][token]
    return task.tags[place]


LOOK = Look(types, draw, facts, legend, unit="")

"""Rows with questions: the windows over a text, the answer in the windows that hold it, and where windows say that there is none.

Shape suffixes: T = tokens of a window.
"""

from __future__ import annotations

from typing import Any

from tunesmith.document.formats import counted, formatted
from tunesmith.document.seen.tokens import Mark, Strip
from tunesmith.document.seen.view import Chip, Fact, Learned, Look, SeenRow
from tunesmith.tasks.base import Encoded
from tunesmith.tasks.windows import WINDOW, Window

SHOWN = 4
"""Windows of a row that are shown."""
ANSWER = 1
"""The number of the colour of answers."""


def types(learned: Learned) -> list[set[str]]:
    """Whether each row has an answer, and whether it has several windows."""
    answered = ["an answer" if count else "no answer" for count in learned.rows["label"].list.len()]
    return [{name} | ({"several windows"} if len(learned.places[number]) > 1 else set()) for number, name in enumerate(answered)]


def draw(learned: Learned, number: int) -> SeenRow:
    """The windows that hold the answer, then others, in the order of the text."""
    windows, answers = learned.encoded(number), learned.rows["label"][number].to_list()
    held = [place for place, row in enumerate(windows) if _holds(row)]
    order = dict.fromkeys([*held[: SHOWN - 1], 0, len(windows) - 1, *range(len(windows))])
    shown = sorted([*order][:SHOWN])
    strips = [_strip(learned, number, windows, place) for place in shown]
    chips = [_chip(answer, place) for place, answer in enumerate(answers)] or [Chip("no answer", note="the text holds none")]
    notes = [note for row in windows if _holds(row) for note in _differences(row, answers[0]["text"])][:1]
    if answers and not held:
        notes.append("No window holds the whole answer: every window of this row says that there is none.")
    if not answers or len(held) < len(windows):
        token = learned.reader.read([windows[0]["input_ids"][windows[0][WINDOW].nothing]])[0][0]
        notes.append(f"A window without the answer points at {token}, which stands for none.")
    return SeenRow(strips, chips, notes, more=len(windows) - len(shown))


def facts(learned: Learned) -> list[Fact]:
    """How many windows there are, how many of them hold an answer, and answers that none holds."""
    rows, total = learned.encoding.rows, len(learned.rows)
    held = sum(map(_holds, rows))
    empty = int((learned.rows["label"].list.len() == 0).sum())
    lost = sum(not any(map(_holds, learned.encoded(number))) for number in range(total)) - empty
    windows = f"{formatted(held / max(len(rows), 1), 'percent')} of {counted(len(rows))} windows"
    return [
        Fact("windows that hold an answer", windows, f"{counted(held)}; the others are trained to say that there is none"),
        Fact("questions without an answer", counted(empty), f"of {counted(total)}"),
        Fact("answers that no window holds", counted(lost), "they are trained as if there were none" if lost else ""),
    ]


def may_be_cut(learned: Learned, number: int) -> bool:
    """True where the question takes all the room that it may take."""
    return _full(learned, learned.encoded(number)[0])


def _full(learned: Learned, row: Encoded) -> bool:
    return bool(row[WINDOW].first >= learned.max_length // 2)


def _strip(learned: Learned, number: int, windows: list[Encoded], place: int) -> Strip:
    """A window with the answer marked, and what it shares with its neighbours."""
    row, reader = windows[place], learned.reader
    kept = reader.halves(row, pair=True)
    whole = [reader.halves(learned.whole(number)[0], pair=True)[0], kept[1]] if _full(learned, row) else None
    said = "holds the answer" if _holds(row) else "does not hold the answer"
    said = said if learned.rows["label"][number].len() else "there is no answer"
    marks = _shared(windows, place) | _targets(row)
    name = f"window {place + 1} of {len(windows)}: {said}"
    strip = reader.strip(name, kept, whole, marks)
    faint = sum(mark.faint for mark in marks.values())
    note = f"{counted(faint)} tokens stand in a neighbouring window too" if faint else ""
    return Strip(**{**vars(strip), "note": note, "tone": "good" if _holds(row) else ""})


def _targets(row: Encoded) -> dict[int, Mark]:
    """The tokens that the row is trained to point at, and those between them."""
    start, end = row["labels"]
    if not _holds(row):
        return {start: Mark("none", ANSWER)}
    tags = {start: "start", end: "end"} if end > start else {start: "start, end"}
    return {token: Mark(tags.get(token, ""), ANSWER) for token in range(start, end + 1)}


def _shared(windows: list[Encoded], place: int) -> dict[int, Mark]:
    """The tokens that stand in the window before or in the one after too."""
    window: Window = windows[place][WINDOW]
    before = int(windows[place - 1][WINDOW].spans_T2[-1, 1]) if place else 0
    after = int(windows[place + 1][WINDOW].spans_T2[0, 0]) if place + 1 < len(windows) else 10**12
    both = enumerate(window.spans_T2.tolist(), window.first)
    return {token: Mark(faint=True) for token, (start, end) in both if end > start and (end <= before or start >= after)}


def _holds(row: Encoded) -> bool:
    """True where the targets of a window are a span of its text."""
    nothing = row[WINDOW].nothing
    return bool(tuple(row["labels"]) != (nothing, nothing))


def _chip(answer: dict[str, Any], place: int) -> Chip:
    role = "learned" if place == 0 else "counts in scores alone"
    return Chip(answer["text"], ANSWER if place == 0 else None, f"at character {counted(answer['start'])}; {role}")


def _differences(row: Encoded, answer: str) -> list[str]:
    """What is said where the tokens of an answer cover other characters than the answer."""
    window: Window = row[WINDOW]
    first, last = (token - window.first for token in row["labels"])
    covered = window.text[int(window.spans_T2[first, 0]) : int(window.spans_T2[last, 1])]
    return [] if covered == answer else [f"Its tokens cover “{covered}”, the answer is “{answer}”."]


LOOK = Look(types, draw, facts, may_be_cut=may_be_cut, unit="questions")

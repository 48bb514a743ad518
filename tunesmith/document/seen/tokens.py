"""Tokens as readers see them: what the ids of an encoded text stand for, where it was cut, and which of many tokens are shown."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from tunesmith.tasks.base import Encoded
from tunesmith.tasks.windows import WINDOW, Window

Halves = Sequence[Sequence[int]]
"""The ids of an encoded text, or those of a pair up to its second text and from there on."""
LOST_SHOWN = 40
"""Tokens of what was cut that are shown."""
AROUND = 12
"""Tokens that are shown on either side of a marked one, where not all are."""
LONGEST_CHARACTER = 8
"""Tokens that one character may be made of."""
BROKEN, SPACE = "\ufffd", "␣"
SIGNS = {"\n": "↵", "\r": "↵", "\t": "⇥"}
BLANK = "\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0"
"""Characters that are called letters, marks or symbols, and show nothing."""


@dataclass(frozen=True)
class Mark:
    """What a token is for: the tag written under it, the number of its colour, and whether it is only read and not answered."""

    tag: str = ""
    hue: int | None = None
    faint: bool = False


@dataclass(frozen=True)
class Token:
    """A token: its id, its entry in the vocabulary, what it stands for (nothing for the rest of a character), and its mark.

    `joined`: it continues the word before it. `part`: 0, or 1 for the second text of a pair. `lost`: it was cut, the model does not
    read it.
    """

    id: int
    raw: str
    text: str
    joined: bool
    special: bool
    unknown: bool
    part: int
    lost: bool
    mark: Mark


@dataclass(frozen=True)
class Gap:
    """Tokens that are not shown, all of them read or all of them cut."""

    count: int
    lost: bool


@dataclass(frozen=True)
class Strip:
    """An encoded text: all ids that the model reads, and the tokens that are shown, with those that were cut in their place.

    `limit` is the most tokens there may be, `lost` counts those that were cut, `foreign` the special tokens that the text itself holds.
    """

    name: str
    ids: list[int]
    pieces: list[Token | Gap]
    limit: int | None
    lost: int
    foreign: int
    rtl: bool
    tone: str = ""
    note: str = ""


@dataclass(frozen=True)
class Place:
    """A token of a text before it was cut: its id, its place among those that were kept, and which text of a pair it is of."""

    id: int
    at: int | None
    part: int


class Reader:
    """Reads encoded texts back, a token at a time, with the tokenizer that made them.

    Args:
        processor: the tokenizer.
        limit: most tokens of an encoded text.
        most: tokens of a text that are shown.
    """

    def __init__(self, processor: Any, limit: int, most: int) -> None:
        self.processor, self.limit, self.most = processor, limit, most
        others = (processor.eos_token_id, processor.bos_token_id, processor.pad_token_id, processor.cls_token_id, processor.sep_token_id)
        self.unknown = None if processor.unk_token_id in others else processor.unk_token_id  # GPT-2 has one for all
        self.special = frozenset(processor.all_special_ids) - {self.unknown}
        self._anchor: list[str] = processor.convert_ids_to_tokens(processor("a", add_special_tokens=False)["input_ids"])[:1]
        self._before: str = processor.convert_tokens_to_string(self._anchor)
        self._spaced = self._anchor == ["a"] and processor.convert_tokens_to_string(["a", "a"]) == "a a"
        self._said: dict[tuple[str, ...], str] = {}
        probe = processor("a", "a")
        owners = probe.sequence_ids(0)
        second = owners.index(1)
        self._between: list[int] = [n for n, owner in zip(probe["input_ids"][:second], owners, strict=False) if owner is None]
        self._between = self._between[owners.index(0) :]

    def halves(self, row: Encoded, pair: bool) -> Halves:
        """The ids of an encoded row, cut where the second text of a pair begins."""
        ids: list[int] = row["input_ids"]
        if not pair:
            return [ids]
        begin = self._second(row)
        return [ids[:begin], ids[begin:]]

    def strip(self, name: str, kept: Halves, whole: Halves | None = None, marks: Mapping[int, Mark] | None = None) -> Strip:
        """What the model reads, beside what it would read were nothing cut.

        Args:
            name: what the text is.
            kept: its ids.
            whole: its ids before it was cut; the same where it was not.
            marks: marks of tokens by their place among the kept ones.
        """
        places, marks = merged(kept, whole or kept), marks or {}
        chosen = self._chosen(places, marks)
        pieces: list[Token | Gap] = []
        for shown, run in groupby(range(len(places)), key=lambda n: n in chosen):
            some = [places[n] for n in run]
            pieces += self._tokens(some, marks) if shown else gaps(some)
        ids = [token for half in kept for token in half]
        foreign = sum(token in self.special for token in ids) - self.processor.num_special_tokens_to_add(len(kept) > 1)
        tokens = [piece for piece in pieces if isinstance(piece, Token)]
        return Strip(name, ids, pieces, self.limit, sum(place.at is None for place in places), max(foreign, 0), is_rtl(tokens))

    def joins(self, token: int) -> bool:
        """True for a token that continues a word."""
        raw: str = self.processor.convert_ids_to_tokens(token)
        return token not in self.special and self._joins(raw, self._read([raw]))

    def read(self, ids: Sequence[int]) -> list[tuple[str, bool]]:
        """What each token stands for, and whether it continues the word before it; "" for the rest of a character of several tokens."""
        raws = self.processor.convert_ids_to_tokens(list(ids))
        out: list[tuple[str, bool]] = []
        fresh = True
        while len(out) < len(ids):
            begin = len(out)
            if ids[begin] in self.special or ids[begin] == self.unknown:
                out.append((visible(raws[begin]), False))
                fresh = ids[begin] in self.special
                continue
            end = begin + 1
            while BROKEN in (said := self._read(raws[begin:end])) and end < min(len(ids), begin + LONGEST_CHARACTER):
                end += 1
            if BROKEN in said:
                end, said = begin + 1, raws[begin]
            joined = self._joins(raws[begin], said) and not fresh
            out += [(visible(said.removeprefix(" ")) or SPACE, joined), *[("", True)] * (end - begin - 1)]
            fresh = False
        return out

    def _joins(self, raw: str, said: str) -> bool:
        """True where a token continues a word: it holds no space, or carries the sign of what is put on without one."""
        return said.strip() != raw if self._spaced else said == " " or not said.startswith(" ")

    def _read(self, raws: Sequence[str]) -> str:
        """What tokens of the vocabulary stand for in the middle of a text, the space before them included."""
        key = tuple(raws)
        if key not in self._said:
            said: str = self.processor.convert_tokens_to_string([*self._anchor, *raws])
            self._said[key] = said.removeprefix(self._before)
        return self._said[key]

    def _second(self, row: Encoded) -> int:
        """The place of the first token of the second text of a pair."""
        ids, types = row["input_ids"], row.get("token_type_ids", [])
        if isinstance(window := row.get(WINDOW), Window):
            return window.first or len(ids)
        if 1 in types:
            return int(types.index(1))
        size = len(self._between)  # no types tell the texts apart: by what stands between them
        return next((n + size for n in range(1, len(ids)) if size and ids[n : n + size] == self._between), len(ids))

    def _chosen(self, places: Sequence[Place], marks: Mapping[int, Mark]) -> set[int]:
        """Numbers of the places that are shown: all, or the first, the last and those round marks."""
        kept, lost = ([n for n, place in enumerate(places) if (place.at is None) is cut] for cut in (False, True))
        chosen = set(lost[:LOST_SHOWN])
        if len(kept) <= self.most:
            return chosen.union(kept)
        chosen.update(kept[: self.most // 2], kept[len(kept) - self.most // 8 :])
        room = self.most - len(chosen.difference(lost))
        for number in kept:
            if marks.get(places[number].at or 0, Mark()).hue is None:
                continue
            near = range(max(number - AROUND, 0), min(number + AROUND + 1, len(places)))
            fresh = sorted(set(near).difference(chosen, lost), key=lambda n: abs(n - number))[:room]
            chosen.update(fresh)
            room -= len(fresh)
        return chosen

    def _tokens(self, places: Sequence[Place], marks: Mapping[int, Mark]) -> list[Token]:
        ids = [place.id for place in places]
        raws = self.processor.convert_ids_to_tokens(ids)
        out = []
        for place, raw, (text, joined) in zip(places, raws, self.read(ids), strict=True):
            mark = Mark() if place.at is None else marks.get(place.at, Mark())
            special, unknown = place.id in self.special, place.id == self.unknown
            out.append(Token(place.id, visible(raw), text, joined, special, unknown, place.part, place.at is None, mark))
        return out


def merged(kept: Halves, whole: Halves) -> list[Place]:
    """The tokens of a text before it was cut: each half loses one stretch, at its end or at its beginning."""
    out: list[Place] = []
    before = 0
    for part, (short, full) in enumerate(zip(kept, whole, strict=True)):
        same = min(len(short), len(full))
        start = next((n for n in range(same) if short[n] != full[n]), same)
        end = next((n for n in range(same - start) if short[-1 - n] != full[-1 - n]), same - start)
        stop = len(short) - end
        out += [Place(token, before + n, part) for n, token in enumerate(short[:stop])]
        out += [Place(token, None, part) for token in full[start : len(full) - end]]
        out += [Place(token, before + stop + n, part) for n, token in enumerate(short[stop:])]
        before += len(short)
    return out


def gaps(places: Iterable[Place]) -> list[Token | Gap]:
    """What stands for places that are not shown."""
    return [Gap(sum(1 for _ in run), lost) for lost, run in groupby(places, key=lambda place: place.at is None)]


def visible(text: str) -> str:
    """The text with nothing invisible in it: controls, marks of direction and characters of no width become their codes."""
    shown = "".join(_shown(character) for character in text)
    alone = text and all(unicodedata.category(c).startswith("M") for c in text)
    if alone and all(_selects(c) for c in text):
        return "".join(_code(c) for c in text)
    return f"◌{shown}" if text and unicodedata.category(text[0]).startswith("M") else shown


def is_rtl(tokens: Iterable[Token]) -> bool:
    """True where most letters of the tokens are written from right to left."""
    kinds = [unicodedata.bidirectional(c) for token in tokens if not token.special for c in token.text]
    return sum(kind in ("R", "AL") for kind in kinds) > kinds.count("L")


def _shown(character: str) -> str:
    if character in SIGNS:
        return SIGNS[character]
    kind = unicodedata.category(character)
    if kind in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp") or character in BLANK:
        return _code(character)
    return SPACE if kind == "Zs" and character != " " else character


def _code(character: str) -> str:
    return f"U+{ord(character):04X}"


def _selects(character: str) -> bool:
    """True for what only chooses among the forms of the character before it."""
    return 0xFE00 <= ord(character) <= 0xFE0F or 0xE0100 <= ord(character) <= 0xE01EF

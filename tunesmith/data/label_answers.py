"""Answers that are probably those of another question: what tells an answer from the other answers in its text, as numbers.

A weak judge: it knows where words of the question stand, and which form of answers goes with how a question begins; it understands
neither. It needs texts about which several questions are asked, for the answers of the others are what a wrong answer looks like.
Shape suffixes: N = pairs of a question and an answer, K = numbers of a pair.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tunesmith.data.label_numbers import Floats, deviations

WORD = re.compile(r"\w+")
SENTENCE_END = re.compile(r"(?<=[.!?。！？])\s+")
STEM, BEGINNINGS, NEAR = 5, 8, 60
"""Letters of a word that are compared; beginnings of questions that are told apart, of one word and of two; characters that are near."""
ODD = 2.5
"""Robust standard deviations of the judge's logit below the median: see LOG.md for what that finds among planted errors."""


@dataclass(frozen=True)
class Candidates:
    """Pairs of a question and an answer of its text: the row of each, whether the answer is the row's own, and its numbers (N, K)."""

    row_N: np.ndarray
    own_N: np.ndarray
    numbers_NK: Floats


def candidates(questions: Sequence[str], texts: Sequence[str], answers: Sequence[Sequence[dict[str, Any]]]) -> Candidates:
    """Each row's first answer, and the other answers of its text; nothing for rows without an answer or without others to compare with.

    Args:
        questions: one a row.
        texts: those that the questions are about.
        answers: text and start of each answer, for each row.
    """
    of_text: dict[str, dict[str, dict[str, Any]]] = {}
    for text, given in zip(texts, answers, strict=True):
        if given:
            of_text.setdefault(text, {}).setdefault(given[0]["text"], given[0])
    read = {text: _Read(text, known.values()) for text, known in of_text.items() if len(known) > 1}
    weight, begins = _weights(read.values()), _beginnings(questions)
    rows, own, numbers = list[int](), list[bool](), list[list[float]]()
    for row, (question, text, given) in enumerate(zip(questions, texts, answers, strict=True)):
        if not given or text not in read:
            continue
        asked = {stem for stem in _stems(question) if weight.get(stem, 1.0) > 0}
        place = np.eye(len(begins) + 1)[_beginning(question, begins)]
        for name, answer in of_text[text].items():
            rows.append(row)
            own.append(name == given[0]["text"])
            stands = given[0] if own[-1] else answer
            numbers.append([*read[text].place(asked, stands, weight), *np.outer(place, _form(name)).ravel()])
    return Candidates(np.array(rows, np.int64), np.array(own, np.bool_), np.array(numbers, np.float64))


def odd_answers(logit_N: Floats) -> list[tuple[int, float]]:
    """Places of the lowest logits, the lowest first, each with how many robust standard deviations it is below the median."""
    off_N = deviations(logit_N)
    if off_N is None:
        return []
    return [(int(place), float(-off_N[place])) for place in np.argsort(off_N, kind="stable") if off_N[place] < -ODD]


class _Read:
    """A text with the places of its words and of its sentences."""

    def __init__(self, text: str, answers: Iterable[dict[str, Any]]) -> None:
        self.words = [(match.start(), match.group().lower()[:STEM]) for match in WORD.finditer(text)]
        ends = [match.end() for match in SENTENCE_END.finditer(text)]
        self.starts = [0, *ends]
        self.sentences: list[set[str]] = [set() for _ in self.starts]
        for start, stem in self.words:
            self.sentences[self.sentence_at(start)].add(stem)
        self.stems = set().union(*self.sentences)

    def sentence_at(self, place: int) -> int:
        """The number of the sentence that a character is in."""
        return int(np.searchsorted(self.starts, place, side="right")) - 1

    def place(self, asked: set[str], answer: dict[str, Any], weight: dict[str, float]) -> list[float]:
        """Share of the question's words in the answer's sentence, less the most in any, and how many stand near the answer; and those
        that the answer repeats."""
        total = sum(weight.get(stem, 1.0) for stem in asked) or 1.0
        shared = [sum(weight.get(stem, 1.0) for stem in asked & words) / total for words in self.sentences]
        own, best = shared[self.sentence_at(answer["start"])], max(shared)
        near = sum(math.exp(-abs(start - answer["start"]) / NEAR) * weight.get(stem, 1.0) for start, stem in self.words if stem in asked)
        said = _stems(answer["text"])
        return [own, own - best, float(own == best), near, len(said & asked) / max(len(said), 1)]


def _stems(text: str) -> set[str]:
    return {word.lower()[:STEM] for word in WORD.findall(text)}


def _weights(read: Iterable[_Read]) -> dict[str, float]:
    """How rare each word is among the texts: nought for one that stands in all of them."""
    texts = list(read)
    counts = Counter(stem for text in texts for stem in text.stems)
    return {stem: math.log((len(texts) + 1) / (count + 1)) for stem, count in counts.items()}


def _beginnings(questions: Sequence[str]) -> list[str]:
    """The most frequent beginnings of questions, of two words and of one, whatever the language."""
    begun = [WORD.findall(question.lower())[:2] for question in questions]
    two, one = Counter(" ".join(words) for words in begun if len(words) == 2), Counter(words[0] for words in begun if words)
    return [name for name, _ in two.most_common(BEGINNINGS)] + [name for name, _ in one.most_common(BEGINNINGS)]


def _beginning(question: str, known: Sequence[str]) -> int:
    """The number of a question's beginning; that of none where it is not among the frequent ones."""
    words = WORD.findall(question.lower())
    return next((n for n, name in enumerate(known) if words[: len(name.split())] == name.split()), len(known))


def _form(answer: str) -> list[float]:
    """What an answer looks like: digits, a year, capitals, and how long it is."""
    words = answer.split()
    return [
        float(any(c.isdigit() for c in answer)), float(bool(re.fullmatch(r"\D*\b[12]\d{3}\b\D*", answer))),
        float(answer[:1].isupper()), float(all(word[:1].isupper() for word in words)), float(bool(re.search(r"[%$€£]", answer))),
        float(len(words) == 1), float(len(words) in (2, 3)), float(len(words) > 6), 1.0,
    ]  # fmt: skip

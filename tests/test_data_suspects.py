"""Labels that are no classes and probably wrong: planted errors come first, and what cannot be judged names nobody."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest

from tunesmith.data.label_answers import candidates, odd_answers
from tunesmith.data.label_relevance import FAR, NEAR, Pairs, suspect_pairs
from tunesmith.data.label_spans import NONE, Mark, suspect_spans
from tunesmith.data.label_texts import FAR as FAR_TARGET
from tunesmith.data.label_texts import LONG, SHORT, centred_cosines, suspect_targets
from tunesmith.models.linear import ridge_without_fold
from tunesmith.stages.wrong_answers import judged

SEEDS = range(3)


def share_among_first(found: Iterable[Any], planted: set[Any]) -> float:
    """Of as many as were planted, the share that was."""
    return len(set(list(found)[: len(planted)]) & planted) / len(planted)


@pytest.mark.parametrize("seed", SEEDS)
def test_planted_wrong_and_missing_spans_come_first(seed: int) -> None:
    draw, marks, probabilities, planted = np.random.default_rng(seed), list[list[Mark]](), [], set[tuple[int, int]]()
    for row in range(300):
        truth_W = np.repeat(draw.integers(0, 3, 6), 2)  # words of no type, of one and of another, two by two
        logits_WC = 4.0 * np.eye(3)[truth_W] + draw.normal(size=(12, 3))
        probabilities.append(np.exp(logits_WC) / np.exp(logits_WC).sum(1, keepdims=True))
        marks.append([(start, start + 2, int(truth_W[start])) for start in range(0, 12, 2) if truth_W[start]])
        if row % 10 == 0 and marks[row]:
            first, end, kind = marks[row].pop()
            planted.add((row, first))
            if row % 20 == 0:
                marks[row].append((first, end, 3 - kind))
    found = suspect_spans(marks, probabilities)
    named = [(span.row, span.first) for span in found]
    assert share_among_first(named, planted) >= 0.55 and len(planted & set(named)) >= 0.7 * len(named)  # one span in forty is wrong
    kinds = {(span.row, span.first): (span.given, span.suggested) for span in found}
    told = [kinds[place] for place in planted & kinds.keys()]
    assert any(given == NONE for given, _ in told) and any(given != NONE for given, _ in told)


def test_words_that_were_not_judged_name_no_span() -> None:
    unknown = np.full((4, 3), np.nan)
    assert suspect_spans([[(0, 2, 1)]], [unknown]) == []
    assert suspect_spans([], []) == []


@pytest.mark.parametrize("seed", SEEDS)
def test_targets_of_other_texts_and_of_odd_lengths_come_first(seed: int) -> None:
    draw = np.random.default_rng(seed)
    source_NE = draw.normal(size=(400, 12))
    target_NE = source_NE @ draw.normal(size=(12, 12)) + 0.5 * draw.normal(size=(400, 12))
    wrong = draw.choice(400, 20, replace=False)
    target_NE[wrong] = target_NE[np.roll(wrong, 1)]
    import torch

    said_NE = ridge_without_fold(torch.tensor(source_NE, dtype=torch.float32), target_NE, np.arange(400) % 5, 1.0)
    source = ["x" * 40] * 400
    target = ["y" * int(40 * draw.lognormal(0, 0.2)) for _ in source]
    long, short = (int(n) for n in np.setdiff1d(np.arange(400), wrong)[:2])
    target[long], target[short] = "y" * 400, "y"
    found = suspect_targets(centred_cosines(said_NE, target_NE), source, target)
    planted = {*wrong.tolist(), long, short}
    assert share_among_first([one.row for one in found], planted) >= 0.8 and len(found) <= len(planted) + 5
    why = {one.row: one.reason for one in found}
    assert why[long] == LONG and why[short] == SHORT and FAR_TARGET in why.values()


def test_targets_that_are_all_alike_name_nobody() -> None:
    assert suspect_targets(np.ones(9), ["a"] * 9, ["b"] * 9) == []


@pytest.mark.parametrize("seed", SEEDS)
def test_planted_wrong_judgements_come_first(seed: int) -> None:
    draw = np.random.default_rng(seed)
    query_P = np.repeat(np.arange(200), 2)
    relevant_P = np.arange(400) % 2 == 0
    likeness_P = np.where(relevant_P, draw.normal(3.0, 0.5, 400), draw.normal(1.0, 0.3, 400))
    nearer_P = np.where(relevant_P, 0.01, 0.3)
    far, near = np.arange(0, 40, 4), np.arange(101, 141, 4)
    likeness_P[far], nearer_P[far] = draw.normal(0, 0.4, 10), 0.5
    likeness_P[near], nearer_P[near] = 4.5, 0.0
    found = suspect_pairs(Pairs(query_P, relevant_P, likeness_P, nearer_P))
    assert share_among_first([one.pair for one in found], {*far.tolist(), *near.tolist()}) >= 0.8
    why = {one.pair: one.reason for one in found}
    assert {why[pair] for pair in far.tolist()} == {FAR} and {why[pair] for pair in near.tolist()} == {NEAR}


def test_judgements_without_a_spread_name_nobody() -> None:
    none, same = np.zeros(0), np.full(4, 2.0)
    assert suspect_pairs(Pairs(none.astype(np.int64), none.astype(bool), none, none)) == []
    assert suspect_pairs(Pairs(np.arange(4), np.ones(4, bool), same, same)) == []


def asked(count: int, seed: int) -> list[tuple[str, str, list[dict[str, Any]]]]:
    """Questions about texts: who founded, when opened, how many worked; each text answers all three."""
    draw, rows = random.Random(seed), []
    for number in range(count):
        name, year, people = (
            f"{draw.choice(['Ada', 'Karl', 'Mina'])} N{number}",
            str(draw.randint(1800, 2020)),
            f"{draw.randint(2, 99)} people",
        )
        text = f"The mill number {number} was founded by {name}. Its doors opened in {year}. At first {people} worked there."
        for question, said in (("Who founded the mill", name), ("When were doors opened", year), ("How many people worked there", people)):
            rows.append((f"{question} {number}?", text, [{"text": said, "start": text.index(said)}]))
    return rows


@pytest.mark.parametrize("seed", SEEDS)
def test_answers_of_other_questions_come_first(seed: int) -> None:
    questions, texts, answers = (list(column) for column in zip(*asked(80, seed), strict=True))
    planted = set(random.Random(seed).sample(range(240), 24))
    for row in planted:
        answers[row] = answers[row // 3 * 3 + (row + 1) % 3]
    found = candidates(questions, texts, answers)
    logit_N = judged(found, found.row_N // 3 % 5)[found.own_N]
    rows = np.unique(found.row_N)
    assert share_among_first(rows[np.argsort(logit_N)].tolist(), planted & set(rows.tolist())) >= 0.7
    named = {int(rows[place]) for place, _ in odd_answers(logit_N)}
    assert len(named & planted) >= 12 and len(named - planted) <= len(named & planted)


def test_questions_without_other_answers_are_not_judged() -> None:
    given = [[{"text": "door", "start": 4}], [], [{"text": "mill", "start": 0}]]
    found = candidates(["who?", "when?", "what?"], ["the door", "the door", "mill"], given)
    assert len(found.row_N) == 0 and odd_answers(np.zeros(0)) == []

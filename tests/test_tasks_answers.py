"""Answers in texts: reading, windows, spans, scores and thresholds, against plain references."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import tiny
from tunesmith.core.errors import DataError
from tunesmith.data.spans import ANSWERS, NOWHERE, read_answers
from tunesmith.document.answers import pieces, question_word
from tunesmith.evaluate.lexical import nearest_sentence
from tunesmith.evaluate.replies import Replies, best_threshold, normalised, replies_from_table, with_threshold, word_f1
from tunesmith.tasks.question_answering import QuestionAnswering
from tunesmith.tasks.windows import WINDOW, Window, best_spans, encode_windows

DATA = Path(__file__).parents[2] / "shared" / "data" / "squad_xquad_en"
TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=60)
ODD = st.sampled_from(["😀", "👩‍👩‍👧", "שלום עולם", "مرحبا", "a\u200bb", "e\u0301", "\ufeff", "naïve", "漢字", "\u202eabc", "I\u0307", "ß"])
PASSAGES = st.lists(st.one_of(TEXTS, ODD), min_size=1, max_size=6).map(" ".join)


# ---- scores


@pytest.mark.parametrize(("text", "expected"), [
    ("The  Eiffel-Tower!", "eiffeltower"), ("a an the", ""), ("Anna's theory", "annas theory"), ("  An apple. ", "apple"), ("", ""),
])  # fmt: skip
def test_texts_are_normalised_as_squad_does(text: str, expected: str) -> None:
    assert normalised(text) == expected


@pytest.mark.parametrize(("labels", "said", "exact", "f1"), [
    (["Denver Broncos"], "the Denver broncos.", 1, 1.0),
    (["Denver Broncos"], "Denver", 0, 2 / 3),
    (["Denver Broncos", "Denver"], "Denver", 1, 1.0),
    (["the cat sat"], "cat cat", 0, 0.5),  # a repeated word is shared once
    ([], "", 1, 1.0), ([], "something", 0, 0.0), (["something"], "", 0, 0.0),
    (["the"], "", 1, 1.0),  # an answer without a word left counts as none
])  # fmt: skip
def test_golden_scores_of_the_published_rules(labels: list[str], said: str, exact: float, f1: float) -> None:
    replies = Replies([labels], [said])
    assert (replies.exact_N[0], replies.f1_N[0]) == (exact, pytest.approx(f1))


@given(st.text("ab .,THEan", max_size=20), st.text("ab .,THEan", max_size=20))
def test_f1_is_symmetric_and_one_for_equal_texts(a: str, b: str) -> None:
    assert word_f1(a, b) == word_f1(b, a) and word_f1(a, a) == 1.0 and 0 <= word_f1(a, b) <= 1


@given(st.lists(st.tuples(st.sampled_from(["", "x", "y"]), st.sampled_from(["x", "y"]), st.integers(-3, 3)), min_size=1, max_size=12))
def test_the_threshold_is_the_best_of_all(rows: list[tuple[str, str, int]]) -> None:
    label = pl.Series([[{"text": right, "start": 0}] if right else [] for right, _, _ in rows], dtype=ANSWERS)
    table = pl.DataFrame({"label": label, "predicted": [said for _, said, _ in rows], "start": 0, "end": 1})
    table = table.with_columns(margin=pl.Series([float(m) for _, _, m in rows]))
    threshold, reached = best_threshold(table)
    tried = {t: replies_from_table(with_threshold(table, t)).f1_N.mean() for t in (-9.5, *(m + 0.5 for m in range(-3, 3)), 9.5)}
    assert reached == pytest.approx(max(tried.values()))
    assert replies_from_table(with_threshold(table, threshold)).f1_N.mean() == pytest.approx(reached)


# ---- reading


def read(context: list[str], cells: list[Any], **more: Any) -> tuple[list[Any], list[Any]]:
    table = pl.DataFrame({"context": context, "answers": cells, **more}, strict=False)
    out, issues = read_answers(table, ("context", "answers"), None, "data.train")
    return out["answers"].to_list(), issues


def test_every_form_of_answers_is_read() -> None:
    context = "the parcel came on monday by courier"
    wanted = [{"text": "monday", "start": 19}]
    forms: list[Any] = [
        [{"text": "monday", "start": 19}], [{"text": "monday", "answer_start": 19}], {"text": ["monday"], "answer_start": [19]},
        '{"text": ["monday"], "answer_start": [19]}', ['{"text": "monday", "start": 19}'], ["monday"], "monday",
    ]  # fmt: skip
    for form in forms:
        assert read([context], [form])[0] == [wanted], form
    table = pl.DataFrame({"context": [context], "answer": ["monday"], "answer_start": [19]})
    assert read_answers(table, ("context", "answer"), None, "t")[0]["answer"].to_list() == [wanted]
    assert read([context] * 2, ["", None])[0] == [[], []]
    assert read([context], [pl.Series([], dtype=pl.String)])[0] == [[]]


def test_misplaced_answers_are_moved_once_dropped_or_refused() -> None:
    answers, issues = read(
        ["red and blue and red"], [[{"text": "blue", "start": 0}, {"text": "red", "start": 5}, {"text": "red", "start": 17}]]
    )
    assert answers == [[{"text": "blue", "start": 8}, {"text": "red", "start": 17}]]
    assert any("1 stood elsewhere" in i.found for i in issues) and any("1 are not in their text" in i.found for i in issues)
    assert read(["red"], [[{"text": "green", "start": 0}]])[0] == [[{"text": "green", "start": NOWHERE}]]
    assert read(["😀 red"], [[{"text": "red", "start": 3}]])[0] == [[{"text": "red", "start": 2}]]  # UTF-16 units
    with pytest.raises(DataError, match="characters"):
        read(["äöü red"] * 3, [[{"text": "red", "start": 7}]] * 3)


@given(PASSAGES, st.data())
@settings(max_examples=60, deadline=None)
def test_a_span_of_any_text_is_read_where_it_is(text: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(text) - 1)) if text else 0
    answer = text[start : data.draw(st.integers(start + 1, len(text)))] if text else ""
    answers = read([text], [json.dumps([{"text": answer, "start": start}])])[0][0]
    assert answers in ([{"text": answer, "start": start}], [{"text": answer, "start": NOWHERE}])
    if answer.isascii() and answer.strip():
        assert answers[0]["start"] == start


@given(st.lists(st.recursive(st.none() | st.text(max_size=5) | st.integers(), lambda x: st.lists(x, max_size=2) | st.dictionaries(
    st.sampled_from(["text", "start", "answer_start", "x"]), x, max_size=2), max_leaves=5), min_size=1, max_size=5))  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_any_cell_is_answers_or_null(cells: list[Any]) -> None:
    answers, _ = read(["a b"] * len(cells), [json.dumps(cell) for cell in cells])
    assert len(answers) == len(cells)


# ---- windows and spans


@given(PASSAGES, st.integers(16, 40), st.integers(0, 12), st.data())
@settings(max_examples=50, deadline=None)
def test_windows_cover_the_text_and_their_targets_are_the_answer(text: str, length: int, stride: int, data: st.DataObject) -> None:
    if not text.strip():
        return
    start = data.draw(st.integers(0, len(text) - 1))
    answer = text[start : data.draw(st.integers(start + 1, min(len(text), start + 12)))]
    label = pl.Series([[{"text": answer, "start": start}]], dtype=ANSWERS)
    rows = pl.DataFrame({"text": ["why is it late"], "text_pair": [text], "label": label})
    from tunesmith.spec.answering import Answering

    task, words = QuestionAnswering(options=Answering(stride=stride)), tiny.tokenizer()
    encoding = task.encode(rows, words, length)
    whole = words(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    seen = {tuple(place) for row in encoding.rows for place in row[WINDOW].spans_T2.tolist()}
    assert seen == set(map(tuple, whole)) and encoding.rows and max(encoding.lengths) <= length
    for row in encoding.rows:
        window, (first, last) = row[WINDOW], row["labels"]
        if (first, last) != (window.nothing, window.nothing):
            begin, end = window.spans_T2[first - window.first, 0], window.spans_T2[last - window.first, 1]
            assert max(begin, start) < min(end, start + len(answer))


def test_long_questions_are_cut_and_counted() -> None:
    rows = pl.DataFrame({"text": ["why " * 100, "why"], "text_pair": ["the box " * 30] * 2})
    encoding = encode_windows(rows, tiny.tokenizer(), 32, 128)
    assert encoding.cut == 1 and max(encoding.lengths) <= 32
    assert {row[WINDOW].row for row in encoding.rows} == {0, 1}


def test_a_text_of_a_hundred_thousand_tokens() -> None:
    rows = pl.DataFrame({"text": ["where"], "text_pair": ["the box " * 50_000 + "parcel"]})
    encoding = encode_windows(rows, tiny.tokenizer(), 512, 128)
    assert len(encoding.rows) > 250
    assert encoding.rows[-1][WINDOW].spans_T2[-1].tolist() == [400_000, 400_006]
    scores = [np.zeros((2, length), np.float32) for length in encoding.lengths]
    scores[-1][:, -2] = 5.0
    found = QuestionAnswering().decode(scores, encoding)
    assert found["predicted"].to_list() == ["parcel"] and found["start"].to_list() == [400_000]


def by_hand(scores: np.ndarray, window: Window, longest: int) -> list[float]:
    """Every span, the way a reader would write it."""
    tokens = [t for t in range(len(window.spans_T2)) if window.spans_T2[t, 1] > window.spans_T2[t, 0]]
    sums = [scores[0, window.first + s] + scores[1, window.first + e] for s in tokens for e in tokens if s <= e < s + longest]
    return sorted((float(x) for x in sums), reverse=True)


@given(st.integers(1, 12), st.integers(1, 14), st.integers(1, 30), st.integers(0, 2**32 - 1))
@settings(max_examples=80, deadline=None)
def test_the_best_spans_are_those_of_a_plain_search(size: int, longest: int, count: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    spans = np.stack([np.arange(size) * 3, np.arange(size) * 3 + draw.integers(0, 3, size)], 1).astype(np.int32)
    window = Window(0, 3, spans, 0, "x" * 3 * size)
    scores = draw.normal(size=(2, size + 5))
    found = [span.score for span in best_spans(scores, window, longest, count)]
    np.testing.assert_allclose(found, by_hand(scores, window, longest)[:count])


def test_answers_that_are_not_finite_are_no_answers() -> None:
    task = QuestionAnswering()
    encoding = task.encode(task.example(), tiny.tokenizer(), 64)
    scores = task.scores([np.full((2, length), math.nan) for length in encoding.lengths], encoding)
    assert scores.tolist() == [None] * 3


def test_predictions_are_those_of_plain_transformers(tmp_path: Path) -> None:
    """The reference decodes every pair of tokens of AutoModelForQuestionAnswering's logits."""
    import torch
    from transformers import AutoModelForQuestionAnswering

    from tunesmith.models.forward import predict_logits

    folder, task = tiny.save_pretrained(tmp_path / "bert"), QuestionAnswering()
    torch.manual_seed(0)
    model, words = AutoModelForQuestionAnswering.from_pretrained(folder), tiny.tokenizer()
    rows = task.example()
    said = task.decode(predict_logits(model, task, task.encode(rows.drop("label"), words, 64)), task.encode(rows, words, 64))
    for row, predicted, score in zip(rows.iter_rows(named=True), said["predicted"], said["score"], strict=True):
        tokens = words(row["text"], row["text_pair"], return_tensors="pt", return_offsets_mapping=True)
        places = tokens.pop("offset_mapping")[0].tolist()
        with torch.inference_mode():
            out = model(**tokens)
        start, end = out.start_logits[0].double(), out.end_logits[0].double()
        of_text = [n for n, part in enumerate(tokens.sequence_ids(0)) if part == 1]
        every = sorted(((float(start[s] + end[e]), s, e) for s in of_text for e in of_text if s <= e < s + 30), reverse=True)[:20]
        assert predicted == row["text_pair"][places[every[0][1]][0] : places[every[0][2]][1]]
        logits = torch.tensor([total for total, _, _ in every] + [float(start[0] + end[0])])
        assert score == pytest.approx(float(torch.softmax(logits, 0)[0]), abs=1e-4)


# ---- baselines and documents


def test_the_nearest_sentence() -> None:
    rows = pl.DataFrame({
        "id": ["1", "2"], "label": pl.Series([[], []], dtype=ANSWERS), "text": ["When did the parcel come?", "?"],
        "text_pair": ["I waited. The parcel came at 3.5 on Monday! It was late.", "no mark"],
    })  # fmt: skip
    assert nearest_sentence(rows)["predicted"].to_list() == ["The parcel came at 3.5 on Monday!", "no mark"]


@pytest.mark.parametrize(("question", "word"), [
    ("How many boxes?", "how many"), ("In what year?", "what"), ("Name it.", ""), ("HOW?", "how"), ("Who's there", "who"),
])  # fmt: skip
def test_question_words(question: str, word: str) -> None:
    assert question_word(question) == word


@given(PASSAGES, st.data())
def test_pieces_hold_the_answers_unbroken(text: str, data: st.DataObject) -> None:
    places = st.integers(0, len(text))
    start, end = sorted((data.draw(places), data.draw(places)))
    said = tuple(sorted((data.draw(places), data.draw(places))))
    if start == end or said[0] == said[1]:
        return
    found = pieces(text, [(start, end)], (said[0], said[1]))
    assert "".join(p.text for p in found if p.right) == text[start:end]
    assert "".join(p.text for p in found if p.said) == text[said[0] : said[1]]


@pytest.mark.skipif(not DATA.is_dir(), reason="the shared data are not there")
def test_every_answer_of_xquad_is_at_its_place() -> None:
    table = pl.read_ndjson(DATA / "train.jsonl.gz").head(400)
    read, issues = read_answers(table, ("context", "answers"), None, "data.train")
    assert not issues and read["answers"].list.len().min() == 1

"""JSON in cells: what no table can hold is unreadable, whichever kind of label it stands for."""

from __future__ import annotations

import json

import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tunesmith.data.cells import json_value
from tunesmith.data.marked import marked
from tunesmith.data.relevant import read_relevant
from tunesmith.data.spans import read_answers

DEEP, HALF, LONG = "[" * 100_000, '[{"text": "\\ud800", "label": "\\udfff", "start": 0, "end": 1}]', "[" + "9" * 5000 + "]"
LEAVES = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(st.characters(), max_size=5))
KEYS = st.sampled_from(["text", "start", "answer_start", "end", "label", "relevance", "score", "x"])
VALUES = st.recursive(LEAVES, lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(KEYS, inner, max_size=5)), max_leaves=12)


@pytest.mark.parametrize(("text", "problem"), [(DEEP, "deep"), (HALF, "half a surrogate pair"), (LONG, "digits")])
def test_json_that_no_table_can_hold_is_refused(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem) as caught:
        json_value(text)
    assert not isinstance(caught.value, (json.JSONDecodeError, UnicodeError))


def test_json_is_read_and_anything_else_is_none() -> None:
    assert json_value('["\\ud83d\\ude00", {"a": 1}]') == ["😀", {"a": 1}]
    with pytest.raises(json.JSONDecodeError):
        json_value("[1] a text")


@given(VALUES.map(json.dumps))
@example(DEEP)
@example(HALF)
@example(LONG)
@example("[1e999, 1")
@example('[{"text": "a", "relevance": 1' + "0" * 400 + "}]")
@settings(deadline=None, max_examples=200)
def test_any_cell_is_read_or_said_to_be_unreadable(cell: str) -> None:
    for text in (cell, json.dumps([cell])):
        good = [json.dumps([{"start": 0, "end": 1, "label": "x"}])] * 3
        spans = marked(pl.Series("text", ["ab cd"] * 4), pl.Series("label", [text, *good])).rows
        assert spans["label"].len() == 4 and spans["problem"][1:].null_count() == 3
        table = pl.DataFrame({"text": ["ab cd"], "label": [text], "negative": [text]})
        assert read_answers(table, ("text", "label"), None, "data.train")[0].height == 1
        assert read_relevant(table, ("text",), "label", "negative", "data.train")[0].height == 1


def test_what_no_table_can_hold_is_a_problem_of_its_row() -> None:
    good = json.dumps([{"start": 0, "end": 1, "label": "x"}])
    for cell in (DEEP, HALF, LONG):
        spans = marked(pl.Series("text", ["ab cd"] * 3), pl.Series("label", [cell, good, good])).rows
        assert spans["problem"][0] and spans["problem"][1:].null_count() == 2
        table = pl.DataFrame({"text": ["ab cd"], "label": [cell]})
        assert read_answers(table, ("text", "label"), None, "data.train")[0]["label"].to_list() == [None]
        assert read_relevant(table, ("text",), "label", None, "data.train")[0]["label"].to_list() == [None]

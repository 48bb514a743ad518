"""Cleaning: every row is accounted for."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.data.clean import EXPLANATIONS, Reason, clean, clean_across, cleaned_text, without_unknown_labels


def table(rows: list[tuple[Any, Any]], name: str = "t.csv") -> pl.DataFrame:
    label = pl.List(pl.String) if any(isinstance(y, list) for _, y in rows) else pl.String
    schema = {"text": pl.String, "label": label}
    return pl.DataFrame(rows, schema=schema, orient="row").with_columns(
        pl.Series("source", [f"{name}:{n}" for n in range(1, len(rows) + 1)], pl.String)
    )


def reasons(dropped: pl.DataFrame) -> list[tuple[str, str]]:
    return dropped.select("source", "reason").rows()


def test_every_reason_is_explained() -> None:
    assert set(EXPLANATIONS) == set(Reason)


@pytest.mark.parametrize(
    ("raw", "clean_text"),
    [
        ("  a  b\t c ", "a b c"),
        ("one\r\ntwo\rthree", "one\ntwo\nthree"),
        ("a \n\n\n\n b", "a\n\nb"),
        ("cafe\u0301", "café"),
        ("e\u200b\u0301", "é"),
        ("a\x00b\x07c", "a b c"),
        ("\u00a0no-break\u3000space\ufeff", "no-break space"),
        (None, ""),
        ("\x1f \u2003\n", ""),
        ("Case Stays", "Case Stays"),
    ],
)
def test_texts_are_normalised(raw: str | None, clean_text: str) -> None:
    assert pl.select(cleaned_text(pl.lit(raw, pl.String))).item() == clean_text


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(codec="utf-8"), max_size=40))
def test_normalising_twice_changes_nothing(text: str) -> None:
    once = pl.select(cleaned_text(pl.lit(text))).item()
    assert pl.select(cleaned_text(pl.lit(once))).item() == once


def test_empty_rows_leave_with_a_reason() -> None:
    done = clean(table([("  ", "a"), ("x", " "), ("y", None), (None, None), ("z", "b")]), "drop")
    assert done.kept["text"].to_list() == ["z"]
    assert reasons(done.dropped) == [
        ("t.csv:1", "empty_text"),
        ("t.csv:4", "empty_text"),
        ("t.csv:2", "empty_label"),
        ("t.csv:3", "empty_label"),
    ]


def test_duplicates_keep_the_first_and_say_which() -> None:
    done = clean(table([("Hello  there", "a"), ("hello there", "a"), ("Hello\nthere ", "a")]), "drop")
    assert done.kept["source"].to_list() == ["t.csv:1", "t.csv:2"]
    assert done.dropped.select("reason", "detail").rows() == [("duplicate", "same as t.csv:1")]


def test_conflicting_labels_are_all_dropped() -> None:
    done = clean(table([("x", "a"), ("x", "b"), ("x", "b"), ("y", "a")]), "drop")
    assert done.kept["text"].to_list() == ["y"]
    assert set(done.dropped["reason"]) == {"conflicting_labels"}


def test_a_majority_wins_and_a_tie_is_dropped() -> None:
    done = clean(table([("x", "a"), ("x", "b"), ("x", "b"), ("t", "a"), ("t", "b")]), "majority")
    assert done.kept.select("text", "label", "source").rows() == [("x", "b", "t.csv:2")]
    assert done.dropped.select("source", "reason", "detail").rows() == [
        ("t.csv:1", "conflicting_labels", "the majority says b"),
        ("t.csv:4", "conflicting_labels", "a tie"),
        ("t.csv:5", "conflicting_labels", "a tie"),
        ("t.csv:3", "duplicate", "same as t.csv:2"),
    ]


def test_multi_label_rows_may_be_empty_but_not_null() -> None:
    done = clean(table([("x", ["a", "b"]), ("y", []), ("z", None), ("x", ["a"])]), "drop")
    assert done.kept.select("text", "label").rows() == [("y", [])]
    assert reasons(done.dropped) == [("t.csv:3", "empty_label"), ("t.csv:1", "conflicting_labels"), ("t.csv:4", "conflicting_labels")]
    assert done.dropped["label"].to_list() == [None, "a, b", "a"]


def test_shared_texts_leave_train_then_validation() -> None:
    splits = {
        name: clean(table([(text, "a") for text in texts], name), "drop").kept
        for name, texts in (("train", "wxyz"), ("validation", "xyv"), ("test", "yu"))
    }
    kept, dropped = clean_across(splits)
    assert {name: "".join(rows["text"]) for name, rows in kept.items()} == {"train": "wz", "validation": "xv", "test": "yu"}
    assert dropped.select("source", "detail").rows() == [
        ("train:2", "also in validation"),
        ("train:3", "also in validation"),
        ("validation:2", "also in test"),
    ]


@pytest.mark.parametrize("wrap", [str, lambda label: [label]])
def test_labels_that_training_lacks_leave_the_test(wrap: Any) -> None:
    train, test = (
        clean(table([(t, wrap(y)) for t, y in rows]), "drop").kept for rows in ([("x", "a"), ("y", "b")], [("u", "a"), ("v", "c")])
    )
    kept, dropped = without_unknown_labels({"train": train, "validation": test.clear(), "test": test})
    assert kept["test"]["text"].to_list() == ["u"]
    assert reasons(dropped) == [("t.csv:2", "unknown_label")]

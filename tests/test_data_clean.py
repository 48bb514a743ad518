"""Cleaning and splitting: every row is accounted for, and a row keeps its place when others come."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.core.seeding import unit_interval
from tunesmith.data.clean import EXPLANATIONS, Reason, clean, clean_across, cleaned_text, content_ids, without_unknown_labels
from tunesmith.data.split import split


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


def labelled(numbers: list[int], classes: int) -> pl.DataFrame:
    rows = table([(f"text {n}", f"c{n % classes}") for n in numbers])
    return rows.insert_column(0, content_ids(rows))


def places(rows: pl.DataFrame, seed: int = 0, validation: float = 0.1, test: float = 0.1) -> dict[str, str]:
    done = split(rows, seed, validation, test)
    return {
        identity: name
        for name, part in (("train", done.train), ("validation", done.validation), ("test", done.test))
        for identity in part["id"]
    }


@settings(max_examples=80, deadline=None)
@given(
    numbers=st.sets(st.integers(0, 2000), min_size=1, max_size=150),
    more=st.sets(st.integers(0, 2000), max_size=50),
    classes=st.integers(1, 8),
    seed=st.integers(0, 5),
)
def test_rows_keep_their_split_when_rows_are_added(numbers: set[int], more: set[int], classes: int, seed: int) -> None:
    small, large = labelled(sorted(numbers), classes), labelled(sorted(numbers | more), classes)
    before, after = places(small, seed), places(large, seed)
    assert set(before) == set(small["id"])
    natural = {}
    for identity in before:
        u = unit_interval(seed, identity)
        natural[identity] = "test" if u < 0.1 else "validation" if u < 0.2 else "train"
    moved = {identity for identity in before if before[identity] != natural[identity]}
    for identity, place in before.items():
        if after[identity] != place:  # only the documented exceptions: placed by the rules for small classes, before or now
            assert identity in moved or after[identity] != natural[identity]
    shuffled = large.sample(fraction=1.0, shuffle=True, seed=1)
    assert places(shuffled, seed) == after


@settings(max_examples=80, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 12), min_size=1, max_size=6),
    seed=st.integers(0, 20),
    shares=st.tuples(st.sampled_from([0.0, 0.01, 0.1, 0.5]), st.sampled_from([0.0, 0.01, 0.1, 0.5])),
)
def test_every_class_with_three_rows_is_in_every_split(sizes: list[int], seed: int, shares: tuple[float, float]) -> None:
    rows = table([(f"{c} {n}", f"c{c}") for c, size in enumerate(sizes) for n in range(size)])
    rows = rows.insert_column(0, content_ids(rows))
    done = split(rows, seed, *shares)
    assert done.train.height + done.validation.height + done.test.height == rows.height
    for number, size in enumerate(sizes):
        found = [part.filter(pl.col("label") == f"c{number}").height for part in (done.train, done.validation, done.test)]
        expected = [True, size >= 3 and shares[0] > 0, size >= 3 and shares[1] > 0]
        assert [count > 0 for count in found] == expected
    assert done.rare_rows == sum(size for size in sizes if size < 3)
    assert len(done.rare_classes) == sum(size < 3 for size in sizes)
    if all(size > 11 for size in sizes) and done.moved:
        assert done.moved < rows.height


def test_the_shares_are_kept_on_many_rows() -> None:
    done = split(labelled(list(range(5000)), 3), 0, 0.1, 0.2)
    assert abs(done.test.height / 5000 - 0.2) < 0.02
    assert abs(done.validation.height / 5000 - 0.1) < 0.02
    assert done.moved == 0


def test_multi_label_rows_count_for_their_rarest_label() -> None:
    rows = table([(f"t{n}", ["common", "rare"] if n < 3 else ["common"] if n % 2 else []) for n in range(200)])
    rows = rows.insert_column(0, content_ids(rows))
    done = split(rows, 0, 0.1, 0.1)
    for part in (done.train, done.validation, done.test):
        assert part.filter(pl.col("label").list.contains("rare")).height == 1

"""Augmentation: the same seed gives the same text, characters stay whole, texts never become empty, labels stay."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.core.errors import DataError
from tunesmith.data.augment_text import (
    MARKS,
    NEIGHBOURS,
    OPERATIONS,
    SHORT,
    augmented,
    characters,
    contract,
    delete_letters,
    drop_marks,
    drop_words,
    expand,
    insert_letters,
    keyboard,
    preview,
    random_capitals,
    repeat_words,
    spaces,
    swap_letters,
    swap_words,
)

WHOLE = ["👩‍👩‍👧", "👍🏽", "🇫🇷", "1️⃣", "❤️", "e\u0301\u0323", "ก็", "नि", "🏴\U000e0067\U000e0062\U000e007f", "é", "漢"]
PIECES = st.sampled_from([*WHOLE, "a", "B", "word", " ", "  ", "don't", "It is", ".", "!", "\n", "ß", "123", "пр", "שלום"])
TEXTS = st.lists(PIECES, max_size=12).map("".join)
NAMES = st.sampled_from(list(OPERATIONS))


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("unit", WHOLE)
def test_what_a_reader_sees_as_one_is_one(unit: str) -> None:
    assert characters(f"a{unit}b{unit}{unit} {unit}") == ["a", unit, "b", unit, unit, " ", unit]


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=20) | TEXTS)
def test_characters_lose_nothing(text: str) -> None:
    assert "".join(characters(text)) == text


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from([*WHOLE, "a", "b ", "한국", "가", "ß", "नम", "☺", "🙂"]), max_size=10).map("".join))
def test_characters_are_those_of_the_standard(text: str) -> None:
    regex = pytest.importorskip("regex", reason="the reference for grapheme clusters is not installed")
    assert characters(text) == regex.findall(r"\X", text)


@settings(max_examples=300, deadline=None)
@given(TEXTS, NAMES, st.integers(0, 2**32))
def test_operations_repeat_and_never_empty_a_text(text: str, name: str, seed: int) -> None:
    after = OPERATIONS[name](text, rng(seed))
    assert after == OPERATIONS[name](text, rng(seed))
    assert bool(after.strip()) == bool(text.strip())


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from([*WHOLE, "a", "b", " "]), min_size=1, max_size=12), st.integers(0, 2**32))
def test_characters_are_never_cut_apart(units: list[str], seed: int) -> None:
    text = "".join(units)
    for change in (keyboard, swap_letters, delete_letters, insert_letters):
        after = change(text, rng(seed), 0.5)
        assert set(characters(after)) - set(NEIGHBOURS) <= set(characters(text))
    for words in (drop_words, swap_words, repeat_words):
        after = words(text, rng(seed), 0.5)
        assert set(after.split()) <= set(text.split())


def test_edit_rates_hold_on_average() -> None:
    letters = "abcdefghij" * 2000
    for rate in (0.02, 0.1, 0.3):
        changed = sum(a != b for a, b in zip(letters, keyboard(letters, rng(), rate), strict=True)) / len(letters)
        assert changed == pytest.approx(rate, rel=0.1)
        assert 1 - len(delete_letters(letters, rng(), rate)) / len(letters) == pytest.approx(rate, rel=0.1)
        assert len(insert_letters(letters, rng(), rate)) / len(letters) - 1 == pytest.approx(rate, rel=0.1)
        # A letter that has just moved does not move again: rate / (1 + rate) of the places swap.
        swapped = sum(a != b for a, b in zip(letters, swap_letters(letters, rng(), rate), strict=True)) / 2 / len(letters)
        assert swapped == pytest.approx(rate / (1 + rate), rel=0.1)
    words = " ".join(f"w{number}" for number in range(10000))
    assert 1 - len(drop_words(words, rng(), 0.2).split()) / 10000 == pytest.approx(0.2, rel=0.1)
    assert len(repeat_words(words, rng(), 0.2).split()) / 10000 - 1 == pytest.approx(0.2, rel=0.1)
    moved = sum(a != b for a, b in zip(words.split(), swap_words(words, rng(), 0.2).split(), strict=True))
    assert moved / 20000 == pytest.approx(0.2 / 1.2, rel=0.1)
    assert sum(word[0].isupper() for word in random_capitals(words, rng(), 0.2).split()) / 10000 == pytest.approx(0.2, rel=0.1)
    assert 1 - drop_marks("a. " * 10000, rng(), 0.3).count(".") / 10000 == pytest.approx(0.3, rel=0.1)
    wide = spaces(words, rng(), 0.2)
    assert wide.count("  ") / 10000 == pytest.approx(0.1, rel=0.1)
    assert 9999 - len(wide.split()) + 1 == pytest.approx(1000, rel=0.1)


@pytest.mark.parametrize(
    "change", [keyboard, swap_letters, delete_letters, insert_letters, drop_words, swap_words, repeat_words, expand, contract]
)
@given(text=TEXTS)
@settings(max_examples=30, deadline=None)
def test_rate_zero_changes_nothing(change: Callable[..., str], text: str) -> None:
    assert change(text, rng(), 0.0) == text


def test_keys_are_beside_each_other() -> None:
    assert all(a in NEIGHBOURS[b] for a in NEIGHBOURS for b in NEIGHBOURS[a])
    assert set(NEIGHBOURS["g"]) == set("fhtyvb")
    assert keyboard("Q", rng(), 1.0) in ("W", "A")


@pytest.mark.parametrize(
    ("name", "text", "after"),
    [
        ("lower_case", "Hello ÉTÉ", "hello été"), ("upper_case", "Hello été", "HELLO ÉTÉ"),
        ("title_case", "don't say \"hello\" élan 3rd ǆ", "Don't Say \"Hello\" Élan 3rd ǅ"),
        ("expand", "I'm sure they don’t, it's done. CAN'T. Let's go", "I am sure they do not, it is done. CANNOT. Let us go"),
        ("contract", "I am sure they do not. IT IS. It is not. Let us go. I will not",
         "I'm sure they don't. IT'S. It isn't. Let's go. I won't"),
        ("expand", "John's dog, she'd, ain't", "John's dog, she'd, ain't"),
    ],
)  # fmt: skip
def test_fixed_operations(name: str, text: str, after: str) -> None:
    assert OPERATIONS[name](text, rng()) == after


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.sampled_from([*SHORT, *SHORT.values(), "not", "is", "I am", "It's", "IT IS", "Do not", "WON'T", "x."]), max_size=8).map(
        " ".join
    )
)
def test_contraction_and_expansion_go_back_and_forth(text: str) -> None:
    long = expand(text, rng())
    assert expand(contract(long, rng()), rng()) == long
    assert expand(long, rng()) == long


@pytest.mark.parametrize("short", list(SHORT))
def test_every_contraction_comes_back(short: str) -> None:
    assert contract(expand(f"well {short} x", rng()), rng()) == f"well {short} x"


def rows(many: int = 20) -> pl.DataFrame:
    texts = [f"Please don't send order number {place} to my old address." for place in range(many)]
    return pl.DataFrame({
        "id": [f"id{place}" for place in range(many)], "text": texts, "text_pair": texts[::-1],
        "label": [["a", "b"][: place % 3] for place in range(many)], "source": [f"t.csv:{place}" for place in range(many)],
    })  # fmt: skip


def test_copies_keep_label_and_pair_and_say_where_they_come_from() -> None:
    before, after = rows(), augmented(rows(), list(OPERATIONS), 3, seed=7)
    assert after.height == 60
    assert after["from"].to_list() == [f"id{place}" for place in range(20) for _ in range(3)]
    assert after["id"].to_list()[:4] == ["id0+1", "id0+2", "id0+3", "id1+1"]
    joined = after.join(before, left_on="from", right_on="id", suffix="_before", maintain_order="left")
    assert all(joined[name].equals(joined[f"{name}_before"], check_names=False) for name in ("label", "text_pair", "source"))
    assert (joined["text"] != joined["text_before"]).all() and not after["unchanged"].any()
    assert (after["operations"].list.len() == 1).all()
    assert len(set(after["operations"].list.first())) > 8


def test_the_same_seed_in_any_order_gives_the_same_copies() -> None:
    names = list(OPERATIONS)
    one, other = augmented(rows(), names, 2, seed=1), augmented(rows().reverse(), names, 2, seed=1)
    assert one.sort("id").equals(other.sort("id"))
    assert augmented(rows(5), names, 2, seed=1).drop("text_pair").equals(one.head(10).drop("text_pair"))
    assert not augmented(rows(), names, 2, seed=2)["text"].equals(one["text"])


def test_what_cannot_be_changed_is_counted() -> None:
    table = pl.DataFrame({"id": ["x", "y", "z"], "text": ["漢字", "LOWER", "..."], "label": ["a", "b", "c"]})
    after = augmented(table, ["lower_case", "drop_marks"], 2, seed=0)
    assert after["unchanged"].to_list() == [True, True, False, False, after["text"][4] == "...", after["text"][5] == "..."]
    assert after.filter("unchanged")["operations"].list.len().sum() == 0
    assert (
        after.filter("unchanged").join(table, left_on="from", right_on="id").select((pl.col("text") == pl.col("text_right")).all()).item()
    )


@settings(max_examples=100, deadline=None)
@given(st.lists(TEXTS, min_size=1, max_size=4), st.lists(NAMES, min_size=1, max_size=3), st.integers(0, 3), st.integers(0, 99))
def test_unchanged_is_told_rightly(texts: list[str], names: list[str], copies: int, seed: int) -> None:
    table = pl.DataFrame({"id": [str(place) for place in range(len(texts))], "text": texts, "label": ["a"] * len(texts)})
    after = augmented(table, names, copies, seed)
    assert after.height == copies * table.height
    same = [text == texts[int(row)] for text, row in after.select("text", "from").iter_rows()]
    assert after["unchanged"].to_list() == same
    assert all(text.strip() or not texts[int(row)].strip() for text, row in after.select("text", "from").iter_rows())


def test_a_preview_shows_what_will_come() -> None:
    shown = preview(rows(), ["keyboard", "contract"], seed=3, most=4)
    after = augmented(rows(4), ["keyboard", "contract"], 1, seed=3)
    assert [entry["after"] for entry in shown] == after["text"].to_list()
    assert [entry["before"] for entry in shown] == rows(4)["text"].to_list()
    assert {entry["operation"] for entry in shown} <= {"keyboard", "contract", None}


@pytest.mark.parametrize(("names", "copies"), [(["keybord"], 1), ([], 1), (["keyboard"], -1)])
def test_mistakes_are_named(names: list[str], copies: int) -> None:
    with pytest.raises(DataError, match="augmentation"):
        augmented(rows(), names, copies, 0)
    with pytest.raises(DataError, match="id"):
        augmented(rows().drop("id"), ["keyboard"], 1, 0)


def test_marks_inside_words_stay() -> None:
    assert drop_marks("3.14 isn't well-known, (yes)!", rng(), 1.0) == "3.14 isn't well-known yes"
    assert drop_marks(MARKS, rng(), 1.0) == MARKS

"""Personal data: what is planted is found, what only looks like it is not, and what is masked stays hidden."""

from __future__ import annotations

import json
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.data.personal import EXPLANATIONS, SPANISH, Kind, masked, masked_example, scan, spans

PLANTED: list[tuple[Kind, str]] = [
    (Kind.EMAIL, "john.doe@example.com"),
    (Kind.EMAIL, "o'neil+news@mail.example.co.uk"),
    (Kind.EMAIL, "jürgen@müller.de"),
    (Kind.URL, "https://bob:secret@example.com/x"),
    (Kind.URL, "https://example.com/a?x=1&token=abcdef123456"),
    (Kind.IBAN, "DE89370400440532013000"),
    (Kind.IBAN, "GB82 WEST 1234 5698 7654 32"),
    (Kind.IBAN, "FR14 2004 1010 0505 0001 3M02 606"),
    (Kind.IBAN, "NL91ABNA0417164300"),
    (Kind.IBAN, "NO9386011117947"),
    (Kind.IBAN, "MT84MALT011000012345MTLCAST001S"),
    (Kind.IBAN, "BR1800360305000010009795493C1"),
    (Kind.CARD, "4111 1111 1111 1111"),
    (Kind.CARD, "5555-5555-5555-4444"),
    (Kind.CARD, "2223003122003222"),
    (Kind.CARD, "3782 822463 10005"),
    (Kind.CARD, "30569309025904"),
    (Kind.CARD, "6011111111111117"),
    (Kind.CARD, "3530111333300000"),
    (Kind.FRENCH_INSEE, "1 85 05 78 006 084 91"),
    (Kind.FRENCH_INSEE, "185057800608491"),
    (Kind.BRAZILIAN_CPF, "529.982.247-25"),
    (Kind.BRAZILIAN_CPF, "52998224725"),
    (Kind.POLISH_PESEL, "44051401359"),
    (Kind.SPANISH_ID, "12345678Z"),
    (Kind.SPANISH_ID, "X1234567L"),
    (Kind.DUTCH_BSN, "1112.22.333"),
    (Kind.US_SSN, "123-45-6789"),
    (Kind.IP_ADDRESS, "192.168.1.20"),
    (Kind.IP_ADDRESS, "2001:db8:85a3::8a2e:370:7334"),
    (Kind.PHONE, "+44 (0)20 7946 0958"),
    (Kind.PHONE, "+1 (212) 555-0123"),
    (Kind.PHONE, "+34612345678"),
    (Kind.PHONE, "0049 30 1234567"),
    (Kind.PHONE, "(212) 555-0123"),
    (Kind.PHONE, "212.555.0123"),
    (Kind.PHONE, "1-800-555-0199"),
    (Kind.PHONE, "06 12 34 56 78"),
    (Kind.PHONE, "07912345678"),
    (Kind.PHONE, "07912 345678"),
    (Kind.PHONE, "0171-1234567"),
    (Kind.PHONE, "030/1234567"),
    (Kind.PHONE, "tel: 612 345 678"),
    (Kind.PHONE, "call me on 5551234567"),
]
NOTHING = [
    "order 0612345678", "order number: 4512345678", "invoice #123456789", "on 2024-05-01 and 01/05/2024", "12:30:45 2024-05-01",
    "$1,234,567.00", "1.234.567,89", "version 1.2.3.4", "v1.2.3.4", "127.0.0.1", "0.0.0.0", "300.1.2.3", "1.2.3.4.5", "std::vector", "a::b",
    "4111 1111 1111 1112", "9111111111111111", "0000 0000 0000 0000", "DE89370400440532013001", "XX89370400440532013000", "12345678A",
    "X1234567A", "529.982.247-26", "111.111.111-11", "44051401358", "111222333", "bsn 111222334", "185057800608492", "000-12-3456",
    "666-12-3456", "900-12-3456", "123-00-4567", "123-45-0000", "user@localhost", "@handle", "a @ b", "https://example.com/?page=2&id=77777777",
    "http://example.com:8080/x@y", "pi is 3.14159265358979", "2019 2020 2021 2022", "0123", "1234567", "ISBN 978-3-16-148410-0",
    "5551234567", "612 345 678 people", "", "   ", "٠١٢٣٤٥٦٧٨٩",
]  # fmt: skip


@pytest.mark.parametrize(("kind", "value"), PLANTED)
@pytest.mark.parametrize("around", ["{}", "Please use {} from now on.", "naïve ({}), thanks", "первый {}\nnext line"])
def test_planted_values_are_found(kind: Kind, value: str, around: str) -> None:
    text = around.format(value)
    found = spans(text)
    assert [span.kind for span in found] == [kind]
    assert text[found[0].start : found[0].end] in value
    record = scan(pl.Series([text, "nothing here", None]))
    assert (record.rows, record.rows_with, record.kinds[kind].rows, record.kinds[kind].matches) == (3, 1, 1, 1)


@pytest.mark.parametrize("text", NOTHING)
def test_what_only_looks_like_it_is_not(text: str) -> None:
    assert spans(text) == []
    assert scan(pl.Series([text])).rows_with == 0


@pytest.mark.parametrize(("kind", "value"), PLANTED)
def test_examples_do_not_give_the_value_away(kind: Kind, value: str) -> None:
    shown = masked_example(kind, value)
    assert value not in shown
    assert sum(character.isdigit() for character in shown) <= 4
    assert json.dumps(scan(pl.Series([value])).as_dict()).find(value) == -1


def test_examples_are_those_of_the_page() -> None:
    assert masked_example(Kind.EMAIL, "john@example.com") == "j***@e***.com"
    assert masked_example(Kind.EMAIL, "j@ab.co") == "***@***.co"
    assert masked_example(Kind.CARD, "4111-1111-1111-1111") == "**** **** **** 1111"
    assert masked_example(Kind.IP_ADDRESS, "192.168.1.20") == "192.*.*.*"


def test_masking_names_the_kind_and_counts() -> None:
    texts = pl.Series(["a@example.com and b@example.com", None, "call 07912345678", "plain"])
    out, counts = masked(texts, [Kind.EMAIL])
    assert out.to_list() == ["[EMAIL] and [EMAIL]", None, "call 07912345678", "plain"]
    assert counts == {Kind.EMAIL: 2}
    out, counts = masked(texts, list(Kind))
    assert out.to_list()[2] == "call [PHONE]"
    assert texts[0] == "a@example.com and b@example.com"


def test_every_kind_is_explained_and_reported() -> None:
    assert set(EXPLANATIONS) == set(Kind)
    record = scan(pl.Series([], dtype=pl.String)).as_dict()
    assert record["rows"] == record["rows_with"] == 0
    assert list(record["kinds"]) == [str(kind) for kind in Kind]


def luhn_completed(digits: str) -> str:
    return next(digits + str(last) for last in range(10) if sum(sum(divmod(int(d) * (1 + n % 2), 10)) for n, d in enumerate(reversed(digits + str(last)))) % 10 == 0)  # fmt: skip  # noqa: E501


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10**14 - 1))
def test_one_last_digit_of_ten_makes_a_card(number: int) -> None:
    right = luhn_completed(f"4{number:014d}")
    digits = [f"{right[:-1]}{last}" for last in range(10)]
    cards = [value for value in digits if any(span.kind == Kind.CARD for span in spans(f"pay {value} now"))]
    assert cards == ([right] if len(set(right)) > 1 else [])


@settings(max_examples=100, deadline=None)
@given(st.integers(10**6, 10**8 - 1), st.sampled_from(SPANISH))
def test_one_letter_makes_a_spanish_id(number: int, letter: str) -> None:
    found = any(span.kind == Kind.SPANISH_ID for span in spans(f"DNI {number:08d}{letter}"))
    assert found == (SPANISH[number % 23] == letter)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10**18 - 1))
def test_one_check_makes_a_german_account(number: int) -> None:
    account = f"{number:018d}"
    check = 98 - int(f"{account}131400") % 97
    assert [span.kind for span in spans(f"DE{check:02d}{account}")] == [Kind.IBAN]
    wrong = spans(f"DE{(check + 1) % 97 + 2:02d}{account}") if (check + 1) % 97 + 2 != check else []
    assert Kind.IBAN not in [span.kind for span in wrong]


PIECES = st.one_of(
    st.sampled_from([value for _, value in PLANTED]),
    st.sampled_from([" ", "", ", ", "\n", "-", ".", "1", "00", "tel ", "order ", "@", "+"]),
    st.text(max_size=6),
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(PIECES, max_size=6).map("".join), st.sets(st.sampled_from(list(Kind))))
def test_after_masking_nothing_is_left(text: str, kinds: set[Kind]) -> None:
    out, counts = masked(pl.Series([text]), kinds)
    left = scan(out)
    assert all(left.kinds[kind].matches == 0 for kind in kinds)
    before = scan(pl.Series([text]))
    assert all(counts[kind] >= before.kinds[kind].matches for kind in kinds)


@settings(max_examples=300, deadline=None)
@given(st.lists(PIECES, max_size=6).map("".join))
def test_the_filter_over_the_column_loses_nothing(text: str) -> None:
    found: dict[Any, int] = dict.fromkeys(Kind, 0)
    for span in spans(text):
        found[span.kind] += 1
    record = scan(pl.Series([text]))
    assert {kind: entry.matches for kind, entry in record.kinds.items()} == found

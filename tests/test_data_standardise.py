"""Rules are shown before they are applied; applied once or twice, in any order, they give the same table."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.core.errors import DataError
from tunesmith.data.columns import Columns
from tunesmith.data.standardise import (
    COUNTED,
    NOTES,
    Name,
    Proposal,
    Rule,
    apply,
    formats,
    near_spellings,
    proposals,
    rule_from_dict,
    spellings,
)

COLUMNS = Columns(("text",), "label", "class", {})
TEXT_RULES = [Name.MOJIBAKE, Name.HTML, Name.COMPATIBILITY, Name.MISSING]


def table(texts: list[str | None], labels: list[str | None] | None = None) -> pl.DataFrame:
    return pl.DataFrame({"text": texts, "label": labels or ["a"] * len(texts)}, schema={"text": pl.String, "label": pl.String})


def one(text: str, name: Name) -> str | None:
    done, counts = apply(table([text]), [Rule("text", name)])
    after = done["text"][0]
    assert counts == {("text", name): int(after != text)}
    return None if after is None else str(after)


def named(found: list[Proposal], name: Name) -> list[Proposal]:
    return [proposal for proposal in found if proposal.rule.name == name]


def test_every_rule_has_a_note() -> None:
    assert set(NOTES) == set(Name)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("<p>Hello <b>world</b></p>", " Hello world "),
        ("one<br/>two<BR>three", "one two three"),
        ('<a href="https://example.com/?a=1" target=_blank>link</a>', "link"),
        ("AT&amp;T &lt;3 caf&eacute; &#8364;5", "AT&T <3 café €5"),
        ("&lt;b&gt;bold&lt;/b&gt;", "bold"),
        ("<script>alert(1 < 2)</script>text<!-- note -->", " text "),
        ("a < b and c > d", "a < b and c > d"),
        ("if a <b and c> d", "if a <b and c> d"),
        ("List<int> and Map<String, Foo>", "List<int> and Map<String, Foo>"),
        ("I <3 you", "I <3 you"),
        ("<john@example.com>", "<john@example.com>"),
        ("<name> of <your_file>", "<name> of <your_file>"),
        ("&nosuchname; & more", "&nosuchname; & more"),
        ("&amp;amp; stays", "&amp;amp; stays"),  # what would have to be read twice is left as it is
        ("?a=1&copy=2", "?a=1&copy=2"),
        ("<input type='checkbox' checked>yes", "yes"),
    ],
)
def test_html(before: str, after: str) -> None:
    assert one(before, Name.HTML) == after


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        (Name.MOJIBAKE, "itâ€™s a cafÃ©", "it’s a café"),
        (Name.COMPATIBILITY, "Ｈｅｌｌｏ　ﬁne 𝐛𝐨𝐥𝐝 ｶﾞ", "Hello　fine bold ガ"),
        (Name.COMPATIBILITY, "x² ½ ™ … é", "x² ½ ™ … é"),
        (Name.MISSING, " N/A ", None),
        (Name.MISSING, "—", None),
        (Name.MISSING, "Not available", None),
        (Name.MISSING, "none of it", "none of it"),
        (Name.MISSING, "", ""),
    ],
)
def test_other_text_rules(name: Name, before: str, after: str | None) -> None:
    assert one(before, name) == after


def test_proposals_show_what_would_happen() -> None:
    texts = ["<b>x</b>", "<i>y</i>", "<u>z</u>", "<s>w</s>", "n/a", "plain", None, "“quoted”", "soooo good", "a\u200bb", "x²", "&amp;amp;"]
    found = {proposal.rule.name: proposal for proposal in proposals(table(texts), COLUMNS)}
    assert {name: proposal.rows for name, proposal in found.items()} == {
        Name.HTML: 4, Name.MISSING: 1, Name.CONTROL: 1, Name.QUOTES: 1, Name.REPEATED: 1, Name.OTHER_FORMS: 1,
    }  # fmt: skip
    assert found[Name.HTML].examples == (("<b>x</b>", "x"), ("<i>y</i>", "y"), ("<u>z</u>", "z"))
    assert found[Name.HTML].note.endswith("1 of them.")
    assert found[Name.MISSING].examples == (("n/a", None),)
    assert {name for name, proposal in found.items() if not proposal.applies} == set(COUNTED) - {Name.DATE_ORDER}
    assert json.loads(json.dumps(found[Name.HTML].as_dict()))["rule"]["name"] == "html"
    assert proposals(table(["fine"] * 3, ["a", "b", "c"]), COLUMNS) == []


def test_examples_show_the_place_of_the_change() -> None:
    found = {proposal.rule.name: proposal for proposal in proposals(table(["x" * 500 + " <b>bold</b> “q” ™"]), COLUMNS)}
    before, after = found[Name.HTML].examples[0]
    assert before.endswith("x <b>bold</b> “q” ™") and str(after).endswith("x bold “q” ™") and len(before) < 200
    assert "“q”" in found[Name.QUOTES].examples[0][0]
    assert found[Name.OTHER_FORMS].examples[0][0].endswith("™") and str(found[Name.OTHER_FORMS].examples[0][1]).endswith("TM")


def test_spellings_become_the_most_frequent() -> None:
    counts = Counter(
        {"spam": 5, "Spam": 3, " spam ": 4, "SPAM.": 1, "ham": 2, "not_spam": 1, "not spam": 2, "C++": 3, "C": 4, "-1": 2, "1": 2}
    )
    assert spellings(counts) == {"Spam": "spam", " spam ": "spam", "SPAM.": "spam", "not_spam": "not spam"}
    assert spellings(Counter({" a": 1, "?": 1, ".": 2})) == {}


def test_near_spellings_are_proposed_apart() -> None:
    counts = Counter(
        {
            "refund request": 9,
            "refund reqest": 1,
            "refunb request": 2,
            "refudn request": 1,
            "class_11": 3,
            "class_12": 4,
            "cat": 2,
            "car": 2,
        }
    )
    assert sorted(near_spellings(counts)) == [
        ("refudn request", "refund request"),
        ("refunb request", "refund request"),
        ("refund reqest", "refund request"),
    ]


def test_numbers_and_dates_get_one_form() -> None:
    assert formats(Counter({"1": 5, "1.0": 2, "01": 1, "2": 3, "2.5": 1})) == ({"1.0": "1", "01": "1"}, [])
    dates = Counter({"2024-05-01": 3, "01/05/2024": 1, "13/05/2024": 1, "2024-5-2": 1})
    assert formats(dates) == ({"01/05/2024": "2024-05-01", "13/05/2024": "2024-05-13", "2024-5-2": "2024-05-02"}, [])
    assert formats(Counter({"05/13/2024": 1, "05/01/2024": 1, "2024-05-01": 1}))[0]["05/01/2024"] == "2024-05-01"
    assert formats(Counter({"2024-05-01": 3, "01/05/2024": 1})) == ({}, ["01/05/2024"])
    assert formats(Counter({"01/05/2024": 3, "02/05/2024": 1})) == ({}, [])
    assert formats(Counter({"31/02/2024": 3, "2024-05-01": 1})) == ({}, [])


def test_label_rules_go_together() -> None:
    labels: list[str | None] = ["complaint"] * 5 + ["Complaint ", "complaimt", "COMPLAIMT", "unknown", "Unknown", None, "praise"]
    rows = table(["x"] * len(labels), labels)
    found = proposals(rows, COLUMNS)
    assert [proposal.rule.mapping for proposal in named(found, Name.MISSING)] == [{"Unknown": None}, {"unknown": None}]
    assert named(found, Name.LABEL_SPELLING)[0].rule.mapping == {"Complaint ": "complaint", "complaimt": "COMPLAIMT"}
    assert named(found, Name.LABEL_PERHAPS)[0].rule.mapping == {"COMPLAIMT": "complaint"}
    rules = [rule_from_dict(json.loads(json.dumps(asdict(proposal.rule)))) for proposal in found if proposal.applies]
    done, counts = apply(rows, rules)
    assert done["label"].to_list() == ["complaint"] * 8 + [None] * 3 + ["praise"]
    assert counts == {
        ("label", Name.MISSING): 2,
        ("label", Name.LABEL_SPELLING): 2,
        ("label", Name.LABEL_PERHAPS): 2,
    }
    only = [rule for rule in rules if rule.name == Name.LABEL_SPELLING]
    assert apply(rows, only)[0]["label"].to_list()[5:9] == ["complaint", "COMPLAIMT", "COMPLAIMT", "unknown"]


def test_lists_of_labels() -> None:
    rows = pl.DataFrame(
        {"text": ["x"] * 5, "label": [["Spam", "n/a"], ["spam", "Spam"], ["spam"], None, []]},
        schema_overrides={"label": pl.List(pl.String)},
    )
    rules = [proposal.rule for proposal in proposals(rows, COLUMNS)]
    done, counts = apply(rows, rules)
    assert done["label"].to_list() == [["Spam"], ["Spam"], ["Spam"], None, []]
    assert counts == {("label", Name.MISSING): 1, ("label", Name.LABEL_SPELLING): 2}
    assert apply(done, rules)[0].equals(done)


@pytest.mark.parametrize(
    "rule",
    [
        Rule("text", Name.QUOTES),
        Rule("nowhere", Name.HTML),
        Rule("number", Name.HTML),
        Rule("label", Name.LABEL_SPELLING),
        Rule("label", Name.LABEL_PERHAPS, {"a": "b", "b": "a"}),
    ],
)
def test_rules_that_cannot_be_applied_are_refused(rule: Rule) -> None:
    with pytest.raises(DataError, match="rule"):
        apply(table(["x", "y"], ["a", "b"]).with_columns(number=1), [rule])


PIECES = st.sampled_from([
    "<b>", "</b>", "<", ">", "b", "&amp;", "&lt;", "&gt;", "amp;", "&", "lt;", "Ã", "©", "â€™", "&Atilde;", "&copy;", "ﬁ",
    "Ａ", "＆", "；", "＜", "ｂ", "＞", "n/a", " ", "é", "<script>", "</script>", "<!--", "-->", "&#65315;", "N", "ａ", "／",
])  # fmt: skip
TEXTS = st.lists(st.lists(PIECES, max_size=8).map("".join) | st.text(max_size=8), min_size=1, max_size=5)
LABELS = st.sampled_from(
    [
        "spam",
        "Spam",
        "spam ",
        "spam.",
        "spamming",
        "spaming",
        "Spammin",
        "1",
        "1.0",
        "1.",
        "01",
        "2024-05-01",
        "13/05/2024",
        "n/a",
        "-",
        "?",
    ]
)


@settings(max_examples=300, deadline=None)
@given(TEXTS, st.permutations(TEXT_RULES), st.integers(1, 4))
def test_text_rules_applied_twice_or_in_another_order_change_nothing_more(texts: list[str], names: list[Name], many: int) -> None:
    rules = [Rule("text", name) for name in names[:many]]
    rows = table(list(texts))
    done, counts = apply(rows, rules)
    again, none = apply(done, rules)
    assert again.equals(done) and not any(none.values())
    assert apply(rows, rules[::-1])[0].equals(done)
    changed = sum(a != b for a, b in zip(texts, done["text"].to_list(), strict=True))
    assert max(counts.values()) <= changed <= sum(counts.values())


@settings(max_examples=200, deadline=None)
@given(st.lists(LABELS, min_size=1, max_size=12), st.randoms())
def test_label_rules_applied_twice_change_nothing_more(labels: list[str], random: object) -> None:
    rows = table(["x"] * len(labels), list(labels))
    rules = [proposal.rule for proposal in proposals(rows, COLUMNS) if proposal.applies]
    random.shuffle(rules)  # type: ignore[attr-defined]
    some = rules[: len(rules) // 2 + 1]
    done, counts = apply(rows, some)
    assert apply(done, some)[0].equals(done)
    assert apply(rows, some[::-1])[0].equals(done)
    changed = sum(a != b for a, b in zip(labels, done["label"].to_list(), strict=True))
    assert changed <= sum(counts.values())


def test_of_two_rules_for_one_label_the_order_does_not_choose() -> None:
    rows = table(["x"] * 5, ["spamming", "spaming", "spaming", "Spammin", "Spammin"])
    rules = [proposal.rule for proposal in proposals(rows, COLUMNS) if proposal.applies]
    both = [rule for rule in rules if "spamming" in rule.mapping]
    assert {rule.mapping["spamming"] for rule in both} == {"spaming", "Spammin"}
    assert apply(rows, both)[0].equals(apply(rows, both[::-1])[0])


def test_nothing_named_changes_nothing() -> None:
    rows = table(["<b>x</b>", None])
    done, counts = apply(rows, [])
    assert done.equals(rows) and counts == {}

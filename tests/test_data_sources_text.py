"""Text formats: tokens, questions, conversations, Label Studio; each damaged record is counted with its place."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import source_files as files
from tests.test_data_sources import DATA, needs_data
from tunesmith.core.errors import DataError
from tunesmith.data.sources import conll
from tunesmith.data.sources.base import Items
from tunesmith.data.sources.conll import breaks
from tunesmith.data.sources.detect import open_source
from tunesmith.data.sources.place import Place
from tunesmith.data.sources.quotes import located


def reasons(items: Items) -> list[str]:
    return items.dropped["reason"].to_list()


def told(items: Items) -> str:
    return " ".join(map(str, items.issues))


def written(path: Path, text: str) -> str:
    path.write_text(text, "utf-8")
    return str(path)


tokens = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=6).filter(lambda t: "-DOC" not in t)
sentences = st.lists(st.lists(st.tuples(tokens, st.sampled_from(["O", "B-x", "I-x"])), min_size=1, max_size=5), min_size=1, max_size=6)


@pytest.mark.parametrize(
    ("name", "token"), [("train.conll", "{"), ("train.conll", '{"'), ("train.conll", '["'), ("train.txt", "{"), ("train.txt", "[")]
)
def test_a_first_token_that_opens_json_is_a_token(tmp_path: Path, name: str, token: str) -> None:
    items = open_source(written(tmp_path / name, f"{token} O\nBonn B-LOC\n\nHe O\nleft O\n"))
    assert items.kind == "token-classification" and items.table.height == 2


@settings(max_examples=60, deadline=None)
@given(rows=sentences, tab=st.booleans(), middle=st.booleans(), line_end=st.sampled_from(["\n", "\r\n"]))
def test_any_sentences_survive_columns(
    tmp_path_factory: pytest.TempPathFactory, rows: list[list[tuple[str, str]]], tab: bool, middle: bool, line_end: str
) -> None:
    gap = ("\t" if tab else " ") + ("_" + ("\t" if tab else " ") if middle else "")
    text = (line_end * 2).join(line_end.join(f"{token}{gap}{tag}" for token, tag in row) for row in rows)
    path = tmp_path_factory.mktemp("conll") / "train.conll"
    path.write_bytes((text + line_end).encode())
    items = open_source(str(path))
    assert items.table["tokens"].to_list() == [[token for token, _ in row] for row in rows]
    assert items.table["tags"].to_list() == [[tag for _, tag in row] for row in rows]


def test_sentences_with_other_columns_leave_and_broken_tags_stay(tmp_path: Path) -> None:
    lines = [
        "-DOCSTART- -X- O O",
        "",
        "Ada NNP x B-per",
        "met VB x I-loc",
        "",
        "Bob NNP",
        "ran VB x O",
        "",
        *["a b c O", ""] * 20,
        "cut NNP",
    ]
    items = open_source(written(tmp_path / "a.txt", "\n".join(lines)))
    assert items.table["source"].to_list()[:2] == ["a.txt:3", "a.txt:9"]
    assert items.dropped.rows() == [
        ("a.txt:6", "column_count", "line 6 has 2 columns, most have 4"),
        ("a.txt:49", "column_count", "line 49 has 2 columns, most have 4"),
    ]
    assert "1 tags begin one instead; they are kept" in told(items)


def test_comments_are_no_tokens_and_a_hash_is(tmp_path: Path) -> None:
    items = open_source(written(tmp_path / "a.conll", "# id 1 of 2\nAda\tB-per\n\n#\tO\nBob\tB-per\n"))
    assert items.table["tokens"].to_list() == [["Ada"], ["#", "Bob"]]


@pytest.mark.parametrize(
    ("tags", "count"),
    [
        (["B-x", "I-x", "I-x", "O"], 0),
        (["I-x", "I-x"], 1),
        (["B-x", "I-y", "I-y"], 1),
        (["O", "I-x", "O", "I-x"], 2),
        (["B-x", "E-x", "E-x", "S-x", "I-x"], 2),
        (["B-x", "L-x", "U-x"], 0),
    ],
)
def test_breaks_of_the_tag_scheme(tags: list[str], count: int) -> None:
    assert breaks(tags) == count


@pytest.mark.parametrize(
    "text", ["Hello there, you.\n\nThe two of us, well.\n", "text\tlabel\nsome words\ta\nother words\tb\n", "one\ntwo\n"]
)
def test_other_text_is_no_column_file(tmp_path: Path, text: str) -> None:
    written(tmp_path / "a.txt", text)
    assert conll.recognise(Place(tmp_path / "a.txt")) is None


@needs_data
def test_real_sentences_survive_columns(tmp_path: Path) -> None:
    rows = [json.loads(line) for line in gzip.decompress((DATA / "wnut17" / "train.jsonl.gz").read_bytes()).splitlines()]
    text = "\n\n".join("\n".join(f"{t}\t{tag}" for t, tag in zip(row["tokens"], row["tags"], strict=True)) for row in rows)
    items = open_source(written(tmp_path / "wnut.txt", text))
    assert items.format == "conll" and items.table.height == len(rows)
    assert items.table["tags"].to_list() == [row["tags"] for row in rows]
    assert items.table["tokens"].to_list() == [[token.strip() for token in row["tokens"]] for row in rows]


@given(text=st.text(max_size=12), quote=st.text(max_size=3), start=st.integers(-2, 14) | st.none())
def test_a_quote_is_where_it_is_said_to_be(text: str, quote: str, start: int | None) -> None:
    found = located(text, quote, start)
    if found:
        assert text[found[0] : found[0] + len(quote)] == quote
        assert found[1] != "moved" or text.find(quote, text.find(quote) + 1) == -1
    elif quote and start is not None and start >= 0:
        assert text[start : start + len(quote)] != quote


def asked(*answers: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"id": "q", "question": "Who?", "answers": list(answers)} | more


def answer(text: str, start: object) -> dict[str, Any]:
    return {"text": text, "answer_start": start}


def questions(tmp_path: Path, *found: dict[str, Any], context: str = "Ada met Bob. Bob ran.") -> Items:
    good = {"id": "good", "question": "Where?", "answers": [answer("Ada", 0)]}
    return open_source(str(files.document(tmp_path / "dev.json", files.squad_value(good, *found, context=context))))


@pytest.mark.parametrize(
    ("question", "answers", "why"),
    [
        (asked(answer("met", 4)), [("met", 4)], []),
        (asked(answer("met", 5)), [("met", 4)], []),
        (asked(answer("met", None)), [("met", 4)], []),
        (asked(answer("Bob", 9)), None, ["text_not_there", "no_answer_left"]),
        (asked(answer("Bob", 9), answer("ran", 17)), [("ran", 17)], ["text_not_there"]),
        (asked(answer("", 0)), None, ["text_not_there", "no_answer_left"]),
        (asked(is_impossible=True, plausible_answers=[answer("Bob", 8)]), [], []),
        (asked(), [], []),
        (asked(is_impossible=False), None, ["not_annotated"]),
        (asked(answers=None), None, ["not_annotated"]),
        (asked(answer("met", 4), question=" "), None, ["malformed"]),
        (asked(5), None, ["malformed", "no_answer_left"]),  # type: ignore[arg-type]
    ],
)
def test_questions_keep_answers_that_are_there(
    tmp_path: Path, question: dict[str, Any], answers: list[tuple[str, int]] | None, why: list[str]
) -> None:
    items = questions(tmp_path, question)
    assert reasons(items) == why
    found = [row["answers"] for row in items.table.iter_rows(named=True) if row["id"] == "q"]
    assert found == ([] if answers is None else [[{"text": text, "start": start} for text, start in answers]])
    assert ("were moved" in told(items)) == (question["answers"] in ([answer("met", 5)], [answer("met", None)]))


def test_starts_in_utf16_units_and_ids_used_twice(tmp_path: Path) -> None:
    twice = asked(answer("met", 7))
    items = questions(tmp_path, twice, twice, twice | {"question": "When?"}, context="Ada 😀 met Bob")
    assert items.table["answers"].to_list()[1] == [{"text": "met", "start": 6}]
    assert reasons(items) == ["duplicate_id"]
    assert "converted" in told(items) and "1 were used again" in told(items)


def test_flat_questions_with_lists_of_answers(tmp_path: Path) -> None:
    rows = [
        {"id": 1, "context": "Ada met Bob", "question": "Who?", "answers": {"text": ["Bob"], "answer_start": [8]}},
        {"id": 2, "context": "Ada met Bob", "question": "Why?", "answers": {"text": [], "answer_start": []}},
        {"id": 3, "context": "Ada met Bob", "question": "Why?", "answers": {"text": ["Bob"], "answer_start": []}},
    ]
    items = open_source(str(files.lines(tmp_path / "dev.jsonl", rows)))
    assert items.table["answers"].to_list() == [[{"text": "Bob", "start": 8}], []]
    assert reasons(items) == ["not_annotated"]


def turns(*pairs: tuple[object, object]) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": content} for role, content in pairs]}


GOOD = turns(("user", "Hi"), ("assistant", "Hello"))


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (turns(("user", "Hi"), ("assistant", " ")), "empty_content"),
        (turns(("user", "Hi"), ("assistant", None)), "empty_content"),
        (turns(("user", "Hi"), ("critic", "No")), "unknown_role"),
        (turns(("user", "Hi"), (None, "No")), "unknown_role"),
        (turns(("user", "Hi"), ("user", "there")), "no_assistant"),
        (turns(), "no_assistant"),
        (turns(("user", 5), ("assistant", "Hello")), "malformed"),
        ({"messages": ["Hi"]}, "malformed"),
        ({"other": 1}, "malformed"),
        ([1], "malformed"),
        ({"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "", "tool_calls": [{}]}]}, "tool_calls"),
        ({"instruction": "Add.", "output": ""}, "empty_content"),
        ({"instruction": "Add.", "output": 3}, "malformed"),
    ],
)
def test_a_conversation_that_cannot_be_used_leaves_whole(tmp_path: Path, row: object, reason: str) -> None:
    items = open_source(str(files.lines(tmp_path / "chat.jsonl", [GOOD, row, GOOD])))
    assert items.dropped.rows() == [("chat.jsonl:2", reason, items.dropped["detail"][0])]
    assert items.table["source"].to_list() == ["chat.jsonl:1", "chat.jsonl:3"]


def test_half_written_and_undecodable_lines_are_counted(tmp_path: Path) -> None:
    text = json.dumps(GOOD)
    path = written(tmp_path / "chat.jsonl", f'{text}\n{text[:20]}\n\n{{"messages": "\\ud800"}}\n{text}\n{text[:-1]}')
    items = open_source(path)
    assert items.dropped.select("source", "reason").rows() == [(f"chat.jsonl:{n}", "malformed") for n in (2, 4, 6)]
    assert items.dropped["detail"][1] == "half a surrogate pair"
    assert items.table.height == 2


def test_the_three_shapes_of_conversations(tmp_path: Path) -> None:
    rows = [
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}, {"role": "assistant", "content": "Hello"}]},
        {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}], "system": "Be kind."},
        {"instruction": "Add.", "input": "1 and 2", "output": "3", "id": 4, "source": "web", "tags": ["x"]},
    ]
    items = open_source(str(files.lines(tmp_path / "chat.jsonl", rows)))
    said = [[(turn["role"], turn["content"]) for turn in row] for row in items.table["messages"].to_list()]
    assert said == [
        [("user", "Hi"), ("assistant", "Hello")],
        [("system", "Be kind."), ("user", "Hi"), ("assistant", "Hello")],
        [("user", "Add.\n\n1 and 2"), ("assistant", "3")],
    ]
    assert items.table.select("id", "source_in_file").rows()[2] == ("4", "web")
    assert "conversations of one shape" in told(items) and "'tags' should be a single value" in told(items)


def test_choices_of_several_people(tmp_path: Path) -> None:
    tasks = [
        files.label_task(1, {"text": "good", "id": 3}, [files.choice("pos")], [files.choice("pos")], [files.choice("neg")]),
        files.label_task(2, {"text": "fair"}, [files.choice("pos")], [files.choice("neg"), files.choice("yes", control="other")]),
        files.label_task(3, {"text": "none"}, []),
        files.label_task(4, {"html": "only text"}, [files.choice("neg")]),
        files.label_task(5, {"a": "x", "b": "y"}, [files.choice("neg")]),
    ]
    items = open_source(str(files.document(tmp_path / "export.json", tasks)))
    assert items.table.select("text", "label").rows() == [("good", "pos"), ("fair", None), ("only text", "neg")]
    assert items.table["annotations"].to_list()[1] == [{"annotator": "1", "label": "pos"}, {"annotator": "2", "label": "neg"}]
    assert reasons(items) == ["unsupported", "not_annotated", "malformed"]
    assert "1 tasks are a tie" in told(items)
    assert items.dropped["source"][0] == "export.json:2 task 2 annotation 2"


def test_several_choices_a_person_are_lists(tmp_path: Path) -> None:
    tasks = [files.label_task(1, {"text": "t"}, [files.choice("a", "b")], [files.choice("b")])]
    items = open_source(str(files.document(tmp_path / "export.json", tasks)))
    assert items.table.schema["label"] == pl.List(pl.String) and items.table["label"].to_list() == [["b"]]
    assert len(items.table["annotations"].to_list()[0]) == 3


def test_spans_are_checked_against_their_text(tmp_path: Path) -> None:
    results = [
        files.span(0, 3, "Ada"), files.span(4, 6, "😀"), files.span(7, 10, "met"), files.span(2, 5, "Bob"), files.span(0, 3, "Eve"),
        files.span(0, 3, None), files.span(5, 99, None), {"type": "labels", "value": {"start": 0, "end": 3}},
    ]  # fmt: skip
    items = open_source(str(files.document(tmp_path / "e.json", [files.label_task(1, {"text": "Ada 😀 met Bob"}, results)])))
    spans = [(span["start"], span["end"]) for span in items.table["spans"].to_list()[0]]
    assert spans == [(0, 3), (4, 5), (6, 9), (10, 13), (0, 3)]
    assert sorted(reasons(items)) == ["malformed", "text_not_there", "text_not_there"]
    assert "1 stood elsewhere, exactly once, and were moved" in told(items) and "1 were counted in UTF-16" in told(items)


def test_an_export_without_known_results_says_so(tmp_path: Path) -> None:
    task = files.label_task(1, {"text": "x"}, [{"type": "rating", "value": {"rating": 3}}])
    with pytest.raises(DataError, match="must hold results of the types rectanglelabels, labels, choices, got rating"):
        open_source(str(files.document(tmp_path / "e.json", [task])))


def test_choices_that_are_all_damaged_leave_nothing(tmp_path: Path) -> None:
    task = files.label_task(1, {"text": "x"}, [{"type": "choices", "value": {"choices": None}}])
    with pytest.raises(DataError, match="must hold at least one item"):
        open_source(str(files.document(tmp_path / "e.json", [task])))

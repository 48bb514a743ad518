"""Judgements of texts for queries: how cells are read, what leaves, what stays together."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.core.errors import DataError
from tunesmith.data.bm25 import Bm25
from tunesmith.data.clean import clean_relevant
from tunesmith.data.columns import choose_columns
from tunesmith.data.draft import draft_spec
from tunesmith.data.prepare import prepare
from tunesmith.data.relevant import RELEVANT, check_relevant, corpus_of, judged_share, read_relevant
from tunesmith.spec.load import load_spec, read_yaml
from tunesmith.spec.schema import Data

DATA = Data(train=("t",))


def judged(table: pl.DataFrame, **options: Any) -> list[list[tuple[str, float]] | None]:
    columns = choose_columns(table, DATA.model_copy(update=options), "feature-extraction")
    read = read_relevant(table, columns.text, str(columns.label), columns.negative, "data.train")[0][str(columns.label)]
    return [None if row is None else [(e["text"], e["relevance"]) for e in row] for row in read.to_list()]


def plain(rows: list[tuple[str, list[tuple[str, float]]]]) -> pl.DataFrame:
    label = [[{"text": text, "relevance": value} for text, value in entries] for _, entries in rows]
    texts = [query for query, _ in rows]
    return pl.DataFrame({"text": texts, "label": pl.Series(label, dtype=RELEVANT), "source": [f"t:{n}" for n in range(len(rows))]})


def test_pairs_triplets_lists_and_ratings_are_read() -> None:
    assert judged(pl.DataFrame({"query": ["a b"], "passage": ["c"]})) == [[("c", 1.0)]]
    assert judged(pl.DataFrame({"anchor": ["a"], "positive": ["b"], "negative": ["c"]})) == [[("b", 1.0), ("c", 0.0)]]
    assert judged(pl.DataFrame({"query": ["a"], "positives": [["b", "c"]], "negatives": [["d"]]})) == [[("b", 1.0), ("c", 1.0), ("d", 0.0)]]
    rated = pl.DataFrame({"query": ["a", "a"], "document": ["b", "c"], "relevance": [2, 0]})
    assert judged(rated) == [[("b", 2.0)], [("c", 0.0)]]
    words = pl.DataFrame({"query": ["a", "a", "b"], "document": ["b", "c", "d"], "label": ["yes", "no", "true"]})
    assert judged(words) == [[("b", 1.0)], [("c", 0.0)], [("d", 1.0)]]
    entries = pl.DataFrame({"query": ["a"], "passages": [[{"text": "b", "score": 3.0}, {"text": "c", "score": 0.0}]]})
    assert judged(entries) == [[("b", 3.0), ("c", 0.0)]]
    assert judged(pl.DataFrame({"query": ["a"], "passages": ['[{"text": "b"}, "c"]']})) == [[("b", 1.0), ("c", 1.0)]]
    assert judged(pl.DataFrame({"user": ["likes tea"], "item": ["pot"]})) == [[("pot", 1.0)]]


def test_a_relevance_that_some_cells_lack_is_still_the_relevance(tmp_path: Path) -> None:
    rows = {"query": [f"q {n}" for n in range(40)] * 2, "document": [f"d {n}" for n in range(80)]}
    table = pl.DataFrame({**rows, "relevance": ["1"] * 39 + ["?"] + ["0"] * 40})
    table.write_csv(tmp_path / "t.csv")
    spec = {"name": "x", "task": "feature-extraction", "data": {"train": str(tmp_path / "t.csv"), "near_duplicates": None}}
    made = prepare(load_spec(spec))
    assert dict(made.dropped["reason"].value_counts().iter_rows()) == {"no_number": 1, "no_relevant": 1}
    relevant = [entry["text"] for row in made.train["label"] for entry in row if entry["relevance"] > 0]
    assert relevant and all(int(text.split()[1]) < 39 for text in relevant)


@pytest.mark.parametrize("cells", [["high", "low", "?"], [[1.0], [0.0], [1.0]], ["1", "bad", "worse"]])
def test_a_relevance_that_cannot_be_read_is_refused(cells: list[Any]) -> None:
    table = pl.DataFrame({"query": ["a", "b", "c"], "document": ["d", "e", "f"], "relevance": cells})
    with pytest.raises(DataError, match=r"column 'relevance': must hold relevances.*data.label: document"):
        judged(table)
    assert judged(table, label="document") == [[("d", 1.0)], [("e", 1.0)], [("f", 1.0)]]
    empty = table.with_columns(relevance=pl.Series([None] * 3, dtype=pl.String))
    assert judged(empty) == [[("d", 1.0)], [("e", 1.0)], [("f", 1.0)]]


def test_a_column_of_numbers_is_no_text_for_its_name() -> None:
    assert judged(pl.DataFrame({"query": ["a", "b"], "text": ["c", "d"], "relevant": [1, 0]})) == [[("c", 1.0)], [("d", 0.0)]]


def test_objects_of_a_json_file_are_read(tmp_path: Path) -> None:
    rows = [{"query": f"q {n}", "passages": [{"text": f"t {n}", "score": 2}, {"text": f"u {n}", "score": 0}]} for n in range(30)]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    made = prepare(load_spec({"name": "x", "task": "feature-extraction", "data": {"train": str(tmp_path / "t.jsonl")}}))
    assert {entry["text"][0] for row in made.train["label"] for entry in row} == {"t", "u"}


def test_judgements_that_cannot_be_read_are_counted(tmp_path: Path) -> None:
    passages: list[Any] = [["a", None, "b"], ["c"], [{"body": "d"}, "e"]]
    rows = [{"query": f"q {n}", "passages": passages[n % 3], "negatives": '["w"]'} for n in range(30)]
    rows[0]["negatives"], rows[1]["negatives"], rows[2]["negatives"] = "[" * 100_000, "", '[{"label": 3}]'
    table = pl.DataFrame({name: [json.dumps(row[name]) if name == "passages" else row[name] for row in rows] for name in rows[0]})
    table.write_csv(tmp_path / "t.csv")
    spec = {
        "name": "x",
        "task": "feature-extraction",
        "data": {"train": str(tmp_path / "t.csv"), "near_duplicates": None, "contexts": "apart"},
    }
    said = [str(issue) for issue in prepare(load_spec(spec)).issues]
    assert any("21 entries that are neither: left out" in line for line in said)
    assert any("negatives should hold texts that are not relevant" in line and "1 cells that cannot be read" in line for line in said)


def test_a_table_may_lack_the_texts_that_are_not_relevant() -> None:
    table = pl.DataFrame({"query": ["a"], "passage": ["b"]})
    read, told = read_relevant(table, ("query",), "passage", "negative", "data.validation")
    assert read["passage"].to_list() == [[{"text": "b", "relevance": 1.0}]] and not told


def test_columns_that_the_spec_names_are_taken() -> None:
    table = pl.DataFrame({"query": ["x"], "a": ["q"], "b": ["t"], "c": ["w"], "passage": ["y"]})
    assert judged(table, text=("a",), label="b", negative="c") == [[("t", 1.0), ("w", 0.0)]]
    with pytest.raises(DataError, match=r"data\.negative"):
        judged(table, text=("a",), label="b", negative="d")


def test_useless_judgements_leave_with_a_reason() -> None:
    nan = float("nan")
    rows = plain([
        ("one", [("a", 1.0), ("a", 2.0), ("", 1.0)]), ("", [("a", 1.0)]), ("two", []), ("three", [("three", 1.0), ("b", nan)]),
        ("four", [("c", 1.0), ("d", 0.0)]), ("four ", [("d", 1.0), ("e", 1.0)]), ("five", [("f", 0.0)]),
    ])  # fmt: skip
    cleaned = clean_relevant(rows, together=False)
    kept = {row["text"]: [(e["text"], e["relevance"]) for e in row["label"]] for row in cleaned.kept.iter_rows(named=True)}
    assert kept == {"one": [("a", 2.0)], "four": [("c", 1.0), ("e", 1.0)]}
    reasons = dict(cleaned.dropped["reason"].value_counts().iter_rows())
    assert reasons == {
        "empty_text": 1,
        "empty_label": 2,
        "same_as_text": 1,
        "no_number": 1,
        "conflicting_labels": 2,
        "duplicate": 1,
        "no_relevant": 1,
    }


def test_queries_for_one_text_stay_together() -> None:
    rows = plain([("one", [("a", 1.0)]), ("two", [("a", 1.0), ("b", 1.0)]), ("three", [("b", 1.0)]), ("four", [("c", 1.0), ("a", 0.0)])])
    groups = dict(clean_relevant(rows, together=True).kept.select("text", "group").iter_rows())
    assert groups["one"] == groups["two"] == groups["three"] != groups["four"]
    owned = rows.with_columns(group=pl.Series(["g", None, None, "g"]))
    joined = dict(clean_relevant(owned, together=True).kept.select("text", "group").iter_rows())
    assert len(set(joined.values())) == 1
    assert "group" not in clean_relevant(rows, together=False).kept.columns


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from("wxyz"), st.sampled_from([0.0, 1.0, 2.0])), max_size=20), st.randoms())
def test_the_order_of_the_rows_does_not_matter(entries: list[tuple[str, str, float]], draw: Any) -> None:
    rows = [(query, [(text, value)]) for query, text, value in entries]
    shuffled = list(rows)
    draw.shuffle(shuffled)
    results = [
        clean_relevant(plain(order), together=True).kept.select("id", "text", "label", "group").sort("id").to_dicts()
        for order in (rows, shuffled)
    ]
    assert results[0] == results[1]


def test_what_makes_a_table_useless_is_said() -> None:
    def issue(rows: list[Any]) -> str:
        return str(check_relevant(pl.Series("label", rows, RELEVANT))[0])

    assert "none in 2 rows" in issue([None, []])
    assert "all of them nought" in issue([[{"text": "a", "relevance": 0.0}]])
    assert "as numbers" in issue([[{"text": "a", "relevance": float("nan")}]])
    assert not check_relevant(pl.Series("label", [[{"text": "a", "relevance": 1.0}]], RELEVANT))


def test_the_corpus_holds_every_text_once() -> None:
    labels = pl.Series(
        "label", [[{"text": "b", "relevance": 1.0}, {"text": "a", "relevance": 0.0}], [{"text": "b", "relevance": 1.0}]], RELEVANT
    )
    corpus = corpus_of([labels, labels], ["c", "a", ""])
    assert sorted(corpus["text"]) == ["a", "b", "c"] and corpus["id"].is_sorted()
    assert judged_share(labels) == 0.5


def test_bm25_is_the_formula() -> None:
    texts = ["the cat sat on the mat", "a dog", "the the the", ""]
    index = Bm25(texts)
    score = next(iter(index.scores(["the cat"])))

    def one(word: str, document: str) -> float:
        words, mean = document.split(), sum(len(t.split()) for t in texts) / len(texts)
        found = sum(word in t.split() for t in texts)
        times = words.count(word)
        import math

        return math.log(1 + (len(texts) - found + 0.5) / (found + 0.5)) * times * 2.2 / (times + 1.2 * (0.25 + 0.75 * len(words) / mean))

    assert score == pytest.approx([sum(one(w, t) for w in ("the", "cat")) for t in texts])
    assert index.best(["dog", "zebra"], 2) == [[1, 0], [0, 1]]
    assert Bm25([]).best(["x"], 3) == [[]]


@pytest.mark.parametrize("count", [0, 1, 3, 10, 200, 400])
def test_the_best_texts_are_those_of_a_whole_sort_also_where_scores_are_equal(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = random.Random(0)
    texts = [" ".join(draw.choices("abcdef", k=draw.randint(0, 3))) for _ in range(200)]  # many are equal, many share no word
    index, queries = Bm25(texts), ["a", "a b", "f c e", "z", ""]
    sorted_ = [np.lexsort((np.arange(200), -score_D))[:count].tolist() for score_D in index.scores(queries)]
    monkeypatch.setattr(np, "lexsort", None)  # no query sorts the whole index
    assert index.best(queries, count) == sorted_


def table_of_pairs(folder: Path, rows: int = 60) -> Path:
    words = ["invoice", "refund", "parcel", "password", "courier", "session"]
    table = pl.DataFrame(
        {"query": [f"where is {words[n % 6]} {n}" for n in range(rows)], "passage": [f"about {words[n % 6]} {n // 2}" for n in range(rows)]}
    )
    table.write_csv(folder / "pairs.csv")
    return folder / "pairs.csv"


def test_init_recognises_queries_and_texts(tmp_path: Path) -> None:
    text = draft_spec(str(table_of_pairs(tmp_path)), tmp_path)
    (tmp_path / "spec.yaml").write_text(text)
    spec = load_spec(read_yaml(tmp_path / "spec.yaml"))
    assert spec.task == "feature-extraction" and spec.data.text == ("query",) and spec.data.label == "passage"


def test_a_table_becomes_queries_with_a_corpus(tmp_path: Path) -> None:
    pl.DataFrame({"text": ["a further text", "about parcel 1"]}).write_csv(tmp_path / "more.csv")
    data = {"train": str(table_of_pairs(tmp_path)), "corpus": str(tmp_path / "more.csv"), "near_duplicates": None}
    made = prepare(load_spec({"name": "x", "task": "feature-extraction", "data": data}))
    assert made.corpus is not None and "a further text" in made.corpus["text"].to_list() and len(made.corpus) == 61
    assert made.labels == [] and made.profile["corpus"] == 61
    groups = [set(split["group"]) for split in (made.train, made.validation, made.test)]
    assert not (groups[0] & groups[1] or groups[0] & groups[2] or groups[1] & groups[2])
    values = {finding.id: finding.value for finding in made.findings}
    assert values["data/relevant/train"] == sum(map(len, made.train["label"])) and values["data/corpus"] == 61

"""Rules and masks of the spec: applied alike to training rows and to predictions, shown and counted in the report."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

import tunesmith
from tests import tiny
from tests.test_run import raw_spec, run
from tunesmith.core.errors import SpecError
from tunesmith.data.clean import cleaned_text
from tunesmith.data.prepare import prepare
from tunesmith.data.survey import survey
from tunesmith.data.uniform import uniform, uniform_texts
from tunesmith.spec.schema import Data

TABLE = pl.DataFrame(
    {
        "text": ["write to <b>me</b>", "at ana.b@example.com", "a cafÃ© in Paris", "plain text"],
        "label": ["Spam", "spam ", "Spam", "ham"],
        "source": ["t.csv:1", "t.csv:2", "t.csv:3", "t.csv:4"],
    }
)


def test_nothing_is_changed_unasked_but_everything_is_shown() -> None:
    done = uniform({"train": TABLE}, Data(train=("t.csv",)))
    assert done.tables["train"].equals(TABLE)
    assert {(p["column"], p["name"]) for p in done.proposals} >= {("text", "html"), ("text", "mojibake"), ("label", "label_spelling")}
    assert done.applied == []
    assert done.masked == {}


def test_rules_that_the_spec_names_are_applied_and_counted() -> None:
    data = Data(train=("t.csv",), standardise=("html", "mojibake", "label_spelling"), mask=("email",))
    done = uniform({"train": TABLE, "test": TABLE.head(2)}, data)
    assert done.tables["train"]["text"].to_list() == ["write to me", "at [EMAIL]", "a café in Paris", "plain text"]
    assert done.tables["train"]["label"].to_list() == ["Spam", "Spam", "Spam", "ham"]
    assert {(a["column"], a["name"]): a["rows"] for a in done.applied} == {
        ("text", "html"): 2,
        ("text", "mojibake"): 1,
        ("label", "label_spelling"): 2,
    }
    assert done.masked == {"email": 2}
    assert uniform_texts(TABLE.select("text"), data)["text"].to_list() == done.tables["train"]["text"].to_list()


def test_proposals_do_not_show_what_the_spec_masks() -> None:
    table = TABLE.with_columns(text=pl.Series(["<b>ana.b@example.com</b>", "a", "b", "c"]))
    shown = json.dumps(uniform({"train": table}, Data(train=("t.csv",), mask=("email",))).proposals)
    assert "ana.b" not in shown and "[EMAIL]" in shown
    assert "ana.b" in json.dumps(uniform({"train": table}, Data(train=("t.csv",))).proposals)


def test_an_unknown_rule_is_refused() -> None:
    with pytest.raises(SpecError, match=r"data\.standardise"):
        tunesmith.load_spec({"name": "t", "data": {"train": "t.csv", "standardise": ["htlm"]}})


def test_a_survey_counts_and_is_json() -> None:
    rows = tiny.table(60).with_columns(id=pl.Series([f"{n:02}" for n in range(60)]))
    rows = rows.with_columns(text=pl.when(pl.col("id") == "03").then(pl.lit("mail ana.b@example.com")).otherwise("text"))
    found = survey({"train": rows.head(40), "validation": rows.slice(40, 10), "test": rows.tail(10)})
    assert found == json.loads(json.dumps(found))
    assert found["rows"] == 60
    assert found["personal"]["rows_with"] == 1
    assert found["writing"]["scripts"]["Latin"] == 60
    assert set(found["drift"]) == {"validation", "test"}


def test_predictions_see_texts_as_training_did(tmp_path: Path, tiny_bert: Path) -> None:
    tiny.table(90).with_columns(pl.format("<p>{}</p> mail me@example.com", "text").alias("text")).write_csv(tmp_path / "html.csv")
    data = {"train": str(tmp_path / "html.csv"), "standardise": ["html"], "mask": ["email"]}
    done = run(tmp_path, tiny_bert, data=data, strategy={"kind": "features"})
    assert not pl.read_parquet(done.path / "data/train.parquet")["text"].str.contains("<p>|@").any()
    raw = pl.read_csv(tmp_path / "html.csv")
    answers = tunesmith.load(done.path).predict(raw["text"].to_list())
    stored = pl.read_parquet(done.path / "predictions/test.parquet")
    ids = dict(pl.read_parquet(done.path / "data/test.parquet")["text", "id"].iter_rows())
    texts = uniform_texts(raw.select("text"), tunesmith.load(done.path).spec.data).select(cleaned_text(pl.col("text")))["text"]
    compared = 0
    for text, answer in zip(texts, answers, strict=True):
        if text in ids:
            row = stored.row(by_predicate=pl.col("id") == ids[text], named=True)
            assert answer.label == row["predicted"]
            assert answer.probability == pytest.approx(row["confidence"], abs=1e-5)
            compared += 1
    assert compared == len(stored)
    assert done.findings["data/standardised/text/html"].value == 90
    assert done.findings["data/masked/email"].value == 90
    assert prepare(tunesmith.load_spec(raw_spec(tmp_path, tiny_bert, data=data))).profile["survey"]["personal"]["rows_with"] == 0

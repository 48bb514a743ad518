"""Several annotators in plain tables: one row for each text with their consensus, counts that add up, nothing inferred silently."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests import tiny
from tests.test_data_prepare import adds_up
from tests.test_run import raw_spec, run
from tunesmith.core.errors import DataError
from tunesmith.core.rundir import RunDir
from tunesmith.data.annotators import krippendorff_alpha, ratings
from tunesmith.data.columns import choose_columns
from tunesmith.data.consensus import agree, annotator_column, judgements, label_columns
from tunesmith.data.draft import draft_spec
from tunesmith.data.load import SOURCE
from tunesmith.data.prepare import Prepared, prepare
from tunesmith.pipeline import check
from tunesmith.spec.check import check_spec
from tunesmith.spec.load import load_spec
from tunesmith.spec.schema import Data
from tunesmith.stages.verify import verify_run

PEOPLE = ("anna", "bert", "carol")
Row = tuple[str, str | None, str | None]  # text, label, annotator


def plain(rows: list[Row]) -> pl.DataFrame:
    """Rows as the table after `plain_table`."""
    table = pl.DataFrame(rows, schema={"text": pl.String, "label": pl.String, "annotator": pl.String}, orient="row")
    return table.with_columns(pl.format("t:{}", pl.int_range(1, pl.len() + 1)).alias("source"))


def long(rows: int = 90) -> pl.DataFrame:
    """The tiny table judged by three: anna is right, bert is wrong in each fifth text, carol in each third."""
    table, labels = tiny.table(rows), sorted(tiny.WORDS)
    parts = []
    for name, wrong in (("anna", 0), ("bert", 5), ("carol", 3)):
        said = [labels[(labels.index(y) + 1) % 3] if wrong and n % wrong == 1 else y for n, y in enumerate(table["label"])]
        parts.append(table.with_columns(pl.Series("label", said), pl.lit(name).alias("who")))
    return pl.concat(parts)


def wide(rows: int = 90) -> pl.DataFrame:
    return long(rows).pivot("who", index="text", values="label")


def prepared(table: pl.DataFrame, folder: Path, **data: Any) -> Prepared:
    table.write_csv(folder / "t.csv")
    return prepare(load_spec({"name": "t", "data": {"train": str(folder / "t.csv"), "text": "text", **data}}))


WORDS = st.sampled_from(["one", "two", " two ", "three", ""])
CELLS = st.tuples(WORDS, st.sampled_from(["x", "y", " x", "", None]), st.sampled_from(["anna", "bert", "carol", None]))


@settings(max_examples=150, deadline=None)
@given(st.lists(CELLS, min_size=1, max_size=30), st.sampled_from(["majority", "dawid_skene"]))
def test_each_row_stays_or_leaves_once_and_the_majority_is_that_of_a_plain_count(rows: list[Row], rule: str) -> None:
    table = plain(rows)
    said: dict[tuple[str, str], set[str]] = {}
    for text, label, who in rows:
        if text.strip() and label and label.strip() and who:
            said.setdefault((text.strip(), who), set()).add(label.strip())
    people = {who for _, who in said}
    assume(len(people) < 2 or any(len(labels) == 1 for labels in said.values()))  # else there is no label to go by: refused
    done = agree({"train": table}, Data(train=("t",), annotator="annotator", consensus=rule))
    kept, left = done.tables["train"], done.dropped
    assert sorted([*kept["source"], *left["source"]]) == sorted(table["source"])
    assert "annotator" not in kept.columns
    if done.told is None or rule != "majority":
        return
    judged = [(text.strip(), label.strip(), who) for text, label, who in rows if text.strip() and label and label.strip() and who]
    wanted = {}
    for text in {text for text, *_ in judged}:
        by_person = {who: {label for t, label, w in judged if (t, w) == (text, who)} for t, _, who in judged if t == text}
        votes = Counter(next(iter(said)) for said in by_person.values() if len(said) == 1).most_common()
        if votes and (len(votes) == 1 or votes[0][1] > votes[1][1]):
            wanted[text] = votes[0][0]
    with_label = [
        (text.strip(), label) for text, label in kept.select("text", "label").iter_rows() if text.strip() and label and label.strip()
    ]
    assert dict(with_label) == wanted and len(with_label) == len(wanted)
    assert done.told["judgements"] == len(judged)


def test_long_and_wide_tables_give_the_same_splits_and_numbers(tmp_path: Path) -> None:
    one = prepared(long(), tmp_path, label="label", annotator="who")
    other = prepared(wide(), tmp_path, label=list(PEOPLE))
    adds_up(one)
    adds_up(other)
    assert one.profile["rows"]["read"] == 270 and other.profile["rows"]["read"] == 90
    for name in ("train", "validation", "test"):
        assert dict(vars(one)[name].select("id", "label").iter_rows()) == dict(vars(other)[name].select("id", "label").iter_rows())
    told = one.profile["annotators"]
    assert told == {**other.profile["annotators"], "examples": told["examples"]}
    truth = dict(tiny.table(90).select("text", "label").iter_rows())
    assert all(truth[text] == label for text, label in one.train.select("text", "label").iter_rows() if text in truth) or told["undecided"]
    by_name = {row["annotator"]: row["dawid_skene"] for row in told["annotators"]}
    assert by_name["anna"] > by_name["bert"] > by_name["carol"]


def test_findings_are_those_of_the_measures_and_dropped_rows_name_the_reason(tmp_path: Path) -> None:
    table = long()
    done = prepared(table, tmp_path, label="label", annotator="who", near_duplicates=None)
    found = {finding.id: finding for finding in done.findings}
    given_ = ratings(table.select(pl.col("text").alias("item"), pl.col("who").alias("annotator"), "label"))
    alpha = krippendorff_alpha(given_, "nominal")
    assert found["data/agreement/alpha"].value == pytest.approx(alpha.value, abs=1e-6)
    assert found["data/agreement/alpha"].n == 90 and found["data/annotators/judgements"].value == 270
    assert found["data/annotators/accuracy/anna"].value is not None
    assert found["data/dropped/judgement"].value == done.dropped.filter(pl.col("reason") == "judgement").height > 0
    assert found["data/dropped/no_consensus"].value == done.dropped.filter(pl.col("reason") == "no_consensus").height
    assert done.consensus is not None and set(done.consensus.columns) >= {"item", "text", "majority", "dawid_skene", "votes"}
    assert done.consensus.height == 90


def test_ties_leave_with_what_was_said_and_dawid_skene_breaks_them_by_trust() -> None:
    rows: list[Row] = [(f"text {n}", "xyz"[n % 3], who) for n in range(30) for who in PEOPLE[:2]]
    rows += [(f"text {n}", "xyz"[(n + n % 2) % 3], "carol") for n in range(30)]
    rows += [("open", "x", "anna"), ("open", "y", "carol")]
    tie = agree({"train": plain(rows)}, Data(train=("t",), annotator="annotator"))
    left = tie.dropped.filter(pl.col("reason") == "no_consensus")
    assert set(left["text"]) == {"open"} and left["detail"][0] == "anna: x; carol: y"
    trusted = agree({"train": plain(rows)}, Data(train=("t",), annotator="annotator", consensus="dawid_skene"))
    assert dict(trusted.tables["train"].select("text", "label").iter_rows())["open"] == "x"


def test_a_row_of_a_wide_table_is_counted_once_whatever_leaves(tmp_path: Path) -> None:
    table = pl.concat(
        [wide(60), pl.DataFrame({"text": ["no label at all", ""], "anna": ["", "a"], "bert": ["", ""], "carol": [None, "b"]})]
    )
    table = table.with_columns(pl.Series("fold", ["train"] * 40 + ["test"] * 10 + ["val"] * 10 + ["?", "train"]))
    done = prepared(table, tmp_path, label=list(PEOPLE), split={"kind": "column", "column": "fold"}, standardise=["html"])
    adds_up(done)
    reasons = {reason: entry["rows"] for reason, entry in done.profile["dropped"].items()}
    assert reasons["empty_text"] == 1 and reasons["empty_label"] + reasons["no_split"] == 1


def test_annotators_who_all_contradict_themselves_are_refused() -> None:
    rows: list[Row] = [(text, label, who) for text, who in (("one", "anna"), ("two", "bert")) for label in "xy"]
    with pytest.raises(DataError, match="at least one usable label"):
        agree({"train": plain(rows)}, Data(train=("t",), annotator="annotator"))


def test_one_annotator_or_a_test_table_without_them_is_told(tmp_path: Path) -> None:
    alone = prepared(long().filter(pl.col("who") == "anna"), tmp_path, label="label", annotator="who")
    assert any("several annotators" in str(issue) for issue in alone.issues) and alone.profile["annotators"] is None
    tiny.table(40, seed=5).with_columns(pl.col("text") + " new").write_csv(tmp_path / "test.csv")
    gold = prepared(long(), tmp_path, label="label", annotator="who", test=str(tmp_path / "test.csv"))
    assert any("data.test: should say who gave its labels" in str(issue) for issue in gold.issues)
    adds_up(gold)


def test_texts_that_nobody_shares_are_told(tmp_path: Path) -> None:
    table = tiny.table(60).with_columns(pl.Series("who", [PEOPLE[n % 3] for n in range(60)]))
    done = prepared(table, tmp_path, label="label", annotator="who")
    assert any("no text with judgements of two" in str(issue) for issue in done.issues)


def test_a_column_that_looks_like_annotators_is_proposed_and_never_taken(tmp_path: Path) -> None:
    long().rename({"who": "worker"}).write_csv(tmp_path / "crowd.csv")
    text = draft_spec(str(tmp_path / "crowd.csv"), tmp_path)
    assert "  # annotator: worker  #" in text
    spec = load_spec({"name": "t", "data": {"train": str(tmp_path / "crowd.csv")}})
    done = prepare(spec)
    assert done.profile["annotators"] is None and any("worker" in str(issue) for issue in done.issues)
    uncommented = (
        text.replace("  # annotator:", "  annotator:").replace("  # consensus:", "  consensus:").replace("train: ", f"train: {tmp_path}/")
    )
    (tmp_path / "spec.yaml").write_text(uncommented)
    assert prepare(load_spec(tmp_path / "spec.yaml")).profile["annotators"]


def test_what_is_no_annotator_is_not_proposed() -> None:
    def found(table: pl.DataFrame) -> object:
        return annotator_column(table, choose_columns(table, Data(train=("t",), text=("text",), label="label")))

    once = tiny.table(60)
    twice = pl.concat([once, once])
    assert found(once.with_columns(pl.lit("anna").alias("annotator"))) is None
    assert found(twice.with_columns(pl.Series("repeat", [0] * 60 + [1] * 60))) is None
    assert found(twice.with_columns(pl.Series("lang", ["en"] * 120))) is None
    assert found(twice.with_columns(pl.Series("id", [str(n) for n in range(120)]))) is None
    assert found(twice.with_columns(pl.Series("by", ["a"] * 60 + ["b"] * 60)))


def test_numbered_label_columns_are_proposed(tmp_path: Path) -> None:
    table = wide().rename({name: f"label_{n}" for n, name in enumerate(PEOPLE)})
    columns = choose_columns(table, Data(train=("t",)))
    assert label_columns(table, columns) == ("[label_0, label_1, label_2]", "numbered columns that hold the same labels")
    table.write_csv(tmp_path / "numbered.csv")
    assert "  # label: [label_0, label_1, label_2]" in draft_spec(str(tmp_path / "numbered.csv"), tmp_path)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"annotator": "label"}, "data.annotator: must not be a text or label column"),
        ({"consensus": "majority"}, "data.consensus: has no effect"),
        ({"annotator": "who", "on_conflict": "drop"}, "data.on_conflict: has no effect"),
        ({"annotator": "who", "multi_label": True, "label_separator": ","}, "data.multi_label: must be false"),
        ({"annotator": "who", "label": ["a", "b"]}, "data.annotator: has no effect beside"),
        ({"label": ["a", "a"]}, "data.label: must name different columns"),
        ({"label": ["text", "a"]}, "data.label: must not be a text column"),
    ],
)
def test_specs_that_say_two_things_are_refused(tmp_path: Path, data: dict[str, Any], words: str) -> None:
    tiny.table(9).write_csv(tmp_path / "t.csv")
    spec = load_spec({"name": "t", "data": {"train": str(tmp_path / "t.csv"), "text": "text", "label": "label", **data}})
    assert any(str(issue).startswith(words) for issue in check_spec(spec, ("accuracy",)))


def test_missing_columns_and_too_many_annotators_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="'dora'"):
        judgements(wide(), Data(train=("t",), label=("anna", "dora")))
    with pytest.raises(DataError, match="Did you mean 'who'"):
        prepared(long(), tmp_path, label="label", annotator="whom")
    monkeypatch.setattr("tunesmith.data.item_agreement.MOST_CELLS", 100)
    with pytest.raises(DataError, match="few enough"):
        prepared(long(), tmp_path, label="label", annotator="who")


def test_wide_columns_of_different_types_and_taken_names_become_long() -> None:
    table = pl.DataFrame({"label": ["a text"], "a": [1], "b": ["1"], SOURCE: ["t:1"]})
    rows, data = judgements(table, Data(train=("t",), label=("a", "b"), text=("label",)))
    assert (data.label, data.annotator) == ("label_", "annotator")
    assert rows["label_"].to_list() == ["1", "1"] and rows[SOURCE].to_list() == ["t:1", "t:1"]


def test_a_run_shows_and_verifies_its_annotators(tmp_path: Path, tiny_bert: Path) -> None:
    long().write_csv(tmp_path / "crowd.csv")
    data = {"train": str(tmp_path / "crowd.csv"), "text": "text", "label": "label", "annotator": "who"}
    done = run(tmp_path, tiny_bert, data=data, strategy={"kind": "features"})
    assert verify_run(RunDir(done.path), 2).ok
    for name in ("report.html", "MODEL_CARD.md"):
        assert "Krippendorff" in (done.path / name).read_text("utf-8")
    page = check(load_spec(raw_spec(tmp_path, tiny_bert, data=data)), tmp_path / "checks") / "data_report.html"
    assert "agrees with the majority" in page.read_text("utf-8").lower()
    assert json.loads((done.path / "data/profile.json").read_text("utf-8"))["annotators"]["several"] == 90
    assert pl.read_parquet(done.path / "data/consensus.parquet").height == 90

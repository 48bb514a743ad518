"""What a run does with its data: certificate, suspects, decisions, groups, time, and a check without training."""

from __future__ import annotations

import csv
import json
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml

import tunesmith
from tests import tiny
from tests.test_cli import call
from tests.test_run import raw_spec, run
from tunesmith.core.errors import DataError
from tunesmith.core.interrupt import StopRequest
from tunesmith.core.rundir import RunDir
from tunesmith.data.prepare import prepare
from tunesmith.evaluate.intervals import Estimate
from tunesmith.pipeline import CHECKS, check
from tunesmith.stages import embed
from tunesmith.stages.context import Context
from tunesmith.stages.embed import load_features
from tunesmith.stages.verify import verify_run


def noisy(rows: int = 120) -> pl.DataFrame:
    """The tiny table with every twelfth label wrong."""
    table, labels = tiny.table(rows), sorted(tiny.WORDS)
    changed = [labels[(labels.index(y) + 1) % 3] if n % 12 == 5 else y for n, y in enumerate(table["label"])]
    return table.with_columns(pl.Series("label", changed))


def read(run_path: Path, name: str) -> Any:
    return json.loads((run_path / name).read_text("utf-8"))


def test_near_duplicates_stay_together_and_the_certificate_says_so(tmp_path: Path, tiny_bert: Path) -> None:
    table = tiny.table(90)
    table = pl.concat([table, table.with_columns(pl.col("text").str.to_uppercase() + "!")])
    table.write_csv(tmp_path / "twice.csv")
    done = run(tmp_path, tiny_bert, data={"train": str(tmp_path / "twice.csv")}, strategy={"kind": "features"})
    certificate = read(done.path, "data/certificate.json")
    assert certificate["jaccard"]["clusters"] >= 90
    assert set(certificate["jaccard"]["pairs"].values()) == {0}
    assert certificate["exact"]["pairs"] == 0
    spec = tunesmith.load_spec(raw_spec(tmp_path, tiny_bert, data={"train": str(tmp_path / "twice.csv"), "near_duplicates": None}))
    apart = prepare(spec)
    lower = [set(part["text"].str.to_lowercase().str.strip_chars("!")) for part in (apart.train, apart.test)]
    assert lower[0] & lower[1], "without the search, copies would have parted"


def test_leaks_of_a_given_test_are_counted_and_scored_apart(tmp_path: Path, tiny_bert: Path) -> None:
    table = tiny.table(90)
    table.write_csv(tmp_path / "train.csv")
    test = pl.concat(
        [tiny.table(30, seed=9).with_columns(pl.col("text") + " new"), table.head(6).with_columns(("Oh: " + pl.col("text")).alias("text"))]
    )
    test.write_csv(tmp_path / "test.csv")
    data = {"train": str(tmp_path / "train.csv"), "test": str(tmp_path / "test.csv"), "near_duplicates": {"jaccard": 0.7}}
    done = run(tmp_path, tiny_bert, data=data, strategy={"kind": "features"})
    certificate = read(done.path, "data/certificate.json")
    assert certificate["jaccard"]["leaking_test_rows"] >= 5
    findings = done.findings
    assert findings["test/accuracy"].n == 36
    assert findings["test/clean/accuracy"].n == certificate["clean_test_rows"] == 36 - certificate["leaking"]["test"]
    assert "test rows are known" in (done.path / "report.html").read_text("utf-8")
    assert verify_run(RunDir(done.path), 2).ok
    leaks = pl.read_parquet(done.path / "data/leaks.parquet")
    assert leaks.filter(pl.col("split") == "test")["id"].n_unique() == certificate["leaking"]["test"]


def test_of_many_training_rows_those_most_like_a_test_row_are_compared_until_none_is_a_leak(
    tmp_path: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tiny.table(150)
    table.write_csv(tmp_path / "train.csv")
    known = table[[7, 20, 33, 46, 59, 72]].with_columns(text=pl.col("text").str.split(" ").list.reverse().list.join(" "))
    pl.concat([known, tiny.table(12, seed=5).with_columns(pl.col("text") + " other words")]).write_csv(tmp_path / "test.csv")
    monkeypatch.setattr(embed, "CERTIFICATE_BATCH", 5)
    data = {"train": str(tmp_path / "train.csv"), "test": str(tmp_path / "test.csv"), "suspects": None, "near_duplicates": {"cosine": 0.97}}
    raw = raw_spec(tmp_path, tiny_bert, data=data, train={"head_start": "random"}, evaluate={"baselines": []})
    done = check(tunesmith.load_spec(raw), tmp_path)
    loaded, train = load_features(done, "train"), pl.read_parquet(done / "data/train.parquet")
    compared = loaded["row"].tolist()
    assert compared == sorted(set(compared)) and 10 <= len(compared) < 100
    assert not compared or len(compared) % 5 == 0 or len(compared) == len(train)
    reversed_texts = set(known["text"].str.split(" ").list.reverse().list.join(" "))
    assert reversed_texts & set(train["text"]) <= set(train["text"].gather(compared)), "bags of the same tokens are the likeliest"
    assert RunDir(done).findings["features/rows/train"].value == len(compared)


def test_groups_never_part(tmp_path: Path, tiny_bert: Path) -> None:
    table = tiny.table(120).with_columns(patient=pl.Series([f"p{n // 6}" for n in range(120)]))
    table.write_csv(tmp_path / "g.csv")
    done = check(tunesmith.load_spec(raw_spec(tmp_path, tiny_bert, data={"train": str(tmp_path / "g.csv"), "group": "patient"})), tmp_path)
    parts = [set(pl.read_parquet(done / f"data/{name}.parquet")["group"]) for name in ("train", "validation", "test")]
    assert not parts[0] & parts[1] and not parts[0] & parts[2] and not parts[1] & parts[2]
    assert all(parts)
    certificate = read(done, "data/certificate.json")
    assert certificate["group"]["groups"] == 20
    assert certificate["group"]["leaking_test_rows"] == 0


def test_a_group_column_that_is_the_row_id_is_told(tmp_path: Path, tiny_bert: Path) -> None:
    table = tiny.table(90).with_columns(row=pl.Series([str(n) for n in range(90)]))
    table.write_csv(tmp_path / "g.csv")
    prepared = prepare(tunesmith.load_spec(raw_spec(tmp_path, tiny_bert, data={"train": str(tmp_path / "g.csv"), "group": "row"})))
    assert any("row id" in str(issue) for issue in prepared.issues)
    with pytest.raises(DataError, match=r"data\.group.*Did you mean 'row'"):
        prepare(tunesmith.load_spec(raw_spec(tmp_path, tiny_bert, data={"train": str(tmp_path / "g.csv"), "group": "rows"})))


def test_by_time_the_test_is_newer_and_unreadable_times_are_counted(tmp_path: Path, tiny_bert: Path) -> None:
    days = [str(date(2024, 1, 1) + timedelta(days=n)) for n in range(120)]
    days[3], days[50] = "soon", ""
    tiny.table(120).with_columns(made=pl.Series(days)).write_csv(tmp_path / "d.csv")
    data = {"train": str(tmp_path / "d.csv"), "split": {"kind": "time", "column": "made"}, "near_duplicates": None}
    prepared = prepare(tunesmith.load_spec(raw_spec(tmp_path, tiny_bert, data=data)))
    order = {row["text"]: days[n] for n, row in enumerate(tiny.table(120).iter_rows(named=True))}
    newest = [[order[text] for text in part["text"]] for part in (prepared.train, prepared.validation, prepared.test)]
    assert max(newest[0]) < min(newest[1]) and max(newest[1]) < min(newest[2])
    assert prepared.dropped.filter(pl.col("reason") == "no_moment").height == 2


def test_a_column_can_name_the_split(tmp_path: Path, tiny_bert: Path) -> None:
    words = ["Train", "dev", "test", "train", "training", "holdout", "later"]
    tiny.table(140).with_columns(part=pl.Series([words[n % 7] for n in range(140)])).write_csv(tmp_path / "c.csv")
    data = {"train": str(tmp_path / "c.csv"), "split": {"kind": "column", "column": "part"}}
    prepared = prepare(tunesmith.load_spec(raw_spec(tmp_path, tiny_bert, data=data)))
    assert (len(prepared.train), len(prepared.validation), len(prepared.test)) == (60, 20, 40)
    assert prepared.dropped.filter(pl.col("reason") == "no_split").height == 20


def test_repeated_training_rows_can_be_dropped(tmp_path: Path, tiny_bert: Path) -> None:
    table = tiny.table(90)
    pl.concat([table, table.with_columns(pl.col("text") + "!")]).write_csv(tmp_path / "twice.csv")
    data = {"train": str(tmp_path / "twice.csv"), "near_duplicates": {"in_train": "drop"}}
    prepared = prepare(tunesmith.load_spec(raw_spec(tmp_path, tiny_bert, data=data)))
    assert prepared.train["text"].str.strip_chars("!").is_duplicated().sum() == 0
    assert prepared.dropped.filter(pl.col("reason") == "near_duplicate").height >= 60


def test_a_table_of_look_alikes_is_refused_with_the_remedy(tmp_path: Path, tiny_bert: Path) -> None:
    texts = [f"nothing but one number changes in this sentence {n}" for n in range(60)]
    pl.DataFrame({"text": texts, "label": ["a", "b"] * 30}).write_csv(tmp_path / "same.csv")
    data = {"train": str(tmp_path / "same.csv")}
    with pytest.raises(DataError, match=r"never cut.*near_duplicates: null"):
        prepare(tunesmith.load_spec(raw_spec(tmp_path, tiny_bert, data=data)))
    apart = prepare(tunesmith.load_spec(raw_spec(tmp_path, tiny_bert, data={**data, "near_duplicates": None})))
    assert len(apart.test) > 0


@pytest.mark.parametrize("rule", ["report", "drop", "correct", "down_weight"])
def test_suspects_are_treated_as_the_spec_says(tmp_path: Path, tiny_bert: Path, rule: str) -> None:
    table = noisy()
    table.write_csv(tmp_path / "noisy.csv")
    data = {"train": str(tmp_path / "noisy.csv"), "suspects": {"kind": rule}}
    done = run(tmp_path, tiny_bert, data=data, train={"epochs": 1})
    suspects = pl.read_parquet(done.path / "data/suspects.parquet")
    assert len(suspects) > 0
    rows = pl.read_parquet(done.path / "data/train.parquet")
    changed = done.findings["labels/changed"].value
    assert changed == (0 if rule == "report" else len(suspects))
    context = Context(tunesmith.load_spec(yaml.safe_load((done.path / "spec.yaml").read_text())), RunDir(done.path), print, StopRequest())
    training, targets = context.training, context.task.targets(rows)
    assert len(training.rows) == len(rows) - (len(suspects) if rule == "drop" else 0)
    differing = {row for row, target in zip(training.rows, training.targets, strict=True) if target != targets[row]}
    assert differing == (set(suspects["row"]) if rule == "correct" else set())
    if rule == "down_weight":
        assert training.weights_N is not None
        assert set(np.flatnonzero(training.weights_N < 1).tolist()) == set(suspects["row"])
    else:
        assert training.weights_N is None
    assert verify_run(RunDir(done.path), 2).ok


def test_decisions_of_a_reviewer_come_back_in(tmp_path: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = noisy()
    table.write_csv(tmp_path / "noisy.csv")
    monkeypatch.chdir(tmp_path)
    done = run(tmp_path, tiny_bert, data={"train": "noisy.csv"}, strategy={"kind": "features"})
    with open(done.path / "review/suspects.csv", encoding="utf-8-sig", newline="") as file:
        entries = list(csv.DictReader(file))
    for number, entry in enumerate(entries):
        entry |= {"decision": ("relabel", "drop", "keep")[number % 3] if number < 5 else "", "reviewer": "Ana"}
    with open("filled.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, entries[0])
        writer.writeheader()
        writer.writerows(entries)
    assert call("relabel", done.path, done.path / "review/suspects.csv")[0] == 3
    code, said = call("relabel", done.path, "filled.csv")
    assert code == 0 and "1 keep, 2 relabel, 2 drop" in said and "Ana 5" in said
    assert call("relabel", done.path, "filled.csv")[0] == 2  # the spec exists
    again = tunesmith.run(tunesmith.load_spec("t-relabelled.yaml"), "runs")
    findings = again.findings
    assert [findings[f"data/decisions/{name}"].value for name in ("keep", "relabel", "drop")] == [1, 2, 2]
    assert findings["data/decisions/reviewer/Ana"].value == 5
    labels = dict(
        pl.concat([pl.read_parquet(again.path / f"data/{s}.parquet") for s in ("train", "validation", "test")])["id", "label"].iter_rows()
    )
    assert labels[entries[0]["id"]] == entries[0]["suggested_label"]
    assert entries[1]["id"] not in labels
    assert labels[entries[2]["id"]] == entries[2]["given_label"]
    assert pl.read_parquet(again.path / "data/dropped.parquet").filter(pl.col("reason") == "reviewed").height == 2


def test_a_check_trains_nothing_and_begins_anew_with_other_data(tmp_path: Path, tiny_bert: Path) -> None:
    spec = raw_spec(tmp_path, tiny_bert)
    folder = check(tunesmith.load_spec(spec), tmp_path / "checks")
    assert set(RunDir(folder).manifest["stages"]) == {name for name, _ in CHECKS}
    page = (folder / "data_report.html").read_text("utf-8")
    assert "nothing was trained" in page
    assert not (folder / "model").exists()
    first = read(folder, "data/profile.json")["rows"]["read"]
    tiny.table(60).write_csv(tmp_path / "tickets.csv")
    check(tunesmith.load_spec(spec), tmp_path / "checks")
    assert (first, read(folder, "data/profile.json")["rows"]["read"]) == (90, 60)


def test_checking_a_table_from_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_bert: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.yaml").write_text(json.dumps(raw_spec(tmp_path, tiny_bert)))
    code, said = call("check", "t.yaml")
    assert code == 0
    assert "suspect labels" in said and "data_report.html" in said


def test_nothing_is_looked_for_when_the_spec_says_so(tmp_path: Path, tiny_bert: Path) -> None:
    data = {"near_duplicates": None, "suspects": None}
    done = run(tmp_path, tiny_bert, data=data, train={"epochs": 1, "head_start": "random"}, evaluate={"baselines": []})
    certificate = read(done.path, "data/certificate.json")
    assert certificate["jaccard"] is None and certificate["cosine"] is None
    assert not (done.path / "data/suspects.parquet").exists()
    assert not (done.path / "features").exists()
    assert done.findings["certificate/jaccard/leaking_test_rows"].value is None
    assert verify_run(RunDir(done.path), 2).ok


@pytest.mark.parametrize("strategy", [{"kind": "layers", "top": 1}, {"kind": "features"}, {"kind": "features", "head": "linear"}])
def test_copies_join_the_training_rows_when_they_do_no_harm(tmp_path: Path, tiny_bert: Path, strategy: dict[str, Any]) -> None:
    rule = {"operations": ["drop_words", "swap_words"], "copies": 2, "gate": False}
    train = {"augment": rule} | ({"epochs": 1} if strategy["kind"] == "layers" or "head" in strategy else {})
    data = {"suspects": {"kind": "down_weight"}}
    done = run(tmp_path, tiny_bert, train=train, strategy=strategy, data=data)
    copies = pl.read_parquet(done.path / "data/augmented.parquet")
    rows = pl.read_parquet(done.path / "data/train.parquet")
    assert set(copies["from"]) <= set(rows["id"])
    assert len(copies) + done.findings["augment/unchanged"].value == 2 * len(rows)  # type: ignore[operator]
    assert done.findings["augment/kept"].value == len(copies)
    originals = dict(rows["id", "text"].iter_rows())
    assert all(originals[origin] != text for origin, text in copies["from", "text"].iter_rows())
    held_out = [set(pl.read_parquet(done.path / f"data/{name}.parquet")["id"]) for name in ("validation", "test")]
    assert not set(copies["from"]) & (held_out[0] | held_out[1])
    assert verify_run(RunDir(done.path), 2).ok
    assert "were trained on" in (done.path / "report.html").read_text("utf-8")


def test_the_gate_closes_on_copies_that_hurt(tmp_path: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tunesmith.stages import augment

    monkeypatch.setattr(augment, "paired_differences", lambda *_: {"accuracy": Estimate(-0.1, (-0.2, -0.01))})
    done = run(tmp_path, tiny_bert, train={"augment": {"operations": ["upper_case"]}, "epochs": 1}, strategy={"kind": "layers", "top": 1})
    assert done.findings["augment/kept"].value == 0
    assert "gate closed" in done.findings["augment/kept"].note
    assert len(pl.read_parquet(done.path / "data/augmented.parquet")) == 0
    assert verify_run(RunDir(done.path), 1).ok


def test_a_preview_shows_before_and_after(tmp_path: Path, tiny_bert: Path) -> None:
    (tmp_path / "t.yaml").write_text(json.dumps(raw_spec(tmp_path, tiny_bert, train={"augment": {"operations": ["upper_case"]}})))
    code, said = call("preview", tmp_path / "t.yaml", "--rows", 3, "-o", tmp_path / "t.html")
    assert code == 0 and said.count("upper_case") == 3
    assert "What augmentation does" in (tmp_path / "t.html").read_text("utf-8")
    (tmp_path / "u.yaml").write_text(json.dumps(raw_spec(tmp_path, tiny_bert)))
    assert call("preview", tmp_path / "u.yaml", "-o", tmp_path / "u.html")[0] == 0
    assert "What augmentation does" not in (tmp_path / "u.html").read_text("utf-8")


def test_groups_of_other_types_are_the_same_groups(tmp_path: Path, tiny_bert: Path) -> None:
    train = tiny.table(60).with_columns(g=pl.Series([n % 20 for n in range(60)]))
    test = tiny.table(30, seed=5).with_columns(pl.col("text") + " new", g=pl.Series([None, *[float(n % 20) for n in range(1, 30)]]))
    train.write_parquet(tmp_path / "train.parquet")
    test.write_parquet(tmp_path / "test.parquet")
    data = {"train": str(tmp_path / "train.parquet"), "test": str(tmp_path / "test.parquet"), "group": "g"}
    prepared = prepare(tunesmith.load_spec(raw_spec(tmp_path, tiny_bert, data=data)))
    assert (
        prepared.search.leaks.filter((pl.col("kind") == "group") & (pl.col("split") == "test"))["id"].n_unique() == len(prepared.test) - 1
    )


def test_what_a_reviewer_decided_is_not_suspected_again(tmp_path: Path, tiny_bert: Path) -> None:
    noisy().write_csv(tmp_path / "noisy.csv")
    data = {"train": str(tmp_path / "noisy.csv")}
    first = run(tmp_path, tiny_bert, data=data, strategy={"kind": "features"})
    suspects = pl.read_parquet(first.path / "data/suspects.parquet")
    review = suspects.select(
        "id", text=pl.lit(""), given_label="given", suggested_label="suggested", decision=pl.lit("keep"), reviewer=pl.lit("Bo")
    )
    review.write_csv(tmp_path / "kept.csv")
    review.head(1).with_columns(decision=pl.lit("drop")).write_csv(tmp_path / "later.csv")
    data |= {"decisions": [str(tmp_path / "kept.csv"), str(tmp_path / "later.csv")], "suspects": {"kind": "drop"}}
    again = run(tmp_path, tiny_bert, name="again", data=data, strategy={"kind": "features"})
    assert not set(pl.read_parquet(again.path / "data/suspects.parquet")["id"]) & set(suspects["id"])
    assert again.findings["data/decisions/drop"].value == 1  # the later file overrules


def test_one_group_alone_cannot_be_judged_and_does_not_stop_the_run(tmp_path: Path, tiny_bert: Path) -> None:
    names = ["site"] * 60 + ["v"] * 20 + ["t"] * 20
    tiny.table(100).with_columns(g=pl.Series(names), part=pl.Series(["train"] * 60 + ["val"] * 20 + ["test"] * 20)).write_csv(
        tmp_path / "g.csv"
    )
    data = {"train": str(tmp_path / "g.csv"), "group": "g", "split": {"kind": "column", "column": "part"}, "suspects": {"kind": "drop"}}
    done = run(tmp_path, tiny_bert, data=data, strategy={"kind": "features"})
    assert done.findings["labels/judged"].value == 0
    assert "No label was judged" in (done.path / "report.html").read_text("utf-8")


def test_copies_that_change_nothing_end_the_stage_not_the_run(tmp_path: Path, tiny_bert: Path) -> None:
    done = run(tmp_path, tiny_bert, train={"augment": {"operations": ["lower_case"]}, "epochs": 1}, strategy={"kind": "layers", "top": 1})
    assert done.findings["augment/kept"].value == 0
    data = {"near_duplicates": None, "suspects": None}
    train = {"augment": {"operations": ["drop_words"]}, "epochs": 1}
    bare = run(tmp_path, tiny_bert, name="bare", data=data, train=train, strategy={"kind": "layers", "top": 1}, evaluate={"baselines": []})
    assert bare.findings["augment/copies"].value > 0  # type: ignore[operator]


def test_an_edited_certificate_is_caught(tmp_path: Path, tiny_bert: Path) -> None:
    from tunesmith.document.recompute import check_scores

    done = run(tmp_path, tiny_bert, strategy={"kind": "features"})
    path = done.path / "data/certificate.json"
    content = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps({**content, "clean_test_rows": content["clean_test_rows"] + 1}), "utf-8")
    assert [c.status for c in check_scores(RunDir(done.path)) if c.what == "data/certificate.json"] == ["mismatch"]

"""The spec: what is refused and how, what is derived and why, and that files round-trip."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.core.errors import SpecError, TunesmithError
from tunesmith.spec.check import check_spec
from tunesmith.spec.defaults import Facts, flatten, read_resolved, resolve
from tunesmith.spec.load import dump_spec, load_spec
from tunesmith.spec.schema import Spec

BASE: dict[str, Any] = {"name": "t", "data": {"train": "a.csv"}}
FACTS = Facts(5000, 53, 512, fast_bfloat16=False, first_metric="accuracy", rows=6000, fewest_test_rows=40, validation_rows=500)
METRICS = ("accuracy", "macro_f1")


def write(folder: Path, text: str) -> Path:
    path = folder / "tickets.yaml"
    path.write_text(text, "utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "where", "says"),
    [
        ("data: {train: a.csv, txt: body}", "data.txt", "Did you mean text?"),
        ("data: {train: a.csv}\nstrateg: {kind: full}", "strateg", "Did you mean strategy?"),
        ("data: {train: a.csv}\nstrategy: {kind: full, rank: 8}", "strategy.rank", "(tickets.yaml line 2)"),
        ("data: {train: a.csv}\nstrategy: {kind: loar}", "strategy", "'features', 'layers', 'full', "),
        (
            "data: {train: a.csv}\ntrain:\n  epochs: 2\n  learning_rate: -3e-05",
            "train.learning_rate",
            "must be > 0 (tickets.yaml line 4), got ",
        ),
        ("data: {train: a.csv}\ntrain: {epochs: many}", "train.epochs", "got 'many'"),
        ("data: {train: a.csv}\nseed: -1", "seed", "must be >= 0"),
        ("task: text-classification", "data", "must be given"),
        ("data: {train: []}", "data.train", "at least 1 item"),
        ("data: {train: a.csv}\ndata: {train: b.csv}", "tickets.yaml line 2", "must appear once"),
        ("data: {train: a.csv", "tickets.yaml line", "must be YAML"),
        ("- a\n- b", "tickets.yaml", "must hold keys and values"),
        ("data: {train: a.csv}\ntrain: {dropout: .nan}", "train.dropout", "finite"),
    ],
)
def test_mistakes_name_the_place_and_the_remedy(tmp_path: Path, text: str, where: str, says: str) -> None:
    with pytest.raises(SpecError) as caught:
        load_spec(write(tmp_path, text))
    assert any(str(issue).startswith(where) and says in str(issue) for issue in caught.value.issues), str(caught.value)


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(SpecError) as caught:
        load_spec(write(tmp_path, "data: {train: a.csv, txt: b}\nseed: x\ntrain: {epochs: 0}"))
    assert len(caught.value.issues) == 3


def test_a_missing_file_names_the_closest(tmp_path: Path) -> None:
    write(tmp_path, "data: {train: a.csv}")
    with pytest.raises(SpecError, match=r"Did you mean tickets\.yaml\?"):
        load_spec(tmp_path / "ticket.yaml")


def test_vectors_of_embedders_may_stay_as_they_were() -> None:
    vectors = {**BASE, "task": "feature-extraction"}
    for facts, spec, kind, rule in (
        (replace(FACTS, embeds=True), vectors, "wise_ft", "vectors of this model serve before training"),
        (replace(FACTS, embeds=True), {**BASE, "task": "sentence-similarity"}, "wise_ft", "vectors of this model serve before training"),
        (replace(FACTS, embeds=True), {**vectors, "train": {"averaging": {"kind": "ema"}}}, "ema", "given"),
        (replace(FACTS, embeds=True), {**vectors, "train": {"averaging": None}}, None, "given"),
        (replace(FACTS, embeds=True), {**BASE, "task": "text-ranking"}, None, "default"),
        (FACTS, vectors, None, "default"),
        (FACTS, {**BASE, "task": "sentence-similarity"}, None, "default"),
    ):
        resolved = resolve(load_spec(spec), facts)
        averaging = resolved.spec.train.averaging
        assert (averaging.kind if averaging else None) == kind, spec
        assert resolved.rules["train.averaging.kind" if kind else "train.averaging"] == rule
        assert resolved.rules.keys() == flatten(resolved.spec).keys()


def test_binary_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(SpecError, match="YAML or JSON"):
        load_spec(tmp_path / "x.yaml")


def test_overrides_are_yaml_and_change_kinds_cleanly() -> None:
    spec = load_spec(
        {**BASE, "strategy": {"kind": "lora", "rank": 4}}, ["train.learning_rate=3e-5", "strategy.kind=layers", "strategy.top=1"]
    )
    assert spec.train.learning_rate == 3e-5
    assert spec.strategy.model_dump() == {"kind": "layers", "top": 1, "parts": None, "layer_decay": 1.0}


@pytest.mark.parametrize("override", ["no equals", "=3", "a.b=[", "train.epochz=3"])
def test_bad_overrides_are_refused(override: str) -> None:
    with pytest.raises(SpecError):
        load_spec(BASE, [override])


def test_paths_are_relative_to_the_spec(tmp_path: Path) -> None:
    spec = load_spec(write(tmp_path, "data: {train: a.csv, test: [b.csv, /c.csv]}"))
    assert spec.data.train == (str(tmp_path / "a.csv"),)
    assert spec.data.test == (str(tmp_path / "b.csv"), "/c.csv")
    assert spec.name == "tickets"


def test_dumping_and_loading_gives_the_same_spec() -> None:
    spec = load_spec({**BASE, "strategy": {"kind": "lora", "rank": 4}, "train": {"epochs": 2, "optimizer": {"kind": "sgd"}}})
    assert load_spec(yaml.safe_load(dump_spec(spec))) == spec


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"strategy": {"kind": "features"}, "train": {"epochs": 3}}, "train.epochs"),
        ({"strategy": {"kind": "features"}, "train": {"precision": "bfloat16"}}, "train.precision"),
        ({"strategy": {"kind": "features", "head": "linear"}, "train": {"dropout": 0.1}}, "train.dropout"),
        ({"data": {"train": "a.csv", "test_share": 0.5, "validation_share": 0.5}}, "data"),
        ({"train": {"optimizer": {"kind": "sgd", "momentum": 0, "nesterov": True}}}, "train.optimizer.nesterov"),
        ({"train": {"batch_size": 2, "gradient_accumulation_steps": 4}}, "train.gradient_accumulation_steps"),
        ({"evaluate": {"metric": "acuracy"}}, "evaluate.metric"),
        ({"data": {"train": "a.csv", "text": ["a", "a"]}}, "data.text"),
        ({"data": {"train": "a.csv", "text": "a", "label": "a"}}, "data.label"),
        ({"data": {"train": "a.csv", "label_separator": ","}}, "data.label_separator"),
        ({"data": {"train": "a.csv", "test_share": 0}}, "data.test_share"),
        ({"data": {"train": "a.csv", "test": "b.csv", "test_share": 0.2}}, "data.test_share"),
        ({"data": {"train": "a.csv", "multi_label": True}, "train": {"label_smoothing": 0.1}}, "train.label_smoothing"),
        ({"data": {"train": "a.csv", "multi_label": True}, "train": {"sampling": "balanced"}}, "train.sampling"),
        ({"train": {"label_smoothing": 0.1, "loss": {"kind": "focal"}}}, "train.label_smoothing"),
        ({"strategy": {"kind": "features"}, "train": {"sampling": "balanced"}}, "train.sampling"),
        ({"strategy": {"kind": "features"}, "train": {"loss": {"kind": "focal"}}}, "train.loss"),
        ({"data": {"train": "a.csv", "decisions": "s3://bucket/a.csv"}}, "data.decisions"),
        ({"data": {"train": "postgresql://me:secret@host/db?table=t"}}, "data.train"),
        ({"data": {"train": ["a.csv", "b.csv"], "weights": [1]}}, "data.train"),
    ],
)
def test_combinations_without_effect_are_refused(changes: dict[str, Any], where: str) -> None:
    assert where in [issue.where for issue in check_spec(load_spec({**BASE, **changes}), METRICS)]


def test_a_missing_table_names_the_closest(tmp_path: Path) -> None:
    (tmp_path / "tickets.csv").write_text("x")
    issues = check_spec(load_spec({**BASE, "data": {"train": str(tmp_path / "ticket.csv")}}), METRICS)
    assert "tickets.csv?" in issues[0].remedy


def test_every_value_has_a_rule_and_nothing_stays_open() -> None:
    resolved = resolve(load_spec(BASE), FACTS)
    values = flatten(resolved.spec)
    assert set(values) == set(resolved.rules)
    for path in ("model.max_length", "train.epochs", "train.batch_size", "train.learning_rate", "evaluate.metric"):
        assert values[path] is not None
        assert resolved.rules[path] not in ("given", "default")


def test_given_values_are_never_changed() -> None:
    spec = load_spec({**BASE, "train": {"epochs": 9, "learning_rate": 0.5}, "model": {"max_length": 17}})
    resolved = resolve(spec, FACTS)
    assert (resolved.spec.train.epochs, resolved.spec.train.learning_rate, resolved.spec.model.max_length) == (9, 0.5, 17)
    assert resolved.rules["train.epochs"] == "given"


def test_resolved_yaml_reads_back(tmp_path: Path) -> None:
    resolved = resolve(load_spec({**BASE, "train": {"optimizer": {"kind": "sgd"}}, "strategy": {"kind": "lora"}}), FACTS)
    (tmp_path / "resolved.yaml").write_text(resolved.as_yaml(), "utf-8")
    assert read_resolved(tmp_path / "resolved.yaml") == resolved.spec


def test_every_shipped_example_is_a_valid_spec() -> None:
    examples = sorted((Path(__file__).parent.parent / "tunesmith/spec/examples").glob("*.yaml"))
    assert examples
    for path in examples:
        load_spec(path)


WORDS = st.sampled_from(["name", "data", "train", "strategy", "kind", "lora", "rank", "epochs", "model", "text", "full", "card", "zzz", ""])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(WORDS, VALUES, max_size=6))
def test_any_mapping_is_a_spec_or_a_clear_error(raw: dict[str, Any]) -> None:
    try:
        spec = load_spec(raw)
    except TunesmithError as error:
        assert error.issues
    else:
        assert isinstance(spec, Spec)


@given(st.text(max_size=80))
def test_any_text_is_a_spec_or_a_clear_error(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "random.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        load_spec(path)
    except TunesmithError as error:
        assert error.issues

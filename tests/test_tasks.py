"""The contract suite: what every registered task promises, over all of them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests import tiny
from tunesmith.evaluate.metrics import metrics_for
from tunesmith.spec.kinds import KINDS
from tunesmith.spec.ranking import Cosine, Embedding, Triplet
from tunesmith.tasks.base import NOTHING, Task, parts_of
from tunesmith.tasks.feature_extraction import FeatureExtraction
from tunesmith.tasks.make import TASKS
from tunesmith.tasks.question_answering import QuestionAnswering
from tunesmith.tasks.sentence_similarity import SentenceSimilarity, SimilarityApart
from tunesmith.tasks.text_classification import TextClassification
from tunesmith.tasks.text_ranking import TextRanking
from tunesmith.tasks.text_regression import Scale, TextRegression
from tunesmith.tasks.text_to_text import Summarization, TextToText, Translation
from tunesmith.tasks.token_classification import TokenClassification

WORDS = tiny.tokenizer()
CORPUS = sorted({entry["text"] for row in FeatureExtraction.example()["label"].to_list() for entry in row})


def classifiers() -> list[Any]:
    labels = sorted(set(TextClassification.example()["label"]))
    options: list[dict[str, Any]] = [
        {}, {"pair": True}, {"multi_label": True}, {"label_smoothing": 0.1}, {"class_weights": [1.0, 3.0]},
        {"focal_gamma": 2.0}, {"focal_gamma": 2.0, "class_weights": [1.0, 3.0]}, {"focal_gamma": 0.5, "multi_label": True},
    ]  # fmt: skip
    return [pytest.param(TextClassification(labels, **o), id="-".join(o) or "plain") for o in options]


def others() -> list[Any]:
    types = sorted({span["label"] for spans in TokenClassification.example()["label"] for span in spans})
    tasks: list[Task] = [
        TextRegression(), TextRegression(pair=True, scale=Scale(2.0, 3.0)), SentenceSimilarity(), TokenClassification(types),
        QuestionAnswering(), TextToText(), Translation(prefix="say: "), Summarization(label_smoothing=0.1),
        SimilarityApart(scale=Scale(0.0, 5.0)), TextRanking(corpus=CORPUS, candidates="judged"),
        *(FeatureExtraction(options=Embedding(loss=loss), corpus=CORPUS) for loss in (Cosine(kind="cosine"), Triplet(kind="triplet"))),
        FeatureExtraction(corpus=CORPUS),
    ]  # fmt: skip
    return [pytest.param(task, id=f"{task.name}-{number}") for number, task in enumerate(tasks)]


def rows_of(task: Task) -> pl.DataFrame:
    table = task.example()
    return table.with_columns(pl.concat_list("label")) if task.kind == "classes" else table


def outputs_of(task: Task, batch: Any) -> Any:
    """What a network that fits the task could say of a batch: random logits of the right shape."""
    draw = torch.Generator().manual_seed(0)
    if task.head.__name__ == "AutoModel":
        return SimpleNamespace(last_hidden_state=torch.randn(*batch["input_ids"].shape, 8, generator=draw))
    if task.kind == "answers":
        starts, ends = (torch.randn(batch["input_ids"].shape, generator=draw) for _ in range(2))
        return SimpleNamespace(start_logits=starts, end_logits=ends)
    width = {"number": 1, "relevant": 1, "text": len(WORDS)}.get(task.kind) or len(task.model_options["id2label"])
    shape = (*batch["labels"].shape, width) if task.kind in ("spans", "text") else (len(batch["input_ids"]), width)
    return SimpleNamespace(logits=torch.randn(shape, generator=draw))


def some(outputs: Any, part: slice) -> Any:
    return SimpleNamespace(**{name: value[part] for name, value in vars(outputs).items()})


def test_every_registered_task_is_covered() -> None:
    assert {type(v.values[0]) for v in (*classifiers(), *others())} == set(TASKS.values()) | {SimilarityApart}
    assert set(TASKS) == set(KINDS) and all(TASKS[name].name == name for name in TASKS)


@pytest.mark.parametrize("task", [*classifiers(), *others()])
class TestContract:
    """Shapes, targets, normalisation and metrics of every task."""

    def test_the_example_has_the_columns(self, task: Task) -> None:
        assert set(task.columns) <= set(rows_of(task).columns)

    def test_encoding_keeps_order_and_length(self, task: Task) -> None:
        encoding = task.encode(rows_of(task), WORDS, 64)
        assert len(encoding.rows) == len(encoding.lengths) >= len(rows_of(task))
        assert [max(len(text["input_ids"]) for text in parts_of([row])) for row in encoding.rows] == encoding.lengths
        assert max(encoding.lengths) <= 64
        assert encoding.cut == 0

    def test_encoding_needs_no_labels(self, task: Task) -> None:
        row = task.encode(rows_of(task).drop("label"), WORDS, 64).rows[0]
        assert not any(name in ("labels", "start_positions", "end_positions") for name in task.collate([row]))

    def test_collating_pads_and_masks(self, task: Task) -> None:
        encoding = task.encode(rows_of(task), WORDS, 64)
        batch, lengths = task.collate(encoding.rows), [len(text["input_ids"]) for text in parts_of(encoding.rows)]
        assert batch["input_ids"].shape == (len(lengths), max(lengths))
        assert batch["attention_mask"].sum(1).tolist() == lengths

    def test_the_loss_of_a_batch_is_the_sum_over_its_pieces(self, task: Task) -> None:
        rows = task.training(rows_of(task), WORDS, 64).rows
        batch = task.collate(rows)
        outputs = outputs_of(task, batch)
        whole = task.loss(outputs, batch)
        if "allowed" in batch:  # texts of the batch are wrong ones for each other: pieces are refused
            assert float(whole[1]) == len(rows) and torch.isfinite(whole[0])
            return
        places, found = 0, []
        for number in range(len(rows)):
            size = len(parts_of(rows[number : number + 1]))
            texts = slice(places, places := places + size)
            piece = {k: v[texts] if len(v) == len(batch["input_ids"]) else v[number : number + 1] for k, v in batch.items()}
            piece |= {"queries": torch.zeros(1, dtype=torch.long)} if "queries" in batch else {}
            found.append(task.loss(some(outputs, texts), piece))
        for part in range(2):
            assert torch.isclose(whole[part].float(), torch.stack([one[part].float() for one in found]).sum(), rtol=1e-5)

    def test_its_metrics_exist(self, task: Task) -> None:
        assert set(task.metrics) == set(metrics_for(task.kind)) or task.kind == "text"
        assert set(task.metrics) <= set(metrics_for(task.kind)) and len(set(task.metrics)) == len(task.metrics)


@pytest.mark.parametrize("task", classifiers())
def test_texts_are_cut_and_counted(task: Task) -> None:
    encoding = task.encode(rows_of(task), WORDS, 6)
    assert max(encoding.lengths) <= 6
    assert encoding.cut == sum(n > 6 for n in task.encode(rows_of(task), WORDS, 64).lengths)


@pytest.mark.parametrize("task", classifiers())
def test_decoding_gives_the_user_s_words(task: Task) -> None:
    targets = torch.tensor(task.targets(rows_of(task)))
    labels = len(task.model_options["id2label"])
    logits = 20.0 * (2 * targets.float() - 1) if targets.ndim == 2 else 20.0 * torch.nn.functional.one_hot(targets, labels)
    answers = task.decode(logits, NOTHING)
    assert answers["predicted"].to_list() == rows_of(task)["label"].to_list()
    assert answers["probabilities"].list.len().unique().to_list() == [labels]
    assert 0 <= answers["confidence"].min() <= answers["confidence"].max() <= 1  # type: ignore[operator]


@pytest.mark.parametrize("options", [{}, {"class_weights": [1.0, 3.0]}, {"multi_label": True}])
@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_rows_count_by_their_weights_in_every_loss(options: dict[str, Any], gamma: float) -> None:
    labels = sorted(set(TextClassification.example()["label"]))
    focal, plain = TextClassification(labels, **options, focal_gamma=gamma), TextClassification(labels, **options)
    batch = focal.collate(focal.encode(rows_of(focal), WORDS, 64).rows)
    outputs = SimpleNamespace(logits=torch.randn(4, 2, generator=torch.Generator().manual_seed(1)))
    each = [focal.loss(SimpleNamespace(logits=outputs.logits[n : n + 1]), {k: v[n : n + 1] for k, v in batch.items()}) for n in range(4)]
    weights = torch.tensor([1.0, 0.3, 1.0, 0.3])
    total, count = focal.loss(outputs, {**batch, "weights": weights})
    assert torch.isclose(total, sum(w * loss for w, (loss, _) in zip(weights, each, strict=True)), rtol=1e-5)  # type: ignore[arg-type]
    assert torch.isclose(count, sum(w * n for w, (_, n) in zip(weights, each, strict=True)), rtol=1e-5)  # type: ignore[arg-type]
    if gamma == 0:
        for own, other in zip((total, count), plain.loss(outputs, {**batch, "weights": weights}), strict=True):
            torch.testing.assert_close(own, other)


def test_the_spec_s_loss_is_the_task_s() -> None:
    from tunesmith.spec.load import load_spec
    from tunesmith.tasks.make import make_task

    table = pl.DataFrame({"text": ["1", "2"], "label": ["a", "b"]})
    for train, gamma in (({}, None), ({"loss": {"kind": "focal"}}, 2.0), ({"loss": {"kind": "focal", "gamma": 0.5}}, 0.5)):
        task = make_task(load_spec({"name": "x", "data": {"train": "t"}, "train": train}), ["a", "b"], table)
        assert isinstance(task, TextClassification) and task.focal_gamma == gamma


@given(st.lists(st.text(max_size=30), min_size=1, max_size=6), st.integers(4, 20))
def test_any_text_is_encoded_in_bounds(texts: list[str], limit: int) -> None:
    task = TextClassification(["a", "b"])
    encoding = task.encode(pl.DataFrame({"text": texts}), WORDS, limit)
    assert all(2 <= n <= limit for n in encoding.lengths)
    assert task.collate(encoding.rows)["input_ids"].dtype == torch.int64


def test_balanced_weights_follow_the_formula() -> None:
    from tunesmith.spec.load import load_spec
    from tunesmith.tasks.make import make_task

    spec = load_spec({"name": "x", "data": {"train": "t"}, "train": {"class_weights": "balanced"}})
    task = make_task(spec, ["a", "b"], pl.DataFrame({"text": ["1", "2", "3", "4"], "label": ["a", "a", "a", "b"]}))
    assert isinstance(task, TextClassification)
    assert task.class_weights is not None
    assert np.allclose(task.class_weights.numpy(), [4 / (2 * 3), 4 / (2 * 1)])

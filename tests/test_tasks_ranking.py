"""Vectors and pairs of texts: batches, losses, ranks; beside written-out formulas and sentence-transformers."""

from __future__ import annotations

import tracemalloc
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from tests import tiny
from tunesmith.data.relevant import RELEVANT
from tunesmith.evaluate.metrics import METRICS
from tunesmith.evaluate.ranked import Ranked, ranked_from_table
from tunesmith.spec.ranking import Cosine, Embedding, InBatch, Triplet
from tunesmith.stages.baselines import baseline_answers
from tunesmith.tasks.base import PARTS, Encoding
from tunesmith.tasks.feature_extraction import FeatureExtraction
from tunesmith.tasks.sentence_similarity import SimilarityApart
from tunesmith.tasks.text_ranking import TextRanking
from tunesmith.tasks.text_regression import Scale
from tunesmith.tasks.vectors import pooled, ranking, rankings

WORDS = tiny.tokenizer()


def corpus(rows: pl.DataFrame) -> list[str]:
    return sorted({entry["text"] for row in rows["label"].to_list() for entry in row})


def judged_rows(judgements: list[tuple[str, list[tuple[str, float]]]]) -> pl.DataFrame:
    """Queries, each with texts and their relevance."""
    label = [[{"text": text, "relevance": value} for text, value in some] for _, some in judgements]
    return pl.DataFrame({"text": [query for query, _ in judgements], "label": pl.Series(label, dtype=RELEVANT)})


def task_of(loss: Any = None, rows: pl.DataFrame | None = None) -> FeatureExtraction:
    given = FeatureExtraction.example() if rows is None else rows
    return FeatureExtraction(options=Embedding(loss=loss or InBatch()), corpus=corpus(given))


def vectors(batch: Any, width: int = 8) -> tuple[Any, torch.Tensor]:
    """Outputs of a network of random states, and the vectors that they are pooled to."""
    states = torch.randn(*batch["input_ids"].shape, width, generator=torch.Generator().manual_seed(0))
    outputs = SimpleNamespace(last_hidden_state=states)
    return outputs, pooled(outputs, batch["attention_mask"], "mean")


def test_a_batch_has_the_query_its_text_and_the_wrong_ones() -> None:
    task, rows = task_of(), FeatureExtraction.example()
    encoding = task.training(rows, WORDS, 64)
    assert [len(row[PARTS]) for row in encoding.rows] == [3] * 4
    batch = task.collate(encoding.rows[:2])
    texts = [WORDS.decode(ids, skip_special_tokens=True) for ids in batch["input_ids"]]
    alone = [WORDS.decode(WORDS(t)["input_ids"], skip_special_tokens=True) for t in (
        rows["text"][0], rows["label"][0][0]["text"], rows["label"][0][1]["text"], rows["text"][1])]  # fmt: skip
    assert texts[:4] == alone
    assert batch["queries"].tolist() == [0, 3] and batch["labels"].tolist() == [0, 2]
    # The wrong text of the second query is the right one of the first: known to be wrong, it counts for both.
    assert batch["allowed"].tolist() == [[True, True, True, False], [True, True, True, True]]


def test_texts_that_are_relevant_too_are_no_wrong_ones() -> None:
    label = [[{"text": "parcel", "relevance": 1.0}, {"text": "courier", "relevance": 2.0}], [{"text": "parcel", "relevance": 1.0}]]
    rows = pl.DataFrame({"text": ["where is it", "who has it"], "label": pl.Series(label, dtype=RELEVANT)})
    task = task_of(rows=rows)
    encoding = task.training(rows, WORDS, 64)
    assert len(encoding.rows) == 3  # a row for each pair
    batch = task.collate(encoding.rows)
    assert batch["allowed"].tolist() == [[True, False, False], [False, True, False], [False, True, True]]
    assert batch["labels"].tolist() == [0, 1, 2]


def test_the_loss_in_a_batch_is_cross_entropy_over_the_texts() -> None:
    task = task_of(InBatch(temperature=0.1))
    batch = task.collate(task.training(FeatureExtraction.example(), WORDS, 64).rows)
    outputs, all_PE = vectors(batch)
    total, count = task.loss(outputs, batch)
    queries = all_PE[[0, 3, 6, 9]]
    texts = all_PE[[n for n in range(12) if n % 3]]
    expected = 0.0
    for n in range(4):
        scores = (texts @ queries[n]) / 0.1
        scores[~batch["allowed"][n]] = -torch.inf
        expected += float(F.cross_entropy(scores[None], torch.tensor([2 * n])))
    assert float(total) == pytest.approx(expected, rel=1e-5) and float(count) == 4


def test_the_triplet_loss_takes_the_nearest_wrong_text() -> None:
    task = task_of(Triplet(kind="triplet", margin=0.3))
    batch = task.collate(task.training(FeatureExtraction.example(), WORDS, 64).rows)
    outputs, all_PE = vectors(batch)
    queries, texts = all_PE[[0, 3, 6, 9]], all_PE[[n for n in range(12) if n % 3]]
    expected = 0.0
    for n in range(4):
        wrong = [float(texts[c] @ queries[n]) for c in range(8) if c != 2 * n and batch["allowed"][n, c]]
        expected += max(0.0, 0.3 - float(texts[2 * n] @ queries[n]) + max(wrong))
    assert float(task.loss(outputs, batch)[0]) == pytest.approx(expected, rel=1e-5)


def test_the_cosine_loss_uses_every_judgement() -> None:
    task = task_of(Cosine(kind="cosine"))
    encoding = task.training(FeatureExtraction.example(), WORDS, 64)
    assert sorted(row["labels"] for row in encoding.rows) == [0.0] * 4 + [1.0] * 4
    batch = task.collate(encoding.rows)
    outputs, all_PE = vectors(batch)
    cosine = (all_PE[0::2] * all_PE[1::2]).sum(1)
    assert float(task.loss(outputs, batch)[0]) == pytest.approx(float(((cosine - batch["labels"]) ** 2).sum()), rel=1e-5)
    pieces = [task.collate(encoding.rows[n : n + 4]) for n in (0, 4)]
    assert sum(len(piece["labels"]) for piece in pieces) == 8


@pytest.mark.parametrize("kind", ["mean", "cls"])
def test_vectors_have_length_one_and_padding_says_nothing(kind: str) -> None:
    states, mask = torch.randn(3, 5, 8), torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1], [1, 0, 0, 0, 0]])
    made = pooled(SimpleNamespace(last_hidden_state=states), mask, kind)
    assert torch.allclose(made.norm(dim=1), torch.ones(3))
    noisy = states.masked_fill(mask[..., None] == 0, 1e3)
    assert torch.allclose(made, pooled(SimpleNamespace(last_hidden_state=noisy), mask, kind))


@given(st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=1, max_size=30), st.data())
def test_ranks_are_places_in_a_stable_order(scores: list[float], data: Any) -> None:
    wanted = data.draw(st.lists(st.integers(0, len(scores) - 1), unique=True, max_size=4))
    found = ranking(np.array(scores), wanted, range(len(scores)))
    order = sorted(range(len(scores)), key=lambda n: (-scores[n], n))
    assert found.ranks == [order.index(n) + 1 for n in wanted]
    assert [n for n, _ in found.best] == order[:10]
    assert found.scores == [scores[n] for n in wanted]


def test_a_query_does_not_find_itself() -> None:
    texts = F.normalize(torch.randn(5, 8), dim=1)
    found = list(rankings(texts[:2], texts, [[0, 1], [1]], [0, None]))
    assert found[0].ranks[0] == 0 and np.isnan(found[0].scores[0]) and all(n != 0 for n, _ in found[0].best)
    assert found[1].ranks == [1]


def test_word_baseline_of_queries_that_are_texts_takes_no_memory_of_the_corpus_for_each() -> None:
    corpus = [f"word{number}" for number in range(20_000)]
    label = pl.Series("label", [[{"text": corpus[number + 1], "relevance": 1.0}] for number in range(200)], RELEVANT)
    test = pl.DataFrame({"id": [str(number) for number in range(200)], "text": corpus[:200]}).with_columns(label)
    context: Any = SimpleNamespace(
        table=lambda _split: test, task=FeatureExtraction(), corpus=corpus, given=SimpleNamespace(kind="relevant")
    )
    stage: Any = None
    few: Any = SimpleNamespace(**{**vars(context), "corpus": corpus[:1000]})
    baseline_answers(few, stage, "lexical")
    tracemalloc.start()
    said = baseline_answers(few, stage, "lexical")
    small = tracemalloc.get_traced_memory()[1]
    tracemalloc.reset_peak()
    baseline_answers(context, stage, "lexical")
    large = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert all(best[0]["text"] != own for own, best in zip(test["text"], said["predicted"].to_list(), strict=True))
    assert said["ranks"].list.len().to_list() == [1] * 200
    assert large < small + 200 * 20_000 * 8, "a list of the corpus for each query alone would be so large"


def test_candidates_are_ranked_and_others_are_not_found() -> None:
    found = ranking(np.array([0.1, 0.9]), [7, 3], [3, 5])
    assert found.ranks == [0, 2] and [n for n, _ in found.best] == [5, 3]


def test_the_corpus_comes_after_the_queries() -> None:
    rows = FeatureExtraction.example()
    task = task_of()
    encoding = task.encode(rows, WORDS, 64)
    assert len(encoding.rows) == len(rows) + len(task.corpus) == len(encoding.lengths)
    assert encoding.part(range(2)).rows == encoding.rows[:2] and encoding.leading([3]).rows == [encoding.rows[3]]
    made = F.normalize(torch.randn(len(encoding.rows), 8), dim=1)
    table = task.decode(made, encoding)
    assert len(table) == len(rows) and table["predicted"].list.len().to_list() == [4] * 4
    best = (made[0] @ made[4:].T).argmax()
    assert table["predicted"][0][0]["text"] == task.corpus[int(best)]
    few = FeatureExtraction(corpus=task.corpus, scored_texts=1).scored(encoding)
    assert len(few.rows) == len(rows) + 4  # all are wanted
    assert FeatureExtraction().decode(made[:2], Encoding(encoding.rows[:2], encoding.lengths[:2], 0))["predicted"].list.len().to_list() == [
        8,
        8,
    ]


def test_pairs_are_learned_with_wrong_texts_from_bm25() -> None:
    rows = FeatureExtraction.example()
    texts = [*corpus(rows), "where is the parcel now", "charged for what"]
    task = TextRanking(corpus=texts, negatives=2)
    encoding = task.training(rows, WORDS, 64)
    labels = [row["labels"] for row in encoding.rows]
    assert labels.count(1.0) == 4 and labels.count(0.0) == 8
    judged = TextRanking(corpus=texts, candidates="judged").encode(rows, WORDS, 64)
    assert [row["window"].row for row in judged.rows] == [n for n in range(4) for _ in range(2)]
    few = TextRanking(corpus=texts, candidates=3).encode(rows, WORDS, 64)
    assert len(few.rows) == 12
    answers = torch.arange(12.0)[:, None]
    table = TextRanking(corpus=texts, candidates=3).decode(answers, few)
    assert len(table) == 4 and all(len(row) == 3 for row in table["predicted"])
    assert table["predicted"][0][0]["score"] == 2.0


def test_numbers_of_texts_apart_are_cosines_in_their_unit() -> None:
    task = SimilarityApart(scale=Scale(1.0, 4.0))
    rows = SimilarityApart.example()
    encoding = task.encode(rows, WORDS, 64)
    batch = task.collate(encoding.rows)
    assert len(batch["input_ids"]) == 2 * len(rows)
    outputs, all_PE = vectors(batch)
    cosine = (all_PE[0::2] * all_PE[1::2]).sum(1)
    total, count = task.loss(outputs, batch)
    assert float(total) == pytest.approx(float(((cosine - (batch["labels"] - 1) / 4) ** 2).sum()), rel=1e-5) and float(count) == len(rows)
    assert task.scores(cosine[:, None], encoding) == pytest.approx(1 + 4 * cosine.double().numpy())
    probed = task.probed(torch.cat([all_PE[0::2] * 3, all_PE[1::2]], 1))
    assert torch.allclose(probed.sum(1), cosine, atol=1e-6)


def test_metrics_are_those_of_their_papers() -> None:
    ranked = Ranked([[1.0], [2.0, 1.0], [1.0], [1.0]], [[1], [3, 12], [0], [4]])
    values = {name: metric.value(ranked) for name, metric in METRICS["relevant"].items()}
    assert values["mrr_at_10"] == pytest.approx((1 + 1 / 3 + 0 + 1 / 4) / 4)
    assert values["recall_at_1"] == pytest.approx(1 / 4) and values["recall_at_5"] == pytest.approx((1 + 0.5 + 0 + 1) / 4)
    assert values["map"] == pytest.approx((1 + (1 / 3 + 2 / 12) / 2 + 0 + 1 / 4) / 4)
    second = (2 / np.log2(4)) / (2 / np.log2(2) + 1 / np.log2(3))
    assert values["ndcg_at_10"] == pytest.approx((1 + second + 0 + 1 / np.log2(5)) / 4)


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 12), min_size=1, max_size=5, unique=True), min_size=1, max_size=5))
def test_ndcg_is_scikit_learn_s(queries: list[list[int]]) -> None:
    from sklearn.metrics import ndcg_score

    for places in queries:
        gains = [float(1 + n % 3) for n in range(len(places))]
        ours = Ranked([gains], [[place + 1 for place in places]]).ndcg_N[0]
        truth = np.zeros(13)
        truth[places] = gains
        assert ours == pytest.approx(ndcg_score([truth], [-np.arange(13.0)], k=10))


def test_stored_rankings_are_read_back() -> None:
    label = pl.Series(
        "label", [[{"text": "a", "relevance": 2.0}, {"text": "b", "relevance": 0.0}, {"text": "c", "relevance": 1.0}]], RELEVANT
    )
    read = ranked_from_table(pl.DataFrame({"label": label, "ranks": [[3, 0]]}))
    assert read.labels == [[2.0, 1.0]] and read.predicted == [[3, 0]]


def test_the_loss_in_a_batch_is_that_of_sentence_transformers() -> None:
    losses = pytest.importorskip("sentence_transformers.losses", reason="sentence-transformers is not installed")
    rows = judged_rows([(f"query {n}", [(f"text {n}", 1.0)]) for n in "abcdef"])
    task = task_of(InBatch(temperature=0.05), rows)
    batch = task.collate(task.training(rows, WORDS, 64).rows)
    outputs, all_PE = vectors(batch)
    total, count = task.loss(outputs, batch)
    theirs = losses.MultipleNegativesRankingLoss(model=None, scale=20.0)
    expected = float(theirs.compute_loss_from_embeddings([all_PE[0::2], all_PE[1::2]], None))
    assert float(total / count) == pytest.approx(expected, rel=1e-4)


def test_a_query_is_no_wrong_text_for_itself() -> None:
    rows = judged_rows([("parcel", [("courier", 1.0)]), ("money", [("parcel", 1.0)])])
    task = task_of(rows=rows)
    assert task.collate(task.training(rows, WORDS, 64).rows)["allowed"].tolist() == [[True, False], [True, True]]


def test_a_query_without_wrong_texts_is_ranked_among_those_most_alike() -> None:
    rows = judged_rows([("late parcel", [("the parcel", 1.0), ("a refund", 0.0)]), ("late money", [("the money", 1.0)])])
    texts = corpus(rows)
    chosen = TextRanking(corpus=texts, candidates="judged").candidates_of(rows)
    assert [{texts[n] for n in some} for some in chosen] == [{"the parcel", "a refund"}, set(texts)]

"""What a model is compared with, for each kind of labels: predictions on the test split that need no fine-tuning."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

import numpy as np
import polars as pl
from torch import Tensor

from tunesmith.core.records import Finding
from tunesmith.core.rundir import StageWriter
from tunesmith.evaluate import baselines
from tunesmith.evaluate.baselines import Known
from tunesmith.evaluate.dictionary import found, learned
from tunesmith.evaluate.lexical import most_frequent, nearest_sentence
from tunesmith.evaluate.metrics import fast_score
from tunesmith.evaluate.predict import predict
from tunesmith.evaluate.unigram import unigram
from tunesmith.models.build import build_model, built
from tunesmith.models.forward import predict_logits
from tunesmith.models.linear import Linear, Penalty, choose_logistic
from tunesmith.models.load import load_model
from tunesmith.models.tagging import fit_tags, sampled, tags_by, word_states
from tunesmith.stages.context import Context
from tunesmith.stages.embed import BASELINE_ROWS, load_features, sample_rows
from tunesmith.tasks.base import NOTHING
from tunesmith.tasks.feature_extraction import FeatureExtraction
from tunesmith.tasks.text_ranking import TextRanking
from tunesmith.tasks.token_classification import TokenClassification
from tunesmith.tasks.vectors import Ranking, ranking, relevant_texts, told

Baseline = Callable[[Context, StageWriter], pl.DataFrame]


def baseline_answers(context: Context, stage: StageWriter, name: str) -> pl.DataFrame:
    """Predictions of a baseline, learned from the context's training rows, on its test rows."""
    own = (context.given.kind, name)
    return BASELINES[own if own in BASELINES else ("", name)](context, stage)


def _retrieved(context: Context, stage: StageWriter) -> pl.DataFrame:
    """The target of the training row that is most like each test row."""
    test = context.table("test")
    loaded = load_features(context.rundir.path, "train")
    known = Known(context.table("train")["label"].gather(loaded["row"].numpy()), loaded["mean"])
    claim, rows = "Training rows whose targets the retrieval baseline may give", len(context.table("train"))
    stage.find(Finding("retrieval/rows", claim, len(known.targets), "rows", rows))
    return baselines.retrieved(test, load_features(context.rundir.path, "test")["mean"], known)


def _tagged(context: Context, stage: StageWriter) -> pl.DataFrame:
    """A regression on what the untrained network says of words, its strength chosen by the spans of the validation rows."""
    task, validation, test = context.task, context.encoding("validation"), context.encoding("test")
    assert isinstance(task, TokenClassification), "words have tags only there"
    model = build_model(context.spec, task)
    sample = sampled(context.encoding("train"), context.windows_in_order("train"), len(task.tags))
    targets = task.targets(context.table("validation"))

    fitted_on, held_out, asked = (word_states(model, task, encoding) for encoding in (sample, validation, test))

    def score(linear: Linear) -> float:
        return fast_score("span_f1", "spans", targets, task.scores(tags_by(linear, held_out, validation), validation))

    chosen = choose_logistic(partial(fit_tags, fitted_on, sample, len(task.tags)), Penalty(), score, baselines.BASELINE_STRENGTHS)
    note = "" if chosen.linear.converged else "the solver stopped at its limit of iterations"
    claim = "Inverse regularisation of the feature baseline, chosen on validation rows"
    stage.find(Finding("features/strength", claim, chosen.strength, n=len(sample.rows), note=note))
    return context.table("test").select("id", "label").hstack(task.decode(tags_by(chosen.linear, asked, test), test))


def _features(context: Context, stage: StageWriter) -> pl.DataFrame:
    def rows(split: str, wanted: set[int]) -> baselines.Rows:
        loaded = load_features(context.rundir.path, split)
        here = [place for place, row in enumerate(loaded["row"].tolist()) if row in wanted]
        return baselines.Rows(
            context.task.probed(loaded["mean"][here]), context.task.targets(context.table(split))[loaded["row"][here].tolist()]
        )

    train = rows("train", set(sample_rows(context, BASELINE_ROWS)))
    chosen = baselines.features(context.task, train, rows("validation", set(range(len(context.table("validation"))))))
    note = "" if chosen.linear.converged else "the solver stopped at its limit of iterations"
    claim = "Inverse regularisation of the feature baseline, chosen on validation rows"
    stage.find(Finding("features/strength", claim, chosen.strength, note=note))
    test = load_features(context.rundir.path, "test")
    return (
        context.table("test").select("id", "label").hstack(context.task.decode(chosen.linear(context.task.probed(test["mean"])), NOTHING))
    )


def _majority(context: Context, _stage: StageWriter) -> pl.DataFrame:
    return baselines.majority(context.task, context.table("train"), context.table("test"), len(context.labels))


def _by_words(context: Context, _stage: StageWriter) -> pl.DataFrame:
    """Texts in the order of BM25: of the whole corpus, or of the candidates that the model ranks."""
    task = _ranking_task(context)
    return _ranked(context, task, task.index.scores(context.table("test")["text"].to_list()))


def _untrained(context: Context, stage: StageWriter) -> pl.DataFrame:
    """Texts by the cosine of vectors that the untrained network makes."""
    test, task = context.table("test"), _ranking_task(context)
    plain = FeatureExtraction(options=context.spec.embedding, corpus=context.corpus)
    model = load_model(context.spec.model, plain.head, {})
    assert context.spec.model.max_length, "resolved specs have a length"
    encoding = plain.encode(test, context.processor, context.spec.model.max_length)
    vectors_NE: Tensor = predict_logits(model, plain, encoding, context.rows_watch("evaluate", "untrained vectors"))
    query_NE, text_ME = vectors_NE[: len(test)], vectors_NE[len(test) :]
    return _ranked(context, task, ((query_E @ text_ME.T).double().numpy() for query_E in query_NE))


def _ranking_task(context: Context) -> TextRanking:
    """The task that has candidates; for vectors one whose candidates are all texts."""
    task = context.task
    return task if isinstance(task, TextRanking) else TextRanking(corpus=context.corpus, candidates=None)


def _ranked(context: Context, task: TextRanking, scores: Iterable[np.ndarray]) -> pl.DataFrame:
    """What each test query finds by its scores of all texts: among the candidates of the model, or among all but the query itself."""
    test = context.table("test")
    wanted = [[task.number_of[text] for text in texts] for texts in relevant_texts(test["label"])]
    if isinstance(context.task, TextRanking):
        asked = zip(scores, wanted, task.candidates_of(test), strict=True)
        found = [ranking(score_D[candidates], texts, candidates) for score_D, texts, candidates in asked]
    else:
        own = [task.number_of.get(text) for text in test["text"]]
        found = [_unbarred(score_D, texts, bar) for score_D, texts, bar in zip(scores, wanted, own, strict=True)]
    return test.select("id", "label").hstack(told(found, task.corpus))


def _unbarred(score_D: np.ndarray, wanted: list[int], bar: int | None) -> Ranking:
    """The ranking of all texts but one, which is the query itself; None for none."""
    if bar is not None:
        score_D[bar] = -np.inf
    return ranking(score_D, wanted, range(len(score_D)))


def _frequent(context: Context, _stage: StageWriter) -> pl.DataFrame:
    """The same answer for every mask: the frequencies of the training tokens."""
    test = context.encoding("test")
    said = context.task.decode(unigram(context.training_encoding(), test), test)
    return context.table("test").select("id", "label").hstack(said)


def _not_trained(context: Context, stage: StageWriter) -> pl.DataFrame:
    """The network as it was before training, asked about the same masks."""
    model, absent = built(context.spec, context.task)
    claim = "Weights of the output layer that the pretrained files lack, so that they were drawn at random"
    stage.find(Finding("untrained/new_weights", claim, len(absent), "tensors", note=", ".join(absent)))
    watch = context.rows_watch("evaluate", "untrained network")
    return predict(model, context.task, context.table("test"), context.encoding("test"), watch)


BASELINES: dict[tuple[str, str], Baseline] = {
    ("", "majority"): _majority,
    ("", "features"): _features,
    ("text", "copy"): lambda context, _stage: baselines.copied(context.table("test")),
    ("text", "retrieval"): _retrieved,
    ("answers", "majority"): lambda context, _stage: most_frequent(context.table("train"), context.table("test")),
    ("answers", "lexical"): lambda context, _stage: nearest_sentence(context.table("test")),
    ("spans", "dictionary"): lambda context, _stage: found(learned(context.table("train")), context.table("test")),
    ("spans", "features"): _tagged,
    ("relevant", "lexical"): _by_words,
    ("relevant", "features"): _untrained,
    ("masked", "majority"): _frequent,
    ("masked", "untrained"): _not_trained,
}
"""By kind of labels and name; "" for all kinds that have none of their own."""

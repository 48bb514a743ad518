"""What has a meaning for some tasks only, and what a task cannot have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import get_args

from tunesmith.core.records import Issue
from tunesmith.spec.kinds import BASELINES, OF_CLASSES, Writing
from tunesmith.spec.kinds import Ranking as RankingTask
from tunesmith.spec.schema import (
    CorrectSuspects,
    Cosine,
    CrossEntropy,
    DownWeightSuspects,
    DropSuspects,
    Features,
    Prompts,
    ReportSuspects,
    Spec,
)

LEAST_WINDOW = 16
"""Tokens of the shortest window that holds a question and a part of its text."""


def task_issues(spec: Spec) -> list[Issue]:
    """Every setting that does not fit the task."""
    return [issue for look in (_only, _kind, _baselines, _writing, _answers, _spans, _apart, _ranking, _masked) for issue in look(spec)]


def _kind(spec: Spec) -> list[Issue]:
    """What has a meaning for classes only, where labels are of another kind."""
    if spec.kind in OF_CLASSES:
        return []
    data, train = spec.data, spec.train
    told = {
        "data.multi_label": data.multi_label, "data.annotator": data.annotator, "data.label": isinstance(data.label, tuple),
        "data.decisions": data.decisions, "data.suspects": isinstance(data.suspects, (DropSuspects, CorrectSuspects, DownWeightSuspects)),
        "data.standardise": [rule for rule in data.standardise if rule.startswith("label")],
        "train.class_weights": train.class_weights != "none",
        "train.label_smoothing": spec.kind != "text" and train.label_smoothing, "train.loss": not isinstance(train.loss, CrossEntropy),
        "train.sampling": train.sampling != "none", "train.augment": train.augment, "train.distill": train.distill,
        "train.regularization": train.regularization,
        "strategy.head": isinstance(spec.strategy, Features) and spec.strategy.head.kind != "logistic",
    }  # fmt: skip
    remedy = "Remove it, or use task: text-classification."
    return [Issue(where, f"is for classes, not for {spec.task}", _shown(spec, where), remedy) for where, given in told.items() if given]


ONLY: dict[str, tuple[tuple[str, ...], str]] = {
    "answers": (("question-answering",), "answers in a text"),
    "data.answer_start": (("question-answering",), "answers in a text"),
    "data.contexts": (("question-answering", *get_args(RankingTask)), "answers in a text and texts that are ranked"),
    "data.negative": (get_args(RankingTask), "texts that are ranked"),
    "data.corpus": (get_args(RankingTask), "texts that are ranked"),
    "ranking": (get_args(RankingTask), "texts that are ranked"),
    "ranking.candidates": (("text-ranking",), "pairs that are ranked"),
    "ranking.negatives": (("text-ranking",), "pairs that are ranked"),
    "ranking.scored_texts": (("feature-extraction",), "texts that are embedded"),
    "embedding": (("feature-extraction", "sentence-similarity"), "texts that are embedded"),
    "embedding.loss": (("feature-extraction",), "texts that are embedded"),
    "embedding.reading": (("sentence-similarity",), "how alike two texts are"),
    "generation": (get_args(Writing), "texts that are written"),
}
"""Settings that have a meaning for some tasks only, and what these are about."""


def _only(spec: Spec) -> list[Issue]:
    """What is given and has no meaning for the task; of a part and its fields, the part alone."""
    issues: list[Issue] = []
    for where, (tasks, words) in ONLY.items():
        *parents, name = where.split(".")
        part = dict(spec)[parents[0]] if parents else spec
        known = any(issue.where == parents[0] for issue in issues) if parents else False
        if spec.task not in tasks and name in part.model_fields_set and not known:
            remedy = f"Remove it, or use task: {' or '.join(tasks)}."
            issues.append(Issue(where, f"is for {words}, not for {spec.task}", "", remedy))
    return issues


def _baselines(spec: Spec) -> list[Issue]:
    """Baselines that the task has not."""
    known = BASELINES[spec.kind]
    strange = [name for name in spec.evaluate.baselines if name not in known]
    if "baselines" not in spec.evaluate.model_fields_set or not strange:
        return []
    return [Issue("evaluate.baselines", f"must be of {' and '.join(known)} for {spec.task}", ", ".join(strange), "Remove it.")]


def _refused(spec: Spec, told: Mapping[str, tuple[object, str]]) -> list[Issue]:
    """An issue for each setting that is given: where it stands, whether it is, and what is expected instead."""
    return [Issue(where, expected, _shown(spec, where), "Remove it.") for where, (given, expected) in told.items() if given]


def _answers(spec: Spec) -> list[Issue]:
    """What answers in a text cannot have."""
    if spec.kind != "answers":
        return []
    data, least = spec.data, LEAST_WINDOW
    return _refused(spec, {
        "data.standardise": (data.standardise, "must be empty: answers point into the text as it is"),
        "data.mask": (data.mask, "must be empty: answers point into the text as it is"),
        "strategy.kind": (isinstance(spec.strategy, (Features, Prompts)), "must train the network whose tokens begin and end answers"),
        "train.head_start": ("head_start" in spec.train.model_fields_set and spec.train.head_start == "fitted",
                             "must be random: a regression on features of whole texts is no start for a head that reads tokens"),
        "model.max_length": (spec.model.max_length and spec.model.max_length < least, f"must be at least {least}: question and text"),
    })  # fmt: skip


def _spans(spec: Spec) -> list[Issue]:
    """What spans of a text cannot have."""
    if spec.kind != "spans":
        return []
    data = spec.data
    return _refused(spec, {
        "data.standardise": (data.standardise, "must be empty: spans point into the text as it is"),
        "data.mask": (data.mask, "must be empty: spans point into the text as it is"),
        "data.text": (data.text is not None and len(data.text) > 1, "must be one column for token-classification"),
        "strategy.kind": (isinstance(spec.strategy, (Features, Prompts)), "must train the network whose tokens are tagged"),
        "model.max_length": (spec.model.max_length and spec.model.max_length < LEAST_WINDOW, f"must be at least {LEAST_WINDOW} tokens"),
    })  # fmt: skip


def _writing(spec: Spec) -> list[Issue]:
    """What texts that are written cannot have."""
    if spec.kind != "text":
        return []
    expected = f"must be left out for {spec.task}"
    return _refused(spec, {
        "data.on_conflict": ("on_conflict" in spec.data.model_fields_set, expected),
        "train.head_start": ("head_start" in spec.train.model_fields_set, expected),
        "model.adapt": (spec.model.adapt is not None, "must be left out: only encoders fill masks, and texts are written by a decoder"),
        "strategy.kind": (isinstance(spec.strategy, (Features, Prompts)), expected),
    })  # fmt: skip


def _apart(spec: Spec) -> list[Issue]:
    """What two texts that are embedded apart cannot have: there is no head, and no regression on both."""
    if spec.task != "sentence-similarity" or spec.embedding.reading != "apart":
        return []
    return _refused(spec, {
        "train.head_start": ("head_start" in spec.train.model_fields_set, "must be left out: vectors have no head"),
        "strategy.kind": (isinstance(spec.strategy, (Features, Prompts)), "must train the network that makes the vectors"),
    })  # fmt: skip


def _ranking(spec: Spec) -> list[Issue]:
    """What texts that are ranked cannot have."""
    if spec.kind != "relevant":
        return []
    data, train, batch_loss = spec.data, spec.train, not isinstance(spec.embedding.loss, Cosine)
    return _refused(spec, {
        "data.on_conflict": ("on_conflict" in data.model_fields_set, "must be left out: judgements of a query are brought together"),
        "data.standardise": (data.standardise, "must be empty: rules would change queries and not the texts that they find"),
        "data.mask": (data.mask, "must be empty: masks would change queries and not the texts that they find"),
        "train.head_start": ("head_start" in train.model_fields_set, "must be left out: nothing is fitted to start with"),
        "strategy.kind": (isinstance(spec.strategy, (Features, Prompts)), "must train the network"),
        "train.gradient_accumulation_steps": (
            spec.task == "feature-extraction" and batch_loss and train.gradient_accumulation_steps > 1,
            "must be 1: wrong texts are those of the whole batch, and pieces of it would have fewer"),
    })  # fmt: skip


def _masked(spec: Spec) -> list[Issue]:
    """What masked tokens cannot have; and a share of them where none are learned."""
    data, train = spec.data, spec.train
    if spec.kind != "masked":
        idle = "mlm_probability" in train.model_fields_set and spec.model.adapt is None
        return _refused(spec, {"train.mlm_probability": (idle, "is for fill-mask and model.adapt, where tokens are masked")})
    return _refused(spec, {
        "data.label": (isinstance(data.label, str), "must be left out: a text is its own label"),
        "data.text": (data.text is not None and len(data.text) > 1, "must be one column for fill-mask"),
        "data.on_conflict": ("on_conflict" in data.model_fields_set, "must be left out: texts have no labels that could differ"),
        "data.suspects": ("suspects" in data.model_fields_set and isinstance(data.suspects, ReportSuspects),
                          "must be left out: a text is its own label, and none could be wrong"),
        "model.adapt": (spec.model.adapt is not None, "must be left out: fill-mask is that adaptation, of the texts in data.train"),
        "train.head_start": ("head_start" in train.model_fields_set and train.head_start == "fitted",
                             "must be random: no regression starts an output layer as wide as the vocabulary"),
        "evaluate.folds": (isinstance(spec.evaluate.folds, int), "must be left out: texts without labels are many"),
        "strategy.kind": (isinstance(spec.strategy, (Features, Prompts)), "must train the network whose tokens are filled in"),
    })  # fmt: skip


def _shown(spec: Spec, where: str) -> str:
    """A setting of the spec as a word or two."""
    part, name = where.split(".")
    value = spec.model_dump()[part][name]
    return str(value["kind"] if isinstance(value, dict) and "kind" in value else value)[:60]

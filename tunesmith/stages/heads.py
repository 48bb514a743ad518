"""Heads on frozen features, in the train stage: each kind fitted, or all of them compared out of fold and the best one taken.

Features are computed once, by `embed`; nothing here runs the network, except that attention pooling reads its last block
(from the frozen-prefix store) and that the parity gate predicts a few rows with what was saved.
Shape suffixes: N = training rows and their copies, H = held-out rows, E = width, C = classes.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tunesmith.core.errors import DataError, ModelError
from tunesmith.core.records import Finding, Issue, Progress
from tunesmith.core.rundir import StageWriter, sha256_json
from tunesmith.core.seeding import seed_for
from tunesmith.data.balance import balanced_weights
from tunesmith.models.anatomy import output_layer
from tunesmith.models.boosting import fit_boosting, rounds_for
from tunesmith.models.build import has_bias, set_head
from tunesmith.models.forward import predict_logits
from tunesmith.models.headed import HEAD_ARRAYS, Headed
from tunesmith.models.heads import Attentive, Perceptron, Trees, fit_neighbours, kind_of
from tunesmith.models.linear import Linear, Penalty, choose_logistic, fit_logistic, fit_ridge
from tunesmith.models.load import device
from tunesmith.models.size import Size, size_of
from tunesmith.models.strategies import apply_strategy
from tunesmith.models.svm import STRENGTHS, fit_calibrated
from tunesmith.spec.heads import KNN, MLP
from tunesmith.spec.schema import Features
from tunesmith.stages.context import Context, Training
from tunesmith.stages.embed import load_features
from tunesmith.stages.folding import training_folds
from tunesmith.tasks.base import Encoding
from tunesmith.train.fit import Fitted, Job, fit
from tunesmith.train.head import FeatureTask, LinearHead, feature_encoding
from tunesmith.train.peak import peak_bytes
from tunesmith.train.prefix import Used, Wish, with_prefix

FOLDS = 5
MLP_DROPOUT = 0.1
PARITY, PARITY_ROWS = 1e-3, 256
MakeJob = Callable[[Context, Any, Any, Any], Job]
Answer = Callable[[Tensor], Tensor]
"""Logits (H, C) of features (H, E): a `Linear`, which fits into the network's own output layer, or a module of `models/heads.py`."""


@dataclass(frozen=True)
class Rows:
    """What heads are fitted on: features, class ids or a 0/1 matrix, weights in the loss (classes counted in), folds, encoded rows.

    Copies of training rows come after the rows, of which there are `originals`; a copy is in the fold of its row.
    """

    features_NE: Tensor
    targets: np.ndarray
    weights_N: np.ndarray | None
    folds_N: np.ndarray
    encoding: Encoding
    originals: int

    def __getitem__(self, chosen_N: np.ndarray) -> Rows:
        """The rows where `chosen_N` is true."""
        places = np.flatnonzero(chosen_N)
        encoding = self.encoding.part(places)
        weights_N = None if self.weights_N is None else self.weights_N[chosen_N]
        originals = int(chosen_N[: self.originals].sum())
        return Rows(self.features_NE[chosen_N], self.targets[chosen_N], weights_N, self.folds_N[chosen_N], encoding, originals)


@dataclass(frozen=True)
class Settled:
    """A way to fit a head with nothing left open: rows and a name for its files to what answers. `note` says what was settled."""

    fit: Callable[[Rows, str], tuple[Answer, Fitted | None]]
    note: str = ""
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class Shop:
    """Where heads are made: the model whose features are read, the run, and how to make a job for the loop."""

    model: Any
    context: Context
    job: MakeJob

    @property
    def classes(self) -> int:
        """How many."""
        return len(self.context.labels)

    @property
    def penalty(self) -> Penalty:
        """Of linear heads; classes are weighted through the rows."""
        return Penalty(1.0, intercept=has_bias(self.model))


@dataclass(frozen=True)
class Made:
    """The model with its head, its size, what the loop came to where it ran, and logits of the validation rows from stored features."""

    model: Any
    size: Size
    fitted: Fitted | None
    validation: Tensor | None = None


def rows_of(context: Context, *, folded: bool) -> Rows:
    """All rows that are trained on, with their features; in FOLDS folds, or all in one."""
    features_NE, training = trained_features(context)
    weights_N, encoding = training.weights_N, context.training_encoding()
    if context.spec.train.class_weights == "balanced":
        by_class_C = balanced_weights(np.bincount(training.targets, minlength=len(context.labels)))
        weights_N = by_class_C[training.targets] * (1.0 if weights_N is None else weights_N)
    table = context.table("train")[training.rows]
    folds_N = training_folds(context, table, FOLDS) if folded else np.zeros(len(table), np.int64)
    fold_of = dict(zip(table["id"], folds_N, strict=True))
    copies_N = np.array([fold_of[row] for row in context.copies["from"]], np.int64)
    return Rows(features_NE, training.targets, weights_N, np.concatenate([folds_N, copies_N]), encoding, len(table))


def trained_features(context: Context, wanted: set[int] | None = None) -> tuple[Tensor, Training]:
    """What the output layer reads for the training rows whose features are there, of `wanted` rows only when given; and these rows.

    Copies come with their rows' targets and weights, except where rows are `wanted`.
    """
    features, training = load_features(context.rundir.path, "train"), context.training
    place_of = {row: place for place, row in enumerate(features["row"].tolist()) if wanted is None or row in wanted}
    chosen = [number for number, row in enumerate(training.rows) if row in place_of]
    rows = [training.rows[number] for number in chosen]
    weights_N = None if training.weights_N is None else training.weights_N[chosen]
    chosen_NE, targets = features["head_input"][[place_of[row] for row in rows]], training.targets[chosen]
    if wanted is None and len(context.copies):
        chosen_NE = torch.cat([chosen_NE, load_features(context.rundir.path, "augmented")["head_input"]])
        targets = np.concatenate([targets, context.targets_of(context.copies["from"])])
        if weights_N is not None:
            weights_N = np.array([row["weight"] for row in context.training_encoding().rows], np.float32)
    return chosen_NE, Training(rows, targets, weights_N)


# ---- the kinds


def settle(shop: Shop, kind: str, rows: Rows) -> Settled:
    """How a kind of head is fitted, once what is open has been chosen from these rows (or on validation)."""
    head = shop.context.spec.strategy.head if isinstance(shop.context.spec.strategy, Features) else None
    if kind == "logistic":
        return _logistic(shop, rows)
    if kind == "linear_svm":
        return _svm(shop, rows)
    if kind == "knn":
        neighbours = head.neighbours if isinstance(head, KNN) else KNN(kind="knn").neighbours
        return Settled(
            lambda r, _: (fit_neighbours(r.features_NE, r.targets, shop.classes, neighbours, r.weights_N), None), f"{neighbours} neighbours"
        )
    if kind == "gradient_boosting":
        note = f"{rounds_for(shop.classes if rows.targets.ndim == 1 else 1)} rounds"
        return Settled(lambda r, _: (fit_boosting(r.features_NE, r.targets, shop.classes, r.weights_N), None), note)
    if kind == "mlp":
        hidden = head.hidden if isinstance(head, MLP) else MLP(kind="mlp").hidden
        return Settled(partial(_perceptron, shop, hidden), f"hidden layer of {hidden}")
    return Settled(partial(_linear, shop))


def _logistic(shop: Shop, rows: Rows) -> Settled:
    context, sign = shop.context, 1 if shop.context.higher_is_better else -1
    held_out = load_features(context.rundir.path, "validation")["head_input"]

    def fitted(rows: Rows, penalty: Penalty) -> Linear:
        context.watch(Progress("train", 0, 1, note=f"regression with strength {penalty.strength:g}"))
        if context.given.kind == "number":
            return fit_ridge(rows.features_NE, rows.targets, penalty, rows.weights_N)
        return fit_logistic(rows.features_NE, rows.targets, shop.classes, penalty, rows.weights_N)

    chosen = choose_logistic(partial(fitted, rows), shop.penalty, lambda linear: sign * context.score(linear(held_out)))
    tried = json.dumps({f"{c:g}": round(sign * value, 4) for c, value in chosen.scores.items()})
    note = f"validation {context.spec.evaluate.metric} by strength: {tried}"
    told = Finding("train/strength", "Inverse regularisation of the chosen head", chosen.strength, note=note)
    again = replace(shop.penalty, strength=chosen.strength)
    return Settled(lambda r, _: (chosen.linear if r is rows else fitted(r, again), None), f"strength {chosen.strength:g}", (told,))


def _svm(shop: Shop, rows: Rows) -> Settled:
    def fitted(rows: Rows, strength: float) -> tuple[Linear, float]:
        shop.context.watch(Progress("train", 0, 1, note=f"support vector machines with strength {strength:g}"))
        if len(np.unique(rows.folds_N)) < 2:
            found = "training rows of one cluster or group"
            raise DataError(Issue("strategy.head", "needs two folds of training rows to be calibrated", found, "Use head: logistic."))
        penalty = replace(shop.penalty, strength=strength)
        return fit_calibrated(rows.features_NE, rows.targets, shop.classes, penalty, (rows.folds_N, rows.weights_N))

    tried = {strength: fitted(rows, strength) for strength in STRENGTHS}
    best = min(STRENGTHS, key=lambda strength: tried[strength][1])
    losses = json.dumps({f"{c:g}": round(loss, 4) for c, (_, loss) in tried.items()})
    note = f"log loss out of fold by strength: {losses}"
    told = Finding("train/strength", "C of the support vector machines", best, note=note)
    return Settled(lambda r, _: (tried[best][0] if r is rows else fitted(r, best)[0], None), f"strength {best:g}", (told,))


def _perceptron(shop: Shop, hidden: int, rows: Rows, name: str) -> tuple[Answer, Fitted | None]:
    head = _small_network(shop, hidden, rows.features_NE.shape[1]).scaled_to(rows.features_NE)
    fitted = _looped(shop, head, rows, name)
    return head.cpu().eval(), fitted


def _small_network(shop: Shop, hidden: int, width: int) -> Perceptron:
    torch.manual_seed(seed_for(shop.context.given.seed, "head"))
    given = shop.context.spec.train.dropout
    return Perceptron(width, hidden, shop.classes, MLP_DROPOUT if given is None else given)


def _linear(shop: Shop, rows: Rows, name: str) -> tuple[Answer, Fitted | None]:
    output = output_layer(shop.model, shop.model.config.num_labels)[1]
    fitted = _looped(shop, output, rows, name)
    bias_C = torch.zeros(shop.classes) if output.bias is None else output.bias.detach().cpu()
    return Linear(output.weight.detach().cpu(), bias_C, True), fitted


def _looped(shop: Shop, head: nn.Module, rows: Rows, name: str) -> Fitted:
    """Train a head by the loop, in place; validation selects the weights. `name` sets the files of one training apart from others."""
    context = shop.context
    held_out = feature_encoding(load_features(context.rundir.path, "validation")["head_input"], context.encoding("validation"))
    job = shop.job(context, FeatureTask(context.training_task), feature_encoding(rows.features_NE, rows.encoding), held_out)
    if name:
        watch = _quietly(context, name)
        job = replace(job, folder=job.folder / "search" / name / "steps", inputs=sha256_json([job.inputs, name]), watch=watch)
    return fit(LinearHead(head).requires_grad_(True), job)


def _quietly(context: Context, name: str) -> Callable[[Progress], None]:
    """Tells the steps of a training within a search as a note."""
    return lambda inner: context.watch(Progress("train", 0, 1, note=f"{name}: step {inner.done} of {inner.total}"))


# ---- what the train stage calls


def fit_features(shop: Shop, stage: StageWriter, search: Callable[[Shop, Rows, StageWriter], Settled]) -> Made:
    """The model with the head that the spec asks for. `search` says how the best one is fitted."""
    context, strategy = shop.context, shop.context.spec.strategy
    assert isinstance(strategy, Features), "only features have a head to fit"
    if strategy.pooling == "attention":
        return _attention(shop, strategy, stage)
    model, rows = apply_strategy(shop.model, strategy), rows_of(context, folded=strategy.head.kind in ("linear_svm", "search"))
    settled = search(shop, rows, stage) if strategy.head.kind == "search" else settle(shop, strategy.head.kind, rows)
    answer, fitted = settled.fit(rows, "")
    held_out = load_features(context.rundir.path, "validation")["head_input"]
    with torch.inference_mode():
        logits = answer(held_out)
    if fitted is None:
        stage.find(*_solved(shop, answer, context.score(logits), len(held_out)), *settled.findings)
    if isinstance(answer, Linear):
        size = size_of(model)
        set_head(model, answer)
        return Made(model, size, fitted, logits)
    assert isinstance(answer, nn.Module), "what is not linear is a module"
    headed = Headed(model, answer, "features").eval()
    return Made(headed, _size(headed), fitted, logits)


def _attention(shop: Shop, strategy: Features, stage: StageWriter) -> Made:
    """Attention pooling and its head, trained on what the last block says of every token, computed once."""
    context, width = shop.context, shop.model.config.hidden_size
    torch.manual_seed(seed_for(context.given.seed, "head"))
    inner: dict[str, Any] = {"width": width, "classes": shop.classes}
    if isinstance(strategy.head, MLP):
        given = context.spec.train.dropout
        inner |= {"hidden": strategy.head.hidden, "dropout": MLP_DROPOUT if given is None else given}
    head = Attentive(width, {"kind": "mlp" if isinstance(strategy.head, MLP) else "linear", "options": inner})
    headed = Headed(shop.model, head, "states").to(device())
    encodings = [context.training_encoding(), context.encoding("validation")]
    wish = Wish(context.spec.store, context.store_folder, float(context.spec.train.epochs or 1))
    with with_prefix(headed, context.training_task, encodings, wish, context.rows_watch("train", "frozen blocks")) as (task, rows, used):
        stage.find(*store_findings(used))
        fitted = fit(headed, shop.job(context, task, *rows))
    return Made(headed.eval(), _size(headed), fitted)


def store_findings(used: Used) -> list[Finding]:
    """Whether frozen work was done once, and what that took."""
    what = [Finding("store/used", "Whether frozen blocks were read from the store", "yes" if used.used else "no", note=used.reason)]
    if used.used:
        note = f"{used.damaged} rows of damaged files were computed again" if used.damaged else ""
        what += [
            Finding("store/depth", "Frozen blocks that were not computed while training", used.depth, "blocks"),
            Finding("store/computed", "Rows whose frozen blocks were computed for training", used.computed, "rows", used.rows, note=note),
            Finding("store/rows", "Rows read from the store", used.rows, "rows"),
            Finding("store/bytes", "Size of these rows in the store", used.bytes, "bytes"),
            Finding("store/seconds", "Time to fill and check the store", round(used.seconds, 1), "seconds", source="measured"),
        ]
    if used.recomputed:
        claim = "Largest relative difference between stored and recomputed rows"
        what.append(Finding("store/difference", claim, used.difference, n=used.recomputed, source="measured"))
    return what


def _solved(shop: Shop, answer: Answer, score: float, rows: int) -> list[Finding]:
    """What is told of a head that no loop trained."""
    peak = peak_bytes(next(shop.model.parameters()).device)
    ended = "the solver converged" if not isinstance(answer, Linear) or answer.converged else "the solver's limit of iterations"
    return [
        Finding("train/best_score", f"Validation {shop.context.spec.evaluate.metric} of the chosen head", score, n=rows, source="measured"),
        Finding("train/peak_memory_bytes", "Peak memory of the process", peak, "bytes", source="measured"),
        Finding("train/stopped_by", "Why training ended", ended),
    ]


def _size(headed: Headed) -> Size:
    """All numbers of network and head; those of the head were fitted."""
    output = output_layer(headed.network, headed.network.config.num_labels)[1]
    network, unused, head = size_of(headed.network), size_of(output), list(headed.head.state_dict().values())
    fitted = sum(value.numel() for value in head)
    stored = sum(value.numel() * value.element_size() for value in head)
    return Size(network.total - unused.total + fitted, fitted, network.bytes - unused.bytes + stored)


# ---- the gate


def check_parity(context: Context, made: Made, shipped: Any) -> Finding:
    """The largest difference between what the fitted head says of stored features and what the saved model says of the same rows.

    Trees jump where a feature crosses a threshold, and the last bits of features depend on the rows that share a batch: one row
    in a hundred may differ for them.

    Args:
        context: the run.
        made: what was fitted.
        shipped: the model as it was loaded from the saved files.

    Raises:
        ModelError: they do not say the same.
    """
    whole = context.encoding("validation")
    rows = whole.part(range(min(PARITY_ROWS, len(whole.rows))))
    told = predict_logits(made.model, context.task, rows) if made.validation is None else made.validation[:PARITY_ROWS]
    after = predict_logits(shipped, context.task, rows)
    difference_H = (_compared(told, context) - _compared(after, context)).abs().amax(1)
    off = int((~(difference_H <= PARITY)).sum())
    jumps = isinstance(shipped, Headed) and isinstance(shipped.head, Trees)
    if off > (len(rows.rows) // 100 if jumps else 0):
        found = f"{off} of {len(rows.rows)} validation rows differ, by up to {float(difference_H.max()):.3g}"
        raise ModelError(Issue("model", f"must say what was fitted, within {PARITY:g}", found, "Nothing is shipped; please report this."))
    what = "numbers, in their standard deviation," if context.given.kind == "number" else "probabilities"
    claim = f"Largest difference between {what} of the saved model and of what was fitted, on validation rows"
    return Finding("model/parity", claim, float(difference_H.max()), n=len(rows.rows), source="measured")


def head_findings(stage: StageWriter, shipped: Any) -> list[Finding]:
    """What lies beside the network, when something does."""
    if not isinstance(shipped, Headed):
        return []
    artefact = stage.wrote(f"model/{HEAD_ARRAYS}")
    return [Finding("model/head", "Head that lies beside the network", kind_of(shipped.head), artefact=artefact)]


def _compared(logits_HC: Tensor, context: Context) -> Tensor:
    """Probabilities, or numbers in units of the spread of the validation rows."""
    if context.given.kind == "number":
        spread = max(float(context.task.targets(context.table("validation")).std()), 1e-12)
        return logits_HC.double() / spread
    return torch.sigmoid(logits_HC.double()) if context.given.kind == "classes" else torch.softmax(logits_HC.double(), -1)

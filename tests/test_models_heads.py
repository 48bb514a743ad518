"""Heads on features: the numbers of scikit-learn, the same answers after saving, weights and absent classes, damaged files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import BaseEstimator, ClassifierMixin
from torch import Tensor, nn

from tests import tiny
from tunesmith.core.errors import RunError
from tunesmith.models import boosting
from tunesmith.models.forward import predict_logits
from tunesmith.models.headed import HEAD_ARRAYS, HEAD_JSON, Headed, load_head, load_shipped
from tunesmith.models.heads import LEAST, Attentive, LinearAnswers, Perceptron, fit_neighbours
from tunesmith.models.linear import Linear, Penalty, fit_logistic
from tunesmith.models.load import load_model, load_processor
from tunesmith.models.svm import calibrate, fit_calibrated, fit_svm
from tunesmith.spec.schema import Model
from tunesmith.tasks.text_classification import TextClassification

CLASSES, WIDTH = 4, 6
Answer = Callable[[Tensor], Tensor]


def rows(count: int = 160, classes: int = CLASSES, several: bool = False, seed: int = 0) -> tuple[Tensor, np.ndarray]:
    """Features around a centre for each class, and class ids or a 0/1 matrix."""
    rng = np.random.default_rng(seed)
    centres_CE = rng.normal(size=(classes, WIDTH)) * 1.5
    if several:
        targets = (rng.random((count, classes)) < 0.4).astype(np.float32)
        return torch.tensor(targets @ centres_CE + rng.normal(size=(count, WIDTH)), dtype=torch.float32), targets
    ids = rng.integers(0, classes, count)
    return torch.tensor(centres_CE[ids] + rng.normal(size=(count, WIDTH)), dtype=torch.float32), ids


def folds(count: int) -> np.ndarray:
    return np.arange(count) % 4


FITS: dict[str, Callable[[Tensor, np.ndarray, Any], Answer]] = {
    "logistic": lambda x, y, w: fit_logistic(x, y, CLASSES, Penalty(), w),
    "linear_svm": lambda x, y, w: fit_calibrated(x, y, CLASSES, Penalty(0.1), (folds(len(x)), w))[0],
    "knn": lambda x, y, w: fit_neighbours(x, y, CLASSES, 15, w),
    "gradient_boosting": lambda x, y, w: boosting.fit_boosting(x, y, CLASSES, w),
}


@pytest.fixture(autouse=True)
def few_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boosting, "MOST_ROUNDS", 25)


def probabilities(answer: Answer, features: Tensor, several: bool = False) -> np.ndarray:
    with torch.inference_mode():
        logits = answer(features).double()
    return (torch.sigmoid(logits) if several else torch.softmax(logits, -1)).numpy()


# ---- every kind


@pytest.mark.parametrize("several", [False, True], ids=["one label", "several"])
@pytest.mark.parametrize("kind", FITS)
def test_every_head_learns_and_tells_probabilities(kind: str, several: bool) -> None:
    features, targets = rows(320, several=several)
    answer = FITS[kind](features[:200], targets[:200], None)
    told = probabilities(answer, features[200:], several)
    assert told.shape == (120, CLASSES) and np.isfinite(told).all()
    if several:
        assert ((told >= 0.5) == targets[200:]).mean() > 0.7
    else:
        assert np.allclose(told.sum(1), 1, atol=1e-5) and (told.argmax(1) == targets[200:]).mean() > 0.7


@pytest.mark.parametrize("kind", FITS)
def test_rows_that_weigh_more_are_given_more(kind: str) -> None:
    features, targets = rows(200, seed=1)
    asked, heavy = torch.randn(300, WIDTH, generator=torch.Generator().manual_seed(0)), np.where(targets == 2, 8.0, 1.0).astype(np.float32)
    plain, weighted = (probabilities(FITS[kind](features, targets, w), asked)[:, 2].mean() for w in (None, heavy))
    assert weighted > plain + 0.01
    same = probabilities(FITS[kind](features, targets, np.ones(200, np.float32)), features)
    assert np.allclose(same, probabilities(FITS[kind](features, targets, None), features), atol=1e-4)


@pytest.mark.parametrize("several", [False, True], ids=["one label", "several"])
@pytest.mark.parametrize("kind", FITS)
def test_a_class_without_rows_is_never_given(kind: str, several: bool) -> None:
    features, targets = rows(160, several=several)
    if several:
        targets[:, 1] = 0
    else:
        features, targets = features[targets != 1], targets[targets != 1]
    told = probabilities(FITS[kind](features, targets, None), features, several)
    assert told[:, 1].max() < 1e-2


# ---- the numbers of scikit-learn


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_support_vector_machines_are_those_of_scikit_learn(classes: int) -> None:
    from sklearn.svm import LinearSVC

    features, targets = rows(150, classes)
    weights = np.random.default_rng(0).random(150) + 0.2
    scaled = (features.numpy().astype(np.float64) - features.numpy().astype(np.float64).mean(0)) / features.numpy().astype(np.float64).std()
    reference = LinearSVC(C=0.3, dual=False, tol=1e-10, max_iter=10_000).fit(scaled, targets, sample_weight=weights)
    expected = reference.decision_function(scaled)
    scores = fit_svm(features, targets, classes, Penalty(0.3, tolerance=1e-7), weights)(features).numpy()
    assert np.allclose(scores[:, 1] if classes == 2 else scores, expected, atol=2e-3)


class Scores(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """An estimator whose features are its scores."""

    def fit(self, features: np.ndarray, targets: np.ndarray, sample_weight: Any = None) -> Scores:
        self.classes_ = np.unique(targets)
        return self

    def decision_function(self, features: np.ndarray) -> np.ndarray:
        return features[:, 0]

    def predict(self, features: np.ndarray) -> np.ndarray:
        return (features[:, 0] > 0).astype(int)


@pytest.mark.parametrize("weighted", [False, True])
def test_calibration_of_two_classes_is_platt_s(weighted: bool) -> None:
    from sklearn.calibration import CalibratedClassifierCV

    rng = np.random.default_rng(3)
    targets = rng.integers(0, 2, 300)
    scores = targets * 1.4 - 0.3 + rng.normal(size=300)
    weights = rng.random(300) + 0.5 if weighted else None
    reference = CalibratedClassifierCV(Scores(), method="sigmoid", ensemble=False, cv=3)
    expected = reference.fit(scores[:, None], targets, sample_weight=weights).predict_proba(scores[:, None])
    slope, offset, _ = calibrate(np.stack([-scores, scores], 1), targets, weights)
    told = torch.softmax(torch.tensor(np.stack([-scores, scores], 1) * slope + offset), -1).numpy()
    assert np.allclose(told, expected, atol=2e-3 if weighted else 1e-3)
    slope, offset, _ = calibrate(scores[:, None], targets[:, None].astype(np.float32), weights)
    assert np.allclose(1 / (1 + np.exp(-(scores * slope[0] + offset[0]))), expected[:, 1], atol=2e-3 if weighted else 1e-3)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 6))
def test_calibrated_shares_are_those_of_the_classes(seed: int, classes: int) -> None:
    rng = np.random.default_rng(seed)
    targets = np.concatenate([np.arange(classes), rng.integers(0, classes, 60)])
    scores = rng.normal(size=(len(targets), classes)) + 2 * np.eye(classes)[targets]
    slope, offset, loss = calibrate(scores, targets, None)
    told = torch.softmax(torch.tensor(scores * slope + offset), -1).numpy()
    counts = np.bincount(targets, minlength=classes)
    own = ((counts + 1) / (counts + 2))[targets]
    smoothed = np.where(np.eye(classes, dtype=bool)[targets], own[:, None], (1 - own[:, None]) / (classes - 1))
    assert np.allclose(told.mean(0), smoothed.mean(0), atol=2e-3)
    assert (slope > 0).all() and loss < np.log(classes)


@pytest.mark.parametrize("several", [False, True], ids=["one label", "several"])
def test_neighbours_are_those_of_scikit_learn(several: bool) -> None:
    from sklearn.neighbors import KNeighborsClassifier

    features, targets = rows(120, several=several)
    train, asked, known = features[:90], features[90:], targets[:90]
    centre = train.numpy().mean(0)

    def weights(distance: np.ndarray) -> np.ndarray:
        return np.asarray((distance[:, -1:] - distance + LEAST) / (distance[:, -1:] - distance[:, :1] + LEAST))

    reference = KNeighborsClassifier(8, metric="cosine", algorithm="brute", weights=weights).fit(train.numpy() - centre, known)
    told = reference.predict_proba(asked.numpy() - centre)
    votes = np.stack([p[:, 1] for p in told], 1) if several else told
    total = weights(reference.kneighbors(asked.numpy() - centre)[0]).sum(1, keepdims=True)
    share = known.mean(0) if several else np.bincount(known) / len(known)
    expected = (votes * total + share) / (total + 1)
    assert np.allclose(probabilities(fit_neighbours(train, known, CLASSES, 7), asked, several), expected, atol=1e-4)


def test_more_neighbours_than_rows_are_all_rows() -> None:
    features, targets = rows(12)
    told = probabilities(fit_neighbours(features, targets, CLASSES, 500), features)
    assert np.isfinite(told).all() and np.allclose(told.sum(1), 1, atol=1e-5)


def test_answers_of_neighbours_do_not_jump() -> None:
    features, targets = rows(120)
    head = fit_neighbours(features, targets, CLASSES, 15)
    asked = torch.randn(400, WIDTH, generator=torch.Generator().manual_seed(1))
    moved = asked + 1e-6 * torch.randn(400, WIDTH, generator=torch.Generator().manual_seed(2))
    assert np.abs(probabilities(head, asked) - probabilities(head, moved)).max() < 1e-3


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_trees_are_those_of_scikit_learn(classes: int) -> None:
    features, targets = rows(300, classes)
    weights = np.random.default_rng(0).random(200) + 0.2
    head = boosting.fit_boosting(features[:200], targets[:200], classes, weights)
    rotated = (features.double() - head.mean_E) @ head.rotation_EP
    reference = boosting.classifier(boosting.rounds_for(classes)).fit(rotated[:200].numpy(), targets[:200], sample_weight=weights)
    assert np.allclose(probabilities(head, features), reference.predict_proba(rotated.numpy()), atol=1e-6)


def test_trees_of_several_labels_are_those_of_scikit_learn() -> None:
    features, targets = rows(200, 3, several=True)
    head = boosting.fit_boosting(features, targets, 3)
    rotated = ((features.double() - head.mean_E) @ head.rotation_EP).numpy()
    told = probabilities(head, features, several=True)
    for c in range(3):
        reference = boosting.classifier(boosting.rounds_for(3)).fit(rotated, targets[:, c].astype(int))
        assert np.allclose(told[:, c], reference.predict_proba(rotated)[:, 1], atol=1e-6)


def test_attention_begins_as_the_mean_and_looks_past_padding() -> None:
    torch.manual_seed(0)
    head = Attentive(WIDTH, {"kind": "linear", "options": {"width": WIDTH, "classes": 3}})
    states, mask = torch.randn(4, 5, WIDTH), torch.tensor([[1] * 5, [1, 1, 1, 0, 0], [1, 0, 0, 0, 0], [1, 1, 1, 1, 0]])
    mean = (states * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True)
    assert torch.allclose(head(states, mask), head.inner(mean), atol=1e-6)
    nn.init.normal_(head.query_E)
    assert torch.allclose(head(states, mask)[1], head(states[1:2, :3])[0], atol=1e-6)


# ---- files


def made(kind: str) -> nn.Module:
    features, targets = rows(60)
    torch.manual_seed(0)
    if kind == "mlp":
        return Perceptron(WIDTH, 5, CLASSES, 0.1).scaled_to(features)
    if kind == "attention":
        return Attentive(WIDTH, {"kind": "mlp", "options": {"width": WIDTH, "hidden": 5, "classes": CLASSES, "dropout": 0.0}})
    if kind == "linear":
        return LinearAnswers(WIDTH, CLASSES)
    head = FITS[kind](features, targets, None)
    assert isinstance(head, nn.Module)
    return head


class Network(nn.Module):
    """As much of a classifier as saving needs."""

    def __init__(self) -> None:
        super().__init__()
        self.classifier = nn.Linear(WIDTH, CLASSES)
        self.config = type("Config", (), {"num_labels": CLASSES})()
        self.main_input_name, self.device, self.kept = "input_ids", torch.device("cpu"), dict[str, Tensor]()

    def save_pretrained(self, _folder: Path, state_dict: dict[str, Tensor]) -> None:
        self.kept = state_dict


@pytest.mark.parametrize("kind", ["knn", "gradient_boosting", "mlp", "attention", "linear"])
def test_a_head_is_kept_as_arrays_and_words(tmp_path: Path, kind: str) -> None:
    head = made(kind).eval()
    network = Network()
    Headed(network, head, "features").save_pretrained(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [HEAD_JSON, HEAD_ARRAYS] and network.kept == {}
    again, reads = load_head(tmp_path)
    asked = torch.randn(7, 3, WIDTH) if kind == "attention" else torch.randn(7, WIDTH)
    assert reads == "features" and torch.equal(head(asked), again.eval()(asked))


@pytest.mark.parametrize("damage", ["cut", "kind", "format", "shape", "gone", "words"])
def test_a_damaged_head_is_refused_by_name(tmp_path: Path, damage: str) -> None:
    Headed(Network(), made("knn"), "features").save_pretrained(tmp_path)
    path = tmp_path / HEAD_JSON
    content = json.loads(path.read_text())
    if damage == "cut":
        (tmp_path / HEAD_ARRAYS).write_bytes((tmp_path / HEAD_ARRAYS).read_bytes()[:-40])
    elif damage == "gone":
        (tmp_path / HEAD_ARRAYS).unlink()
    elif damage == "words":
        path.write_text("{")
    else:
        changed: dict[str, dict[str, Any]] = {
            "kind": {"kind": "os.system"},
            "format": {"format": 2},
            "shape": {"options": {**content["options"], "rows": 3}},
        }
        path.write_text(json.dumps({**content, **changed[damage]}))
    with pytest.raises(RunError, match=r"head\.json"):
        load_head(tmp_path)


@pytest.mark.parametrize("reads", ["features", "states"])
@pytest.mark.parametrize("kind", ["bert", "distilbert", "gpt2", "roberta"])
def test_a_network_with_a_head_is_saved_and_called_as_one(tmp_path: Path, kind: str, reads: Any) -> None:
    spec = Model(name=str(tiny.save_pretrained(tmp_path / kind, kind)))
    table = tiny.table(12)
    task = TextClassification(sorted(set(table["label"])))
    torch.manual_seed(1)
    network = load_model(spec, task.head, task.model_options)
    encoding = task.encode(table, load_processor(spec), 32)
    plain: Any = Perceptron(16, 5, 3, 0.2)
    head = plain if reads == "features" else Attentive(16, {"kind": "linear", "options": {"width": 16, "classes": 3}})
    model = Headed(network, head, reads).train()
    assert not network.training and head.training
    before = predict_logits(model, task, encoding)
    model.save_pretrained(tmp_path / "saved")
    shipped = load_shipped(task.head, tmp_path / "saved", False)
    assert torch.allclose(before, predict_logits(shipped, task, encoding), atol=1e-6)
    assert not any(p.requires_grad for p in network.parameters())


def test_a_linear_answer_is_no_module() -> None:
    features, targets = rows(60)
    assert isinstance(FITS["linear_svm"](features, targets, None), Linear)

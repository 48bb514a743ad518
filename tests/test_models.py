"""Shortcuts, mean pooling, anatomy and strategies: exact where they promise it, over architectures."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor

from tests import tiny
from tunesmith.core.errors import ModelError
from tunesmith.models.adapters import merged
from tunesmith.models.anatomy import dissect
from tunesmith.models.build import set_head
from tunesmith.models.dropout import QuickDropout
from tunesmith.models.forward import frozen_features, predict_logits
from tunesmith.models.linear import Penalty, fit_logistic
from tunesmith.models.load import load_model, load_processor
from tunesmith.models.mean_pool import add_mean_pooling
from tunesmith.models.shortcuts import Shortcuts
from tunesmith.models.strategies import apply_strategy, frozen_prefix, rate_levels
from tunesmith.spec.schema import Full, Layers, Lora, Model
from tunesmith.tasks.base import Encoding
from tunesmith.tasks.text_classification import TextClassification

KINDS = ("bert", "roberta", "electra", "distilbert", "gpt2")


class Loaded:
    """A tiny model, its task and encoded rows."""

    def __init__(self, folder: Path, kind: str) -> None:
        spec = Model(name=str(tiny.save_pretrained(folder / kind, kind)))
        self.rows = tiny.table(24)
        self.task = TextClassification(sorted(set(self.rows["label"])))
        torch.manual_seed(1)
        self.model: Any = load_model(spec, self.task.head, self.task.model_options)
        self.encoding: Encoding = self.task.encode(self.rows, load_processor(spec), 32)


@pytest.fixture(params=KINDS)
def loaded(request: pytest.FixtureRequest, tmp_path: Path) -> Loaded:
    return Loaded(tmp_path, request.param)


@pytest.fixture
def bert(tmp_path: Path) -> Loaded:
    return Loaded(tmp_path, "bert")


def batch_loss(model: Any, task: TextClassification, encoding: Encoding) -> Tensor:
    batch = task.collate(encoding.rows)
    return task.loss(model(**{k: v for k, v in batch.items() if k != "labels"}), batch)[0]


def test_shortcuts_change_neither_loss_nor_gradients(loaded: Loaded) -> None:
    plain, short = loaded.model.eval(), copy.deepcopy(loaded.model).eval()
    batch_loss(plain, loaded.task, loaded.encoding).backward()
    shortcuts = Shortcuts(short, [loaded.encoding], linear_decay=True)
    loss = batch_loss(short, loaded.task, shortcuts.encodings[0])
    loss.backward()
    assert torch.isclose(loss, batch_loss(plain, loaded.task, loaded.encoding), rtol=1e-6)
    table = plain.get_input_embeddings().weight
    ids = shortcuts.compact.ids_V  # type: ignore[union-attr]
    assert torch.allclose(short.get_input_embeddings().weight.grad[:-1], table.grad[ids], atol=1e-5, rtol=1e-4)
    others = {n: p.grad for n, p in plain.named_parameters() if p is not table}
    for name, parameter in short.named_parameters():
        if name in others and others[name] is not None:
            assert torch.allclose(parameter.grad, others[name], atol=1e-5, rtol=1e-4), name


@pytest.mark.parametrize("kind", ["bert", "roberta", "electra"])
def test_quick_attention_is_torch_s_attention(tmp_path: Path, kind: str) -> None:
    loaded = Loaded(tmp_path, kind)
    plain, short = loaded.model.train(), copy.deepcopy(loaded.model).train()
    for model in (plain, short):
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 1e-9  # not 0, so that the path with dropout runs; too little for a draw to drop anything
    shortcuts = Shortcuts(short, [loaded.encoding], linear_decay=True)
    losses = [batch_loss(plain, loaded.task, loaded.encoding), batch_loss(short, loaded.task, shortcuts.encodings[0])]
    for loss in losses:
        loss.backward()
    assert torch.isclose(losses[0], losses[1], rtol=1e-5)
    gradients = {n: p.grad for n, p in plain.named_parameters()}
    for name, parameter in short.named_parameters():
        if "word_embeddings" not in name and gradients[name] is not None:
            assert torch.allclose(parameter.grad, gradients[name], atol=1e-4, rtol=1e-3), name


# A large eps: Adam turns rounding noise of gradients that are 0 in theory (key biases) into steps of full size.
@pytest.mark.parametrize(("optimizer", "options"), [(torch.optim.AdamW, {"eps": 1e-3}), (torch.optim.SGD, {"momentum": 0.9})])
def test_compact_vocabulary_trains_to_the_same_weights(bert: Loaded, optimizer: Any, options: dict[str, float]) -> None:
    plain, short = bert.model.eval(), copy.deepcopy(bert.model).eval()
    shortcuts = Shortcuts(short, [bert.encoding], linear_decay=True)
    for model, encoding in ((plain, bert.encoding), (short, shortcuts.encodings[0])):
        steps = optimizer(model.parameters(), lr=1e-2, weight_decay=0.1, **options)
        for _ in range(4):
            steps.zero_grad()
            batch_loss(model, bert.task, encoding).backward()
            steps.step()
    shortcuts.undo()
    for (name, a), b in zip(plain.named_parameters(), short.parameters(), strict=True):
        assert torch.allclose(a, b, atol=2e-5), name
    assert torch.allclose(predict_logits(plain, bert.task, bert.encoding), predict_logits(short, bert.task, bert.encoding), atol=1e-4)


def test_mean_pooling_gives_the_mean_of_the_last_states(bert: Loaded) -> None:
    mean = frozen_features(bert.model, bert.task, bert.encoding).mean_NE
    add_mean_pooling(bert.model)
    head_input = frozen_features(bert.model, bert.task, bert.encoding).head_input_NE
    normed = (mean - mean.mean(1, keepdim=True)) / mean.std(1, keepdim=True, unbiased=False)
    assert torch.allclose(head_input * 100, normed, atol=0.02)


def test_mean_pooling_survives_plain_loading(bert: Loaded, tmp_path: Path) -> None:
    add_mean_pooling(bert.model)
    before = predict_logits(bert.model, bert.task, bert.encoding)
    bert.model.save_pretrained(tmp_path / "saved")
    again = bert.task.head.from_pretrained(tmp_path / "saved")
    assert torch.equal(before, predict_logits(again, bert.task, bert.encoding))


def test_mean_pooling_is_refused_where_it_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"strategy\.pooling"):
        add_mean_pooling(Loaded(tmp_path, "gpt2").model)


def test_anatomy_names_every_parameter_once(loaded: Loaded) -> None:
    parts = dissect(loaded.model)
    assert sorted(n for level in parts.levels for n in level) == sorted(n for n, _ in loaded.model.named_parameters())
    assert len(parts.blocks) == 2
    assert parts.embeddings
    assert parts.head


def test_layers_trains_the_top_and_freezes_the_rest(loaded: Loaded) -> None:
    model = apply_strategy(loaded.model, Layers(kind="layers", top=1))
    parts = dissect(model)
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    assert trained == set(parts.blocks[1]) | set(parts.head)
    model.train()
    for module in frozen_prefix(model, Layers(kind="layers", top=1)):
        module.training = False
    frozen_dropout = [m for n, m in model.named_modules() if isinstance(m, torch.nn.Dropout) and "0" in n.split(".")]
    assert not any(m.training for m in frozen_dropout)
    batch_loss(model, loaded.task, loaded.encoding).backward()
    assert all(dict(model.named_parameters())[n].grad is None for n in parts.embeddings)


@pytest.mark.parametrize("top", [0, 1, 2])
def test_dropout_is_off_below_the_trained_blocks_alone(bert: Loaded, top: int) -> None:
    strategy = Layers(kind="layers", top=top)
    model = apply_strategy(bert.model, strategy).train()
    for module in frozen_prefix(model, strategy):
        module.training = False
    off = {name for name, m in model.named_modules() if isinstance(m, torch.nn.Dropout) and not m.training}
    frozen = ("bert.embeddings", *(f"bert.encoder.layer.{n}." for n in range(2 - top)))
    assert off == {name for name, m in model.named_modules() if isinstance(m, torch.nn.Dropout) and name.startswith(frozen)}


def test_layers_refuses_more_blocks_than_there_are(bert: Loaded) -> None:
    with pytest.raises(ModelError, match="at most 2"):
        apply_strategy(bert.model, Layers(kind="layers", top=3))


def test_rates_fall_with_depth(bert: Loaded) -> None:
    parts = dissect(bert.model)
    rates = rate_levels(apply_strategy(bert.model, Full(kind="full", layer_decay=0.5)), Full(kind="full", layer_decay=0.5))
    assert rates[parts.head[-1]] == 1.0
    assert rates[parts.blocks[1][0]] == 1.0
    assert rates[parts.blocks[0][0]] == 0.5
    assert rates[parts.embeddings[0]] == 0.25


@pytest.mark.parametrize("targets", ["all-linear", "attention"])
def test_lora_merges_into_a_plain_model_with_the_same_logits(loaded: Loaded, targets: Any) -> None:
    head_type = type(loaded.model)
    model = apply_strategy(loaded.model, Lora(kind="lora", rank=2, targets=targets))
    steps = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    batch_loss(model, loaded.task, loaded.encoding).backward()
    steps.step()
    adapted = predict_logits(model, loaded.task, loaded.encoding)
    plain = merged(model)
    assert type(plain) is head_type
    assert torch.allclose(adapted, predict_logits(plain, loaded.task, loaded.encoding), atol=1e-5)


def test_lora_names_the_modules_when_a_target_is_unknown(bert: Loaded) -> None:
    with pytest.raises(ModelError, match="query"):
        apply_strategy(bert.model, Lora(kind="lora", targets=("nonsense",)))


def test_fitted_head_gives_the_regression_s_logits(loaded: Loaded) -> None:
    features = frozen_features(loaded.model, loaded.task, loaded.encoding).head_input_NE
    bias = loaded.model.config.model_type != "gpt2"
    linear = fit_logistic(features, loaded.task.targets(loaded.rows), 3, Penalty(intercept=bias))
    set_head(loaded.model, linear)
    assert torch.allclose(predict_logits(loaded.model, loaded.task, loaded.encoding), linear(features), atol=1e-4)


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_logistic_regression_equals_scikit_learn(classes: int) -> None:
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(classes)
    features = rng.normal(size=(200, 6)).astype(np.float32)
    targets = rng.integers(0, classes, 200)
    linear = fit_logistic(torch.tensor(features), targets, classes, Penalty(strength=1.0))
    spread = features.std()
    reference = LogisticRegression(C=1.0, max_iter=1000).fit((features - features.mean(0)) / spread, targets)
    expected = reference.predict_proba((features - features.mean(0)) / spread)
    assert np.allclose(torch.softmax(linear(torch.tensor(features)), -1).numpy(), expected, atol=5e-3)


def test_classes_without_rows_are_never_predicted() -> None:
    features = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    linear = fit_logistic(features, np.array([0, 2] * 25), 4, Penalty())
    assert set(linear(features).argmax(1).tolist()) <= {0, 2}


def test_features_do_not_depend_on_the_order_of_rows(loaded: Loaded) -> None:
    forward = predict_logits(loaded.model, loaded.task, loaded.encoding)
    reverse = Encoding(loaded.encoding.rows[::-1], loaded.encoding.lengths[::-1], 0)
    assert torch.allclose(forward, predict_logits(loaded.model, loaded.task, reverse).flip(0), atol=1e-5)


def test_example_is_a_table_of_the_task() -> None:
    assert isinstance(TextClassification.example(), pl.DataFrame)


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.9])
def test_quick_dropout_drops_the_right_share_and_keeps_the_mean(p: float) -> None:
    torch.manual_seed(0)
    layer, ones = QuickDropout(p), torch.ones(1001, 999)
    dropped = layer(ones)
    assert float((dropped == 0).float().mean()) == pytest.approx(p, abs=0.003)
    assert float(dropped.mean()) == pytest.approx(1.0, abs=0.01)
    assert dropped.unique().numel() == (1 if p == 0 else 2)
    assert torch.equal(layer.eval()(ones), ones)
    columns = (layer.train()(ones) == 0).float()
    assert float(columns.mean(0).std()) < 0.03


def test_shortcuts_leave_the_model_as_it_was(loaded: Loaded) -> None:
    kinds = [type(m) for m in loaded.model.modules()]
    names = list(loaded.model.state_dict())
    Shortcuts(loaded.model, [loaded.encoding], linear_decay=True).undo()
    assert [type(m) for m in loaded.model.modules()] == kinds
    assert list(loaded.model.state_dict()) == names

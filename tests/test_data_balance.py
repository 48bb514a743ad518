"""Weights, draws and losses for rare classes: what they promise, and cross-entropy where they must equal it."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from tunesmith.data.balance import (
    Sampling,
    balanced_weights,
    effective_number_weights,
    epoch_order,
    focal_loss,
    focal_loss_multi_label,
    row_chances,
)

targets = st.lists(st.integers(0, 4), max_size=60).map(lambda values: np.array(values, np.int64))
ways = st.sampled_from(["balanced", "square-root"])


@settings(max_examples=100, deadline=None)
@given(targets, ways, st.integers(0, 3), st.integers(0, 3))
def test_an_epoch_has_its_draws_and_sees_rare_classes_whole(y: np.ndarray, how: Sampling, seed: int, epoch: int) -> None:
    order = epoch_order(y, how, seed, epoch)
    assert len(order) == len(y)
    assert np.array_equal(order, epoch_order(y, how, seed, epoch))
    counts, drawn = np.bincount(y, minlength=5), np.bincount(y[order], minlength=5)
    wanted = np.bincount(y, weights=row_chances(y, how), minlength=5) * len(y)
    assert (np.abs(drawn - wanted) < 1).all()
    times = np.bincount(order, minlength=len(y))
    for label in np.flatnonzero(counts):
        of_class = times[y == label]
        assert of_class.max() - of_class.min() <= 1  # every row before any row again
        if wanted[label] >= counts[label]:
            assert of_class.min() >= 1


def test_epochs_differ_and_every_row_comes_in_time() -> None:
    y = np.array([0] * 95 + [1] * 5)
    assert not np.array_equal(epoch_order(y, "balanced", 0, 0), epoch_order(y, "balanced", 0, 1))
    assert not np.array_equal(epoch_order(y, "balanced", 0, 0), epoch_order(y, "balanced", 1, 0))
    assert set(np.concatenate([epoch_order(y, "balanced", 0, e) for e in range(12)]).tolist()) == set(range(100))
    assert np.bincount(y[epoch_order(y, "balanced", 0, 0)]).tolist() == [50, 50]
    root = np.sqrt([95, 5]) / np.sqrt([95, 5]).sum() * 100
    assert np.allclose(np.bincount(y[epoch_order(y, "square-root", 0, 0)]), root, atol=1)


@settings(max_examples=60, deadline=None)
@given(targets, ways)
def test_chances_sum_to_one_within_and_over_classes(y: np.ndarray, how: Sampling) -> None:
    chances = row_chances(y, how)
    assert chances.sum() == pytest.approx(1 if len(y) else 0)
    per_class = np.bincount(y, weights=chances)[np.bincount(y) > 0] if len(y) else np.zeros(0)
    if how == "balanced" and len(per_class):
        assert np.allclose(per_class, per_class[0])


def test_balanced_weights_are_those_of_scikit_learn() -> None:
    from sklearn.utils.class_weight import compute_class_weight

    y = np.repeat([0, 1, 2], [70, 25, 5])
    assert np.allclose(balanced_weights(np.bincount(y)), compute_class_weight("balanced", classes=np.arange(3), y=y))
    assert balanced_weights(np.array([3, 0])).tolist() == [0.5, 1.5]


def test_effective_numbers() -> None:
    counts = np.array([5000, 100, 2])
    expected = (1 - 0.99) / (1 - 0.99**counts)
    assert np.allclose(effective_number_weights(counts, 0.99), expected / expected.sum() * 3)
    assert np.allclose(effective_number_weights(counts, 0.0), 1)
    assert np.allclose(effective_number_weights(counts, 1 - 1e-12), (1 / counts) / (1 / counts).sum() * 3, rtol=1e-3)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([None, 1.0]), st.sampled_from([1.0, 30.0]))
def test_focal_loss_without_focus_is_cross_entropy(seed: int, weighted: float | None, size: float) -> None:
    torch.manual_seed(seed)
    logits, y = (torch.randn(7, 4) * size).requires_grad_(), torch.randint(0, 4, (7,))
    weights = torch.rand(4) + 0.1 if weighted else None
    total, count = focal_loss(logits, y, 0.0, weights)
    torch.testing.assert_close(total / count, F.cross_entropy(logits, y, weights))
    many = torch.randint(0, 2, (7, 4))
    total, count = focal_loss_multi_label(logits, many, 0.0)
    torch.testing.assert_close(total / count, F.binary_cross_entropy_with_logits(logits, many.float()))


def test_focal_loss_is_its_formula_and_has_finite_gradients() -> None:
    logits = torch.tensor([[2.0, 0.0, -1.0], [60.0, 0.0, 0.0], [-60.0, 0.0, 0.0]], requires_grad=True)
    y = torch.tensor([0, 0, 0])
    total, count = focal_loss(logits, y, 2.0)
    p = torch.softmax(logits.double(), -1)[:, 0]
    torch.testing.assert_close(total.double(), (-((1 - p) ** 2) * p.log()).sum())
    assert count == 3
    for gamma in (0.5, 2.0):
        for function, wanted in ((focal_loss, y), (focal_loss_multi_label, torch.eye(3))):
            (gradient,) = torch.autograd.grad(function(logits, wanted, gamma)[0], logits)  # type: ignore[operator]
            assert gradient.isfinite().all()
    q = torch.sigmoid(logits.double())
    given_probability = torch.where(torch.eye(3) == 1, q, 1 - q)[:1]
    expected = (-((1 - given_probability) ** 2) * given_probability.log()).sum()
    torch.testing.assert_close(focal_loss_multi_label(logits[:1], torch.eye(3)[:1], 2.0)[0].double(), expected)


def test_the_module_is_light() -> None:
    code = "import sys, tunesmith.data.balance; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "False"

"""Averages of weights: over steps, of checkpoints, and between the weights before and after training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn

from tests.test_train import spec_of
from tests.test_train_craft import EMA, SOUP, SWA, WISE, Crafted
from tests.test_train_craft import bench as bench
from tunesmith.core.errors import Interrupted
from tunesmith.core.interrupt import StopRequest
from tunesmith.models.shortcuts import Shortcuts
from tunesmith.spec.schema import Ema, Soup, Swa, WiseFT
from tunesmith.train.averaging import Average, best_share, blend, greedy_soup, most_scored_afterwards, refresh_statistics, swapped, update
from tunesmith.train.batches import step_batches
from tunesmith.train.fit import fit, make_learner, order_of
from tunesmith.train.loop import train_steps
from tunesmith.train.step import task_step


@pytest.mark.parametrize(("sets", "reference"), [(EMA, get_ema_multi_avg_fn(0.8)), (SWA, None)])
def test_averages_over_steps_are_those_of_torch(bench: Crafted, sets: tuple[str, ...], reference: Callable[..., None] | None) -> None:
    spec = spec_of(bench.tiny_bert, *sets)
    model = bench.model(spec)
    torch.manual_seed(7)
    learner, order = make_learner(model, spec, 10), order_of(spec, bench.encoding)
    theirs = AveragedModel(model, multi_avg_fn=reference)
    batches = step_batches(order, lambda rows: bench.task.collate([bench.encoding.rows[r] for r in rows]))
    for info in train_steps(learner, batches, task_step(bench.task)):
        update(learner.average, model, info.step, order.steps)
        if reference or info.step > 5:
            theirs.update_parameters(model)
    assert learner.average.count == (10 if reference else 5)
    for name, value in theirs.module.named_parameters():
        assert torch.allclose(value, learner.average.weights[name], atol=1e-6), name
    before = [p.detach().clone() for p in model.parameters()]
    with swapped(model, learner.average.weights, list):
        assert all(torch.equal(p, learner.average.weights[name]) for name, p in model.named_parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_only_averaged_weights_are_kept(bench: Crafted) -> None:
    model, fitted, history = bench.run("swa", *SWA, "train.epochs=4", "train.evaluations_per_epoch=2")
    assert fitted.best_step > 10 and fitted.averaged is not None and (fitted.averaged.members, fitted.averaged.of) == (10, 20)
    assert fitted.best_score == pytest.approx(bench.job(spec_of(bench.tiny_bert), "x").score(scores(model, bench)))
    assert history.count('"is_best": true') >= 1 and '"is_best": true' not in "".join(history.splitlines()[:10])


def scores(model: Any, bench: Crafted) -> torch.Tensor:
    from tunesmith.models.forward import predict_logits

    return predict_logits(model, bench.task, bench.encoding)


class Norms(nn.Module):
    """A network with batch norms and the call of a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 3)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return self.last(self.norm(self.first(values)))


def test_statistics_of_batch_norms_fit_the_averaged_weights_and_come_back() -> None:
    torch.manual_seed(0)
    model, batches = Norms().train(), [{"values": torch.randn(6, 4)} for _ in range(5)]
    average = Average(Ema(kind="ema", decay=0.5))
    for step, batch in enumerate(batches, start=1):
        model(**batch)
        with torch.no_grad():
            model.first.weight.add_(0.1)
        update(average, model, step, 5)
    reference, own = Norms().train(), {name: value.clone() for name, value in model.state_dict().items()}
    reference.load_state_dict({**own, **average.weights})
    update_bn([batch["values"] for batch in batches], reference)
    with swapped(model, average.weights, lambda: batches):
        assert all(torch.allclose(value, reference.state_dict()[name]) for name, value in model.state_dict().items())
        assert model.training and model.norm.momentum == 0.1
    assert all(torch.equal(value, own[name]) for name, value in model.state_dict().items())
    refresh_statistics(nn.Linear(2, 2), lambda: pytest.fail("no batch is read without batch norms"))


points = st.lists(st.tuples(st.floats(-3, 3), st.floats(-3, 3)), min_size=1, max_size=6)


@given(points, st.booleans())
def test_a_greedy_soup_never_scores_below_its_best_member(places: list[tuple[float, float]], higher: bool) -> None:
    weights = {step: {"w": torch.tensor(place, dtype=torch.float64)} for step, place in enumerate(places)}

    def score(soup: dict[str, torch.Tensor]) -> float:
        return float(soup["w"].square().sum()) * (-1 if higher else 1)

    ranked = sorted(((score(w), step) for step, w in weights.items()), reverse=higher)
    soup, best, members = greedy_soup(ranked, lambda step: weights[step], score, higher)
    assert best >= ranked[0][0] if higher else best <= ranked[0][0]
    mean = torch.stack([weights[step]["w"] for step in members]).mean(0)
    assert torch.allclose(soup["w"], mean, atol=1e-9) and score(soup) == pytest.approx(best)


def test_a_soup_is_made_of_the_best_checkpoints_and_only_those_stay_on_disk(bench: Crafted) -> None:
    model, fitted, _history = bench.run("soup", *SOUP, "train.epochs=3", "train.patience=null")
    kept = sorted((bench.folder / "soup" / "checkpoints").glob("candidate-*.safetensors"))
    assert len(kept) == 3 and fitted.averaged is not None and fitted.averaged.of == 3 and 1 <= fitted.averaged.members <= 3
    assert fitted.best_score >= fitted.averaged.plain
    assert fitted.best_score == pytest.approx(bench.job(spec_of(bench.tiny_bert), "x").score(scores(model, bench)))


@given(st.lists(st.floats(0, 0.99), min_size=1, max_size=6), st.floats(-1, 2), st.booleans())
def test_of_shares_the_best_that_was_tried_is_kept_and_the_largest_of_equals(shares: list[float], lowest: float, higher: bool) -> None:
    def score(share: float) -> float:
        return round((share - lowest) ** 2, 1) * (-1 if higher else 1)

    share, best = best_share(shares, score, score(1.0), higher)
    every = {tried: score(tried) for tried in (*shares, 1.0)}
    assert best == every[share] == (max if higher else min)(every.values())
    assert share == max(tried for tried, value in every.items() if value == best)


def test_a_blend_lies_between_two_weights_with_statistics_that_fit() -> None:
    torch.manual_seed(0)
    model, batches = Norms().train(), [{"values": torch.randn(6, 4)} for _ in range(5)]
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    trained = {name: torch.randn_like(value) for name, value in start.items()}
    blend(model, start, trained, 0.3, lambda: batches)
    reference = Norms().train()
    reference.load_state_dict({**reference.state_dict(), **{name: torch.lerp(start[name], trained[name], 0.3) for name in start}})
    update_bn([batch["values"] for batch in batches], reference)
    assert all(torch.allclose(value, reference.state_dict()[name]) for name, value in model.state_dict().items())


def test_averages_that_are_scored_afterwards_are_counted() -> None:
    rules = (None, Ema(kind="ema"), Swa(kind="swa"), Soup(kind="soup", checkpoints=4), WiseFT(kind="wise_ft", shares=(0.5, 0.5, 0.2)))
    assert [most_scored_afterwards(rule) for rule in rules] == [0, 1, 1, 3, 2]


@pytest.mark.parametrize("quick", [False, True])
def test_kept_weights_lie_where_validation_says_between_those_before_and_after_training(bench: Crafted, quick: bool) -> None:
    spec, kept, before = spec_of(bench.tiny_bert, *WISE, "train.epochs=2", "train.patience=null"), [], {}
    for name, last in (("trained", [0.0] * 5), ("between", [0.0, 0.0, 0.9, 0.0, 0.0])):  # two epochs, then shares from the highest
        model, scored = bench.model(spec), iter([0.5, 0.6, *last])
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        torch.manual_seed(7)
        job = replace(bench.job(spec, name), score=lambda _logits, scored=scored: next(scored))
        shortcuts = Shortcuts(model, [job.train, job.validation], linear_decay=True) if quick else None
        job = replace(job, train=shortcuts.encodings[0], validation=shortcuts.encodings[1]) if shortcuts else job
        fitted = fit(model, job)
        if shortcuts:
            shortcuts.undo()
        kept.append((dict(model.named_parameters()), fitted))
    (trained, whole), (mixed, part) = kept
    assert whole.averaged is not None and whole.averaged.share == 1.0 and whole.best_score == 0.6 and whole.best_step == part.best_step
    assert part.averaged is not None and part.averaged.share == pytest.approx(0.4) and part.best_score == 0.9
    for name, value in mixed.items():
        assert torch.allclose(value, torch.lerp(before[name], trained[name], 0.4), atol=1e-6), name
    assert any(not torch.equal(trained[name], value) for name, value in before.items())


def test_a_resumed_run_goes_back_to_the_weights_before_training(bench: Crafted) -> None:
    spec, stop = spec_of(bench.tiny_bert, *WISE, "train.epochs=2", "train.patience=null"), StopRequest()

    def ran(name: str, scores: Iterator[float], stop: StopRequest) -> list[torch.Tensor]:
        model = bench.model(spec)
        torch.manual_seed(7)
        fitted = fit(model, replace(bench.job(spec, name, stop), score=lambda _logits: next(scores)))
        assert fitted.averaged is not None and fitted.averaged.share == pytest.approx(0.4)
        return [p.detach().clone() for p in model.parameters()]

    def scores() -> Iterator[float]:
        return iter([0.5, 0.6, 0.0, 0.0, 0.9, 0.0, 0.0])  # two epochs, then shares from the highest

    plain, parted = ran("plain", scores(), StopRequest()), scores()
    bench.watch = lambda report: setattr(stop, "signal", 15 if report.done == 7 else None)
    with pytest.raises(Interrupted):
        ran("cut", parted, stop)
    bench.watch = lambda _report: None
    assert all(torch.equal(a, b) for a, b in zip(plain, ran("cut", parted, StopRequest()), strict=True))


def test_swa_averages_at_least_one_step() -> None:
    model, average = nn.Linear(2, 2), Average(Swa(kind="swa", last=0.01))
    for step in range(1, 5):
        update(average, model, step, 4)
    assert average.count == 1

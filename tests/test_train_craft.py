"""Averages, regularization, robust losses and distillation: equal to their references, exact in pieces, resumable."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn

from tests.test_train import Bench, spec_of
from tests.test_train_prefix import TOP, Prefixed
from tunesmith.core.errors import Interrupted, ModelError
from tunesmith.core.interrupt import StopRequest
from tunesmith.core.records import Progress
from tunesmith.models.build import set_dropout
from tunesmith.models.shortcuts import Shortcuts
from tunesmith.spec.check import check_spec
from tunesmith.spec.load import load_spec
from tunesmith.spec.schema import Distill, Ema, Mixup, Swa
from tunesmith.tasks.losses import generalized_cross_entropy, symmetric_cross_entropy
from tunesmith.tasks.make import make_task
from tunesmith.train.averaging import Average, between, greedy_soup, refresh_statistics, swapped, update
from tunesmith.train.batches import step_batches
from tunesmith.train.distill import TaughtTask, teaching, with_teacher
from tunesmith.train.fit import Job, fit, full_batches, full_step, make_learner, order_of
from tunesmith.train.loop import train_steps
from tunesmith.train.regularize import SHARES, divergence, mixed, with_mixup, with_r_drop
from tunesmith.train.step import task_step

EMA, SWA = ("train.averaging.kind=ema", "train.averaging.decay=0.8"), ("train.averaging.kind=swa", "train.averaging.last=0.5")
SOUP = ("train.averaging.kind=soup", "train.averaging.checkpoints=3", "train.evaluations_per_epoch=3")
WISE = ("train.averaging.kind=wise_ft",)
R_DROP, MIXUP = ("train.regularization.kind=r_drop",), ("train.regularization.kind=mixup", "train.regularization.alpha=1.0")
GCE, SCE = ("train.loss.kind=generalized_cross_entropy",), ("train.loss.kind=symmetric_cross_entropy",)
TAUGHT = ("train.distill.teacher=unused",)
ALL = {"ema": EMA, "swa": SWA, "soup": SOUP, "wise_ft": WISE, "r_drop": R_DROP, "mixup": MIXUP, "gce": GCE, "sce": SCE, "distill": TAUGHT}


class Crafted(Bench):
    """A tiny job with whatever a spec wraps around it."""

    def job(self, spec: Any, name: str, stop: StopRequest | None = None) -> Job:
        job = replace(super().job(spec, name, stop), task=self.task_of(spec))
        return replace(job, train=self.rows_of(spec))

    def task_of(self, spec: Any) -> Any:
        task: Any = make_task(spec, list(self.task.labels), self.rows)
        return TaughtTask(task, spec.train.distill) if spec.train.distill else task

    def rows_of(self, spec: Any) -> Any:
        teacher = torch.randn(40, 3, generator=torch.Generator().manual_seed(1))
        return with_teacher(self.encoding, teacher) if spec.train.distill else self.encoding


@pytest.fixture
def bench(tiny_bert: Path, tmp_path: Path) -> Crafted:
    return Crafted(tiny_bert, tmp_path)


def cut_in_two(bench: Crafted, stop_at: int, *sets: str) -> tuple[Any, Any, str]:
    stop = StopRequest()

    def watch(report: Progress) -> None:
        if report.done == stop_at:
            stop.signal = 15

    bench.watch = watch
    with pytest.raises(Interrupted):
        bench.run("cut", *sets, stop=stop)
    bench.watch = lambda _report: None
    torch.manual_seed(99)
    return bench.run("cut", *sets)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("stop_at", [2, 7])
def test_a_resumed_run_is_bit_identical(bench: Crafted, name: str, stop_at: int) -> None:
    plain, fitted, history = bench.run("plain", *ALL[name])
    resumed, again, history_resumed = cut_in_two(bench, stop_at, *ALL[name])
    assert again.resumed_at == stop_at and history == history_resumed
    assert replace(again, resumed_at=0, seconds=0, peak_memory_bytes=0) == replace(fitted, seconds=0, peak_memory_bytes=0)
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), resumed.parameters(), strict=True))


def gradients(bench: Crafted, pieces: int, *sets: str) -> list[torch.Tensor]:
    plain = ("train.optimizer.kind=sgd", "train.optimizer.momentum=0", "train.max_grad_norm=null", "train.warmup_ratio=0")
    spec = spec_of(bench.tiny_bert, *plain, f"train.gradient_accumulation_steps={pieces}", *sets)
    model = bench.model(spec).eval()
    before = [p.detach().clone() for p in model.parameters()]
    learner, rows, task = make_learner(model, spec, 100), bench.rows_of(spec).rows, bench.task_of(spec)
    batches = step_batches(order_of(spec, bench.encoding), lambda numbers: task.collate([rows[r] for r in numbers]))
    next(train_steps(learner, full_batches(batches, model, spec), full_step(task, model, spec)))
    return [a - b.detach() for a, b in zip(before, model.parameters(), strict=True)]


WEIGHTED = ("train.class_weights=balanced",)


@pytest.mark.parametrize("sets", [R_DROP, MIXUP, GCE, (*GCE, *WEIGHTED), SCE, TAUGHT, (*TAUGHT, *MIXUP), (*TAUGHT, *R_DROP, *WEIGHTED)])
def test_accumulation_does_not_change_the_gradient(bench: Crafted, sets: tuple[str, ...]) -> None:
    whole, plain = gradients(bench, 1, *sets), gradients(bench, 1)
    for pieces in (3, 4):
        parts = gradients(bench, pieces, *sets)
        assert all(torch.allclose(a, b, atol=1e-7, rtol=1e-4) for a, b in zip(whole, parts, strict=True))
    same = all(torch.allclose(a, b, atol=1e-6) for a, b in zip(whole, plain, strict=True))
    assert same == (sets == R_DROP)  # in eval mode there is no dropout: the plain step


def one_batch(bench: Crafted, **more: torch.Tensor) -> dict[str, torch.Tensor]:
    return {**bench.task.collate(bench.encoding.rows[:7]), **more}


def test_r_drop_without_dropout_is_the_plain_step_and_with_it_is_not(bench: Crafted) -> None:
    model, batch, plain = bench.model(spec_of(bench.tiny_bert)), one_batch(bench), task_step(bench.task)
    step = with_r_drop(plain, 5.0)
    assert torch.equal(step(model.eval(), batch)[0], plain(model, batch)[0])
    torch.manual_seed(0)
    one, other = (plain(model.train(), batch)[0] for _ in range(2))
    torch.manual_seed(0)
    loss, count = step(model, batch)
    assert loss > (one + other) / 2 and int(count) == 7


def test_r_drop_is_refused_where_nothing_is_random(bench: Crafted) -> None:
    spec = spec_of(bench.tiny_bert, *R_DROP)
    model = bench.model(spec)
    set_dropout(model, 0.0)
    model.config.hidden_dropout_prob = model.config.attention_probs_dropout_prob = 0.0
    with pytest.raises(ModelError, match="needs a model with dropout"):
        full_step(bench.task, model, spec)


logits = st.lists(st.floats(-9, 9), min_size=12, max_size=12).map(lambda v: torch.tensor(v, dtype=torch.float64).view(4, 3))


@given(logits, logits)
def test_divergence_is_the_mean_of_both_and_symmetric(one: torch.Tensor, other: torch.Tensor) -> None:
    labels = torch.tensor([0, 1, 2, 0])
    a, b = one.log_softmax(-1), other.log_softmax(-1)
    both = [F.kl_div(p, q, log_target=True, reduction="none").sum(-1) for p, q in ((a, b), (b, a))]
    assert torch.allclose(divergence(one, other, labels).double(), sum(both) / 2, atol=1e-4)
    assert torch.allclose(divergence(one, other, labels), divergence(other, one, labels))
    each = divergence(one, other, torch.zeros(4, 3))
    p, q = one.sigmoid(), other.sigmoid()
    kl = [x * (x / y).log() + (1 - x) * ((1 - x) / (1 - y)).log() for x, y in ((p, q), (q, p))]
    assert torch.allclose(each.double(), (sum(kl) / 2).sum(-1), atol=1e-4)


def test_mixup_of_share_one_is_no_mixup_and_of_share_zero_is_the_partner(bench: Crafted) -> None:
    model, plain = bench.model(spec_of(bench.tiny_bert)).eval(), task_step(bench.task)
    rows = [row for row in bench.encoding.rows if len(row["input_ids"]) == 12][:2] * 2
    batch = bench.task.collate(rows)
    for share, wanted in ((1.0, plain(model, batch)), (0.0, plain(model, batch))):  # equal lengths: all swapped is all kept
        for block in (0, 1):
            more = {SHARES: torch.full((4,), share), "mixed_block": torch.tensor(block)}
            loss, count = with_mixup(plain, model)(model, {**batch, **more})
            assert torch.allclose(loss, wanted[0], rtol=1e-5) and count == wanted[1]
    half = {SHARES: torch.full((4,), 0.5), "mixed_block": torch.tensor(1)}
    assert not torch.allclose(with_mixup(plain, model)(model, {**batch, **half})[0], plain(model, batch)[0], rtol=1e-3)


@given(st.integers(2, 9), st.integers(1, 4), st.integers(0, 5))
def test_what_is_mixed_depends_on_the_step_alone(size: int, pieces: int, done: int) -> None:
    rule = Mixup(kind="mixup")
    orders = [replace(ORDER, batch_size=size, pieces=p) for p in (1, pieces)]
    seen = [
        list(mixed(step_batches(order, lambda rows: {"labels": torch.tensor(rows)}, skip), rule, range(1, 3), 7, skip))
        for order, skip in ((orders[0], 0), (orders[1], 0), (orders[1], done))
    ]
    joined = [[(torch.cat([p["labels"] for p in g.pieces]), torch.cat([p[SHARES] for p in g.pieces])) for g in groups] for groups in seen]
    for a, b in ((joined[0], joined[1]), (joined[1][done:], joined[2])):
        assert len(a) == len(b) and all(torch.equal(x, y) for one, other in zip(a, b, strict=True) for x, y in zip(one, other, strict=True))
    assert all(len(p["labels"]) % 2 == 0 for g in seen[1] for p in g.pieces[:-1])


ORDER = order_of(
    load_spec({"name": "t", "data": {"train": "x"}}, ["train.epochs=2", "train.batch_size=4", *MIXUP]),
    type("Rows", (), {"lengths": [1] * 17})(),
)


def test_mixup_below_what_is_trained_is_refused(bench: Crafted) -> None:
    for sets in (("strategy.top=1", "train.regularization.block=0"), ("strategy.top=0",)):
        spec = spec_of(bench.tiny_bert, "strategy.kind=layers", *MIXUP, *sets)
        with pytest.raises(ModelError, match="must be a trained block"):
            full_step(bench.task, bench.model(spec), spec)


@pytest.mark.parametrize("sets", [MIXUP, R_DROP, EMA])
def test_the_store_changes_nothing(tiny_bert: Path, tmp_path: Path, sets: tuple[str, ...]) -> None:
    bench = Prefixed(tiny_bert, tmp_path)
    top = (*TOP, *sets)
    computed, stored = bench.trained("without", *top, "store.mode=never"), bench.trained("with", *top)
    assert stored[1].used and not computed[1].used
    for (name, a), b in zip(computed[0].named_parameters(), stored[0].parameters(), strict=True):
        assert torch.allclose(a, b, atol=2e-5, rtol=1e-3), name


labels = st.lists(st.integers(0, 2), min_size=4, max_size=4).map(torch.tensor)


@given(logits, labels)
def test_robust_losses_end_in_what_their_papers_say(z: torch.Tensor, y: torch.Tensor) -> None:
    plain, p = F.cross_entropy(z, y, reduction="none"), z.softmax(-1).gather(1, y[:, None]).squeeze(1)
    assert torch.allclose(generalized_cross_entropy(z, y, 1e-6), plain, rtol=1e-4, atol=1e-6)
    assert torch.allclose(generalized_cross_entropy(z, y, 1.0), 1 - p)
    assert torch.allclose(generalized_cross_entropy(z, y, 0.7), (1 - p**0.7) / 0.7)
    assert torch.equal(symmetric_cross_entropy(z, y, 0.0), plain) or torch.allclose(symmetric_cross_entropy(z, y, 0.0), plain)
    one_hot = F.one_hot(y, 3)
    reverse = -(z.softmax(-1) * torch.where(one_hot == 1, 0.0, -4.0)).sum(-1)
    assert torch.allclose(symmetric_cross_entropy(z, y, 2.5), plain + 2.5 * reverse)


@pytest.mark.parametrize("kind", ["generalized_cross_entropy", "symmetric_cross_entropy"])
def test_robust_losses_are_not_defined_for_several_labels(kind: str) -> None:
    spec = load_spec({"name": "t", "data": {"train": "x", "multi_label": True}, "train": {"loss": {"kind": kind}}})
    assert any(i.where == "train.loss" and "not defined with multi_label" in i.expected for i in check_spec(spec, ("accuracy",)))


@given(logits, logits, st.floats(0.5, 5))
def test_teaching_is_the_divergence_from_the_teacher(z: torch.Tensor, t: torch.Tensor, heat: float) -> None:
    wanted = F.kl_div((z / heat).log_softmax(-1), (t / heat).log_softmax(-1), log_target=True, reduction="none").sum(-1)
    assert torch.allclose(teaching(z, t, torch.zeros(4, dtype=torch.long), heat).double(), wanted, atol=1e-4)
    p, q = (t / heat).sigmoid(), (z / heat).sigmoid()
    several = (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).sum(-1)
    assert torch.allclose(teaching(z, t, torch.zeros(4, 3), heat).double(), several, atol=1e-4)


def test_a_teacher_without_weight_in_the_loss_would_be_the_plain_loss(bench: Crafted) -> None:
    model, batch = bench.model(spec_of(bench.tiny_bert)).eval(), one_batch(bench, teacher=torch.randn(7, 3))
    plain, count = bench.task.loss(model(**{k: v for k, v in batch.items() if k not in ("labels", "teacher")}), batch)
    taught, same = task_step(TaughtTask(bench.task, Distill(teacher="x", weight=1e-9)))(model, batch)
    assert torch.allclose(taught, plain) and same == count


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
def test_a_point_between_two_weights_is_the_best_that_was_tried(shares: list[float], lowest: float, higher: bool) -> None:
    start, trained = {"w": torch.zeros(1, dtype=torch.float64)}, {"w": torch.ones(1, dtype=torch.float64)}

    def score(weights: dict[str, torch.Tensor]) -> float:
        return float((weights["w"] - lowest).square()) * (-1 if higher else 1)

    weights, best, share = between(start, trained, shares, score, score(trained), higher)
    assert float(weights["w"]) == pytest.approx(share) and score(weights) == pytest.approx(best)
    every = [score({"w": torch.tensor([tried], dtype=torch.float64)}) for tried in (*shares, 1.0)]
    assert best == pytest.approx(max(every) if higher else min(every))


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


def test_swa_averages_at_least_one_step() -> None:
    model, average = nn.Linear(2, 2), Average(Swa(kind="swa", last=0.01))
    for step in range(1, 5):
        update(average, model, step, 4)
    assert average.count == 1


def test_teachers_logits_go_with_their_rows(bench: Crafted) -> None:
    rows = with_teacher(bench.encoding, torch.arange(120.0).view(40, 3))
    task = TaughtTask(bench.task, Distill(teacher="x"))
    batch = task.collate([rows.rows[4], rows.rows[2]])
    assert batch["teacher"].tolist() == [[12, 13, 14], [6, 7, 8]] and "teacher" not in task.collate(bench.encoding.rows[:2])
    assert np.array_equal(rows.rows[4]["labels"], bench.encoding.rows[4]["labels"])

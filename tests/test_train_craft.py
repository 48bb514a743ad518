"""Averages, regularization, robust losses and distillation: equal to their references, exact in pieces, resumable."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from tests.test_train import Bench, spec_of
from tests.test_train_prefix import TOP, Prefixed
from tunesmith.core.errors import Interrupted, ModelError
from tunesmith.core.interrupt import StopRequest
from tunesmith.core.records import Progress
from tunesmith.models.build import set_dropout
from tunesmith.spec.check import check_spec
from tunesmith.spec.load import load_spec
from tunesmith.spec.schema import Distill, Mixup
from tunesmith.tasks.losses import generalized_cross_entropy, symmetric_cross_entropy
from tunesmith.tasks.make import make_task
from tunesmith.train.batches import step_batches
from tunesmith.train.distill import TaughtTask, teaching, with_teacher
from tunesmith.train.fit import Job, full_batches, full_step, make_learner, order_of
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


def test_teachers_logits_go_with_their_rows(bench: Crafted) -> None:
    rows = with_teacher(bench.encoding, torch.arange(120.0).view(40, 3))
    task = TaughtTask(bench.task, Distill(teacher="x"))
    batch = task.collate([rows.rows[4], rows.rows[2]])
    assert batch["teacher"].tolist() == [[12, 13, 14], [6, 7, 8]] and "teacher" not in task.collate(bench.encoding.rows[:2])
    assert np.array_equal(rows.rows[4]["labels"], bench.encoding.rows[4]["labels"])

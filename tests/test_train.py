"""The loop: exact normalisation, resume, stopping, order, optimisers and schedules."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests import tiny
from tunesmith.core.errors import Interrupted, ModelError
from tunesmith.core.interrupt import StopRequest
from tunesmith.core.records import Progress
from tunesmith.models.load import load_model, load_processor
from tunesmith.models.strategies import apply_strategy
from tunesmith.spec.load import load_spec
from tunesmith.spec.schema import Spec, Train
from tunesmith.tasks.make import make_task
from tunesmith.tasks.text_classification import TextClassification
from tunesmith.train.batches import Order, ahead, step_batches
from tunesmith.train.fit import Fitted, Job, fit, make_learner, order_of
from tunesmith.train.loop import train_steps
from tunesmith.train.optim import schedule
from tunesmith.train.precision import measure_rates
from tunesmith.train.step import task_step
from tunesmith.train.stopping import Patience


def spec_of(folder: Path, *sets: str) -> Spec:
    base = {"name": "t", "data": {"train": "unused.csv"}, "model": {"name": str(folder)}}
    train = ["train.epochs=2", "train.batch_size=8", "train.learning_rate=0.01", "train.precision=float32", "train.patience=3",
             "evaluate.metric=accuracy"]  # fmt: skip
    return load_spec(base, [*train, *sets])


class Bench:
    """A tiny job that can be run whole, in pieces, or with other settings."""

    def __init__(self, tiny_bert: Path, folder: Path) -> None:
        self.tiny_bert, self.folder = tiny_bert, folder
        self.rows = tiny.table(40)
        self.task = TextClassification(sorted(set(self.rows["label"])))
        processor = load_processor(spec_of(tiny_bert).model)
        self.encoding = self.task.encode(self.rows, processor, 32)
        self.watch: Callable[[Progress], None] = lambda _report: None

    def model(self, spec: Spec) -> Any:
        torch.manual_seed(3)
        return apply_strategy(load_model(spec.model, self.task.head, self.task.model_options), spec.strategy)

    def job(self, spec: Spec, name: str, stop: StopRequest | None = None) -> Job:
        targets = torch.tensor(self.task.targets(self.rows))

        def score(logits: torch.Tensor) -> float:
            return float((logits.argmax(1) == targets).float().mean())

        folder = self.folder / name / "checkpoints"
        return Job(spec, self.task, self.encoding, self.encoding, score, True, folder, "inputs", self.watch, stop or StopRequest())

    def run(self, name: str, *sets: str, stop: StopRequest | None = None) -> tuple[Any, Fitted, str]:
        spec = spec_of(self.tiny_bert, *sets)
        model = self.model(spec)
        torch.manual_seed(7)
        fitted = fit(model, self.job(spec, name, stop))
        return model, fitted, (self.folder / name / "history.jsonl").read_text()


@pytest.fixture
def bench(tiny_bert: Path, tmp_path: Path) -> Bench:
    return Bench(tiny_bert, tmp_path)


def first_gradients(bench: Bench, *sets: str) -> list[torch.Tensor]:
    spec = spec_of(
        bench.tiny_bert, "train.optimizer.kind=sgd", "train.optimizer.momentum=0", "train.max_grad_norm=null", "train.dropout=0", *sets
    )
    model = bench.model(spec).eval()
    before = [p.detach().clone() for p in model.parameters()]
    learner = make_learner(model, spec, 100)
    order = order_of(spec, bench.encoding)
    batches = step_batches(order, lambda rows: bench.task.collate([bench.encoding.rows[r] for r in rows]))
    next(train_steps(learner, batches, task_step(bench.task)))
    return [a - b.detach() for a, b in zip(before, model.parameters(), strict=True)]


def test_accumulation_does_not_change_the_gradient(bench: Bench) -> None:
    whole = first_gradients(bench, "train.gradient_accumulation_steps=1")
    for pieces in (3, 4):
        parts = first_gradients(bench, f"train.gradient_accumulation_steps={pieces}")
        assert all(torch.allclose(a, b, atol=1e-7, rtol=1e-4) for a, b in zip(whole, parts, strict=True))


def test_the_same_seed_gives_the_same_weights(bench: Bench) -> None:
    a, _, history_a = bench.run("a")
    b, _, history_b = bench.run("b")
    assert history_a == history_b
    assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))


@pytest.mark.parametrize(
    "sets",
    [
        (),
        ("strategy.kind=lora",),
        ("strategy.kind=layers", "strategy.top=1"),
        ("train.optimizer.kind=adafactor",),
        ("train.sampling=square_root",),
    ],
)
@pytest.mark.parametrize("stop_at", [1, 5, 7])
def test_a_resumed_run_is_bit_identical(bench: Bench, stop_at: int, sets: tuple[str, ...]) -> None:
    plain, _, history = bench.run("plain", *sets)
    stop = StopRequest()

    def watch(report: Progress) -> None:
        if report.done == stop_at:
            stop.signal = 15

    bench.watch = watch
    with pytest.raises(Interrupted):
        bench.run("cut", *sets, stop=stop)
    bench.watch = lambda _report: None
    torch.manual_seed(99)
    resumed, fitted, history_resumed = bench.run("cut", *sets)
    assert fitted.resumed_at == stop_at
    assert history == history_resumed
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), resumed.parameters(), strict=True))


def test_a_broken_checkpoint_starts_over(bench: Bench) -> None:
    folder = bench.folder / "broken" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / "last.pt").write_bytes(b"not a checkpoint")
    _, fitted, _ = bench.run("broken")
    assert fitted.resumed_at == 0


def test_training_learns(bench: Bench) -> None:
    _, fitted, _ = bench.run("learn", "train.epochs=40", "train.patience=null")
    assert fitted.best_score > 0.9
    assert fitted.peak_memory_bytes > 0


def test_batches_made_ahead_are_the_same_and_no_more_than_asked_for() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for number in range(1, 9):
            made.append(number)
            yield number

    assert list(ahead(items())) == list(range(1, 9))
    made.clear()
    some = ahead(items(), 3)
    assert [next(some), next(some)] == [1, 2]
    some.close()  # type: ignore[attr-defined]
    assert made == list(range(1, len(made) + 1)) and len(made) <= 5

    def broken() -> Iterator[int]:
        yield 1
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        list(ahead(broken()))


def test_patience_stops_and_the_best_weights_are_kept(bench: Bench) -> None:
    scores = iter([0.5, 0.9, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1])
    spec = spec_of(bench.tiny_bert, "train.epochs=8", "train.patience=2")
    model = bench.model(spec)
    fitted = fit(model, replace(bench.job(spec, "p"), score=lambda _logits: next(scores)))
    assert fitted.stopped_by == "early stopping"
    assert fitted.epochs_run == 4
    assert fitted.best_step == 10
    assert fitted.best_score == 0.9


def test_a_metric_that_falls_is_followed_downwards() -> None:
    patience = Patience(2, higher_is_better=False)
    for score, improved in ((0.5, True), (0.4, True), (0.45, False), (math.nan, False)):
        patience = patience.update(score)
        assert patience.improved == improved
    assert patience.exhausted


def test_a_loss_that_is_not_finite_stops_before_the_weights_change(bench: Bench) -> None:
    spec = spec_of(bench.tiny_bert)
    model = bench.model(spec)
    with torch.no_grad():
        model.classifier.weight.fill_(math.inf)
    with pytest.raises(ModelError, match="finite loss"):
        fit(model, bench.job(spec, "inf"))


@pytest.mark.parametrize("kind", ["adamw", "adam", "sgd", "adafactor"])
def test_every_optimiser_lowers_the_loss(bench: Bench, kind: str) -> None:
    _, _, history = bench.run(
        kind, f"train.optimizer.kind={kind}", "train.epochs=8", f"train.learning_rate={0.1 if kind == 'sgd' else 0.003}"
    )
    losses = [float(line.split('"loss": ')[1].split(",")[0]) for line in history.splitlines()]
    assert sum(losses[-5:]) < sum(losses[:5])


def test_bfloat16_trains(bench: Bench) -> None:
    _, fitted, _ = bench.run("bf16", "train.precision=bfloat16")
    assert fitted.steps == 10


def test_biases_and_norms_have_no_weight_decay(bench: Bench) -> None:
    spec = spec_of(bench.tiny_bert, "train.weight_decay=0.5")
    model = bench.model(spec)
    learner = make_learner(model, spec, 10)
    decayed = {id(p) for group in learner.optimizer.param_groups if group["weight_decay"] > 0 for p in group["params"]}
    for name, parameter in model.named_parameters():
        assert (id(parameter) in decayed) == (parameter.ndim > 1 and "LayerNorm" not in name), name


@given(st.integers(1, 60), st.integers(1, 20), st.integers(1, 3), st.integers(1, 5), st.integers(0, 50))
def test_the_order_covers_every_row_once_an_epoch_and_resumes_anywhere(rows: int, batch: int, epochs: int, pieces: int, done: int) -> None:
    order = Order([1 + n % 7 for n in range(rows)], batch, epochs, pieces, seed=5)
    seen = [(b.epoch, b.pieces) for b in step_batches(order, lambda numbers: {"rows": torch.tensor(numbers)})]
    assert len(seen) == order.steps
    for epoch in range(epochs):
        numbers = [int(r) for e, parts in seen if e == epoch for part in parts for r in part["rows"]]
        assert sorted(numbers) == list(range(rows))
    later = [b.epoch for b in step_batches(order, lambda numbers: {"rows": torch.tensor(numbers)}, done)]
    assert later == [e for e, _ in seen][done:]


targets = st.lists(st.integers(0, 3), min_size=1, max_size=60).map(np.array)


@given(targets, st.sampled_from(["balanced", "square-root"]), st.integers(1, 9), st.integers(1, 3), st.integers(0, 9))
def test_sampled_epochs_have_their_draws_and_resume_anywhere(y: Any, how: Any, batch: int, epochs: int, done: int) -> None:
    order = Order([1 + n % 7 for n in range(len(y))], batch, epochs, 2, 5, how, y)

    def batches(done: int) -> list[tuple[int, list[int], int]]:
        steps = step_batches(order, lambda numbers: {"rows": torch.tensor(numbers)}, done)
        return [(b.epoch, [int(r) for piece in b.pieces for r in piece["rows"]], b.tokens) for b in steps]

    seen = batches(0)
    assert len(seen) == order.steps
    assert batches(min(done, order.steps)) == seen[done:]
    shares = np.sqrt(np.bincount(y)) if how == "square-root" else np.bincount(y) > 0
    for epoch in range(epochs):
        drawn = [row for e, rows, _ in seen if e == epoch for row in rows]
        assert len(drawn) == len(y)
        assert np.allclose(np.bincount(y[drawn], minlength=len(shares)), shares / shares.sum() * len(y), atol=1)
    assert all(tokens == sum(order.lengths[row] for row in rows) for _, rows, tokens in seen)


def test_balanced_sampling_shows_rare_classes_as_often(bench: Bench) -> None:
    encoding = replace(bench.encoding, rows=[{**row, "labels": np.int64(n % 10 == 0)} for n, row in enumerate(bench.encoding.rows)])
    plain, balanced = (order_of(spec_of(bench.tiny_bert, f"train.sampling={how}"), encoding) for how in ("none", "balanced"))
    rare = [sum(n % 10 == 0 for rows in order.epoch_rows(0) for n in rows) for order in (plain, balanced)]
    assert rare == [4, 20]
    assert plain.steps == balanced.steps
    assert balanced.epoch_rows(0) != balanced.epoch_rows(1)


def test_the_focal_loss_without_focus_trains_as_cross_entropy(bench: Bench) -> None:
    labels = list(bench.task.labels)
    plain, _, history = bench.run("plain")
    results = {}
    for gamma in (0, 3):
        sets = ("train.loss.kind=focal", f"train.loss.gamma={gamma}")
        bench.task = make_task(spec_of(bench.tiny_bert, *sets), labels, bench.rows)  # type: ignore[assignment]
        results[gamma] = bench.run(f"focal {gamma}", *sets)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(plain.parameters(), results[0][0].parameters(), strict=True))
    losses = [[json.loads(line)["loss"] for line in text.splitlines()] for text in (history, results[0][2], results[3][2])]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert losses[2][0] < losses[1][0]


@given(st.integers(1, 200), st.floats(0, 1), st.sampled_from(["linear", "cosine", "constant"]))
def test_schedules_rise_to_one_and_stay_in_range(steps: int, warmup: float, kind: Any) -> None:
    factor = schedule(Train(schedule=kind, warmup_ratio=warmup), steps)
    values = [factor(n) for n in range(steps)]
    assert all(0 <= v <= 1 for v in values)
    assert max(values) == pytest.approx(1.0)
    rising = math.ceil(warmup * steps)
    assert values[:rising] == sorted(values[:rising])
    assert values[rising:] == sorted(values[rising:], reverse=True)


def test_rates_are_measured() -> None:
    rates = measure_rates(torch.device("cpu"))
    assert rates.float32 > 0
    assert rates.bfloat16 > 0

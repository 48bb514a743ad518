"""Training by strategy: resume, accumulation, the store, and blocks that join in turns."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import tiny
from tests.test_train import Bench, spec_of
from tests.test_train_prefix import Prefixed, same
from tunesmith.core.errors import Interrupted, SpecError
from tunesmith.core.interrupt import StopRequest
from tunesmith.core.records import Progress
from tunesmith.models.anatomy import dissect, running_blocks
from tunesmith.models.build import set_dropout
from tunesmith.spec.defaults import RATES, Facts, resolve
from tunesmith.train.fit import fit

GRADUAL = ("strategy.kind=gradual", "strategy.blocks=1", "train.epochs=3")
BOTH = ("strategy.kind=gradual", "strategy.blocks=2", "train.epochs=3", "train.patience=null")
EVERY = {
    "gradual": GRADUAL,
    "bitfit": ("strategy.kind=bitfit",),
    "dora": ("strategy.kind=lora", "strategy.use_dora=true", "strategy.rank=2"),
    "ia3": ("strategy.kind=ia3",),
    "prompts": ("strategy.kind=prompt_tuning", "strategy.virtual_tokens=3"),
    "prefixes": ("strategy.kind=prefix_tuning", "strategy.virtual_tokens=3"),
}


@pytest.fixture
def bench(tiny_bert: Path, tmp_path: Path) -> Bench:
    return Bench(tiny_bert, tmp_path)


@pytest.mark.parametrize("name", EVERY)
def test_a_resumed_run_is_bit_identical(bench: Bench, name: str) -> None:
    plain, _, history = bench.run("plain", *EVERY[name])
    for stop_at in (3, 7) if name == "gradual" else (5,):  # before, and after, the block has joined
        stop = StopRequest()

        def watch(report: Progress, stop: StopRequest = stop, at: int = stop_at) -> None:
            stop.signal = 15 if report.done == at else None

        bench.watch = watch
        with pytest.raises(Interrupted):
            bench.run(f"cut {stop_at}", *EVERY[name], stop=stop)
        bench.watch = lambda _report: None
        torch.manual_seed(99)
        resumed, fitted, history_resumed = bench.run(f"cut {stop_at}", *EVERY[name])
        assert fitted.resumed_at == stop_at and history == history_resumed
        assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), resumed.parameters(), strict=True))


def test_accumulation_changes_nothing_while_blocks_join(bench: Bench) -> None:
    losses = []
    for pieces in (1, 3):
        spec = spec_of(bench.tiny_bert, *BOTH, f"train.gradient_accumulation_steps={pieces}")
        model = bench.model(spec)
        set_dropout(model, 0.0)
        fit(model, bench.job(spec, f"pieces {pieces}"))
        lines = (bench.folder / f"pieces {pieces}/history.jsonl").read_text().splitlines()
        losses.append([json.loads(line)["loss"] for line in lines])
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert", "gpt2"])
def test_blocks_join_in_turns_from_the_top(tmp_path: Path, kind: str) -> None:
    bench = Bench(tiny.save_pretrained(tmp_path / kind, kind), tmp_path)
    spec = spec_of(bench.tiny_bert, *BOTH)
    model = bench.model(spec)
    parts, seen = dissect(model), list[tuple[set[str], set[int]]]()
    names = dict(model.named_parameters())
    before = {name: p.detach().clone() for name, p in names.items()}
    dropping = [{n for n, (_, block) in enumerate(running_blocks(model)) if block.training}]
    for number, (_, block) in enumerate(running_blocks(model)):
        block.register_forward_pre_hook(lambda module, _inputs, n=number: dropping[0].add(n) if module.training else dropping[0].discard(n))

    def watch(report: Progress) -> None:
        if report.unit == "step":
            moved = {name for name, p in names.items() if not torch.equal(p, before[name])}
            seen.append((moved, set(dropping[0])))

    bench.watch = watch
    fit(model, bench.job(spec, "turns"))
    steps = len(seen) // 3
    blocks = [set(block) for block in parts.blocks]
    for step, (moved, training) in enumerate(seen):
        joined = step // steps  # an epoch for each block
        assert moved & set(parts.head) and not moved & set(parts.embeddings)
        assert [bool(moved & block) for block in blocks] == [joined >= 2, joined >= 1]
        assert step % steps == steps - 1 or training == {n for n in (0, 1) if n >= 2 - joined}  # evaluation is without dropout


def test_the_optimiser_knows_a_block_from_its_turn_on(bench: Bench) -> None:
    from tunesmith.train import fit as module

    spec, states = spec_of(bench.tiny_bert, *BOTH), list[int]()
    model = bench.model(spec)
    top = {id(p) for p in running_blocks(model)[1][1].parameters()}
    made: list[Any] = []
    original = module.make_learner

    def spy(*arguments: Any) -> Any:
        made.append(original(*arguments))
        return made[0]

    bench.watch = lambda _report: states.append(sum(id(p) in top for p in made[0].optimizer.state))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "make_learner", spy)
        fit(model, bench.job(spec, "state"))
    assert set(states[:5]) == {0} and set(states[5:]) == {len(top)}


def test_early_stopping_waits_for_the_last_block(bench: Bench) -> None:
    spec = spec_of(bench.tiny_bert, "strategy.kind=gradual", "strategy.blocks=2", "train.epochs=8", "train.patience=2")
    model, scores = bench.model(spec), iter([0.9] + [0.1] * 7)
    fitted = fit(model, replace(bench.job(spec, "p"), score=lambda _logits: next(scores)))
    assert (fitted.epochs_run, fitted.best_step, fitted.stopped_by) == (4, 5, "early stopping")


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
@pytest.mark.parametrize("sets", [
    GRADUAL, ("strategy.kind=lora", "strategy.top=1", "strategy.rank=2"), ("strategy.kind=ia3", "strategy.top=1"),
    ("strategy.kind=layers", 'strategy.parts=["*.1.*bias"]'),
])  # fmt: skip
def test_the_store_changes_neither_losses_nor_weights(tmp_path: Path, kind: str, sets: tuple[str, ...]) -> None:
    bench = Prefixed(tiny.save_pretrained(tmp_path / kind, kind), tmp_path)
    sets = (
        *sets,
        "train.optimizer.kind=adamw",
        "train.optimizer.eps=0.001",
    )  # Adam makes whole steps of the rounding noise of key biases, whose gradient is 0 in theory
    computed, stored = bench.trained("without", *sets, "store.mode=never"), bench.trained("with", *sets)
    assert (computed[1].used, stored[1].used, stored[1].depth) == (False, True, 1), stored[1].reason
    same(computed, stored)


@pytest.mark.parametrize(("name", "reason"), [
    ("bitfit", "lowest block is trained"), ("dora", "lowest block is trained"), ("ia3", "lowest block is trained"),
    ("prompts", "trained parameter works below the cut"), ("prefixes", "trained parameter works below the cut"),
])  # fmt: skip
def test_why_there_is_no_store_is_said(tiny_bert: Path, tmp_path: Path, name: str, reason: str) -> None:
    _, used, _ = Prefixed(tiny_bert, tmp_path).trained("run", *EVERY[name])
    assert not used.used and reason in used.reason and not (tmp_path / "store").exists()


def test_settings_that_cannot_work_are_refused(tiny_bert: Path) -> None:
    from tunesmith.spec.check import check_spec

    def issues(*sets: str) -> list[str]:
        return [issue.where for issue in check_spec(spec_of(tiny_bert, *sets), ("accuracy",)) if issue.where != "data.train"]

    assert issues("strategy.kind=gradual", "strategy.blocks=2") == ["train.epochs"]
    assert issues("strategy.kind=layers", "strategy.top=1", 'strategy.parts=["a*"]') == ["strategy.top"]
    assert issues("strategy.kind=qlora", "strategy.use_dora=true") == ["strategy.use_dora"]
    assert issues("strategy.kind=prefix_tuning", "train.activation_checkpointing=true") == ["train.activation_checkpointing"]
    with pytest.raises(SpecError, match="rank"):
        spec_of(tiny_bert, "strategy.kind=gradual", "strategy.rank=2")


def test_strategies_with_one_cut_share_what_is_below(tiny_bert: Path, tmp_path: Path) -> None:
    bench, computed = Prefixed(tiny_bert, tmp_path), []
    for number, sets in enumerate((GRADUAL, ("strategy.kind=lora", "strategy.top=1"), ("strategy.kind=ia3", "strategy.top=1"))):
        computed.append(bench.trained(str(number), *sets)[1].computed)
    assert computed == [40, 0, 0]


@pytest.mark.parametrize("kind", ["full", "gradual", "lora", "prefix_tuning"])
def test_defaults_follow_the_strategy(tiny_bert: Path, kind: str) -> None:
    facts = Facts(1000, 60, 64, False, "accuracy", 1200, 50, 100)
    sets = [f"strategy.kind={kind}", "train.learning_rate=null", "train.epochs=null", "train.batch_size=null"]
    resolved = resolve(spec_of(tiny_bert, *sets), facts)
    assert (resolved.spec.train.learning_rate, resolved.rules["train.learning_rate"]) == (RATES[kind], f"default for {kind}")
    assert resolved.spec.model.max_length == (44 if kind == "prefix_tuning" else 64)
    deep = resolve(spec_of(tiny_bert, "strategy.kind=gradual", "strategy.blocks=12", "train.epochs=null"), facts)
    assert deep.spec.train.epochs == 14
    if kind == "prefix_tuning":
        with pytest.raises(SpecError, match="at most 44"):
            resolve(spec_of(tiny_bert, *sets, "model.max_length=60"), facts)

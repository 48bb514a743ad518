"""Activation checkpointing changes memory and no number; a range test gives the same answer twice; both say what they did."""

from __future__ import annotations

import json
import platform
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tunesmith
from tests import tiny
from tests.families import family
from tests.test_run import raw_spec
from tests.test_train import Bench, spec_of
from tunesmith.core.errors import RunError, SpecError
from tunesmith.core.interrupt import StopRequest
from tunesmith.core.rundir import RunDir
from tunesmith.data.prepare import Prepared
from tunesmith.models.recompute import recomputing
from tunesmith.models.shortcuts import Shortcuts
from tunesmith.models.splice import capture, find_cut, spliced, stored_batch
from tunesmith.spec.load import load_spec
from tunesmith.spec.schema import Spec
from tunesmith.stages import plan as plans
from tunesmith.stages import teacher
from tunesmith.stages.plan import HELD_BY_STAGES, make_plan
from tunesmith.stages.verify import verify_run
from tunesmith.tasks.base import Encoding
from tunesmith.tasks.text_classification import TextClassification
from tunesmith.train import memory
from tunesmith.train.batches import Order
from tunesmith.train.fit import Job, fit, order_of
from tunesmith.train.memory import (
    KERNEL_BYTES,
    KERNELS,
    OF_ATTENTION,
    OF_LAYER,
    decide_recompute,
    expected_peak,
    kept_bytes,
    kernel_bytes,
    step_bytes,
)
from tunesmith.train.peak import SLACK_BYTES, SLACK_SHARE, Trim, kept_when_freed
from tunesmith.train.range_test import range_test, smooth, suggest
from tunesmith.train.regularize import SHARES, with_mixup
from tunesmith.train.step import task_step

KINDS = ("bert", "distilbert", "gpt2", "roberta")
STRATEGIES = (("strategy.kind=full",), ("strategy.kind=layers", "strategy.top=1"), ("strategy.kind=lora",))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {kind: tiny.save_pretrained(tmp_path_factory.mktemp("tiny") / kind, kind) for kind in KINDS}


def loss_and_gradients(step: Any, model: Any, batch: Any) -> tuple[float, list[torch.Tensor], int]:
    torch.manual_seed(5)
    kept = kept_bytes(step, model, batch)
    torch.manual_seed(5)
    model.zero_grad()
    loss, _ = step(model, batch)
    loss.backward()
    return float(loss.detach()), [p.grad.clone() for p in model.parameters() if p.grad is not None], kept


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sets", STRATEGIES, ids=lambda s: s[0])
@pytest.mark.parametrize("quick", [False, True])
def test_recomputing_changes_memory_and_no_number(
    folders: dict[str, Path], tmp_path: Path, kind: str, sets: tuple[str, ...], quick: bool
) -> None:
    bench = Bench(folders[kind], tmp_path)
    model = bench.model(spec_of(folders[kind], *sets)).train()
    rows = Shortcuts(model, [bench.encoding], linear_decay=True).encodings[0].rows[:16] if quick else bench.encoding.rows[:16]
    batch, step = bench.task.collate(rows), task_step(bench.task)
    if kind == "gpt2":
        model.config.use_cache = False  # a cache rounds gradients otherwise, and nothing that is recomputed may have one
    plain = loss_and_gradients(step, model, batch)
    with recomputing(model):
        again = loss_and_gradients(step, model, batch)
    after = loss_and_gradients(step, model, batch)
    assert plain[0] == again[0] == after[0] and len(plain[1]) == len(again[1]) > 0
    assert all(torch.equal(a, b) for a, b in zip(plain[1], again[1], strict=True))
    assert again[2] < 0.7 * plain[2] and after[2] == plain[2]


def test_recomputing_goes_with_mixing_and_the_store(folders: dict[str, Path], tmp_path: Path) -> None:
    bench = Bench(folders["bert"], tmp_path)
    model = bench.model(spec_of(folders["bert"], "strategy.kind=layers", "strategy.top=1")).train()
    batch = bench.task.collate(bench.encoding.rows[:8])
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    mixed = {SHARES: torch.full((8,), 0.3), "mixed_block": torch.tensor(1)}
    cut, hidden = find_cut(model, inputs, 1), capture(model, inputs, [1])[1]
    with spliced(model, cut):
        stored = {**stored_batch(model, inputs, cut, hidden), "labels": batch["labels"], **mixed}
        plain = loss_and_gradients(with_mixup(task_step(bench.task), model), model, stored)
        with recomputing(model):
            again = loss_and_gradients(with_mixup(task_step(bench.task), model), model, stored)
    assert plain[0] == again[0] and all(torch.equal(a, b) for a, b in zip(plain[1], again[1], strict=True))


def test_a_trained_run_is_the_same_with_and_without(folders: dict[str, Path], tmp_path: Path) -> None:
    bench, runs = Bench(folders["bert"], tmp_path), []
    for name, around in (("plain", nullcontext), ("again", recomputing)):
        spec = spec_of(folders["bert"], "strategy.kind=layers", "strategy.top=1", "train.gradient_accumulation_steps=2")
        model = bench.model(spec)
        torch.manual_seed(7)
        with around(model):
            fit(model, bench.job(spec, name))
        runs.append((model, (tmp_path / name / "history.jsonl").read_text()))
    assert runs[0][1] == runs[1][1]
    assert all(torch.equal(a, b) for a, b in zip(runs[0][0].parameters(), runs[1][0].parameters(), strict=True))


def test_auto_recomputes_where_memory_is_short_and_says_why(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, spec = Bench(folders["bert"], tmp_path), spec_of(folders["bert"])
    model = bench.model(spec)
    state = torch.get_rng_state()
    needed = step_bytes(model, spec, bench.task, bench.encoding)
    assert torch.equal(state, torch.get_rng_state()) and not model.training
    for free, used in ((2 * needed, False), (needed, True)):
        monkeypatch.setattr(memory, "free_bytes", lambda _device, free=free: free)
        answer = decide_recompute(model, spec, bench.task, bench.encoding)
        assert answer.used == used and "MiB" in answer.reason and answer.needed == needed
    for said in (True, False):
        asked = spec_of(folders["bert"], f"train.activation_checkpointing={str(said).lower()}")
        assert decide_recompute(model, asked, bench.task, bench.encoding).used == said
    averaged = spec_of(folders["bert"], "train.averaging.kind=ema")
    trained = sum(p.numel() for p in model.parameters())
    assert step_bytes(model, averaged, bench.task, bench.encoding) == needed + 4 * trained
    assert step_bytes(model, spec_of(folders["bert"], "train.gradient_accumulation_steps=4"), bench.task, bench.encoding) < needed


def test_a_range_test_is_the_same_twice_and_leaves_the_generator_alone(folders: dict[str, Path], tmp_path: Path) -> None:
    bench, spec = Bench(folders["bert"], tmp_path), spec_of(folders["bert"], "train.learning_rate=1e-3")
    state = torch.get_rng_state()
    tests = [range_test(bench.model(spec), spec, bench.task, bench.encoding) for _ in range(2)]
    assert tests[0] == tests[1] and tests[0].rule.startswith("range test: ")
    torch.manual_seed(3)  # what making a model draws from
    assert len(tests[0].rates) == len(tests[0].losses) > 8 and tests[0].rates[0] == pytest.approx(1e-5)
    assert tests[0].rates[0] < tests[0].rate < 0.05 and len(state) == len(torch.get_rng_state())


def valley(lowest: float, noise: float = 0.0) -> tuple[list[float], list[float]]:
    rates = np.geomspace(1e-5, 1e-1, 60)
    losses = 2.0 - 1.5 / (1 + (lowest / 10 / rates) ** 2) + 5 * (rates / lowest) ** 2 / 30
    return rates.tolist(), (losses + noise * np.random.default_rng(0).normal(size=60)).tolist()


def test_suggestions_lie_on_the_way_down_and_never_near_the_edge() -> None:
    for lowest in (1e-3, 1e-2):
        rates, losses = valley(lowest, 0.01)
        answer = suggest(rates, losses, 3e-4)
        bottom = rates[int(np.argmin(smooth(losses)))]
        assert rates[0] < answer.rate <= bottom / 5 * 1.06 and "default would be 0.0003" in answer.rule
    flat = suggest(rates, [2.0 + 0.1 * (-1) ** n for n in range(60)], 3e-4)
    assert flat.rate == 3e-4 and "default stays" in flat.rule
    rising = suggest(rates, np.linspace(1, 3, 60).tolist(), 3e-4)
    assert rising.rate == 3e-4 and "default stays" in rising.rule
    assert suggest(rates[:3], [1, 5, 9], 3e-4).rate == 3e-4
    assert smooth([2.0] * 9) == pytest.approx([2.0] * 9)


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> tuple[Path, tunesmith.Run]:
    """A folder with a finished run, the teacher."""
    folder = tmp_path_factory.mktemp("taught")
    return folder, tunesmith.run(tunesmith.load_spec(raw_spec(folder, tiny_bert, name="teacher")), folder / "runs")


def test_a_pupil_learns_from_a_finished_run(taught: tuple[Path, tunesmith.Run], tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, run = taught
    train = {"distill": {"teacher": str(run.path)}, "averaging": {"kind": "ema"}, "learning_rate": "find", "activation_checkpointing": True}
    train |= {"regularization": {"kind": "r_drop"}}
    spec = tunesmith.load_spec(raw_spec(folder, tiny_bert, name="pupil", train=train))
    done = tunesmith.run(spec, folder / "runs")
    found = done.findings
    assert found["distill/teacher"].value == "teacher" and found["distill/known_rows"].value == 0
    assert found["distill/teacher_score"].value == run.findings["validation/accuracy"].value
    assert found["distill/teacher_test_score"].value == run.findings["test/accuracy"].value
    assert 0 < found["distill/agreement"].value <= 1 and found["train/activation_checkpointing"].value == "yes"
    assert found["averaging/gain"].value == pytest.approx(found["train/best_score"].value - found["averaging/plain_score"].value)
    curve = json.loads((done.path / "data/range_test.json").read_text())
    assert len(curve["rates"]) == len(curve["losses"]) and "range test" in (done.path / "resolved.yaml").read_text()
    assert verify_run(RunDir(done.path), 2).ok
    page = done.report_path.read_text()
    for words in ("the answers of the run", "set by a range test", "average of weights", "different dropout", "computed again"):
        assert words in page, words


def test_a_teacher_answers_once(taught: tuple[Path, tunesmith.Run], tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, run = taught
    spec = tunesmith.load_spec(raw_spec(folder, tiny_bert, name="again", train={"distill": {"teacher": str(run.path)}}))
    done = tunesmith.run(spec, folder / "runs")
    manifest = json.loads((done.path / "manifest.json").read_text())
    del manifest["stages"]["train"]
    (done.path / "manifest.json").write_text(json.dumps(manifest))
    monkeypatch.setattr(teacher, "Predictor", lambda _run: pytest.fail("the answers are kept"))
    weights = done.findings["model/weights_sha256"].value
    assert tunesmith.run(spec, folder / "runs").findings["model/weights_sha256"].value == weights


def test_a_teacher_that_knows_the_test_is_told_in_the_answer(tmp_path: Path, tiny_bert: Path) -> None:
    table = tiny.table(90)
    table.with_columns(label=table["label"] + "|x").write_csv(tmp_path / "tickets.csv")
    several = {"train": str(tmp_path / "tickets.csv"), "multi_label": True, "label_separator": "|"}
    one = tunesmith.run(tunesmith.load_spec(raw_spec(tmp_path, tiny_bert, name="a", seed=1, data=several)), tmp_path / "runs")
    train = {"distill": {"teacher": str(one.path)}, "epochs": 1}
    done = tunesmith.run(tunesmith.load_spec(raw_spec(tmp_path, tiny_bert, name="b", data=several, train=train)), tmp_path / "runs")
    known = done.findings["distill/known_rows"]
    assert known.value > 0 and known.n > 10 and "scores are not honest" in done.report_path.read_text()


def test_a_teacher_of_other_labels_is_refused_at_once(taught: tuple[Path, tunesmith.Run], tmp_path: Path, tiny_bert: Path) -> None:
    table = tiny.table(90)
    table.with_columns(label=table["label"].replace("login", "logon")).write_csv(tmp_path / "tickets.csv")
    changed = raw_spec(tmp_path, tiny_bert, train={"distill": {"teacher": str(taught[1].path)}})
    with pytest.raises(RunError, match=r"same task and the same labels.*2 labels that only one of the two has, such as 'login'"):
        tunesmith.run(tunesmith.load_spec(changed), tmp_path / "runs")
    plan = make_plan(tunesmith.load_spec(changed), tmp_path / "runs")
    assert not plan.can_run and any("same labels" in issue.expected for issue in plan.issues)
    missing = raw_spec(tmp_path, tiny_bert, train={"distill": {"teacher": "nowhere"}}, evaluate={"folds": 3})
    with pytest.raises(SpecError, match="must be a run directory") as caught:
        tunesmith.run(tunesmith.load_spec(missing), tmp_path / "runs")
    assert any(issue.where == "evaluate.folds" for issue in caught.value.issues)


def test_a_plan_shows_the_range_test_and_what_an_average_takes(tmp_path: Path, tiny_bert: Path) -> None:
    train = {"learning_rate": "find", "averaging": {"kind": "soup", "checkpoints": 3}}
    plan = make_plan(tunesmith.load_spec(raw_spec(tmp_path, tiny_bert, train=train)), tmp_path / "runs")
    assert (
        plan.can_run and plan.range_test is not None and plan.resolved is not None and plan.size is not None and plan.recompute is not None
    )
    assert plan.resolved.spec.train.learning_rate == plan.range_test.rate and "range test" in plan.resolved.rules["train.learning_rate"]
    assert plan.averaging_bytes == 5 * 4 * plan.size.trainable


# ---- what training was expected to take, beside what it took


def test_memory_is_expected_within_its_margin_and_nothing_changes(tmp_path: Path) -> None:
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    model = BertForSequenceClassification(
        BertConfig(vocab_size=100, hidden_size=256, num_hidden_layers=4, num_attention_heads=4, intermediate_size=1024, num_labels=3)
    )
    sets = ["train.epochs=1", "train.batch_size=32", "train.learning_rate=0.001", "train.precision=float32", "train.patience=null"]
    spec = load_spec({"name": "t", "data": {"train": "x"}}, sets)
    task = TextClassification(["a", "b", "c"])
    rows = [{"input_ids": [n % 90 + 5] * 100, "pad": 0, "labels": np.int64(n % 3)} for n in range(96)]
    train, held_out = Encoding(rows, [100] * 96, 0), Encoding(rows[:8], [100] * 8, 0)
    before, draws = {name: value.clone() for name, value in model.state_dict().items()}, torch.get_rng_state()
    expected = expected_peak(model, spec, task, train, held_out, order_of(spec, train))
    assert torch.equal(draws, torch.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    job = Job(spec, task, train, held_out, lambda _: 0.0, True, tmp_path / "c", "", lambda _: None, StopRequest())
    fitted = fit(model, job)
    kept = kept_when_freed(torch.device("cpu"))  # may be kept, and hardly is in three steps of one shape
    assert 0.85 * (expected - kept) <= fitted.peak_memory_bytes <= 1.15 * expected


@pytest.mark.parametrize(
    ("sets", "copies"),
    [((), 3), (("train.optimizer.kind=sgd",), 2), (("train.averaging.kind=ema",), 4), (("train.averaging.kind=wise_ft",), 4),
     (("train.averaging.kind=soup",), 3), (("train.optimizer.kind=adafactor", "train.averaging.kind=swa"), 2)],
)  # fmt: skip
def test_moments_averages_and_the_best_weights_are_part_of_the_peak(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sets: tuple[str, ...], copies: int
) -> None:
    monkeypatch.setattr(memory, "peak_bytes", lambda _device: 1000)
    bench, spec = Bench(folders["bert"], tmp_path), spec_of(folders["bert"], *sets)
    model = bench.model(spec)
    trained = sum(p.numel() for p in model.parameters())
    expected = expected_peak(model, spec, bench.task, bench.encoding, bench.encoding, order_of(spec, bench.encoding))
    assert expected == 1000 + 4 * copies * trained + kept_when_freed(torch.device("cpu"))


def test_a_probe_leaves_batch_statistics_alone() -> None:
    model, inputs = family("resnet")
    before = {name: value.clone() for name, value in model.named_buffers()}
    with memory._undisturbed(model):
        model.train()
        model(**inputs)
    assert all(torch.equal(value, before[name]) for name, value in model.named_buffers()) and not any(
        module.training != model.training for module in model.modules()
    )


def test_a_run_and_its_plan_say_what_memory_they_expect(tmp_path: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "peak_bytes", lambda _device: 10**9)
    spec = tunesmith.load_spec(raw_spec(tmp_path, tiny_bert))
    done, plan = tunesmith.run(spec, tmp_path / "runs"), make_plan(spec, tmp_path / "runs")
    assert plan.peak_memory_bytes == done.findings["train/expected_memory_bytes"].value + HELD_BY_STAGES  # type: ignore[operator]
    assert "Memory at the peak" in (done.path / "report.html").read_text("utf-8")


def test_a_plan_counts_what_preparing_takes(tmp_path: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec, plain = tunesmith.load_spec(raw_spec(tmp_path, tiny_bert)), plans.prepare_data
    quick = make_plan(spec, tmp_path / "runs").seconds

    def slowly(spec: Spec) -> Prepared:
        time.sleep(3)
        return plain(spec)

    monkeypatch.setattr(plans, "prepare_data", slowly)
    slow = make_plan(spec, tmp_path / "runs")
    assert quick and slow.seconds and slow.seconds > quick + 1
    assert slow.probe_seconds > 0
    taken = plans._forward_seconds

    def passes(*of: Any) -> float:
        time.sleep(3)
        return taken(*of)

    monkeypatch.setattr(plans, "prepare_data", plain)
    monkeypatch.setattr(plans, "_forward_seconds", passes)
    again = make_plan(spec, tmp_path / "runs")
    assert again.probe_seconds > 3 and again.seconds and again.seconds < slow.seconds - 1  # a run measures nothing


def test_freed_memory_is_given_back_when_more_than_the_slack_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    device = torch.device("cpu")
    if platform.libc_ver()[0] != "glibc":
        pytest.skip("the C library is another one than glibc: it gives back by itself")
    trim = Trim(device)
    trim()
    assert trim.times == 0
    held = [torch.ones(2**20) for _ in range(100)]
    monkeypatch.setattr("tunesmith.train.peak.SLACK_BYTES", 2**27)
    monkeypatch.setattr("tunesmith.train.peak.SLACK_SHARE", 0.0)
    before = trim.floor
    trim()
    assert trim.times == 1 and trim.floor >= before + 2**27  # what is in use stays
    trim()
    assert trim.times == 1
    del held
    quiet = Trim(torch.device("meta"))
    quiet()
    assert quiet.times == 0


def test_kernels_of_products_in_bfloat16_are_counted_once_a_shape() -> None:
    model, _ = family("bert")
    spec = load_spec({"name": "k", "data": {"train": "unused"}, "train": {"precision": "bfloat16"}})
    shapes = {module.weight.shape for module in model.modules() if isinstance(module, torch.nn.Linear)}
    products = 3 * len(shapes) + 6
    even, odd = Order([7] * 40, 20, 5, 1, 0), Order([7] * 45, 20, 5, 1, 0)  # batches of one shape, and a smaller one at the end
    assert (kernel_bytes(model, spec, even), kernel_bytes(model, spec, odd)) == (KERNEL_BYTES * products, KERNEL_BYTES * 2 * products)
    assert kernel_bytes(model, spec, Order(list(range(1, 1001)), 1, 1, 1, 0)) == KERNEL_BYTES * 1024
    written = spec.model_copy(update={"task": "translation"})
    assert kernel_bytes(model, written, even) == KERNEL_BYTES * min(1024, products * 10)
    plain = load_spec({"name": "k", "data": {"train": "unused"}, "train": {"precision": "float32"}})
    assert kernel_bytes(model, plain, even) == 0
    told = (Path(__file__).parents[1] / "docs" / "estimates.md").read_text("utf-8")
    slack = f"whenever {SLACK_SHARE:.0%} of the peak and {SLACK_BYTES // 2**20} MiB".replace("%", " %")
    assert f"{KERNEL_BYTES:,} · min({KERNELS:,}, ({OF_LAYER} · shapes of linear layers + {OF_ATTENTION}) ·" in told and slack in told

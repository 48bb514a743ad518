"""Training that reads frozen blocks from the store is the training that computes them, whatever happens to the store."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests import tiny
from tests.test_cli import call
from tests.test_run import run
from tests.test_train import Bench, spec_of
from tunesmith.core.errors import Interrupted, ModelError
from tunesmith.core.interrupt import StopRequest
from tunesmith.core.rundir import RunDir
from tunesmith.data import store
from tunesmith.models.anatomy import running_blocks
from tunesmith.models.shortcuts import Shortcuts
from tunesmith.models.splice import Cut
from tunesmith.stages.verify import verify_run
from tunesmith.tasks.base import Encoding
from tunesmith.train.fit import fit
from tunesmith.train.prefix import PrefixTask, Used, Wish, with_prefix

# Plain gradient descent: Adam would make steps of full size of the rounding errors that a bias of keys has for a gradient.
LAYERS = ("strategy.kind=layers", "train.optimizer.kind=sgd", "train.learning_rate=0.1")
TOP = (*LAYERS, "strategy.top=1")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {kind: tiny.save_pretrained(tmp_path_factory.mktemp("tiny") / kind, kind) for kind in ("bert", "distilbert", "gpt2", "roberta")}


class Prefixed(Bench):
    """A tiny job whose frozen blocks may be read from a store in its folder."""

    def trained(self, name: str, *sets: str, rows: Encoding | None = None, stop: StopRequest | None = None) -> tuple[Any, Used, list[Any]]:
        spec = spec_of(self.tiny_bert, *sets)
        model, rows = self.model(spec), rows or self.encoding
        torch.manual_seed(7)
        wish = Wish(spec.store, self.folder / "store", float(spec.train.epochs or 1))
        with with_prefix(model, self.task, [rows], wish, lambda *_: None) as (task, encodings, used):
            shortcuts = Shortcuts(model, encodings, linear_decay=True)
            plain = self.job(spec, name, stop)
            score = plain.score if rows is self.encoding else lambda _logits: 0.0
            job = replace(plain, score=score, task=task, train=shortcuts.encodings[0], validation=shortcuts.encodings[0])
            try:
                fit(model, job)
            finally:
                shortcuts.undo()
        lines = (self.folder / name / "history.jsonl").read_text().splitlines()
        return model, used, [json.loads(line) for line in lines]


@pytest.fixture
def bench(folders: dict[str, Path], tmp_path: Path) -> Prefixed:
    return Prefixed(folders["bert"], tmp_path)


def same(one: tuple[Any, Used, list[Any]], other: tuple[Any, Used, list[Any]]) -> None:
    assert len(one[2]) == len(other[2])
    for a, b in zip(one[2], other[2], strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-4, abs=1e-6) and a["score"] == b["score"]
    for (name, a), b in zip(one[0].named_parameters(), other[0].parameters(), strict=True):
        assert torch.allclose(a, b, atol=2e-5, rtol=1e-3), name


@pytest.mark.parametrize("kind", ["bert", "distilbert", "gpt2", "roberta"])
@pytest.mark.parametrize("sets", [TOP, (*LAYERS, "strategy.top=0"), (*TOP, "train.gradient_accumulation_steps=4")])
def test_the_store_changes_neither_losses_nor_weights(folders: dict[str, Path], tmp_path: Path, kind: str, sets: tuple[str, ...]) -> None:
    bench = Prefixed(folders[kind], tmp_path)
    computed = bench.trained("without", *sets, "store.mode=never")
    stored = bench.trained("with", *sets)
    again = bench.trained("again", *sets)
    assert (computed[1].used, stored[1].used, again[1].used) == (False, True, True)
    assert stored[1].depth == (1 if "strategy.top=1" in sets else 2)
    assert (stored[1].computed, again[1].computed) == (40, 0) and again[1].recomputed > 0 and again[1].difference < 1e-5
    same(computed, stored)
    same(stored, again)


def test_half_precision_takes_half_the_room_and_learns_nearly_the_same(bench: Prefixed) -> None:
    whole, half = bench.trained("whole", *TOP), bench.trained("half", *TOP, "store.dtype=float16")
    assert half[1].bytes * 2 == whole[1].bytes == sum(bench.encoding.lengths) * 16 * 4
    assert half[2][-1]["loss"] == pytest.approx(whole[2][-1]["loss"], rel=0.05)


def test_a_stopped_run_goes_on_with_the_store_as_if_nothing_had_happened(bench: Prefixed) -> None:
    plain = bench.trained("plain", *TOP)
    stop = StopRequest()
    bench.watch = lambda report: setattr(stop, "signal", 15) if report.done == 4 else None
    with pytest.raises(Interrupted):
        bench.trained("stopped", *TOP, stop=stop)
    bench.watch = lambda _report: None
    resumed = bench.trained("stopped", *TOP)
    assert len(resumed[2]) == len(plain[2])
    assert all(torch.equal(a, b) for a, b in zip(plain[0].parameters(), resumed[0].parameters(), strict=True))


def test_a_changed_row_costs_one_row_and_so_does_an_added_one(bench: Prefixed) -> None:
    bench.trained("first", *TOP)
    rows = [dict(row) for row in bench.encoding.rows]
    rows[5]["input_ids"] = [*rows[5]["input_ids"][:-2], 9, rows[5]["input_ids"][-1]]
    rows.append({**rows[6], "input_ids": [*rows[6]["input_ids"], 8]})
    rows[7]["labels"] = (rows[7]["labels"] + 1) % 3  # a label is not content
    changed = Encoding(rows, [len(row["input_ids"]) for row in rows], 0)
    _, used, _ = bench.trained("second", *TOP, rows=changed)
    assert (used.rows, used.computed) == (41, 2)


def test_a_damaged_file_is_noticed_and_its_rows_are_computed_again(bench: Prefixed) -> None:
    first = bench.trained("first", *TOP)
    file = next((bench.folder / "store").glob("*/*.rows"))
    data = bytearray(file.read_bytes())
    data[100] ^= 255
    file.write_bytes(bytes(data))
    second = bench.trained("second", *TOP)
    assert (second[1].damaged, second[1].computed) == (40, 40)
    same(first, second)


def test_rows_that_are_whole_but_wrong_are_found_by_computing_some_again(bench: Prefixed, monkeypatch: pytest.MonkeyPatch) -> None:
    first = bench.trained("first", *TOP)
    chunk = store._row
    with monkeypatch.context() as patch:
        patch.setattr(store, "_row", lambda *arguments: None if (row := chunk(*arguments)) is None else row + np.float32(0.5))
        _, used, _ = bench.trained("second", *TOP)
    assert used.difference > 0.01 and (used.damaged, used.computed) == (40, 40)
    same(first, bench.trained("third", *TOP))


def test_a_prefix_that_was_trained_shares_with_no_other(bench: Prefixed) -> None:
    model, _, _ = bench.trained("first", *TOP)
    with torch.no_grad():
        next(running_blocks(model)[0][1].parameters()).add_(1e-3)
    model.save_pretrained(bench.folder / "adapted")
    from tunesmith.models.load import load_processor

    load_processor(spec_of(bench.tiny_bert).model).save_pretrained(bench.folder / "adapted")
    other = Prefixed(bench.folder / "adapted", bench.folder)
    _, used, _ = other.trained("second", *TOP)
    assert used.computed == 40


def test_a_full_disk_costs_nothing_but_the_store(bench: Prefixed, monkeypatch: pytest.MonkeyPatch) -> None:
    without = bench.trained("without", *TOP, "store.mode=never")

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store.os, "fsync", full)
    result = bench.trained("full", *TOP)
    assert not result[1].used and "No space left" in result[1].reason
    same(without, result)
    with pytest.raises(ModelError, match="No space left"):
        bench.trained("insisting", *TOP, "store.mode=always")


def test_rows_that_another_program_removes_meanwhile_cost_nothing_but_the_store(bench: Prefixed, monkeypatch: pytest.MonkeyPatch) -> None:
    without = bench.trained("without", *TOP, "store.mode=never")
    monkeypatch.setattr(store.Shelf, "find", lambda _shelf, _keys: store.Found({}, 0))
    result = bench.trained("gone", *TOP)
    assert not result[1].used and "40 rows were removed" in result[1].reason
    same(without, result)


def test_a_disk_without_room_for_what_is_missing_is_told(bench: Prefixed, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.trained("first", *TOP)
    monkeypatch.setattr("tunesmith.train.prefix.shutil.disk_usage", lambda _path: SimpleNamespace(free=10))
    assert bench.trained("again", *TOP)[1].used, "nothing has to be written"
    assert "the disk has" in bench.trained("half", *TOP, "store.dtype=float16")[1].reason


def test_pictures_keep_their_labels_and_weights_without_their_pixels() -> None:
    cut = Cut(1, (), (None,), (2, 4, 3, 3), (2, 3, 8, 8))
    rows = [{"pixel_values": None, "labels": np.int64(n), "weight": 0.5, "stored": np.ones((4, 3, 3), np.float32)} for n in range(5)]
    batch = PrefixTask(SimpleNamespace(loss=None, answers=None, inputs=None), "pixel_values", cut).collate(rows)
    assert {name: tuple(value.shape) for name, value in batch.items()} == {
        "labels": (5,), "weights": (5,), "pixel_values": (5, 3, 8, 8), "hidden": (5, 4, 3, 3),
    }  # fmt: skip


@pytest.mark.parametrize(("sets", "reason"), [
    ((*TOP, "store.mode=never"), "never"),
    ((*TOP, "train.epochs=1"), "read once"),
    ((*TOP, "store.max_gb=1e-6"), "more than store.max_gb"),
    (("strategy.kind=full",), "lowest block is trained"),
    ((*LAYERS, "strategy.top=2"), "lowest block is trained"),
])  # fmt: skip
def test_why_there_is_no_store_is_said(bench: Prefixed, sets: tuple[str, ...], reason: str) -> None:
    _, used, _ = bench.trained("run", *sets)
    assert not used.used and reason in used.reason and not (bench.folder / "store").exists()


def test_a_new_shelf_makes_room_by_removing_the_oldest(bench: Prefixed) -> None:
    _, used, _ = bench.trained("first", *TOP)
    limit = f"store.max_gb={used.bytes * 1.5 / 1e9}"
    bench.trained("other", *TOP, "store.dtype=float16", limit)
    assert [shelf.kind["dtype"] for shelf in store.shelves(bench.folder / "store")] == ["float16"]


def test_runs_share_the_store_say_so_and_the_command_looks_after_it(folders: dict[str, Path], tmp_path: Path) -> None:
    options: dict[str, Any] = {"strategy": {"kind": "layers", "top": 1}, "evaluate": {"folds": None, "resamples": 100}}
    one = run(tmp_path, folders["bert"], **options)
    other = run(tmp_path, folders["bert"], **options, name="other", train={"epochs": 2, "learning_rate": 1e-3})
    for done, computed in ((one, one.findings["store/rows"].value), (other, 0)):
        assert done.findings["store/used"].value == "yes"
        assert done.findings["store/computed"].value + done.findings["store/embedded"].value == computed
        text = (done.path / "report.html").read_text("utf-8")
        assert "Frozen work was done once" in text and "not recorded by this run" not in text.split("Frozen work was done once")[1][:2000]
        assert verify_run(RunDir(done.path), 2).ok
    folder = one.path.parent / ".store"
    code, output = call("store", folder, "--check")
    assert code == 0 and "Every row is whole" in output and "BertForSequenceClassification" in output
    file = next(folder.glob("*/*.rows"))
    file.write_bytes(bytes(64) + file.read_bytes()[64:])
    assert "damaged rows" in call("store", folder, "--check")[1]
    assert "1 shelves removed" in call("store", folder, "--max-gb", 0)[1]
    assert call("store", tmp_path / "nowhere")[0] != 0


def test_frozen_blocks_are_computed_once_while_features_are(folders: dict[str, Path], tmp_path: Path) -> None:
    """With the store from the embedding on, features, baselines and weights are those without it."""
    found = []
    for mode in ("auto", "never"):
        (tmp_path / mode).mkdir()
        options: dict[str, Any] = {"strategy": {"kind": "layers", "top": 1}, "store": {"mode": mode}, "train": {"precision": "float32"}}
        done = run(tmp_path / mode, folders["bert"], evaluate={"folds": None, "resamples": 100}, **options)
        found.append((done, load_file(done.path / "features/train.safetensors"), load_file(done.path / "model/model.safetensors")))
    (kept, features, weights), (plain, plain_features, plain_weights) = found
    assert "store/embedded" not in plain.findings
    assert kept.findings["store/embedded"].value > 0 and kept.findings["store/computed"].value == 0  # type: ignore[operator]
    torch.testing.assert_close(features["mean"], plain_features["mean"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(features["head_input"], plain_features["head_input"], rtol=1e-4, atol=1e-5)
    for name, value in plain_weights.items():
        torch.testing.assert_close(weights[name], value, rtol=2e-2, atol=2e-3, msg=name)

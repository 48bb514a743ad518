"""Fewer shapes of products where texts are written: what becomes longer, how far, and that no loss and no gradient changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from tests import writers
from tunesmith.models.splice import GIVEN
from tunesmith.spec.schema import Spec
from tunesmith.tasks.base import Batch
from tunesmith.tasks.text_to_text import UNTRAINED, TextToText
from tunesmith.train.batches import StepBatch
from tunesmith.train.fit import full_batches
from tunesmith.train.shapes import ROWS, TOKENS, few_lengths, few_rows
from tunesmith.train.step import at_targets, task_step

KINDS = ("t5", "bart", "marian")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of a tiny T5, a tiny BART and a tiny Marian."""
    folder = tmp_path_factory.mktemp("writers")
    return {kind: writers.save_pretrained(folder / kind, kind) for kind in KINDS}


def batch_of(folder: Path, task: TextToText, count: int = 8) -> Batch:
    rows = writers.table(count).rename({"en": "text", "de": "label"})
    return task.collate(task.encode(rows, AutoTokenizer.from_pretrained(folder), 64).rows)


def longer(model: Any, batch: Batch) -> Batch:
    (group,) = few_lengths(iter([StepBatch(0, True, (batch,), 9)]), model)
    assert (group.epoch, group.ends_epoch, group.tokens) == (0, True, 9)
    return group.pieces[0]


@pytest.mark.parametrize("kind", KINDS)
def test_longer_batches_have_the_same_loss_and_gradients(models: dict[str, Path], kind: str) -> None:
    model, task = AutoModelForSeq2SeqLM.from_pretrained(models[kind]).eval(), TextToText()
    batch, results = batch_of(models[kind], task), []
    more = longer(model, batch)
    for name in ("input_ids", "attention_mask", "labels"):
        before, after = batch[name].shape[1], more[name].shape[1]
        assert before % TOKENS and after == -(-before // TOKENS) * TOKENS
        assert more[name][:, :before].equal(batch[name]) and more[name].dtype == batch[name].dtype
    for rows in (batch, more):
        model.zero_grad()
        loss, count = at_targets(task_step(task), model)(model, rows)
        loss.backward()
        results.append((loss.detach(), count, torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])))
    for plain, padded in zip(*results, strict=True):
        torch.testing.assert_close(padded, plain, rtol=1e-5, atol=1e-5)


def test_no_batch_grows_past_the_positions_of_the_model(models: dict[str, Path]) -> None:
    model, task = AutoModelForSeq2SeqLM.from_pretrained(models["bart"]), TextToText()
    batch = batch_of(models["bart"], task)
    length = batch["input_ids"].shape[1]
    for limit, expected in ((length - 1, length), (length, length), (length + 1, length + 1)):
        model.config.max_position_embeddings = limit
        assert longer(model, batch)["input_ids"].shape[1] == expected


def test_states_from_the_store_and_weights_go_along(models: dict[str, Path]) -> None:
    model, task = AutoModelForSeq2SeqLM.from_pretrained(models["t5"]), TextToText()
    batch = batch_of(models["t5"], task)
    states = torch.ones(*batch["input_ids"].shape, 3)
    more = longer(model, {**batch, GIVEN: states, "weights": torch.ones(8)})
    assert more[GIVEN].shape == (*more["input_ids"].shape, 3) and more[GIVEN].sum() == states.sum()
    assert more["weights"].shape == (8,)
    assert (more["labels"] == UNTRAINED).sum() > (batch["labels"] == UNTRAINED).sum()


def test_rows_become_a_multiple() -> None:
    for count in (1, ROWS - 1, ROWS, ROWS + 1):
        states = torch.ones(count, 2)
        assert few_rows(states).shape == (-(-count // ROWS) * ROWS, 2) and few_rows(states).sum() == 2 * count
        assert few_rows(torch.arange(count)).shape == (-(-count // ROWS) * ROWS,)


@pytest.mark.parametrize(
    ("precision", "strategy", "grows"),
    [("bfloat16", {"kind": "full"}, True), ("float32", {"kind": "full"}, False), ("bfloat16", {"kind": "prompt_tuning"}, False)],
)
def test_only_bfloat16_has_longer_batches(models: dict[str, Path], precision: str, strategy: dict[str, Any], grows: bool) -> None:
    model, task = AutoModelForSeq2SeqLM.from_pretrained(models["bart"]), TextToText()
    spec = Spec.model_validate(
        {
            "name": "t", "task": "translation", "data": {"train": "t.csv"}, "model": {"name": str(models["bart"])}, "strategy": strategy,
            "train": {"precision": precision},
        }
    )  # fmt: skip
    batch = batch_of(models["bart"], task)
    (group,) = full_batches(iter([StepBatch(0, True, (batch,), 1)]), model, spec)
    assert all((group.pieces[0][name].shape != batch[name].shape) == grows for name in ("input_ids", "attention_mask", "labels"))

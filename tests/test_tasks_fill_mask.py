"""Which tokens are masked, what is learned of them, and that an output layer at the masks alone changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForMaskedLM, pipeline

from tests import tiny
from tunesmith.core.errors import ModelError
from tunesmith.evaluate.masked import Masked
from tunesmith.evaluate.metrics import METRICS, Sample
from tunesmith.evaluate.unigram import unigram
from tunesmith.models.forward import frozen_features, predict_logits
from tunesmith.models.shortcuts import Shortcuts
from tunesmith.models.strategies import apply_strategy
from tunesmith.spec.load import load_spec
from tunesmith.spec.schema import Lora
from tunesmith.tasks.fill_mask import ASKED, FILLED, MASKABLE, FillMask, fill
from tunesmith.tasks.masking import IGNORED, masked, vocabulary_of
from tunesmith.tasks.windows import WINDOW
from tunesmith.train.batches import Order, StepBatch, step_batches
from tunesmith.train.fit import full_batches, full_step, make_learner
from tunesmith.train.loop import train_steps
from tunesmith.train.masking import at_masks, masked_anew
from tunesmith.train.shapes import ROWS
from tunesmith.train.step import task_step

WORDS = tiny.tokenizer()
VOCABULARY = vocabulary_of(WORDS)
SPECIAL = set(WORDS.all_special_ids)
KINDS = ("bert", "roberta", "distilbert", "electra")


def texts(rows: int = 24) -> pl.DataFrame:
    table = tiny.table(rows).select("text")
    return table.with_columns(label="text")


def network(kind: str, **changes: Any) -> Any:
    torch.manual_seed(0)
    config = tiny.config(kind, len(WORDS))
    for name, value in changes.items():
        setattr(config, name, value)
    return AutoModelForMaskedLM.from_config(config).eval()


def groups(task: FillMask, pieces: int, rows: pl.DataFrame | None = None) -> tuple[Any, list[StepBatch]]:
    encoding = task.training(texts() if rows is None else rows, WORDS, 16)
    order = Order(encoding.lengths, 8, 2, pieces, 0)
    return encoding, list(step_batches(order, lambda numbers: task.collate([encoding.rows[n] for n in numbers])))


# ---- which tokens are masked


@given(st.lists(st.integers(0, 30), min_size=1, max_size=20), st.floats(0.01, 0.5), st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_every_row_has_a_learned_token_and_nothing_else_changes(sizes: list[int], probability: float, seed: int) -> None:
    ids = np.arange(sum(sizes)) % 40 + 5
    shown, learned = masked(np.random.default_rng(seed), ids, np.array(sizes), VOCABULARY, probability)
    assert (shown[~learned] == ids[~learned]).all() and set(shown[learned]) <= {VOCABULARY.mask, *VOCABULARY.plain_V}
    ends = np.cumsum(sizes)
    assert all(learned[end - size : end].any() for size, end in zip(sizes, ends, strict=True) if size)


def test_shares_are_those_of_bert() -> None:
    ids = np.full(200_000, 50)
    shown, learned = masked(np.random.default_rng(0), ids, np.array([len(ids)]), VOCABULARY, 0.15)
    assert learned.mean() == pytest.approx(0.15, abs=0.005)
    assert (shown[learned] == VOCABULARY.mask).mean() == pytest.approx(0.8, abs=0.01)
    assert (shown[learned] == 50).mean() == pytest.approx(0.1 + 0.1 / len(VOCABULARY.plain_V), abs=0.01)


def test_special_tokens_are_never_masked_learned_or_drawn() -> None:
    assert not SPECIAL & set(VOCABULARY.plain_V.tolist())
    rows = pl.DataFrame({"text": ["parcel \U0001f600 [MASK] zzz", "\U0001f600"], "label": ["", ""]})
    held = FillMask(probability=0.5).encode(rows, WORDS, 16)
    for window in held.rows:
        assert not {token for token in window["labels"] if token != IGNORED} & SPECIAL
    learned = FillMask().training(rows, WORDS, 16)
    assert len(learned.rows) == 1 and sum(learned.rows[0][MASKABLE]) == sum(token not in SPECIAL for token in learned.rows[0]["input_ids"])


def test_fixed_masks_depend_on_the_text_and_the_seed_alone() -> None:
    rows = texts()
    whole, part = FillMask(seed=1).encode(rows, WORDS, 16), FillMask(seed=1).encode(rows.reverse()[:5], WORDS, 16)
    by_text = {window[WINDOW].text: window["input_ids"] for window in whole.rows}
    assert all(by_text[window[WINDOW].text] == window["input_ids"] for window in part.rows)
    assert [w["input_ids"] for w in FillMask(seed=2).encode(rows, WORDS, 16).rows] != [w["input_ids"] for w in whole.rows]


def test_masks_are_drawn_anew_and_the_same_for_any_pieces_and_after_resuming() -> None:
    task = FillMask()
    _, plain = groups(task, 1)
    _, cut = groups(task, 4)
    whole, pieces = list(masked_anew(plain, 0.15, 7)), list(masked_anew(cut, 0.15, 7))
    resumed = list(masked_anew(plain[3:], 0.15, 7, done=3))
    for one, several in zip(whole, pieces, strict=True):
        assert len(several.pieces) == 4
        for name in ("input_ids", "labels"):
            rows = [row[mask.bool()].tolist() for p in several.pieces for row, mask in zip(p[name], p["attention_mask"], strict=True)]
            assert rows == [
                row[mask.bool()].tolist() for row, mask in zip(one.pieces[0][name], one.pieces[0]["attention_mask"], strict=True)
            ]
    assert all(torch.equal(a.pieces[0]["input_ids"], b.pieces[0]["input_ids"]) for a, b in zip(whole[3:], resumed, strict=True))
    epochs = len(whole) // 2
    assert any(not torch.equal(a.pieces[0]["labels"], b.pieces[0]["labels"]) for a, b in zip(whole[:epochs], whole[epochs:], strict=True))
    assert all(((batch.pieces[0]["labels"] != IGNORED).sum(1) > 0).all() for batch in whole)


# ---- windows


def test_long_texts_become_windows_that_lose_nothing() -> None:
    text = " ".join(["parcel refund password"] * 40_000)
    encoding = FillMask().training(pl.DataFrame({"text": [text, "door"], "label": [text, "door"]}), WORDS, 62)
    assert sum(sum(window[MASKABLE]) for window in encoding.rows) == 120_001 and encoding.cut == 0 and max(encoding.lengths) <= 62
    assert [window[WINDOW].row for window in encoding.rows] == [0] * 2000 + [1]


@pytest.mark.parametrize(
    "text", ["", "door", "\U0001f600\U0001f468\u200d\U0001f469", "\u0634\u0644\u0648\u0645 parcel", "a\u200bb\ufeffc", "##s [SEP] [PAD]"]
)
def test_any_text_is_encoded_masked_scored_and_filled(text: str) -> None:
    task, model = FillMask(), network("bert")
    rows = pl.DataFrame({"text": [text, "the parcel"], "label": [text, "the parcel"]})
    encoding = task.encode(rows, WORDS, 8)
    decoded = task.decode(predict_logits(model, task, encoding), encoding)
    assert len(decoded) == 2 and np.isfinite(decoded["loss"].to_numpy()).all() and decoded["tokens"][1] >= 1
    assert decoded["tokens"].to_list() == [len(masks) for masks in decoded["masks"].to_list()]
    plain = task.encode(rows.drop("label"), WORDS, 8)
    assert task.decode(predict_logits(model, task, plain), plain)["predicted"].to_list() == [None, None]


def test_a_tokenizer_without_mask_token_is_refused(tiny_bert: Path) -> None:
    words = tiny.tokenizer()
    words.mask_token = None
    with pytest.raises(ModelError, match="must have a tokenizer with a mask token"):
        FillMask().training(texts(), words, 16)


# ---- the output layer at the masks alone


@pytest.mark.parametrize("kind", KINDS)
def test_the_output_layer_at_the_masks_gives_the_same_loss_and_gradients(kind: str) -> None:
    task, model = FillMask(), network(kind)
    _, plain = groups(task, 1)
    batch = next(masked_anew(plain, 0.3, 0)).pieces[0]
    results = []
    for step in (task_step(task), at_masks(task_step(task))):
        model.zero_grad()
        loss, count = step(model, batch)
        loss.backward()
        results.append((loss.detach(), count, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}))
    (whole, number, gradients), (few, same, others) = results
    assert number == same == (batch["labels"] != IGNORED).sum() and gradients.keys() == others.keys()
    torch.testing.assert_close(whole, few)
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, others[name], rtol=1e-4, atol=1e-5, msg=name)
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "labels")}
    torch.testing.assert_close(few / same, model(**inputs).loss)


def test_a_row_as_long_as_what_the_output_layer_reads_is_no_other() -> None:
    task, model = FillMask(), network("bert").eval()
    ids_BT = torch.randint(5, 50, (1, ROWS), generator=torch.Generator().manual_seed(0))
    labels_BT = torch.full_like(ids_BT, IGNORED)
    labels_BT[0, [3, 20, 41]] = torch.tensor([7, 8, 9])
    batch = {"input_ids": ids_BT, "attention_mask": torch.ones_like(ids_BT), "labels": labels_BT}
    (whole, number), (few, same) = (step(model, batch) for step in (task_step(task), at_masks(task_step(task))))
    assert number == same == 3
    torch.testing.assert_close(few, whole)


def test_it_works_inside_adapters() -> None:
    task = FillMask()
    _, plain = groups(task, 1)
    batch = next(masked_anew(plain, 0.3, 0)).pieces[0]
    model = apply_strategy(network("bert"), Lora(kind="lora", rank=2)).eval()
    losses = [float(step(model, batch)[0].detach()) for step in (task_step(task), at_masks(task_step(task)))]
    assert losses[0] == pytest.approx(losses[1])


@pytest.mark.parametrize("pieces", [1, 4])
def test_accumulation_does_not_change_the_gradient(pieces: int) -> None:
    spec = load_spec({"name": "t", "task": "fill-mask", "data": {"train": "t.txt"}}, [
        "train.epochs=2", "train.batch_size=8", "train.learning_rate=0.1", "train.optimizer.kind=sgd", "train.optimizer.momentum=0",
        "train.max_grad_norm=null", "train.weight_decay=0", "train.precision=float32"])  # fmt: skip
    after, losses = [], []
    for number in (1, pieces):
        task, model = FillMask(), network("bert")
        _, plain = groups(task, number)
        learner = make_learner(model, spec, 100)
        info = next(train_steps(learner, full_batches(iter(plain), model, spec), full_step(task, model, spec)))
        after.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
        losses.append(info.loss)
    torch.testing.assert_close(after[0], after[1], rtol=1e-4, atol=1e-6)
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_the_compact_vocabulary_is_left_alone() -> None:
    task, model = FillMask(), network("bert", tie_word_embeddings=False)
    table = model.get_input_embeddings()
    shortcuts = Shortcuts(model, [task.training(texts(), WORDS, 16)], linear_decay=True)
    assert shortcuts.compact is None and model.get_input_embeddings() is table  # any token may be put in the place of another
    shortcuts.undo()


def test_frozen_features_read_the_text_without_masks() -> None:
    task, model, rows = FillMask(), network("bert"), texts(6)
    encoding = task.encode(rows.drop("label"), WORDS, 32)
    found = frozen_features(model, task, encoding).mean_NE
    one = WORDS(rows["text"][0], return_tensors="pt")
    torch.testing.assert_close(found[0], model.base_model(**one).last_hidden_state[0].mean(0).detach(), rtol=1e-4, atol=1e-5)


# ---- scores


def test_scores_are_those_of_the_network_and_metrics_are_means_over_tokens() -> None:
    task, model, rows = FillMask(seed=3, probability=0.3), network("bert"), texts()
    encoding = task.encode(rows, WORDS, 10)
    batch = task.collate(encoding.rows)
    with torch.no_grad():
        logs = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits.log_softmax(-1)
    where = batch["labels"] != IGNORED
    right = logs[where].gather(1, batch["labels"][where][:, None])
    decoded = task.decode(predict_logits(model, task, encoding), encoding)
    told = Masked(*(decoded[name].cast(pl.Float64).to_numpy() for name in ("loss", "tokens", "hits")))
    loss = METRICS["masked"]["masked_loss"].value(told)
    assert loss == pytest.approx(-float(right.mean()), rel=1e-5)
    assert METRICS["masked"]["perplexity"].value(told) == pytest.approx(np.exp(loss))
    hits = float((logs[where].argmax(-1) == batch["labels"][where]).float().mean())
    assert METRICS["masked"]["masked_accuracy"].value(told) == pytest.approx(hits)
    weights = np.random.default_rng(0).integers(0, 3, (4, len(rows))).astype(float)
    for row, value in zip(weights, METRICS["masked"]["masked_loss"].statistic(Sample(told, weights)), strict=True):
        numbers = np.repeat(np.arange(len(rows)), row.astype(int))
        assert value == pytest.approx(told.loss_N[numbers].sum() / told.tokens_N[numbers].sum())
    assert np.isnan(METRICS["masked"]["masked_loss"].value(Masked(np.zeros(2), np.zeros(2), np.zeros(2))))


def test_the_frequencies_of_tokens_are_a_baseline() -> None:
    task, rows = FillMask(seed=0), texts()
    train, asked = task.training(rows, WORDS, 16), task.encode(rows, WORDS, 16)
    decoded = task.decode(unigram(train, asked), asked)
    counts = np.ones(len(WORDS))
    for window in train.rows:
        np.add.at(counts, [t for t in window["input_ids"] if t not in SPECIAL], 1)
    logs = np.log(counts / counts[VOCABULARY.plain_V].sum())
    wanted = [-sum(logs[t] for t in window["labels"] if t != IGNORED) for window in asked.rows]
    assert decoded["loss"].to_list() == pytest.approx(wanted)
    likeliest = int(VOCABULARY.plain_V[np.argmax(counts[VOCABULARY.plain_V])])
    assert decoded["hits"].to_list() == [window["labels"].count(likeliest) for window in asked.rows]


# ---- masks of the user


@pytest.mark.parametrize("kind", ["bert", "distilbert"])
def test_candidates_are_those_of_the_pipeline(kind: str) -> None:
    task, model = FillMask(), network(kind)
    plain = pipeline("fill-mask", model=model, tokenizer=WORDS)
    given = ["the [MASK] is late", "[MASK] reset [MASK] email", "no mask here"]
    encoding = task.encode(pl.DataFrame({"text": given}), WORDS, 32)
    decoded = task.decode(predict_logits(model, task, encoding), encoding)
    assert decoded.schema["candidates"] == FILLED and decoded["predicted"][2] is None and decoded["candidates"][2] is None
    for text, found in zip(given[:2], decoded["candidates"].to_list(), strict=False):
        wanted = plain(text)
        for mine, theirs in zip(found, wanted if isinstance(wanted[0], list) else [wanted], strict=True):
            assert [one["token"] for one in mine] == WORDS.convert_ids_to_tokens([one["token"] for one in theirs])
            assert [one["probability"] for one in mine] == pytest.approx([one["score"] for one in theirs], rel=1e-4)
    first = decoded["candidates"][0][0][0]
    assert first["text"] == decoded["predicted"][0] and "[MASK]" not in first["text"] and first["text"].endswith(" is late")
    assert "[MASK]" in decoded["candidates"][1][0][0]["text"] and "[MASK]" not in decoded["predicted"][1]


def test_word_pieces_and_spaces_are_put_where_they_belong() -> None:
    from types import SimpleNamespace

    from tunesmith.tasks.fill_mask import Filled, Piece

    names = {7: "##ing", 8: "dogs", 9: "\u0120cats", 10: "s"}

    def words(lstrip: bool) -> Any:
        said = {7: "##ing", 8: "dogs", 9: " cats", 10: "s"}
        return SimpleNamespace(mask_token="<m>", mask_token_id=1, convert_ids_to_tokens=names.get, decode=lambda ids: said[ids[0]],
                               added_tokens_decoder={1: SimpleNamespace(lstrip=lstrip)})  # fmt: skip

    def filled(text: str, token: int, *, lstrip: bool) -> str | None:
        said = Filled(np.array([[token]]), np.zeros((1, 1)), np.zeros(1))
        return fill([{WINDOW: Piece(0, text)}], [said], words(lstrip))[0]

    assert filled("walk <m> home", 7, lstrip=False) == "walking home"
    assert filled("two <m>.", 8, lstrip=False) == "two dogs."
    assert filled("two <m>.", 9, lstrip=True) == "two cats." and filled("<m> sleep", 9, lstrip=True) == "cats sleep"
    assert filled("cat <m> sleep", 10, lstrip=True) == "cats sleep"


def test_asked_places_are_the_masks_of_the_text() -> None:
    task = FillMask()
    encoding = task.encode(pl.DataFrame({"text": ["a [MASK] b [MASK]", "c"]}), WORDS, 16)
    assert [len(window[ASKED]) for window in encoding.rows] == [2, 0]
    batch = task.collate(encoding.rows)
    assert "labels" not in batch and set(task.inputs(None, batch)) <= {"input_ids", "attention_mask", "token_type_ids"}

"""Texts said in other words by a pretrained model, by beams or drawn from the seed of each copy.

Shape suffixes: B = texts of a batch, T = tokens, V = vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import polars as pl
import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, TemperatureLogitsWarper, TopPLogitsWarper

from tunesmith.core.errors import ModelError
from tunesmith.core.seeding import seed_for
from tunesmith.models.load import load_generator, load_processor, max_length, quiet
from tunesmith.spec.augmentation import Paraphrase, Sampled
from tunesmith.spec.schema import Model

BATCH_TEXTS = 16
REQUEST = "Text: {text}\nThe same in other words:"
CHAT_REQUEST = "Say this in other words. Answer with the new text alone.\n\n{text}"
SCHEMA = {"id": pl.String, "from": pl.String, "text": pl.String, "problem": pl.String}
Watch = Callable[[int, int], None]


@dataclass(frozen=True)
class _Writer:
    """A loaded model, its tokenizer, whether it has a decoder alone, and the most tokens that it may be given."""

    network: Any
    tokenizer: Any
    decoder_alone: bool
    most_tokens: int


@dataclass(frozen=True)
class _Asked:
    """What the model is given for one text, and the ids of the copies to make of it."""

    row: str
    copies: tuple[str, ...]
    tokens: list[int]


def paraphrases(rows: pl.DataFrame, rule: Paraphrase, copies: int, seed: int, watch: Watch | None = None) -> pl.DataFrame:
    """A row for each copy of each row (`id`, `from`, `text`, `problem`), in the order of the rows; `problem` is empty where there is none.

    rows: with `id` and `text`. Problems: too_long (the model would not see the whole text: it was not asked) and unfinished
    (no end within `max_new_tokens`). Draws depend on the seed, the row's id and the number of its copy, not on the order of rows.

    Raises:
        ModelError: the model cannot be loaded, lacks weights, or does not write text.
    """
    writer = _loaded(rule)
    asked = [
        _Asked(row, tuple(f"{row}+{copy + 1}" for copy in range(copies)), _tokens(writer, rule, text))
        for row, text in rows.select("id", "text").iter_rows()
    ]
    said = {copy: ("", "too_long") for one in asked for copy in one.copies if len(one.tokens) > writer.most_tokens}
    # By length, so that little is padding, and by id, so that batches are the same whatever the order of the rows.
    waiting = sorted((one for one in asked if len(one.tokens) <= writer.most_tokens), key=lambda one: (len(one.tokens), one.row))
    if isinstance(rule.decoding, Sampled):
        waiting = [replace(one, copies=(copy,)) for one in waiting for copy in one.copies]
    for start in range(0, len(waiting), BATCH_TEXTS):
        said |= _written(writer, rule, waiting[start : start + BATCH_TEXTS], seed)
        if watch is not None:
            watch(min(start + BATCH_TEXTS, len(waiting)), len(waiting))
    table = [(copy, one.row, *said[copy]) for one in asked for copy in one.copies]
    return pl.DataFrame(table, schema=SCHEMA, orient="row")


def _loaded(rule: Paraphrase) -> _Writer:
    model = Model(name=rule.model, revision=rule.revision)
    try:
        tokenizer, network = load_processor(model), load_generator(model)
    except ModelError as error:
        raise ModelError(
            replace(issue, where=issue.where.replace("model.name", "train.augment.paraphrase.model")) for issue in error.issues
        ) from error
    alone = not network.config.is_encoder_decoder
    tokenizer.padding_side = "left" if alone else "right"
    most = max_length(tokenizer, network.config) - (rule.max_new_tokens if alone else 0)
    return _Writer(network.eval(), tokenizer, alone, most)


def _tokens(writer: _Writer, rule: Paraphrase, text: str) -> list[int]:
    """What the model is given for a text; a model trained on conversations is asked in its own form."""
    chat = writer.decoder_alone and bool(writer.tokenizer.chat_template)
    usual = CHAT_REQUEST if chat else REQUEST if writer.decoder_alone else "{text}"
    given = (rule.prompt or usual).replace("{text}", text)
    if chat:
        turns = [{"role": "user", "content": given}]
        given = writer.tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    with quiet():
        return list(writer.tokenizer(given, add_special_tokens=not chat)["input_ids"])


def _written(writer: _Writer, rule: Paraphrase, batch: Sequence[_Asked], seed: int) -> dict[str, tuple[str, str]]:
    """Text and problem of each copy of a batch."""
    tokens_BT = [one.tokens for one in batch]
    with quiet():
        inputs = writer.tokenizer.pad({"input_ids": tokens_BT}, return_tensors="pt").to(writer.network.device)
    draws = LogitsProcessorList()
    if isinstance(rule.decoding, Sampled):
        draws += [TemperatureLogitsWarper(rule.decoding.temperature), TopPLogitsWarper(rule.decoding.top_p)]
        draws.append(_SeededDraws([seed_for(seed, f"paraphrase {one.copies[0]}") for one in batch]))
    with torch.inference_mode(), quiet():
        written_BT = writer.network.generate(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            generation_config=_generation(writer, rule, len(batch[0].copies)),
            logits_processor=draws,
        )
    if writer.decoder_alone:
        written_BT = written_BT[:, inputs["input_ids"].shape[1] :]
    copies = [copy for one in batch for copy in one.copies]
    return {copy: _text_of(writer, row_T) for copy, row_T in zip(copies, written_BT.tolist(), strict=True)}


def _generation(writer: _Writer, rule: Paraphrase, copies: int) -> GenerationConfig:
    """The model's own settings (first and last tokens, penalties), with the spec's way of choosing wordings."""
    config = GenerationConfig.from_dict(writer.network.generation_config.to_dict())
    beams = 1 if isinstance(rule.decoding, Sampled) else rule.decoding.num_beams
    config.update(
        do_sample=False, num_beams=beams, num_return_sequences=copies, max_new_tokens=rule.max_new_tokens, max_length=None,
        temperature=None, top_p=None, top_k=None, typical_p=None, pad_token_id=writer.tokenizer.pad_token_id,
    )  # fmt: skip
    if config.eos_token_id is None:
        config.eos_token_id = writer.tokenizer.eos_token_id
    return config


def _text_of(writer: _Writer, tokens_T: list[int]) -> tuple[str, str]:
    """The text of the tokens and its problem. What a decoder alone says ends with its first line, or it would go on and on."""
    found = writer.network.generation_config.eos_token_id
    ends = found if isinstance(found, list) else [writer.tokenizer.eos_token_id if found is None else found]
    first = 0 if writer.decoder_alone else 1  # some decoders are started by their end token
    last = next((place for place, token in enumerate(tokens_T) if token in ends and place >= first), None)
    text = writer.tokenizer.decode(tokens_T[:last], skip_special_tokens=True).strip()
    finished = last is not None
    if writer.decoder_alone and not writer.tokenizer.chat_template and "\n" in text:
        text, finished = text.split("\n")[0].strip(), True
    return (text, "") if finished else ("", "unfinished")


class _SeededDraws(LogitsProcessor):  # type: ignore[misc]
    """Adds to each text's scores Gumbel noise from its own generator, after which the greatest is a draw from their softmax.

    So what is drawn for one text does not depend on the others of its batch (Gumbel-max trick; Maddison et al. 2014).
    """

    def __init__(self, seeds: Sequence[int]) -> None:
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores (B, V) with the noise."""
        noise_BV = torch.stack([torch.empty(scores.shape[1]).exponential_(generator=one) for one in self.generators])
        return scores.float() - noise_BV.clamp_min(1e-30).log().to(scores.device)

"""Texts written by an encoder with a decoder, as the settings that the model carries say, in batches that finished rows leave.

Shape suffixes: B = rows of a batch, R = rows that are still written, T = tokens, V = vocabulary.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tunesmith.tasks.base import Batch

LEAVING = 0.125
"""Finished rows leave when they are this share of the rows that are written: each leaving copies what the decoder remembers."""
FOLLOWED = (
    "bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id", "max_new_tokens", "max_length", "no_repeat_ngram_size",
    "num_beams", "length_penalty", "early_stopping", "use_cache", "transformers_version", "_from_model_config",
)  # fmt: skip
"""Settings that greedy search here follows, or that change nothing in it; a model that carries others is left to its own `generate`."""


@dataclass(frozen=True)
class Said:
    """The tokens of an answer, without the one that starts the decoder, with the last one where it has ended.

    `margin` is the smallest lead of a token over the next likeliest one, in logits: what rounding would have to overcome to change the
    text. None for beams.
    """

    tokens: list[int]
    margin: float | None


@torch.inference_mode()
def write(model: Any, batch: Batch) -> list[Said]:
    """What is written for each row as the model's own settings say.

    Greedy search runs here and says what `model.generate` says, sooner where rows differ in length; all else is left to `generate`.
    """
    config = model.generation_config
    if not _is_plain(config):
        return _generated(model, batch)
    return _greedy(model, batch, config)


def ends(model: Any) -> set[int]:
    """The tokens that end an answer."""
    found = model.generation_config.eos_token_id
    return set(found) if isinstance(found, list) else {int(found)}


def _is_plain(config: Any) -> bool:
    """True where one text is followed at a time and nothing else is asked for than what is done here."""
    return (config.num_beams or 1) == 1 and all(name in FOLLOWED or _is_off(name, value) for name, value in config.to_dict().items())


def _is_off(name: str, value: Any) -> bool:
    """True for a setting that does nothing: penalties of one, counts of nought; a token or a least length always does something."""
    if value is None or value is False:
        return True
    return not name.endswith("token_id") and not name.startswith("min_") and value is not True and value in (0, 1, [], {})


def _encoded(model: Any, batch: Batch, start_B1: Tensor) -> Any:
    """What the model says of the first place, with the encoder's states and what the decoder remembers."""
    return model(**batch, decoder_input_ids=start_B1, use_cache=True)


def _start(batch: Batch, config: Any) -> Tensor:
    mask_BT = batch["attention_mask"]
    return torch.full((len(mask_BT), 1), int(config.decoder_start_token_id), device=mask_BT.device)


def _generated(model: Any, batch: Batch) -> list[Said]:
    """Answers by the model's own `generate`, from states of the encoder that were computed here: they may come from the store."""
    from transformers.modeling_outputs import BaseModelOutput

    config, first = model.generation_config, _encoded(model, batch, _start(batch, model.generation_config))
    states = BaseModelOutput(last_hidden_state=first.encoder_last_hidden_state)
    said_BT = model.generate(encoder_outputs=states, attention_mask=batch["attention_mask"], generation_config=config)
    return [Said(_until_end(row[1:], ends(model)), None) for row in said_BT.tolist()]


def _greedy(model: Any, batch: Batch, config: Any) -> list[Said]:
    from transformers import NoRepeatNGramLogitsProcessor
    from transformers.modeling_outputs import BaseModelOutput

    start_B1, last = _start(batch, config), ends(model)
    out = _encoded(model, batch, start_B1)
    cache, states, mask_RT = out.past_key_values, out.encoder_last_hidden_state, batch["attention_mask"]
    ending = torch.tensor(sorted(last), device=start_B1.device)
    ngrams = NoRepeatNGramLogitsProcessor(config.no_repeat_ngram_size) if config.no_repeat_ngram_size else None
    said: list[list[int]] = [[] for _ in range(len(start_B1))]
    margins = [math.inf] * len(said)
    rows, written_RT = list(range(len(start_B1))), start_B1
    done_R = torch.zeros(len(rows), dtype=torch.bool, device=start_B1.device)
    for place in range(config.max_new_tokens):
        scores_RV = out.logits[:, -1].float()
        best_R, next_R = (ngrams(written_RT, scores_RV) if ngrams else scores_RV).max(-1)
        lead_R = best_R - scores_RV.scatter(1, next_R[:, None], -math.inf).amax(-1)
        for row, token, lead, done in zip(rows, next_R.tolist(), lead_R.tolist(), done_R.tolist(), strict=True):
            if not done:
                said[row].append(token)
                margins[row] = min(margins[row], abs(lead))
        done_R = done_R | torch.isin(next_R, ending)
        written_RT = torch.cat([written_RT, next_R[:, None]], 1)
        left = int(done_R.sum())
        if left == len(rows) or place + 1 == config.max_new_tokens:
            break
        if left >= LEAVING * len(rows):
            stays = (~done_R).nonzero()[:, 0]
            cache.batch_select_indices(stays)
            states, mask_RT, written_RT, done_R = states[stays], mask_RT[stays], written_RT[stays], done_R[stays]
            rows = [rows[n] for n in stays.tolist()]
        out = model(
            encoder_outputs=BaseModelOutput(last_hidden_state=states), attention_mask=mask_RT, decoder_input_ids=written_RT[:, -1:],
            past_key_values=cache, use_cache=True,
        )  # fmt: skip
    return [Said(tokens, margin) for tokens, margin in zip(said, margins, strict=True)]


def _until_end(tokens: list[int], last: set[int]) -> list[int]:
    place = next((n for n, token in enumerate(tokens) if token in last), None)
    return tokens if place is None else tokens[: place + 1]

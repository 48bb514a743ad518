"""Texts written by an encoder with a decoder, as the settings that the model carries say.

In greedy search finished rows leave at once, and the few that are left of a batch wait for those of the next ones at the same place.

Shape suffixes: B = rows of a batch, R = rows of a group, T = tokens, V = vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tunesmith.tasks.base import Batch

if TYPE_CHECKING:
    from tunesmith.tasks.group import Group

Numbered = Iterable[tuple[list[int], Batch]]
MANY, FEW, WAITING = 256, 32, 256
"""Rows with which a group begins, rows of one that is set aside until another comes to its place, and rows that are set aside at most."""
MEMORY_BYTES = 2**30
"""What the decoder may remember of a group: large models write fewer rows at a time."""
PIECE = 64
"""Tokens of the vocabulary whose largest score is found first."""
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
def write(model: Any, batches: Numbered) -> Iterator[tuple[int, Said]]:
    """What is written for each row as the model's own settings say, with its number; a row comes as soon as it has ended.

    Greedy search runs here and says what `model.generate` says, sooner; all else is left to `generate`.

    Args:
        model: an encoder with a decoder.
        batches: numbers of rows with their batch. Batches of rows of similar length are best, the longest first.
    """
    if _is_plain(model.generation_config):
        yield from _greedy(model, batches)
        return
    for numbers, batch in batches:
        yield from zip(numbers, _generated(model, batch), strict=True)


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


def _start(batch: Batch, config: Any) -> Tensor:
    mask_BT = batch["attention_mask"]
    return torch.full((len(mask_BT), 1), int(config.decoder_start_token_id), device=mask_BT.device)


def _generated(model: Any, batch: Batch) -> list[Said]:
    """Answers by the model's own `generate`, from states of the encoder that were computed here: they may come from the store."""
    from transformers.modeling_outputs import BaseModelOutput

    config = model.generation_config
    first = model(**batch, decoder_input_ids=_start(batch, config), use_cache=False)
    states = BaseModelOutput(last_hidden_state=first.encoder_last_hidden_state)
    said_BT = model.generate(encoder_outputs=states, attention_mask=batch["attention_mask"], generation_config=config)
    return [Said(_until_end(row[1:], ends(model)), None) for row in said_BT.tolist()]


class _Greedy:
    """The likeliest token of each row, place by place, for rows of one model."""

    def __init__(self, model: Any) -> None:
        from transformers import NoRepeatNGramLogitsProcessor  # seconds to import: only where texts are written

        config = model.generation_config
        self.model, self.longest = model, int(config.max_new_tokens)
        self.ending = torch.tensor(sorted(ends(model)), device=next(model.parameters()).device)
        self.unrepeated = NoRepeatNGramLogitsProcessor(config.no_repeat_ngram_size) if config.no_repeat_ngram_size else None

    def begun(self, numbers: list[int], batch: Batch) -> tuple[Group, Tensor] | None:
        """A group of these rows with nothing written, and what is said of the first place; None where a model remembers in its own way."""
        from tunesmith.tasks.group import Group, with_room

        start_B1 = _start(batch, self.model.generation_config)
        out = self.model(**batch, decoder_input_ids=start_B1, use_cache=True)
        if not with_room(out.past_key_values):
            return None
        least_B = torch.full((len(numbers),), math.inf, device=start_B1.device)
        states, mask = out.encoder_last_hidden_state.clone(), batch["attention_mask"].clone()  # rows are moved about in them
        return Group(list(numbers), out.past_key_values, states, mask, start_B1, least_B), out.logits[:, -1]

    def written(self, group: Group, logits_RV: Tensor) -> Iterator[tuple[int, Said]]:
        """Write a token for each row; those that end with it leave, and are given."""
        scores_RV = logits_RV.float()
        if self.unrepeated is not None:
            scores_RV = self.unrepeated(group.written_RT, scores_RV)
        next_R, lead_R = leading(scores_RV)
        group.least_R = torch.minimum(group.least_R, lead_R)
        group.written_RT = torch.cat([group.written_RT, next_R[:, None]], 1)
        done_R = torch.isin(next_R, self.ending) if group.place < self.longest else torch.ones_like(next_R, dtype=torch.bool)
        gone = done_R.nonzero()[:, 0]
        if not len(gone):
            return
        rows = [group.rows[n] for n in gone.tolist()]
        said = zip(group.written_RT[gone, 1:].tolist(), group.least_R[gone].tolist(), strict=True)
        group.leave(done_R)
        yield from ((row, Said(tokens, margin)) for row, (tokens, margin) in zip(rows, said, strict=True))

    def run(self, group: Group, waiting: dict[int, Group], *, alone: bool = False) -> Iterator[tuple[int, Said]]:
        """Write the rest of a group with those that wait on its way; while others come and few rows are left, these wait too."""
        while group.rows:
            if group.place in waiting:
                group.join(waiting.pop(group.place))
            enough = min(MANY, MEMORY_BYTES // group.bytes_a_row(self.longest)) if group.place == 1 else FEW
            if len(group.rows) < enough and not alone:
                waiting[group.place] = group
                return
            yield from self.written(group, group.read(self.model))


def _greedy(model: Any, batches: Numbered) -> Iterator[tuple[int, Said]]:
    search, waiting = _Greedy(model), dict[int, "Group"]()
    for numbers, batch in batches:
        begun = search.begun(numbers, batch)
        if begun is None:
            yield from zip(numbers, _generated(model, batch), strict=True)
            continue
        yield from search.written(*begun)
        yield from search.run(begun[0], waiting)
        if sum(len(group.rows) for place, group in waiting.items() if place > 1) > WAITING:
            yield from _finished(search, waiting)
    yield from _finished(search, waiting)


def _finished(search: _Greedy, waiting: dict[int, Group]) -> Iterator[tuple[int, Said]]:
    """Write what waits to its end: those with least written first, for they meet the others on their way."""
    while waiting:
        yield from search.run(waiting.pop(min(waiting)), waiting, alone=True)


def leading(scores_RV: Tensor) -> tuple[Tensor, Tensor]:
    """The likeliest token of each row and by how much it leads the next likeliest, (R,) each; of equal ones the first.

    From the largest score of each PIECE tokens: on a processor torch takes ten times as long for the place of a largest number as for
    the number itself, as long as the output layer took to make the scores.
    """
    words = scores_RV.shape[1]
    whole = words // PIECE * PIECE
    pieces_RP = scores_RV[:, :whole].view(len(scores_RV), -1, PIECE).amax(-1)
    if whole < words:
        pieces_RP = torch.cat([pieces_RP, scores_RV[:, whole:].amax(-1, keepdim=True)], 1)
    piece_R = pieces_RP.argmax(-1)
    place_RK = piece_R[:, None] * PIECE + torch.arange(PIECE, device=scores_RV.device)
    inside_RK = scores_RV.gather(1, place_RK.clamp(max=words - 1)).masked_fill(place_RK >= words, -math.inf)
    best_R, first_R = inside_RK.max(-1)
    others = pieces_RP.scatter(1, piece_R[:, None], -math.inf).amax(-1)
    second_R = torch.maximum(others, inside_RK.scatter(1, first_R[:, None], -math.inf).amax(-1))
    return piece_R * PIECE + first_R, best_R - second_R


def _until_end(tokens: list[int], last: set[int]) -> list[int]:
    place = next((n for n, token in enumerate(tokens) if token in last), None)
    return tokens if place is None else tokens[: place + 1]

"""Which tokens are masked and what stands in their place (Devlin et al. 2019, section 3.1), and an output layer that reads these alone.

Shape suffixes: B = rows of a batch, T = tokens, E = width, M = tokens that may be masked, or that are, R = rows, V = vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tunesmith.core.errors import ModelError
from tunesmith.core.records import Issue
from tunesmith.tasks.base import Processor

IGNORED = -100
"""The label of a token that is not asked for."""
MASKED, REPLACED = 0.8, 0.1
"""Of the tokens that are learned: the share that becomes the mask token, and the share that becomes any other; the rest stays."""
Ids = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """The tokenizer's mask token, and its tokens that are no special ones, ascending: what is masked, learned and drawn."""

    mask: int
    plain_V: Ids


def vocabulary_of(processor: Processor) -> Vocabulary:
    """The Vocabulary of a tokenizer.

    Raises:
        ModelError: it has no mask token.
    """
    if processor.mask_token_id is None:
        remedy = "Name an encoder that was trained with masks, such as BERT or RoBERTa."
        raise ModelError(Issue("model.name", "must have a tokenizer with a mask token", type(processor).__name__, remedy))
    plain = set(processor.get_vocab().values()) - set(processor.all_special_ids)
    return Vocabulary(int(processor.mask_token_id), np.array(sorted(plain), np.int64))


def masked(draw: np.random.Generator, ids_M: Ids, sizes_R: Ids, words: Vocabulary, probability: float) -> tuple[Ids, Any]:
    """What stands in the place of each token, and whether it is learned (both (M,)); at least one token of each row is.

    Args:
        draw: where chance comes from; how much is drawn depends on the number of tokens alone.
        ids_M: the tokens that may be masked, row after row.
        sizes_R: how many of them each row has.
        words: the vocabulary.
        probability: of a token to be learned.
    """
    chance_M, kind_M = draw.random(len(ids_M)), draw.random(len(ids_M))
    other_M = words.plain_V[draw.integers(len(words.plain_V), size=len(ids_M))]
    sizes = sizes_R[sizes_R > 0]
    if not len(sizes):
        return ids_M, np.zeros(0, np.bool_)
    least_R = np.minimum.reduceat(chance_M, np.cumsum(sizes) - sizes)
    learned_M = (chance_M < probability) | (chance_M == np.repeat(least_R, sizes))
    shown_M = np.where(kind_M < MASKED, words.mask, np.where(kind_M < MASKED + REPLACED, other_M, ids_M))
    return np.where(learned_M, shown_M, ids_M), learned_M


def places_of(labels_BT: Tensor) -> Tensor:
    """Where tokens are asked for (M,), counted through the rows of a batch."""
    return (labels_BT != IGNORED).flatten().nonzero().squeeze(1)


@contextmanager
def only_at(model: Any, places_M: Tensor) -> Iterator[None]:
    """Meanwhile the output layer of a network reads the states of these tokens alone: its logits are (1, M, V), in the order of the places.

    A product as wide as the vocabulary is then computed for a seventh of the tokens.
    """

    def gather(_encoder: Any, _given: Any, said: Any) -> Any:
        states_1ME = said[0].flatten(0, 1).index_select(0, places_M).unsqueeze(0)
        if isinstance(said, tuple):
            return states_1ME, *said[1:]
        said["last_hidden_state"] = states_1ME
        return said

    handle = _encoder_of(model).register_forward_hook(gather)
    try:
        yield
    finally:
        handle.remove()


def _encoder_of(model: Any) -> torch.nn.Module:
    """The part of a network whose states its output layer reads, also inside adapters."""
    from transformers import PreTrainedModel  # seconds to import: only when a model is there

    network = model if isinstance(model, PreTrainedModel) else model.get_base_model()
    encoder: torch.nn.Module = network.base_model
    return encoder

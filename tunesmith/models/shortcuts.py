"""Work that cannot change the result, left out or done faster.

Token embeddings that no row uses, and last-block outputs that no head reads, are left out: tests compare losses,
gradients and final weights with and without. GELU written out in five operators is one. Dropout, attention and bfloat16 have
files of their own.
Shape suffixes: B = rows, T = tokens, Q = asking tokens, E = width, V = vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.activations import NewGELUActivation

from tunesmith.models.anatomy import bert_like_encoder
from tunesmith.models.attention import attend_plainly, attend_quickly, quick_attention
from tunesmith.models.convolution import quick_convolutions
from tunesmith.models.dropout import QuickDropout
from tunesmith.models.half import halved
from tunesmith.models.siblings import join, part
from tunesmith.tasks.base import PARTS, Encoded, Encoding, parts_of


class Shortcuts:
    """The shortcuts that fit a model whose strategy has been applied, in force until `undo`.

    Args:
        model: changed in place, its parameters' names are not.
        encodings: all rows that the model will see meanwhile; `self.encodings` are the same rows in its terms.
        linear_decay: the optimiser only multiplies elements without gradient (`train.optim.decay_is_linear`).
        bfloat16: training rounds products; copies of the weights are then rounded once (`models.half`).
    """

    def __init__(self, model: Any, encodings: Sequence[Encoding], *, linear_decay: bool, bfloat16: bool = False) -> None:
        self.model, self.encodings, self.meanwhile = model, list(encodings), ExitStack()
        if bfloat16:
            self.meanwhile.enter_context(halved(model))
            join(model)
        self.meanwhile.enter_context(quick_convolutions(model))
        self.first_token = read_first_token_only(model)
        self.quick = attend_quickly(model)
        if next(model.parameters()).device.type == "cpu":
            _change_class(model, nn.Dropout, QuickDropout)
        _change_class(model, NewGELUActivation, OneGelu)
        words = model.main_input_name == "input_ids" and not model.config.is_encoder_decoder  # a decoder reads ids that no row holds
        table: Any = model.get_input_embeddings() if words else None
        output = model.get_output_embeddings() if words else None
        usable = type(table) is nn.Embedding and table.weight.requires_grad  # a subclass may scale, and a plain table would not
        tied = usable and output is not None and output.weight is table.weight
        self.compact = CompactVocabulary(model, _tokens(encodings)) if linear_decay and usable and not tied else None
        if self.compact is not None:
            self.encodings = [self.compact.shorten(encoding) for encoding in encodings]

    def undo(self) -> None:
        """Give the plain model back, with what training changed."""
        if self.first_token:
            read_all_tokens(self.model)
        if self.quick:
            attend_plainly(self.model)
        _change_class(self.model, QuickDropout, nn.Dropout)
        _change_class(self.model, OneGelu, NewGELUActivation)
        if self.compact is not None:
            self.compact.restore(self.model)
        part(self.model)
        self.meanwhile.close()


class OneGelu(NewGELUActivation):  # type: ignore[misc]
    """GPT-2's GELU, which transformers writes as five operators, as torch's one: the same formula."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name of the base class
        """GELU by tanh."""
        return F.gelu(input, approximate="tanh")


def _change_class(model: nn.Module, before: type[nn.Module], after: type[nn.Module]) -> None:
    for module in model.modules():
        if type(module) is before:
            module.__class__ = after


def _tokens(encodings: Sequence[Encoding]) -> set[int]:
    return {token for encoding in encodings for text in parts_of(encoding.rows) for token in (*text["input_ids"], text["pad"])}


class CompactVocabulary:
    """The rows of the token-embedding matrix that the data uses, in place of the whole matrix, until `restore`.

    Rows that no batch uses get no gradient. Weight decay still shrinks them, all by the same factor; a row of ones that
    no text uses goes through the same optimiser and tells that factor. This is exact for optimisers whose update of an
    element without gradient is linear in it (AdamW, SGD), and only those may use it.
    """

    def __init__(self, model: Any, used: Iterable[int]) -> None:
        self.full: nn.Embedding = model.get_input_embeddings()
        ids = sorted(set(used) | ({self.full.padding_idx} if self.full.padding_idx is not None else set()))
        self.ids_V = torch.tensor(ids)
        padding = None if self.full.padding_idx is None else ids.index(self.full.padding_idx)
        self.small = nn.Embedding(len(ids) + 1, self.full.embedding_dim, padding_idx=padding, device=self.full.weight.device)
        with torch.no_grad():
            self.small.weight[:-1] = self.full.weight[self.ids_V.to(self.full.weight.device)]
            self.small.weight[-1] = 1.0
        self.small.weight.requires_grad_(self.full.weight.requires_grad)
        model.set_input_embeddings(self.small)

    def shorten(self, encoding: Encoding) -> Encoding:
        """The rows with token ids as rows of the compact matrix."""
        lookup = {int(token): number for number, token in enumerate(self.ids_V)}
        made: dict[int, Encoded] = {}  # a text that many rows share stays one

        def short(text: Encoded) -> Encoded:
            if id(text) not in made:
                made[id(text)] = {**text, "input_ids": [lookup[t] for t in text["input_ids"]], "pad": lookup[text["pad"]]}
            return made[id(text)]

        rows = [{**row, PARTS: [short(text) for text in row[PARTS]]} if PARTS in row else short(row) for row in encoding.rows]
        return replace(encoding, rows=rows)

    @torch.no_grad()
    def restore(self, model: Any) -> None:
        """Put the trained rows back into the full matrix, and the full matrix back into the model."""
        weight = self.small.weight.to(self.full.weight.device)
        self.full.weight.mul_(weight[-1, 0])
        self.full.weight[self.ids_V.to(weight.device)] = weight[:-1]
        model.set_input_embeddings(self.full)


def read_first_token_only(model: Any) -> bool:
    """Make the last block of a BERT-like classifier compute the first token alone, which is all that the head reads.

    Returns True when it applies. The block's parameters and their names stay as they are; `read_all_tokens` undoes it.
    """
    encoder = bert_like_encoder(model)
    if encoder is None or model.config._attn_implementation != "sdpa":
        return False
    block = encoder.layer[-1]
    if "forward" in block.__dict__:  # its answers come from the store
        return False
    block.forward = MethodType(_first_token_forward, block)
    return True


def read_all_tokens(model: Any) -> None:
    """Undo `read_first_token_only`."""
    encoder = bert_like_encoder(model)
    if encoder is not None:
        encoder.layer[-1].__dict__.pop("forward", None)


def _first_token_forward(block: Any, hidden_BTE: Tensor, attention_mask: Tensor | None = None, *_: object, **__: object) -> Tensor:
    """The block's output for the first token, (B, 1, E): queries and feed-forward of one token, keys and values of all."""
    first_B1E = hidden_BTE[:, :1].contiguous()  # a view of every row would make torch copy the weights for each
    mask = None if attention_mask is None else attention_mask[:, :, :1]
    attended = block.attention.output(_attend(block.attention.self, first_B1E, hidden_BTE, mask), first_B1E)
    result: Tensor = block.feed_forward_chunk(attended)
    return result


def _attend(inner: Any, asking_BQE: Tensor, hidden_BTE: Tensor, mask: Tensor | None) -> Tensor:
    """Context (B, Q, E) of the asking tokens."""

    def heads(states: Tensor) -> Tensor:
        return states.view(*states.shape[:2], -1, inner.attention_head_size).transpose(1, 2)

    q, k, v = heads(inner.query(asking_BQE)), heads(inner.key(hidden_BTE)), heads(inner.value(hidden_BTE))
    p = inner.dropout.p if inner.training else 0.0
    return quick_attention(inner, q, k, v, mask, p, inner.scaling)[0].flatten(2)

"""Attention as training and writing on a processor want it, for every architecture that asks transformers' interface for one.

torch's kernel is slow there in three cases: with dropout it draws a number for each weight, in bfloat16 its backward pass takes four to
ten times as long as the products written out, and where one token reads few others, as in writing, it takes half as long again to
four times as long. Elsewhere it is used as it is.
Shape suffixes: B = rows, H = heads, Q = asking tokens, T = tokens, D = width of a head.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import create_position_bias_mask, repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from tunesmith.models.dropout import quick_dropout
from tunesmith.models.load import quiet

NAME = "tunesmith"
WRITTEN_OUT = 256
"""Most tokens of a row at which bfloat16 attention is written out: its memory grows with the square of them."""
READ_BY_ONE = 128
"""Most tokens that one token reads with products written out, where a text is written token by token."""
ELSEWHERE = ("softcap", "cache", "output_attentions")
"""Options that torch's kernel refuses or that keep states between calls: left to transformers."""


def attend(q_BHQD: Tensor, k_BHTD: Tensor, v_BHTD: Tensor, mask: Tensor | None, p: float, scale: float) -> Tensor:
    """What the asking tokens read, (B, H, Q, D). `mask` is added, or true where a token may be read; p is of dropout."""
    scores_BHQT = (q_BHQD * scale) @ k_BHTD.transpose(-1, -2)
    if mask is not None and mask.dtype == torch.bool:
        scores_BHQT = scores_BHQT.masked_fill(~mask, torch.finfo(scores_BHQT.dtype).min)
    elif mask is not None:
        scores_BHQT = scores_BHQT + mask.to(scores_BHQT.dtype)
    return quick_dropout(scores_BHQT.softmax(-1), p) @ v_BHTD


def is_quicker(query: Tensor, tokens: int, p: float) -> bool:
    """True where the products written out are quicker than torch's kernel, for rows of so many tokens."""
    if query.device.type != "cpu":
        return False
    if not (torch.is_grad_enabled() and query.requires_grad):
        return query.shape[2] == 1 and tokens <= READ_BY_ONE
    half = query.dtype == torch.bfloat16 or torch.is_autocast_enabled("cpu")
    return p > 0 or (half and query.shape[2] <= WRITTEN_OUT)


def quick_attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, dropout: float = 0.0,
    scaling: float | None = None, **options: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    """(context (B, Q, H, D), None), like transformers' `sdpa_attention_forward`, to which all is left that is no quicker here."""
    if not is_quicker(query, key.shape[2], dropout) or any(options.get(name) for name in ELSEWHERE):
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling, **options)  # type: ignore[no-any-return]
    groups = query.shape[1] // key.shape[1]
    key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    asked, causal = options.get("is_causal"), attention_mask is None and query.shape[2] > 1
    causal = causal and bool(module.is_causal if asked is None else asked)
    if options.get("position_bias") is not None:
        mask = create_position_bias_mask(options["position_bias"], attention_mask, causal, query, key)
    elif causal:
        mask = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool).tril()
    else:
        mask = attention_mask
    return attend(query, key, value, mask, dropout, query.shape[-1] ** -0.5 if scaling is None else scaling).transpose(1, 2), None


AttentionInterface.register(NAME, quick_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)


def attend_quickly(model: Any) -> bool:
    """Make a model's blocks attend so. False where its architecture has no such choice, or another one was made; then nothing changes."""
    if next(model.parameters()).device.type != "cpu" or model.config._attn_implementation != "sdpa":
        return False
    with quiet():
        model.set_attn_implementation(NAME)
    return bool(model.config._attn_implementation == NAME)


def attend_plainly(model: Any) -> None:
    """Undo `attend_quickly`."""
    model.set_attn_implementation("sdpa")


@contextmanager
def attending_quickly(model: Any) -> Iterator[None]:
    """Meanwhile the model's blocks attend so, where they can."""
    changed = attend_quickly(model)
    try:
        yield
    finally:
        if changed:
            attend_plainly(model)

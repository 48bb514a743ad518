"""Mean pooling written into a BERT-like classifier as one more block, so that plain transformers code loads it.

The added block has zero queries and keys, so its attention is uniform over the tokens that are not padding; its values
are the hidden states themselves, so what it attends to is their mean. The output projection scales that mean by 1000
before the residual and the layer norm, so the first token's own state contributes a thousandth; the feed-forward part is
zero. The tanh layer of the head becomes a hundredth of the identity, where tanh is linear to one part in ten thousand.
The head is then fitted on exactly what this network computes, so nothing is approximated between fitting and use.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from tunesmith.core.errors import ModelError
from tunesmith.core.records import Issue
from tunesmith.models.anatomy import bert_like_encoder, head_dense

MEAN_SCALE = 1000.0
TANH_SCALE = 0.01


@torch.no_grad()
def add_mean_pooling(model: Any) -> None:
    """Add the block in place and count it in the model's config.

    Raises:
        ModelError: the architecture cannot express it.
    """
    encoder, dense = _parts(model, "mean")
    block = copy.deepcopy(encoder.layer[-1])
    for parameter in block.parameters():
        parameter.zero_()
    nn.init.eye_(block.attention.self.value.weight)
    block.attention.output.dense.weight.copy_(MEAN_SCALE * torch.eye(dense.in_features))
    for norm in (block.attention.output.LayerNorm, block.output.LayerNorm):
        norm.weight.fill_(1.0)
    block.attention.self.layer_idx = len(encoder.layer)
    encoder.layer.append(block)
    model.config.num_hidden_layers = len(encoder.layer)
    _pass_through(dense)


@torch.no_grad()
def read_first_token(model: Any) -> None:
    """Make the output layer read the last state of the first token, whatever the head did with it; in place.

    Raises:
        ModelError: the architecture cannot express it.
    """
    _pass_through(_parts(model, "cls")[1])


def _parts(model: Any, pooling: str) -> tuple[Any, nn.Linear]:
    encoder, dense = bert_like_encoder(model), head_dense(model)
    if encoder is None or dense is None:
        found = f"{pooling} with {type(model).__name__}"
        remedy = "Set strategy.pooling: model, or attention with head: linear or mlp."
        raise ModelError(Issue("strategy.pooling", "must be model or attention for this architecture", found, remedy))
    return encoder, dense


def _pass_through(dense: nn.Linear) -> None:
    dense.weight.copy_(TANH_SCALE * torch.eye(dense.in_features))
    dense.bias.zero_()

"""Where the parts of a transformer are: embeddings, ordered blocks, head. The only place that looks into foreign modules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from tunesmith.core.errors import ModelError
from tunesmith.core.records import Issue


@dataclass(frozen=True)
class Anatomy:
    """Parameter names by part. `blocks[0]` is next to the embeddings; the head is all that comes after the blocks."""

    embeddings: tuple[str, ...]
    blocks: tuple[tuple[str, ...], ...]
    head: tuple[str, ...]

    @property
    def levels(self) -> tuple[tuple[str, ...], ...]:
        """Embeddings, blocks from the bottom, head: the order in which a layer-wise rate decay counts."""
        return (self.embeddings, *self.blocks, self.head)


def block_list(model: nn.Module) -> tuple[str, nn.ModuleList]:
    """Name and modules of the ordered blocks: the longest list of modules of one class that holds most parameters.

    Raises:
        ModelError: the model has no such list.
    """
    lists = [
        (sum(p.numel() for p in module.parameters()), name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) > 0 and len({type(m) for m in module}) == 1
    ]
    if not lists:
        raise ModelError(
            Issue("model.name", "must be built of blocks for this strategy", type(model).__name__, "Use strategy {kind: full}.")
        )
    _, name, module = max(lists, key=lambda item: item[0])
    return name, module


def dissect(model: nn.Module) -> Anatomy:
    """The Anatomy of a model with a head. Parameters before the blocks are embeddings, those after them are the head."""
    prefix = block_list(model)[0] + "."
    names = [name for name, _ in model.named_parameters()]
    inside = [name.startswith(prefix) for name in names]
    first = inside.index(True)
    count = 1 + max(int(name.removeprefix(prefix).split(".")[0]) for name, is_block in zip(names, inside, strict=True) if is_block)
    blocks: list[list[str]] = [[] for _ in range(count)]
    for name, is_block in zip(names, inside, strict=True):
        if is_block:
            blocks[int(name.removeprefix(prefix).split(".")[0])].append(name)
    embeddings = tuple(name for name, is_block in zip(names[:first], inside[:first], strict=True) if not is_block)
    head = tuple(name for name, is_block in zip(names[first:], inside[first:], strict=True) if not is_block)
    return Anatomy(embeddings, tuple(map(tuple, blocks)), head)


def output_layer(model: nn.Module, outputs: int) -> tuple[str, nn.Linear]:
    """Name and module of the linear layer that makes the logits: the last one with that many outputs.

    Raises:
        ModelError: there is none.
    """
    found = [(name, m) for name, m in model.named_modules() if isinstance(m, nn.Linear) and m.out_features == outputs]
    if not found:
        raise ModelError(
            Issue("model.name", f"must end in a linear layer with {outputs} outputs", type(model).__name__, "Use another model.")
        )
    return found[-1]


def bert_like_encoder(model: Any) -> Any | None:
    """The encoder whose `layer` list holds BERT-shaped blocks (BERT, RoBERTa, …) of a classifier that reads the first token."""
    base = getattr(model, "base_model", None)
    encoder = getattr(base, "encoder", None)
    layers: Sequence[Any] = getattr(encoder, "layer", ())
    shape = ("attention", "intermediate", "output")
    is_bert = (
        bool(layers) and all(hasattr(layers[0], part) for part in shape) and hasattr(getattr(layers[0].attention, "self", None), "query")
    )
    reads_first = getattr(base, "pooler", None) is not None or hasattr(getattr(model, "classifier", None), "out_proj")
    plain = is_bert and not layers[0].is_decoder and not getattr(model.config, "add_cross_attention", False)
    absolute = getattr(model.config, "position_embedding_type", "absolute") in (None, "absolute")
    return encoder if plain and reads_first and absolute and layers[0].chunk_size_feed_forward == 0 else None


def head_dense(model: Any) -> nn.Linear | None:
    """The square tanh layer between the first token and the output layer of BERT-like classifiers."""
    pooler = getattr(getattr(model, "base_model", None), "pooler", None)
    return getattr(pooler, "dense", None) or getattr(getattr(model, "classifier", None), "dense", None)

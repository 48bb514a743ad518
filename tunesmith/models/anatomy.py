"""Where the parts of a transformer are: embeddings, ordered blocks, head. The only place that looks into foreign modules."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import nn

from tunesmith.core.errors import ModelError
from tunesmith.core.records import Issue

EVERYWHERE = ("rel_embeddings", "relative_attention_bias", "layernorm_embedding")


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


def running_blocks(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Names and modules of all blocks in the order in which they run: those of an encoder, then those of a decoder.

    Raises:
        ModelError: the model has no list of blocks.
    """
    name, modules = block_list(model)
    lists = [(name, modules)]
    parent, _, attribute = name.rpartition(".")
    above, _, part = parent.rpartition(".")
    if part == "decoder":  # T5, BART, Whisper: what the decoder reads is made by the encoder
        encoder = f"{above}.encoder.{attribute}".lstrip(".")
        lists = [(n, m) for n, m in model.named_modules() if n == encoder and isinstance(m, nn.ModuleList)] + lists
    return [(f"{n}.{number}", block) for n, m in lists for number, block in enumerate(m)]


def first_computed(model: nn.Module) -> list[nn.Module]:
    """The first block of an encoder and of a decoder whose forward is its own; none where a model is not built of blocks."""
    try:
        blocks = running_blocks(model)
    except ModelError:
        return []
    first: dict[str, nn.Module] = {}
    for name, block in blocks:
        if "forward" not in block.__dict__:  # else its answers come from the store
            first.setdefault(name.rpartition(".")[0], block)
    return list(first.values())


def encoder_depth(model: nn.Module) -> int:
    """How many blocks, from the bottom, depend on nothing but the blocks below: a decoder also reads what its encoder says."""
    blocks = running_blocks(model)
    first = blocks[0][0].rpartition(".")[0]
    return sum(name.rpartition(".")[0] == first for name, _ in blocks)


def has_head(model: Any) -> bool:
    """False for a network that ends in hidden states; true for one with an output layer."""
    return getattr(model, "base_model", None) is not model


def writes(model: Any) -> bool:
    """True for an encoder with a decoder whose output layer says words; false for a head alone."""
    config = getattr(model, "config", None)
    return bool(config is not None and config.is_encoder_decoder and model.can_generate())


def says_tokens(model: Any) -> bool:
    """True for an encoder whose output layer says words of every token: a masked language model."""
    return has_head(model) and not model.config.is_encoder_decoder and model.get_output_embeddings() is not None


def random_layers(model: Any) -> str:
    """What is random below every block while training, in words; empty when nothing but dropout is."""
    config = model.config
    if getattr(config, "layerdrop", 0.0) or getattr(config, "encoder_layerdrop", 0.0):
        return "whole blocks are skipped at random while training (layerdrop in the model's configuration); set it to 0"
    masked = getattr(config, "mask_time_prob", 0.0) or getattr(config, "mask_feature_prob", 0.0)
    if masked and getattr(config, "apply_spec_augment", False):
        return "parts of the sound are masked at random while training (apply_spec_augment in the model's configuration); set it to false"
    return ""


def padding_layers(model: nn.Module) -> list[Any]:
    """Layers (MobileNet's) that pad what their `convolution` reads as TensorFlow does, for their `config` says so."""
    found = [m for m in model.modules() if getattr(getattr(m, "config", None), "tf_padding", False)]
    return [m for m in found if isinstance(getattr(m, "convolution", None), nn.Conv2d)]


def drops_at_random(model: nn.Module) -> bool:
    """True when two passes in training mode can differ: a dropout layer, or a probability of dropout in the configuration."""
    layers = any(isinstance(m, nn.Dropout) and m.p > 0 for m in model.modules())
    config = getattr(model, "config", None)
    named = {} if config is None else config.to_dict()
    return layers or any("drop" in name and isinstance(p, float) and p > 0 for name, p in named.items())


@contextmanager
def share_position_bias(blocks: Sequence[Any], depth: int) -> Iterator[None]:
    """T5 computes its position bias in the first block and hands it on: meanwhile the block above a cut computes it itself."""
    own = [getattr(getattr(block, "layer", [None])[0], "SelfAttention", None) for block in (blocks[0], *blocks[depth : depth + 1])]
    if len(own) < 2 or own[0] is None or own[1] is None or own[1].has_relative_attention_bias:
        yield
        return
    own[1].has_relative_attention_bias, own[1].relative_attention_bias = True, own[0].relative_attention_bias
    try:
        yield
    finally:
        own[1].has_relative_attention_bias = False
        del own[1].relative_attention_bias


def dissect(model: nn.Module) -> Anatomy:
    """The Anatomy of a model with a head. Parameters before the blocks are embeddings, those after them are the head.

    What stands between an encoder's blocks and a decoder's belongs to the block before it; positions that every block reads
    (DeBERTa, MPNet) are embeddings wherever they stand.
    """
    prefixes = [f"{name}." for name, _ in running_blocks(model)]
    names = [name for name, _ in model.named_parameters()]
    places = [next((n for n, prefix in enumerate(prefixes) if name.startswith(prefix)), None) for name in names]
    inside = [number for number, place in enumerate(places) if place is not None]
    embeddings, blocks, head, last = list[str](), [list[str]() for _ in prefixes], list[str](), 0
    for number, (name, place) in enumerate(zip(names, places, strict=True)):
        if number < inside[0] or (place is None and any(word in name for word in EVERYWHERE)):
            embeddings.append(name)
        elif number > inside[-1]:
            head.append(name)
        else:
            last = last if place is None else place
            blocks[last].append(name)
    return Anatomy(tuple(embeddings), tuple(map(tuple, blocks)), tuple(head))


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
    encoder = None if base is model else getattr(base, "encoder", None)
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

"""Which weights are trained, and at what rate: one function per strategy, same signature."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from tunesmith.core.errors import ModelError
from tunesmith.core.records import Issue
from tunesmith.models.adapters import add_ia3, add_lora, add_prompts
from tunesmith.models.anatomy import dissect, output_layer, running_blocks
from tunesmith.models.splice import frozen_depth
from tunesmith.spec.schema import IA3, BitFit, Features, Full, Gradual, Layers, Lora, Prompts, Strategy


def apply_strategy(model: Any, strategy: Strategy) -> Any:
    """The model with the strategy's weights trainable and all others frozen; for adapters and prompts, wrapped by PEFT.

    Weights that will be trained later (`gradual`) count as trained.
    """
    members: dict[type, Callable[[Any, Any], Any]] = {
        Features: _features, Layers: _layers, Full: _full, Gradual: _gradual, BitFit: _bitfit, Lora: add_lora, IA3: add_ia3,
        Prompts: add_prompts,
    }  # fmt: skip
    return members[type(strategy)](model, strategy)


def _features(model: Any, _strategy: Features) -> Any:
    output = output_layer(model, model.config.num_labels)[0]
    return _train_only(model, [n for n, _ in model.named_parameters() if n.startswith(output)])


def _layers(model: Any, strategy: Layers) -> Any:
    named = _top(model, strategy.top, "strategy.top") if strategy.parts is None else _named(model, strategy.parts)
    return _train_only(model, [*dissect(model).head, *named])


def _full(model: Any, strategy: Full) -> Any:
    model.requires_grad_(True)
    if strategy.freeze_embeddings:
        model.get_input_embeddings().requires_grad_(False)
    return model


def _gradual(model: Any, strategy: Gradual) -> Any:
    return _train_only(model, [*dissect(model).head, *_top(model, strategy.blocks, "strategy.blocks")])


def _bitfit(model: Any, _strategy: BitFit) -> Any:
    parts = dissect(model)
    biases = [name for level in (parts.embeddings, *parts.blocks) for name in level if name.split(".")[-1] == "bias"]
    if not biases:
        raise ModelError(Issue("strategy.kind", "must find biases in the model", type(model).__name__, "Use strategy {kind: lora}."))
    return _train_only(model, [*parts.head, *biases])


def _top(model: Any, count: int, where: str) -> list[str]:
    """Names of the weights of the top blocks."""
    blocks = dissect(model).blocks
    if count > len(blocks):
        raise ModelError(Issue(where, f"must be at most {len(blocks)}, the model's number of blocks", str(count)))
    return [name for block in blocks[len(blocks) - count :] for name in block]


def _named(model: Any, patterns: Iterable[str]) -> list[str]:
    """Names of the weights that match a pattern each."""
    names, found = [name for name, _ in model.named_parameters()], list[str]()
    for pattern in patterns:
        matching = [name for name in names if fnmatchcase(name, pattern)]
        if not matching:
            near = difflib.get_close_matches(pattern.strip("*."), names, 3, 0.3)
            raise ModelError(
                Issue("strategy.parts", "must match names of weights", pattern, f"Close to it: {', '.join(near or names[:3])}.")
            )
        found += matching
    return found


def blocks_from_the_top(model: Any, count: int) -> list[nn.Module]:
    """The uppermost blocks, the last one first."""
    return [block for _, block in reversed(running_blocks(model)[-count:])]


def frozen_prefix(model: Any, strategy: Strategy) -> list[nn.Module]:
    """Modules that run before the lowest block that is ever trained. They stay in eval mode: dropout there is only noise.

    Empty for strategies that work at all heights.
    """
    if not (isinstance(strategy, (Layers, Gradual)) or (isinstance(strategy, (Lora, IA3)) and strategy.top is not None)):
        return []
    blocks, depth = running_blocks(model), frozen_depth(model)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    if trained & set(dissect(model).embeddings):
        return []
    first, before = blocks[0][0], list[nn.Module]()
    for name, module in model.named_modules():
        if name == first:
            break
        if not first.startswith(name):
            before.append(module)
    return [*before, *(module for _, block in blocks[:depth] for module in block.modules())]


def rate_levels(model: Any, strategy: Strategy) -> dict[str, float]:
    """Rate of each trained parameter relative to the learning rate: layer_decay ** (levels below the head), else 1."""
    decay = strategy.layer_decay if isinstance(strategy, (Full, Layers)) else 1.0
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    if decay == 1.0:
        return dict.fromkeys(trained, 1.0)
    levels = dissect(model).levels
    top_block = len(levels) - 2
    factor = {name: decay ** max(top_block - number, 0) for number, level in enumerate(levels) for name in level}
    return {name: factor[name] for name in trained}


def _train_only(model: Any, names: Iterable[str]) -> Any:
    wanted = set(names)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in wanted)
    return model

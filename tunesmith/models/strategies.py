"""Which weights are trained, and at what rate: one function per strategy, same signature."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from typing import Any

from torch import nn

from tunesmith.core.errors import ModelError
from tunesmith.core.records import Issue
from tunesmith.models.anatomy import block_list, dissect, output_layer
from tunesmith.spec.schema import Features, Full, Layers, Lora, Strategy

ATTENTION_NAMES = ("query", "key", "value", "q_proj", "k_proj", "v_proj", "q_lin", "k_lin", "v_lin", "c_attn", "Wqkv", "qkv")


def apply_strategy(model: Any, strategy: Strategy) -> Any:
    """The model with the strategy's weights trainable and all others frozen; for lora, wrapped by PEFT."""
    members: dict[type, Callable[[Any, Any], Any]] = {Features: _features, Layers: _layers, Full: _full, Lora: _lora}
    return members[type(strategy)](model, strategy)


def _features(model: Any, _strategy: Features) -> Any:
    output = output_layer(model, model.config.num_labels)[0]
    return _train_only(model, [n for n, _ in model.named_parameters() if n.startswith(output)])


def _layers(model: Any, strategy: Layers) -> Any:
    parts = dissect(model)
    if strategy.top > len(parts.blocks):
        raise ModelError(Issue("strategy.top", f"must be at most {len(parts.blocks)}, the model's number of blocks", str(strategy.top)))
    trained = parts.blocks[len(parts.blocks) - strategy.top :]
    return _train_only(model, [*parts.head, *(name for block in trained for name in block)])


def _full(model: Any, _strategy: Full) -> Any:
    return model.requires_grad_(True)


def _lora(model: Any, strategy: Lora) -> Any:
    from peft import LoraConfig, TaskType, get_peft_model  # seconds to import: only this strategy pays
    from transformers.pytorch_utils import Conv1D

    prefix, blocks = block_list(model)
    linear = [f"{prefix}.{name}" for name, module in blocks.named_modules() if isinstance(module, (nn.Linear, Conv1D))]
    names = {name.split(".")[-1] for name in linear}
    wanted = {"all-linear": names, "attention": names & set(ATTENTION_NAMES)}.get(str(strategy.targets), set(strategy.targets))
    if not wanted or wanted - names:
        missing = ", ".join(sorted(wanted - names)) or str(strategy.targets)
        raise ModelError(Issue("strategy.targets", f"must name modules of the blocks: {', '.join(sorted(names))}", missing))
    config = LoraConfig(
        task_type=TaskType.SEQ_CLS,
        r=strategy.rank,
        lora_alpha=strategy.alpha,
        lora_dropout=strategy.dropout,
        target_modules=[name for name in linear if name.split(".")[-1] in wanted],
        modules_to_save=_head_modules(model),
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*fan_in_fan_out.*")  # PEFT sets it right for GPT-2's layers, and says so
        return get_peft_model(model, config)


def _head_modules(model: Any) -> list[str]:
    """Names of the modules after the blocks: they are trained whole, not adapted."""
    inner = model.base_model_prefix + "."
    return sorted({name.removeprefix(inner).split(".")[0] for name in dissect(model).head})


def merged(model: Any) -> Any:
    """The plain transformers model: adapters, if there are any, added into the weights."""
    return model.merge_and_unload() if is_adapted(model) else model


def is_adapted(model: Any) -> bool:
    """True when the model carries PEFT adapters."""
    return type(model).__module__.startswith("peft.")


def frozen_prefix(model: nn.Module, strategy: Strategy) -> list[nn.Module]:
    """Modules that run before the lowest trained block of `layers`. They stay in eval mode: dropout there is only noise."""
    if not isinstance(strategy, Layers):
        return []
    prefix, blocks = block_list(model)
    first_trained = f"{prefix}.{len(blocks) - strategy.top}"
    before: list[nn.Module] = []
    for name, module in model.named_modules():
        if name == first_trained or (strategy.top == 0 and before and not name.startswith(prefix) and blocks[-1] in before):
            break
        if not first_trained.startswith(name):
            before.append(module)
    return before


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

"""Strategies that train something small beside frozen weights, through PEFT: low-rank adapters, factors, prompts.

Adapters and factors are merged into the weights in the end. Prompts cannot be: they are kept beside a whole model.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from tunesmith.core.errors import ModelError
from tunesmith.core.records import Issue
from tunesmith.models.anatomy import dissect, has_head, running_blocks, says_tokens, writes
from tunesmith.models.load import quiet
from tunesmith.models.quantized import is_quantized, merged_from_4_bits
from tunesmith.spec.schema import IA3, Lora, Prompts

ATTENTION_NAMES = ("query", "key", "value", "q_proj", "k_proj", "v_proj", "q_lin", "k_lin", "v_lin", "c_attn", "Wqkv", "qkv")
KEYS_AND_VALUES = ("key", "value", "k_proj", "v_proj", "k_lin", "v_lin", "k", "v", "c_attn", "query_key_value", "Wqkv", "qkv")
"""What IA3 scales; where queries are in one matrix with keys and values, they are scaled too, as PEFT does."""
PROMPT_STD = 0.02
PADDING_TOLERANCE = 1e-3


def add_lora(model: Any, strategy: Lora) -> Any:
    """The model wrapped by PEFT, with low-rank adapters; they and the head are trained.

    Raises:
        ModelError: a target is no module of the blocks, or `top` is more blocks than there are.
    """
    from peft import LoraConfig  # seconds to import: only these strategies pay

    linear = _linear_layers(model, strategy.top)
    names = {name.split(".")[-1] for name in linear}
    wanted = {"all-linear": names, "attention": names & set(ATTENTION_NAMES)}.get(str(strategy.targets), set(strategy.targets))
    if not wanted or wanted - names:
        missing = ", ".join(sorted(wanted - names)) or str(strategy.targets)
        raise ModelError(Issue("strategy.targets", f"must name modules of the blocks: {', '.join(sorted(names))}", missing))
    return _wrapped(model, LoraConfig(
        task_type=_task_type(model),
        r=strategy.rank,
        lora_alpha=strategy.alpha,
        lora_dropout=strategy.dropout,
        use_rslora=strategy.use_rslora,
        use_dora=strategy.use_dora,
        target_modules=[name for name in linear if name.split(".")[-1] in wanted],
        modules_to_save=_head_modules(model),
    ))  # fmt: skip


def add_ia3(model: Any, strategy: IA3) -> Any:
    """The model wrapped by PEFT, with factors on keys, values and the inputs of each block's last layer; they and the head are trained.

    Raises:
        ModelError: no such layers are known in the model, or `top` is more blocks than there are.
    """
    from peft import IA3Config

    linear = _linear_layers(model, strategy.top)
    scaled = [name for name in linear if name.split(".")[-1] in KEYS_AND_VALUES]
    narrowing = [name for name, (inputs, outputs) in linear.items() if inputs > outputs]
    if not scaled or not narrowing:
        found = f"{type(model).__name__}, whose layers are {', '.join(sorted({name.split('.')[-1] for name in linear}))}"
        raise ModelError(Issue("strategy.kind", "must find keys, values and feed-forward layers", found, "Use strategy {kind: lora}."))
    return _wrapped(model, IA3Config(
        task_type=_task_type(model),
        target_modules=[*scaled, *narrowing],
        feedforward_modules=narrowing,
        modules_to_save=_head_modules(model),
    ))  # fmt: skip


def add_prompts(model: Any, strategy: Prompts) -> Any:
    """The model wrapped by PEFT, with virtual tokens before its input, or before the keys and values of every block.

    Prompts begin as tokens drawn from the vocabulary, prefixes near zero, so that the untrained model is nearly the one it was.

    Raises:
        ModelError: the architecture cannot read them, or its answers would depend on how a row is padded.
    """
    from peft import PrefixTuningConfig, PromptTuningConfig, TaskType

    config, table = model.config, model.get_input_embeddings()
    prompts = strategy.kind == "prompt_tuning"
    kind = PromptTuningConfig if prompts else PrefixTuningConfig
    wrapped = _wrapped(model, kind(
        task_type=TaskType.SEQ_CLS,
        num_virtual_tokens=strategy.virtual_tokens,
        token_dim=table.embedding_dim if prompts else config.hidden_size,
        num_layers=config.num_hidden_layers,
        num_attention_heads=config.num_attention_heads,
        modules_to_save=_head_modules(model),
    ))  # fmt: skip
    weight = wrapped.prompt_encoder["default"].embedding.weight
    with torch.no_grad():
        if prompts:
            weight.copy_(table.weight[torch.randint(len(table.weight), (strategy.virtual_tokens,))])
        else:
            weight.normal_(std=PROMPT_STD)
    _refuse_what_padding_changes(wrapped, strategy)
    return wrapped


def _refuse_what_padding_changes(wrapped: Any, strategy: Prompts) -> None:
    """One row, alone and with padding after it, must get one answer: decoders that look for the last token do not see prompts' padding."""
    device, pad = next(wrapped.parameters()).device, wrapped.config.pad_token_id or 0
    ids = torch.tensor([[n for n in range(1, 7) if n != pad]], device=device)
    padded = torch.cat([ids, torch.full((1, 3), pad, device=device)], 1)
    masks = torch.ones_like(ids), torch.cat([torch.ones_like(ids), torch.zeros((1, 3), dtype=torch.long, device=device)], 1)
    remedy = (
        "Use strategy {kind: prefix_tuning}, or lora."
        if strategy.kind == "prompt_tuning"
        else "Use strategy {kind: prompt_tuning}, or lora."
    )
    expected, name = f"must be one for {type(wrapped.get_base_model()).__name__}", strategy.kind
    modes = {module: module.training for module in wrapped.modules()}
    wrapped.eval()
    try:
        with torch.no_grad(), quiet():
            alone, beside = (wrapped(input_ids=i, attention_mask=m).logits for i, m in zip((ids, padded), masks, strict=True))
    except (ValueError, TypeError) as error:
        raise ModelError(Issue("strategy.kind", expected, f"{name} ({error})", remedy)) from error
    finally:
        for module, was in modes.items():
            module.training = was
    if not float((alone - beside).abs().max()) < PADDING_TOLERANCE:
        raise ModelError(Issue("strategy.kind", expected, f"{name}: its answers would depend on how many tokens pad a row", remedy))


def _linear_layers(model: Any, top: int | None) -> dict[str, tuple[int, int]]:
    """Inputs and outputs of the linear layers of the top blocks, of all blocks without `top`, by name."""
    from transformers.pytorch_utils import Conv1D

    blocks, sizes = running_blocks(model), dict[str, tuple[int, int]]()
    if top is not None and top > len(blocks):
        raise ModelError(Issue("strategy.top", f"must be at most {len(blocks)}, the model's number of blocks", str(top)))
    for prefix, block in blocks[len(blocks) - (top or len(blocks)) :]:
        for name, module in block.named_modules(prefix=prefix):
            if isinstance(module, nn.Linear):
                sizes[name] = module.in_features, module.out_features
            elif isinstance(module, Conv1D):
                sizes[name] = module.weight.shape[0], module.weight.shape[1]
    return sizes


def _task_type(model: Any) -> Any:
    """What PEFT calls a model that writes, one that says states or words of tokens, and all others."""
    from peft import TaskType

    states = says_tokens(model) or not has_head(model)
    return TaskType.SEQ_2_SEQ_LM if writes(model) else TaskType.FEATURE_EXTRACTION if states else TaskType.SEQ_CLS


def _head_modules(model: Any) -> list[str]:
    """Names of the modules after the blocks: they are trained whole, not adapted."""
    if writes(model) or not has_head(model):
        return []  # its output layer is pretrained, or it has none
    inner = model.base_model_prefix + "."
    if says_tokens(model):  # words are said by the table of embeddings, which stays as it is
        words = model.get_output_embeddings()
        named = [(name, module) for name, module in model.named_modules() if name and not name.startswith(inner) and module is not words]
        return [name for name, module in named if list(module.parameters()) and not list(module.children())]
    return sorted({name.removeprefix(inner).split(".")[0] for name in dissect(model).head})


def _wrapped(model: Any, config: Any) -> Any:
    from peft import get_peft_model

    with _no_warnings():
        return get_peft_model(model, config)


@contextmanager
def _no_warnings() -> Iterator[None]:
    """PEFT sets fan_in_fan_out right for GPT-2's layers and says so; and asks transformers by a name that will be another."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*fan_in_fan_out.*")
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
        yield


def is_adapted(model: Any) -> bool:
    """True when the model carries something of PEFT."""
    return type(model).__module__.startswith("peft.")


def can_merge(model: Any) -> bool:
    """False for prompts, which no weight can hold."""
    return not (is_adapted(model) and model.active_peft_config.is_prompt_learning)


def merged(model: Any) -> Any:
    """The plain transformers model: adapters, if there are any, added into the weights."""
    if not is_adapted(model):
        return model
    if is_quantized(model):
        return merged_from_4_bits(model)
    _unwrap_head(model)
    return model.merge_and_unload()


def _unwrap_head(model: Any) -> None:
    """Put the trained head in the place of PEFT's wrapper: PEFT itself cannot take IA3 off a head that is more than one layer."""
    from peft.utils import ModulesToSaveWrapper

    for name, module in list(model.named_modules()):
        if isinstance(module, ModulesToSaveWrapper):
            parent, _, own = name.rpartition(".")
            setattr(model.get_submodule(parent), own, module.modules_to_save["default"])


def plain_weights(model: Any) -> dict[str, torch.Tensor]:
    """The weights of the whole model beneath prompts, under the names that they have without PEFT, as they were before training."""
    kept = {n: v for n, v in model.get_base_model().state_dict().items() if ".modules_to_save." not in n}
    return {name.replace(".original_module.", "."): value for name, value in kept.items()}

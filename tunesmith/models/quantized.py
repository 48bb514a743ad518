"""Frozen weights held in 4 bits (QLoRA, Dettmers et al. 2023), where bitsandbytes and a GPU are there."""

from __future__ import annotations

import importlib.util
from typing import Any

import torch

from tunesmith.core.records import Issue
from tunesmith.models.load import device
from tunesmith.spec.schema import Lora, Strategy

HEADS = ["classifier", "score", "pooler", "pre_classifier", "lm_head", "out_proj"]
"""Modules that keep their precision: they are trained."""


def missing_for(strategy: Strategy) -> list[Issue]:
    """What this machine lacks for a strategy; empty when it can be used here."""
    if not (isinstance(strategy, Lora) and strategy.kind == "qlora"):
        return []
    lacking = [] if importlib.util.find_spec("bitsandbytes") else ["bitsandbytes"]
    lacking += [] if device() == "cuda" else ["a GPU"]
    remedy = "Use strategy {kind: lora}, which learns the same adapters; or install bitsandbytes on a machine with a GPU."
    return (
        [Issue("strategy.kind", "must be one that this machine can do", f"qlora without {' and '.join(lacking)}", remedy)]
        if lacking
        else []
    )


def load_options(strategy: Strategy) -> dict[str, Any]:
    """Keyword arguments of `from_pretrained` that make it hold the blocks in 4 bits; none for other strategies."""
    if not (isinstance(strategy, Lora) and strategy.kind == "qlora"):
        return {}
    from transformers import BitsAndBytesConfig

    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
        llm_int8_skip_modules=HEADS,
    )
    return {"quantization_config": config, "device_map": {"": device()}}


def is_quantized(model: Any) -> bool:
    """True when weights of the model are held in 4 bits."""
    return any(type(parameter).__name__ == "Params4bit" for parameter in model.parameters())


@torch.no_grad()
def merged_from_4_bits(model: Any) -> Any:
    """A plain float32 model with what the 4-bit weights stand for, adapters added: not the weights before they were rounded.

    The adapters were trained beside the rounded weights, and belong to these.
    """
    import bitsandbytes  # type: ignore[import-not-found,unused-ignore]

    base = model.get_base_model()
    config = type(base.config).from_dict({n: v for n, v in base.config.to_dict().items() if n != "quantization_config"})
    plain, state = type(base)(config), dict[str, torch.Tensor]()
    modules = dict(base.named_modules())
    for name, value in base.state_dict().items():
        owner = modules.get(name.rpartition(".")[0])
        if any(part in name for part in (".lora_", ".original_module.", ".absmax", ".quant_map", ".quant_state", ".nested_")):
            continue
        clean = name.replace(".base_layer.", ".").replace(".modules_to_save.default.", ".")
        if type(value).__name__ == "Params4bit" or (name.endswith(".weight") and type(owner).__name__ == "Linear4bit"):
            assert owner is not None, "a weight belongs to a module"
            state[clean] = bitsandbytes.functional.dequantize_4bit(owner.weight.data, owner.weight.quant_state).float()
            adapter = modules.get(name.removesuffix(".base_layer.weight"))
            if name.endswith(".base_layer.weight") and adapter is not None:
                state[clean] += adapter.get_delta_weight("default").float()
        else:
            state[clean] = value.float() if value.is_floating_point() else value
    plain.load_state_dict(state)
    return plain.to(device())

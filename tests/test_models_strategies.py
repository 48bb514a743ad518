"""Every strategy on every architecture: only what should learn learns, it does, and what is saved says the same."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import tiny
from tests.test_models import Loaded, batch_loss
from tunesmith.core.errors import ModelError
from tunesmith.models.adapters import is_adapted
from tunesmith.models.anatomy import dissect
from tunesmith.models.forward import predict_logits
from tunesmith.models.load import load_finished
from tunesmith.models.quantized import missing_for
from tunesmith.models.save import save_model
from tunesmith.models.splice import frozen_depth
from tunesmith.models.strategies import apply_strategy, blocks_from_the_top, frozen_prefix
from tunesmith.spec.defaults import RATES
from tunesmith.spec.schema import IA3, BitFit, Full, Gradual, Layers, Lora, Prompts

KINDS = ("bert", "roberta", "distilbert", "gpt2")
STRATEGIES: dict[str, Any] = {
    "full": Full(kind="full"),
    "full frozen": Full(kind="full", freeze_embeddings=True),
    "layers": Layers(kind="layers", top=1),
    "head": Layers(kind="layers", top=0),
    "parts": Layers(kind="layers", parts=("*.1.*bias",)),
    "gradual": Gradual(kind="gradual", blocks=1),
    "bitfit": BitFit(kind="bitfit"),
    "lora": Lora(kind="lora", rank=2),
    "rslora": Lora(kind="lora", rank=2, use_rslora=True, targets="attention"),
    "dora": Lora(kind="lora", rank=2, use_dora=True),
    "lora top": Lora(kind="lora", rank=2, top=1),
    "ia3": IA3(kind="ia3"),
    "ia3 top": IA3(kind="ia3", top=1),
    "prompts": Prompts(kind="prompt_tuning", virtual_tokens=3),
    "prefixes": Prompts(kind="prefix_tuning", virtual_tokens=3),
}
IMPOSSIBLE = {("prompts", "gpt2"): "pad a row", ("prefixes", "distilbert"): "past key values"}
PAIRS = [(strategy, kind) for strategy in STRATEGIES for kind in KINDS if (strategy, kind) not in IMPOSSIBLE]


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Loaded]:
    folder = tmp_path_factory.mktemp("pretrained")
    return {kind: Loaded(folder, kind) for kind in KINDS}


def fresh(pretrained: dict[str, Loaded], kind: str) -> Loaded:
    import copy

    loaded = copy.copy(pretrained[kind])
    loaded.model = copy.deepcopy(loaded.model)
    return loaded


def should_learn(name: str, parts: Any, embedding: str) -> Any:
    """Tells of a plain parameter whether a strategy trains it; adapters and prompts are asked about what is not theirs."""
    head, top, below = set(parts.head), set(parts.blocks[1]), set(parts.blocks[0]) | set(parts.embeddings)
    return {
        "full": lambda n: True,
        "full frozen": lambda n: n != embedding,
        "layers": lambda n: n in head | top,
        "head": lambda n: n in head,
        "parts": lambda n: n in head or (n in top and n.endswith("bias")),
        "gradual": lambda n: n in head | top,
        "bitfit": lambda n: n in head or (n in top | below and n.endswith(".bias")),
    }.get(name, lambda n: n in head)  # fmt: skip


def plain(name: str) -> str:
    return name.removeprefix("base_model.model.").removeprefix("base_model.").replace(".modules_to_save.default.", ".").replace(".base_layer.", ".")


def trained(model: Any, loaded: Loaded, rate: float, steps: int = 15) -> list[float]:
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=rate, weight_decay=0.0)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = batch_loss(model, loaded.task, loaded.encoding)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


@pytest.mark.parametrize(("name", "kind"), PAIRS)
def test_only_what_should_learn_learns_and_the_saved_model_says_the_same(
    pretrained: dict[str, Loaded], tmp_path: Path, name: str, kind: str
) -> None:
    loaded = fresh(pretrained, kind)
    parts = dissect(loaded.model)
    table = next(n for n, p in loaded.model.named_parameters() if p is loaded.model.get_input_embeddings().weight)
    learns = should_learn(name, parts, table)
    before = {n: p.detach().clone() for n, p in loaded.model.named_parameters()}
    torch.manual_seed(0)
    model = apply_strategy(loaded.model, STRATEGIES[name]).eval()
    losses = trained(model, loaded, 0.005 if is_adapted(model) else 0.003)
    assert min(losses[-3:]) < losses[0] - 0.01
    for full_name, parameter in model.named_parameters():
        own = plain(full_name)
        if own not in before or ".original_module." in full_name:
            continue
        if not learns(own):
            assert torch.equal(parameter, before[own]), full_name
        elif parameter.grad is not None and float(parameter.grad.abs().max()) > 1e-6:
            assert not torch.equal(parameter, before[own]), full_name
    extra = {n for n, p in model.named_parameters() if p.requires_grad and plain(n) not in before}
    assert bool(extra) == (name in ("lora", "rslora", "dora", "lora top", "ia3", "ia3 top", "prompts", "prefixes"))
    if name.endswith(" top"):
        assert all(".1." in n for n in extra)
    logits = predict_logits(model, loaded.task, loaded.encoding)
    from tunesmith.models.load import load_processor
    from tunesmith.spec.schema import Model

    save_model(model, load_processor(Model(name=loaded.model.config._name_or_path)), tmp_path / "model")
    again = load_finished(loaded.task.head, tmp_path / "model", False)
    assert is_adapted(again) == (name in ("prompts", "prefixes"))
    assert torch.allclose(logits, predict_logits(again.eval(), loaded.task, loaded.encoding), atol=1e-5)

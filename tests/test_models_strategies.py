"""Every strategy on every architecture: only what should learn learns, it does, and what is saved says the same."""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest
import torch

from tests.test_models import Loaded, batch_loss
from tunesmith.core.errors import ModelError
from tunesmith.models import quantized
from tunesmith.models.adapters import is_adapted, merged
from tunesmith.models.anatomy import dissect, running_blocks
from tunesmith.models.forward import predict_logits
from tunesmith.models.load import load_finished, load_processor
from tunesmith.models.save import save_model
from tunesmith.models.splice import frozen_depth
from tunesmith.models.strategies import apply_strategy, frozen_prefix
from tunesmith.spec.defaults import RATES
from tunesmith.spec.schema import IA3, BitFit, Full, Gradual, Layers, Lora, Model, Prompts, Strategy

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
    return (
        name.removeprefix("base_model.model.")
        .removeprefix("base_model.")
        .replace(".modules_to_save.default.", ".")
        .replace(".base_layer.", ".")
    )


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
    save_model(model, load_processor(Model(name=loaded.model.config._name_or_path)), tmp_path / "model")
    again = load_finished(loaded.task.head, tmp_path / "model", False)
    assert is_adapted(again) == (name in ("prompts", "prefixes"))
    assert torch.allclose(logits, predict_logits(again.eval(), loaded.task, loaded.encoding), atol=1e-5)


@pytest.mark.parametrize(("name", "kind"), IMPOSSIBLE)
def test_what_an_architecture_cannot_read_is_refused(pretrained: dict[str, Loaded], name: str, kind: str) -> None:
    with pytest.raises(ModelError, match=IMPOSSIBLE[name, kind]):
        apply_strategy(fresh(pretrained, kind).model, STRATEGIES[name])


@pytest.mark.parametrize(("strategy", "told"), [
    (Layers(kind="layers", parts=("*.1.*", "encoder.layer.1.attenton")), r"strategy.parts.*attenton.*Close to it: .*attention"),
    (Gradual(kind="gradual", blocks=3), "strategy.blocks.*at most 2"),
    (Lora(kind="lora", top=3), "strategy.top.*at most 2"),
    (IA3(kind="ia3", top=3), "strategy.top.*at most 2"),
])  # fmt: skip
def test_what_the_model_does_not_have_is_named(pretrained: dict[str, Loaded], strategy: Any, told: str) -> None:
    with pytest.raises(ModelError, match=told):
        apply_strategy(fresh(pretrained, "bert").model, strategy)


@pytest.mark.parametrize("name", ["gradual", "lora top", "ia3 top", "layers", "parts", "lora", "bitfit", "full frozen"])
@pytest.mark.parametrize("kind", KINDS)
def test_dropout_rests_where_nothing_is_ever_trained(pretrained: dict[str, Loaded], name: str, kind: str) -> None:
    model = apply_strategy(fresh(pretrained, kind).model, STRATEGIES[name]).train()
    for module in frozen_prefix(model, STRATEGIES[name]):
        module.training = False
    upper = name in ("gradual", "lora top", "ia3 top", "layers", "parts")
    assert frozen_depth(model) == (1 if upper else 0)
    (_, below), (top, _) = running_blocks(model)
    assert all(m.training != upper for m in below.modules() if isinstance(m, torch.nn.Dropout))
    assert all(m.training for n, m in model.named_modules() if n.startswith(top))


def test_every_kind_has_a_rate() -> None:
    kinds = {kind for part in get_args(get_args(Strategy)[0]) for kind in get_args(part.model_fields["kind"].annotation)}
    assert set(RATES) == kinds - {"features"}


def test_four_bits_need_what_this_machine_may_lack(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantized, "device", lambda: "cuda")
    monkeypatch.setattr(quantized.importlib.util, "find_spec", lambda name: name)
    assert not quantized.missing_for(Lora(kind="qlora")) and not quantized.missing_for(Lora(kind="lora"))
    monkeypatch.setattr(quantized, "device", lambda: "cpu")
    assert "without a GPU" in quantized.missing_for(Lora(kind="qlora"))[0].found
    assert not quantized.missing_for(Lora(kind="lora"))


class Params4bit(torch.nn.Parameter):
    """Stands for the weight of bitsandbytes: known by its name."""

    quant_state = "half"


class Linear4bit(torch.nn.Linear):
    """Stands for the layer of bitsandbytes; what it holds is half of what it means."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002 - the name of the base class
        """What the layer means."""
        return torch.nn.functional.linear(input, self.weight * 2, self.bias)


def test_adapters_are_added_to_what_4_bit_weights_stand_for(pretrained: dict[str, Loaded], monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = fresh(pretrained, "bert")
    model = apply_strategy(loaded.model, Lora(kind="lora", rank=2, top=1, targets="attention", dropout=0.0))
    trained(model, loaded, 0.01, 3)
    head = tuple(f"base_model.model.{part}" for part in ("classifier", "bert.pooler"))
    for name, module in list(model.named_modules()):
        if type(module) is torch.nn.Linear and "lora_" not in name and not name.startswith(head):
            module.__class__ = Linear4bit
            module.weight = Params4bit(module.weight.detach() / 2, requires_grad=False)
    functional = SimpleNamespace(dequantize_4bit=lambda data, state: data * 2 if state == "half" else None)
    monkeypatch.setitem(sys.modules, "bitsandbytes", SimpleNamespace(functional=functional))
    expected = predict_logits(model, loaded.task, loaded.encoding)
    plain_model = merged(model)
    assert type(plain_model) is type(loaded.model) and not quantized.is_quantized(plain_model)
    assert torch.allclose(expected, predict_logits(plain_model.eval(), loaded.task, loaded.encoding), atol=1e-5)

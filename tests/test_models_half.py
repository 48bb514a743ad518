"""Attention written out and bfloat16 copies of weights: what they give is what torch and transformers give."""

from __future__ import annotations

import copy
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from tests.families import FAMILIES, family
from tunesmith.models.attention import NAME, attend_plainly, attend_quickly
from tunesmith.models.attention import attend as written_out
from tunesmith.models.convolution import EvenMean, PixelProduct, quick_convolutions
from tunesmith.models.half import HALF, HALVED, copies_in, copies_of, halved
from tunesmith.models.load import placed
from tunesmith.models.siblings import FAMILY, join, part
from tunesmith.models.splice import logits_of
from tunesmith.train.loop import _step_divided


def gradients(model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits of a pass in training mode, and the gradients of the mean of their squares."""
    torch.manual_seed(1)
    model.zero_grad()
    logits = logits_of(model(**batch)).float()
    logits.square().mean().backward()
    return logits.detach(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def without_dropout(model: Any, p: float) -> None:
    """Every dropout nearly off: not 0, so that the paths with dropout run."""
    for module in model.modules():
        for name, value in list(vars(module).items()):
            if isinstance(module, nn.Dropout):
                module.p = 0.0
            elif "dropout" in name and isinstance(value, float):
                setattr(module, name, p)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("p", [0.0, 1e-9])
def test_attention_written_out_is_torch_s_in_every_family(name: str, p: float) -> None:
    model, batch = family(name)
    without_dropout(model.train(), p)
    plain = gradients(model, batch)
    before = model.config._attn_implementation
    changed = attend_quickly(model)
    assert changed == (model.config._attn_implementation == NAME)
    quick = gradients(model, batch)
    torch.testing.assert_close(quick[0], plain[0], atol=1e-5, rtol=1e-4)
    for key, value in plain[1].items():
        torch.testing.assert_close(quick[1][key], value, atol=1e-5, rtol=1e-3, msg=lambda text, key=key: f"{key}: {text}")
    if changed:
        attend_plainly(model)
    assert model.config._attn_implementation == before


@pytest.mark.parametrize("name", FAMILIES)
def test_in_bfloat16_attention_is_written_out_and_states_stay_in_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = family(name)
    without_dropout(model.train(), 0.0)
    norms = [module.eval() for module in model.modules() if isinstance(module, nn.BatchNorm2d)]  # five pictures of one pixel do not spread
    whole = gradients(model, batch)
    called: list[torch.dtype] = []

    def attend(*arguments: Any) -> Tensor:
        called.append((found := written_out(*arguments)).dtype)
        return found

    monkeypatch.setattr("tunesmith.models.attention.attend", attend)
    changed = attend_quickly(model)
    with halved(model):
        with torch.autocast("cpu", HALF):
            rounded = gradients(model, batch)
        assert {copy.dtype for copy in copies_in(model)} == {HALF}
    assert set(called) == ({HALF} if changed else set())
    torch.testing.assert_close(rounded[0], whole[0], atol=0.05 * float(whole[0].abs().max()), rtol=0.0)
    assert all(gradient.dtype == torch.float32 for gradient in rounded[1].values()) and rounded[1].keys() == whole[1].keys()
    similar = nn.functional.cosine_similarity(*(torch.cat([g.flatten() for g in found.values()]) for found in (rounded[1], whole[1])), 0)
    assert similar > 0.98 or norms  # untrained, their statistics let next to nothing through
    assert not copies_in(model) and not any(type(module) in HALVED.values() for module in model.modules())
    if changed:
        attend_plainly(model)
    again = gradients(model, batch)
    torch.testing.assert_close(again[0], whole[0])


@pytest.mark.parametrize("layer", [nn.Linear(6, 4), nn.Linear(6, 4, bias=False), Conv1D(4, 6)])
def test_a_product_is_that_of_autocast(layer: Any) -> None:
    x = torch.randn(3, 5, 6)
    results = []
    for change in (False, True):
        own = copy.deepcopy(layer)
        model = nn.ModuleDict({"layer": own})
        given = x.clone().requires_grad_()
        with halved(model) if change else nullcontext(), torch.autocast("cpu", HALF):
            said = own(given)
            said.float().square().sum().backward()
        results.append([said.detach(), given.grad, *(p.grad for p in own.parameters())])
    assert results[0][0].dtype == HALF
    for plain, ours in zip(*results, strict=True):
        torch.testing.assert_close(ours, plain, rtol=2**-7, atol=2**-7)


def test_copies_follow_the_weights_and_are_not_made_for_scores() -> None:
    layer = nn.Linear(6, 4)
    model, x = nn.ModuleDict({"layer": layer}), torch.randn(3, 6, requires_grad=True)
    with halved(model), torch.autocast("cpu", HALF):
        first = copies_of(layer)[0]
        layer(x)
        assert copies_of(layer)[0] is first  # nothing was rounded again
        layer(x).float().sum().backward()
        optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1, fused=True)
        _step_divided(optimizer, [p.grad for p in layer.parameters() if p.grad is not None], 2.0)
        assert torch.equal(copies_of(layer)[0], layer.weight.detach().to(HALF)) and not torch.equal(copies_of(layer)[0], first)
        with torch.no_grad():
            layer.weight.copy_(torch.zeros(4, 6))
            assert not copies_of(layer)[0].any()
    with halved(model), torch.inference_mode():
        layer(x)
        assert not copies_in(model)


@pytest.mark.parametrize("optimizer", [torch.optim.AdamW, torch.optim.Adam, torch.optim.SGD])
def test_fused_optimisers_divide_gradients_as_they_read_them(optimizer: Any) -> None:
    ways = []
    for fused in (False, True):
        torch.manual_seed(0)
        weights = [nn.Parameter(torch.randn(5, 3)), nn.Parameter(torch.randn(4))]
        steps = optimizer(weights, lr=0.1, fused=fused)
        for _ in range(3):
            for weight in weights:
                weight.grad = torch.randn(weight.shape)
            _step_divided(steps, [w.grad for w in weights if w.grad is not None], 7.0)
        ways.append(weights)
    for plain, divided in zip(*ways, strict=True):
        torch.testing.assert_close(plain, divided, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["mobilenet", "mobilenet-v1"])
def test_convolutions_of_a_pixel_are_products(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunesmith.models.convolution.LEAST_CHANNELS", 1)
    model, batch = family(name)
    without_dropout(model.train(), 0.0)
    model = placed(model)
    plain = gradients(model, batch)
    kinds = {type(module) for module in model.modules()}
    paddings = [(module.padding, module.stride) for module in model.modules() if isinstance(module, nn.Conv2d)]
    copied = [(1, 1) for module in model.modules() if isinstance(module, nn.Conv2d) and module.kernel_size > module.stride == (1, 1)]
    with quick_convolutions(model):
        assert {type(module) for module in model.modules()} > {PixelProduct, EvenMean}
        assert copied and [m.padding for m in model.modules() if isinstance(m, nn.Conv2d) and m.padding != (0, 0)] == copied
        quick = gradients(model, batch)
    assert {type(module) for module in model.modules()} == kinds
    assert [(module.padding, module.stride) for module in model.modules() if isinstance(module, nn.Conv2d)] == paddings
    assert all(module.config.tf_padding for module in model.modules() if hasattr(module, "config"))
    torch.testing.assert_close(quick[0], plain[0], atol=1e-4, rtol=1e-3)
    scale = max(float(value.abs().max()) for value in plain[1].values())
    for key, value in plain[1].items():  # what stands before a batch norm has gradients of nothing but rounding
        torch.testing.assert_close(quick[1][key], value, atol=1e-4 * scale, rtol=1e-2, msg=lambda text, key=key: f"{key}: {text}")


def test_a_convolution_of_a_pixel_in_bfloat16_is_that_of_autocast() -> None:
    x = torch.randn(2, 6, 3, 3).contiguous(memory_format=torch.channels_last)
    results = []
    for change in (False, True):
        torch.manual_seed(0)
        model = nn.ModuleDict({"conv": nn.Conv2d(6, 4, 1)}).to(memory_format=torch.channels_last)
        given = x.clone().requires_grad_()
        if change:
            model["conv"].__class__ = PixelProduct
        with torch.autocast("cpu", HALF):
            said = model["conv"](given)
            said.float().square().sum().backward()
        results.append([said.detach(), given.grad, *(p.grad for p in model.parameters())])
    assert results[0][0].dtype == results[1][0].dtype == HALF
    for plain, ours in zip(*results, strict=True):
        torch.testing.assert_close(ours, plain, rtol=2**-6, atol=2**-6)


@pytest.mark.parametrize("bias", [True, False])
def test_siblings_of_the_same_states_are_one_product(bias: bool) -> None:
    results = []
    for together in (False, True):
        torch.manual_seed(0)
        model = nn.ModuleDict({name: nn.Linear(6, size, bias=bias) for name, size in (("query", 4), ("key", 2), ("value", 2))})
        x = torch.randn(3, 5, 6, requires_grad=True)
        with halved(model):
            if together:
                join(model)
            for _ in range(2):  # the first pass only watches
                model.zero_grad()
                x.grad = None
                with torch.autocast("cpu", HALF):
                    said = [layer(x) for layer in model.values()]
                    torch.cat(said, -1).float().square().sum().backward()
            if together:
                assert model["query"].__dict__[FAMILY].alike
            results.append([*said, x.grad, *(p.grad for p in model.parameters())])
            part(model)
        assert {type(layer) for layer in model.values()} == {nn.Linear}
    for plain, ours in zip(*results, strict=True):
        torch.testing.assert_close(ours, plain, rtol=2**-6, atol=2**-6)


def test_siblings_of_other_states_speak_for_themselves() -> None:
    model = nn.ModuleDict({name: nn.Linear(6, 4) for name in ("q_proj", "k_proj", "v_proj")})
    one, other = torch.randn(3, 6), torch.randn(3, 6)
    with halved(model), torch.autocast("cpu", HALF):
        join(model)
        family = model["q_proj"].__dict__[FAMILY]
        for asked in ((one, other, other), (one, one, one), (one, other, other), (one, one, one)):
            said = [layer(x) for layer, x in zip(model.values(), asked, strict=True)]
            for layer, x, y in zip(model.values(), asked, said, strict=True):
                torch.testing.assert_close(y.float(), nn.functional.linear(x, layer.weight, layer.bias).float(), rtol=0.05, atol=0.05)
        assert family.alike
        part(model)


def test_siblings_see_changed_weights() -> None:
    model = nn.ModuleDict({name: nn.Linear(6, 4) for name in ("query", "key", "value")})
    x = torch.randn(3, 6)
    with halved(model), torch.autocast("cpu", HALF):
        join(model)
        for _ in range(2):
            for layer in model.values():
                layer(x)
        with torch.no_grad():
            model["key"].weight.zero_()
            model["key"].bias.zero_()
        assert [bool(layer(x).any()) for layer in model.values()] == [True, False, True]
        part(model)

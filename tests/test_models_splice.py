"""Networks cut in two answer and learn as whole ones do, in every architecture family and at every cut."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers

from tests.families import FAMILIES, SMALL, SOUND, WORDS, family, text
from tunesmith.core.errors import ModelError
from tunesmith.models.anatomy import dissect, encoder_depth, running_blocks
from tunesmith.models.fused import fused
from tunesmith.models.splice import capture, find_cut, frozen_depth, spliced, stored_batch, weights_below

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")


@pytest.mark.parametrize("name", FAMILIES)
def test_every_cut_gives_the_same_answers_and_gradients(name: str) -> None:
    model, batch = family(name)
    model.eval().requires_grad_(False)
    before = {n: p.clone() for n, p in model.state_dict().items()}
    deepest = encoder_depth(model)
    for depth in sorted({1, 2, deepest // 2, deepest}):
        model.requires_grad_(False)
        cut = find_cut(model, batch, depth)
        hidden = capture(model, batch, [depth])[depth]
        results = []
        for store in (False, True):
            model.zero_grad()
            model.requires_grad_(True)
            for parameter_name, value in weights_below(model, cut):
                if value.dtype.is_floating_point and parameter_name in dict(model.named_parameters()):
                    model.get_parameter(parameter_name).requires_grad_(False)
            if store:
                with spliced(model, cut):
                    logits = model(**stored_batch(model, batch, cut, hidden)).logits
                    logits.square().sum().backward()
            else:
                logits = model(**batch).logits
                logits.square().sum().backward()
            results.append((logits.detach(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}))
        (whole, gradients), (part, others) = results
        assert torch.allclose(whole, part, rtol=1e-4, atol=1e-5)
        assert gradients.keys() == others.keys()
        for n, gradient in gradients.items():
            assert torch.allclose(gradient, others[n], rtol=1e-3, atol=1e-4 * float(gradient.abs().max() + 1)), n
    after = model.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(value, after[n]) for n, value in before.items())
    assert not any("forward" in module.__dict__ for module in model.modules())


@pytest.mark.parametrize("name", ["bert", "t5", "resnet", "whisper"])
def test_several_cuts_come_from_one_pass(name: str) -> None:
    model, batch = family(name)
    together = capture(model, batch, [1, 2])
    assert all(torch.equal(together[depth], capture(model, batch, [depth])[depth]) for depth in (1, 2))


def test_nothing_above_the_cut_is_computed_and_nothing_random_happens() -> None:
    model, batch = family("bert")
    model.train()
    ran: list[int] = []
    for number, (_, block) in enumerate(running_blocks(model)):
        block.register_forward_hook(lambda *_, n=number: ran.append(n))  # type: ignore[misc]
    torch.manual_seed(1)
    state = torch.get_rng_state()
    one, other = capture(model, batch, [2])[2], capture(model, batch, [2])[2]
    assert ran == [0, 1, 0, 1] and torch.equal(one, other) and torch.equal(state, torch.get_rng_state())
    assert all(module.training for module in model.modules())


def test_blocks_below_the_cut_do_not_run_with_the_store() -> None:
    model, batch = family("vit")
    model.requires_grad_(False)
    cut = find_cut(model, batch, 2)
    hidden = capture(model, batch, [2])[2]
    with torch.no_grad():
        for name, value in weights_below(model, cut):
            assert "classifier" not in name and "layers.2" not in name
            value.fill_(float("nan"))
        with spliced(model, cut):
            assert torch.isfinite(model(**stored_batch(model, batch, cut, hidden)).logits).all()


def test_frozen_depth_counts_whole_blocks_below_everything_trained() -> None:
    model, _ = family("bert")
    parts = dissect(model)
    for trained, depth in (((), 3), (parts.head, 3), (parts.blocks[2][:1], 2), (parts.blocks[0][-1:], 0), (parts.embeddings[:1], 0)):
        model.requires_grad_(False)
        for name in trained:
            model.get_parameter(name).requires_grad_(True)
        assert frozen_depth(model) == depth


def test_an_encoder_and_its_decoder_are_one_row_of_blocks() -> None:
    model, _ = family("t5")
    assert [name for name, _ in running_blocks(model)] == [f"{part}.block.{n}" for part in ("encoder", "decoder") for n in range(3)]
    assert encoder_depth(model) == 3
    assert sum(map(len, dissect(model).levels)) == len(list(model.named_parameters()))


def test_a_parameter_that_is_trained_below_the_cut_is_found_wherever_it_stands() -> None:
    model, batch = family("deberta")
    model.requires_grad_(False)
    assert find_cut(model, batch, 2).depth == frozen_depth(model) - 1
    model.get_parameter("deberta.encoder.rel_embeddings.weight").requires_grad_(True)
    assert frozen_depth(model) == 0
    with pytest.raises(ModelError, match="trained parameter"):
        find_cut(model, batch, 2)


def test_a_model_whose_blocks_run_several_times_is_refused() -> None:
    config = transformers.AlbertConfig(embedding_size=8, **SMALL, **WORDS)
    with pytest.raises(ModelError, match="once each"):
        find_cut(transformers.AlbertForSequenceClassification(config).requires_grad_(False), text(), 1)


@pytest.mark.parametrize(("options", "reason"), [({"layerdrop": 0.1, "apply_spec_augment": False}, "skipped at random"),
                                                 ({"layerdrop": 0.0, "mask_time_prob": 0.05}, "masked at random")])  # fmt: skip
def test_what_is_random_below_the_cut_is_refused_with_the_reason(options: dict[str, float], reason: str) -> None:
    model = transformers.Wav2Vec2ForSequenceClassification(transformers.Wav2Vec2Config(**SMALL, **SOUND, **options))
    with pytest.raises(ModelError, match=reason):
        find_cut(model, {"input_values": torch.randn(5, 400)}, 1)


def test_a_cut_inside_a_decoder_is_refused_because_it_needs_the_encoder() -> None:
    model, batch = family("bart")
    model.requires_grad_(False)
    with pytest.raises(ModelError, match="more than the hidden states"):
        find_cut(model, batch, 4)


def test_a_network_that_answers_otherwise_with_the_store_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = family("bert")
    model.requires_grad_(False)
    other = copy.deepcopy(model)
    with torch.no_grad():
        running_blocks(other)[0][1].attention.output.dense.weight[0].mul_(1e4)
    monkeypatch.setattr("tunesmith.models.splice.capture", lambda _model, inputs, depths: capture(other, inputs, depths))
    with pytest.raises(ModelError, match="answers differ"):
        find_cut(model, batch, 2)


@pytest.mark.parametrize("name", ["resnet", "mobilenet", "mobilenet-v1", "bert", "convnext"])
def test_folded_batch_norms_say_the_same_and_come_back(name: str) -> None:
    model, inputs = family(name)
    model.train()
    for _ in range(3):
        model(**inputs)  # statistics that are not 0 and 1
    model.eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    norms = sum(isinstance(module, torch.nn.BatchNorm2d) for module in model.modules())
    with torch.inference_mode():
        plain = model(**inputs).logits
        with fused(model, inputs):
            replaced = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d) and "forward" in module.__dict__]
            in_place = [module for module in model.modules() if isinstance(module, torch.nn.ReLU | torch.nn.ReLU6) and module.inplace]
            folded = model(**inputs).logits
    assert len(replaced) == norms and bool(in_place) == bool(norms)
    assert not any(module.inplace for module in in_place)
    assert (folded - plain).abs().max() <= 1e-3 * plain.abs().max()  # statistics of a few random rows are wild
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert model.state_dict().keys() == before.keys()


def test_activations_whose_input_is_read_again_are_left() -> None:
    class Forked(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm, self.activation = torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4), torch.nn.ReLU()

        def forward(self, pixel_values: torch.Tensor) -> Any:
            said = self.norm(self.conv(pixel_values))
            return SimpleNamespace(logits=(self.activation(said) + said).mean((2, 3)))

    model, inputs = Forked().eval(), {"pixel_values": torch.randn(2, 3, 4, 4)}
    plain = model(**inputs).logits
    with torch.inference_mode(), fused(model, inputs):
        assert not model.activation.inplace and "forward" in model.norm.__dict__  # the batch norm is folded all the same
        torch.testing.assert_close(model(**inputs).logits, plain, rtol=1e-4, atol=1e-5)


def test_batch_norms_that_are_not_alone_are_left() -> None:
    class Forked(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4)
            self.norm.weight.data.fill_(5.0)

        def forward(self, pixel_values: torch.Tensor) -> Any:
            said = self.conv(pixel_values)
            return SimpleNamespace(logits=(self.norm(said) + said).mean((2, 3)))

    model, inputs = Forked().eval(), {"pixel_values": torch.randn(2, 3, 4, 4)}
    plain = model(**inputs).logits
    with fused(model, inputs):
        torch.testing.assert_close(model(**inputs).logits, plain)

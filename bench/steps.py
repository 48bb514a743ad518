"""One training step of each architecture family: seconds, arithmetic, and the share of the machine's own matrix-product rate.

    python bench/steps.py [FAMILY ...] [--compile] [--operators 6]

Models are random and of usual shapes, small enough for a processor. A step is forward, backward, clipping and AdamW in the
loop that runs use, with its shortcuts; "plain" is the same without shortcuts. Floating-point operations are counted by torch
(matrix products and convolutions). --compile adds a step of torch.compile and what compiling costs. Let nothing else run.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
import transformers as t
from torch.utils.flop_counter import FlopCounterMode

from tunesmith.models.load import placed
from tunesmith.models.shortcuts import Shortcuts
from tunesmith.spec.load import load_spec
from tunesmith.tasks.base import Encoding
from tunesmith.train.batches import StepBatch
from tunesmith.train.fit import make_learner
from tunesmith.train.loop import train_steps
from tunesmith.train.precision import measure_rates

WIDTH = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 6, "intermediate_size": 1536}
WORDS = {"vocab_size": 30522, "num_labels": 77, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
SOUND = {"conv_dim": (64,) * 7, "num_conv_pos_embeddings": 32, "num_conv_pos_embedding_groups": 8, "classifier_proj_size": 128}
HEADS = {"decoder_attention_heads": 6, "encoder_attention_heads": 6, "encoder_ffn_dim": 1536, "decoder_ffn_dim": 1536}
ROWS, TOKENS, SIDE, SAMPLES = 32, 48, 96, 16_000


def ids(**more: torch.Tensor) -> dict[str, torch.Tensor]:
    """A batch of texts of one length."""
    return {"input_ids": torch.randint(3, 3000, (ROWS, TOKENS)), "attention_mask": torch.ones(ROWS, TOKENS, dtype=torch.long), **more}


def pixels(side: int = SIDE) -> dict[str, torch.Tensor]:
    """A batch of pictures."""
    return {"pixel_values": torch.randn(ROWS, 3, side, side)}


FAMILIES: dict[str, Callable[[], tuple[Any, dict[str, torch.Tensor]]]] = {
    "bert": lambda: (t.BertForSequenceClassification(t.BertConfig(**WIDTH, **WORDS)), ids()),
    "gpt2": lambda: (t.GPT2ForSequenceClassification(t.GPT2Config(n_embd=384, n_layer=6, n_head=6, **WORDS)), ids()),
    "gpt-neo": lambda: (t.GPTNeoForSequenceClassification(
        t.GPTNeoConfig(hidden_size=384, num_layers=6, num_heads=6, attention_types=[[["global", "local"], 3]], **WORDS)), ids()),
    "llama": lambda: (t.LlamaForSequenceClassification(t.LlamaConfig(**WIDTH, num_key_value_heads=2, **WORDS)), ids()),
    "t5": lambda: (t.T5ForConditionalGeneration(
        t.T5Config(d_model=384, d_kv=64, d_ff=1536, num_layers=3, num_heads=6, decoder_start_token_id=0, **{**WORDS, "vocab_size": 8000})),
        ids(decoder_input_ids=torch.randint(3, 3000, (ROWS, TOKENS // 2)))),
    "vit": lambda: (t.ViTForImageClassification(t.ViTConfig(**WIDTH, image_size=SIDE, patch_size=16, num_labels=10)), pixels()),
    "resnet": lambda: (t.ResNetForImageClassification(
        t.ResNetConfig(hidden_sizes=[64, 128, 256, 512], depths=[2, 2, 2, 2], layer_type="basic", num_labels=10)), pixels()),
    "mobilenet": lambda: (t.MobileNetV2ForImageClassification(t.MobileNetV2Config(num_labels=10)), pixels()),
    "wav2vec2": lambda: (t.Wav2Vec2ForSequenceClassification(
        t.Wav2Vec2Config(**WIDTH, **SOUND, layerdrop=0.0, apply_spec_augment=False, num_labels=10)),
        {"input_values": torch.randn(8, SAMPLES)}),
    "hubert": lambda: (t.HubertForSequenceClassification(
        t.HubertConfig(**WIDTH, **SOUND, layerdrop=0.0, apply_spec_augment=False, num_labels=10)),
        {"input_values": torch.randn(8, SAMPLES)}),
    "whisper": lambda: (t.WhisperForAudioClassification(t.WhisperConfig(
        d_model=384, encoder_layers=4, decoder_layers=1, **HEADS, num_mel_bins=80, max_source_positions=100, num_labels=10,
        decoder_start_token_id=3, pad_token_id=0)), {"input_features": torch.randn(8, 80, 200)}),
}  # fmt: skip


class Bare:
    """A task whose loss needs no labels: the mean square of the logits."""

    def loss(self, outputs: Any, _batch: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Summed loss and count."""
        return outputs.logits.float().square().mean(), torch.tensor(1)


def seconds(model: Any, batch: dict[str, torch.Tensor], call: Any, repeats: int, precision: str) -> float:
    """Median seconds of a step after two that warm up."""
    train = {"learning_rate": 1e-5, "epochs": 1, "batch_size": ROWS, "precision": precision}
    spec = load_spec({"name": "steps", "data": {"train": "unused"}, "train": train})
    learner, times = make_learner(model, spec, 1000), []

    def batches() -> Iterator[StepBatch]:
        for _ in range(repeats + 2):
            yield StepBatch(0, False, (batch,), 0)

    started = time.perf_counter()
    for _ in train_steps(learner, batches(), lambda _model, piece: Bare().loss(call(**piece), piece)):
        times.append(time.perf_counter() - started)
        started = time.perf_counter()
    return statistics.median(times[2:])


def product_rate(precision: str) -> float:
    """GFLOP/s of a product of 1,536 × 384 and 384 × 1,536, the shape of a feed-forward layer here: median of twenty."""
    kind, times = {"float32": torch.float32, "bfloat16": torch.bfloat16}[precision], list[float]()
    a, b = torch.randn(ROWS * TOKENS, 384).to(kind), torch.randn(384, 1536).to(kind)
    for _ in range(25):
        started = time.perf_counter()
        a @ b
        times.append(time.perf_counter() - started)
    return 2 * ROWS * TOKENS * 384 * 1536 / statistics.median(times[5:]) / 1e9


def arithmetic(model: Any, batch: dict[str, torch.Tensor], taken: float, rate: float) -> str:
    """What is computed in a step, in words; torch counts grouped convolutions wrong, so models with them get no figure."""
    if any(isinstance(module, torch.nn.Conv2d) and module.groups > 1 for module in model.modules()):
        return "grouped convolutions: not counted"
    with FlopCounterMode(display=False) as counted:
        Bare().loss(model(**batch), batch)[0].backward()
    model.zero_grad()
    flops = counted.get_total_flops() / 1e9
    return f"{flops:6.1f} GFLOP, {flops / taken / rate:.0%} of the rate"


def operators(model: Any, batch: dict[str, torch.Tensor], count: int) -> str:
    """The operators that take most of a forward and backward pass, with their shares."""
    with torch.profiler.profile() as profile:
        Bare().loss(model(**batch), batch)[0].backward()
    model.zero_grad()
    found = sorted(profile.key_averages(), key=lambda event: -event.self_cpu_time_total)
    total = sum(event.self_cpu_time_total for event in found)
    return ", ".join(f"{event.key.removeprefix('aten::')} {event.self_cpu_time_total / total:.0%}" for event in found[:count])


def main() -> None:
    """Print a line for each family."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("families", nargs="*", metavar="FAMILY", help=", ".join(FAMILIES))
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--operators", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--precision", choices=("float32", "bfloat16"))
    options = parser.parse_args()
    fast = measure_rates(torch.device("cpu")).fast_bfloat16
    precision = options.precision or ("bfloat16" if fast else "float32")
    rate = product_rate(precision)
    print(f"matrix products alone: {rate:.0f} GFLOP/s in {precision}", flush=True)
    for name in options.families or FAMILIES:
        torch.manual_seed(0)
        model, batch = FAMILIES[name]()
        model.train()
        plain = seconds(model, batch, model, options.repeats, precision)
        rows = [{"input_ids": row.tolist(), "pad": 0} for row in batch.get("input_ids", torch.zeros(ROWS, 1, dtype=torch.long))]
        model = placed(model)
        shortcuts = Shortcuts(model, [Encoding(rows, [TOKENS] * ROWS, 0)], linear_decay=True, bfloat16=precision == "bfloat16")
        if "input_ids" in batch:
            batch = {**batch, "input_ids": torch.tensor([row["input_ids"] for row in shortcuts.encodings[0].rows])}
        ours = seconds(model, batch, model, options.repeats, precision)
        print(f"{name:<10} plain {plain * 1e3:7.1f} ms  ours {ours * 1e3:7.1f} ms  {arithmetic(model, batch, ours, rate)}", flush=True)
        print(f"           {operators(model, batch, options.operators)}", flush=True)
        if options.compile:
            started = time.perf_counter()
            compiled = torch.compile(model)
            Bare().loss(compiled(**batch), batch)[0].backward()
            model.zero_grad()
            cost = time.perf_counter() - started
            print(
                f"           compiled {seconds(model, batch, compiled, options.repeats, precision) * 1e3:7.1f} ms, {cost:.0f} s to compile",
                flush=True,
            )


if __name__ == "__main__":
    main()

"""A tiny untrained network of every architecture family, with a batch for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import transformers as t

SMALL = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32}
WORDS = {"vocab_size": 50, "num_labels": 3, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
SOUND = {
    "conv_dim": (8, 8), "conv_stride": (4, 4), "conv_kernel": (8, 4), "num_feat_extract_layers": 2, "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2, "classifier_proj_size": 8, "num_labels": 3,
}  # fmt: skip
DECODER = {**SMALL, "num_key_value_heads": 1, "head_dim": 8}
BOTH = {"decoder_attention_heads": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
Family = tuple[Any, dict[str, torch.Tensor]]


def text(pad: int = 0, **more: torch.Tensor) -> dict[str, torch.Tensor]:
    """Five rows of seven tokens, one of them shorter."""
    ids, mask = torch.randint(3, 50, (5, 7)), torch.ones(5, 7, dtype=torch.long)
    mask[1, 4:], ids[1, 4:] = 0, pad
    return {"input_ids": ids, "attention_mask": mask, **more}


def pixels(side: int) -> dict[str, torch.Tensor]:
    """Five pictures."""
    return {"pixel_values": torch.randn(5, 3, side, side)}


def answer() -> dict[str, torch.Tensor]:
    """What a decoder is fed."""
    return {"decoder_input_ids": torch.randint(3, 50, (5, 4))}


def encoder(model: Any, config: Any, **more: Any) -> Callable[[], Family]:
    """A classifier with an encoder of texts."""
    return lambda: (model(config(**SMALL, **WORDS, **more)), text())


def decoder(model: Any, config: Any, **more: Any) -> Callable[[], Family]:
    """A model with a decoder of texts."""
    return lambda: (model(config(**DECODER, **WORDS, **more)), text())


def picture(model: Any, config: Any, side: int, **more: Any) -> Callable[[], Family]:
    """A classifier of pictures."""
    return lambda: (model(config(num_labels=3, **more)), pixels(side))


VIT = {**SMALL, "image_size": 16, "patch_size": 4}
T5 = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 3, "num_heads": 2, "decoder_start_token_id": 0, **WORDS}
FAMILIES: dict[str, Callable[[], Family]] = {
    "bert": encoder(t.BertForSequenceClassification, t.BertConfig),
    "roberta": lambda: (t.RobertaForSequenceClassification(t.RobertaConfig(**SMALL, **{**WORDS, "pad_token_id": 1})), text(1)),
    "distilbert": lambda: (
        t.DistilBertForSequenceClassification(t.DistilBertConfig(dim=16, n_layers=3, n_heads=2, hidden_dim=32, **WORDS)), text()),
    "electra": encoder(t.ElectraForSequenceClassification, t.ElectraConfig, embedding_size=8),
    "deberta": encoder(t.DebertaV2ForSequenceClassification, t.DebertaV2Config, relative_attention=True, pos_att_type=["p2c", "c2p"]),
    "mpnet": lambda: (t.MPNetForSequenceClassification(t.MPNetConfig(**SMALL, **{**WORDS, "pad_token_id": 1})), text(1)),
    "modernbert": encoder(t.ModernBertForSequenceClassification, t.ModernBertConfig, cls_token_id=1, sep_token_id=2),
    "gpt2": lambda: (t.GPT2ForSequenceClassification(t.GPT2Config(n_embd=16, n_layer=3, n_head=2, **WORDS)), text()),
    "gpt-neo": lambda: (t.GPTNeoForSequenceClassification(
        t.GPTNeoConfig(hidden_size=16, num_layers=4, num_heads=2, attention_types=[[["global", "local"], 2]], **WORDS)), text()),
    "llama": decoder(t.LlamaForSequenceClassification, t.LlamaConfig),
    "llama-lm": decoder(t.LlamaForCausalLM, t.LlamaConfig),
    "gemma": decoder(t.GemmaForSequenceClassification, t.GemmaConfig),
    "qwen2": lambda: (t.Qwen2ForSequenceClassification(t.Qwen2Config(**SMALL, num_key_value_heads=1, **WORDS)), text()),
    "t5": lambda: (t.T5ForConditionalGeneration(t.T5Config(**T5)), text(**answer())),
    "t5-encoder": lambda: (t.T5ForTokenClassification(t.T5Config(**T5)), text()),
    "bart": lambda: (
        t.BartForConditionalGeneration(t.BartConfig(d_model=16, encoder_layers=3, decoder_layers=2, **BOTH, **WORDS)), text(**answer())),
    "vit": picture(t.ViTForImageClassification, t.ViTConfig, 16, **VIT),
    "dinov2": picture(t.Dinov2ForImageClassification, t.Dinov2Config, 16,
                      hidden_size=16, num_hidden_layers=3, num_attention_heads=2, image_size=16, patch_size=4),
    "resnet": picture(t.ResNetForImageClassification, t.ResNetConfig, 32,
                      embedding_size=8, hidden_sizes=[8, 16, 16], depths=[1, 1, 1], layer_type="basic"),
    "convnext": picture(t.ConvNextForImageClassification, t.ConvNextConfig, 32, hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1]),
    "mobilenet": picture(t.MobileNetV2ForImageClassification, t.MobileNetV2Config, 32, depth_multiplier=0.25),
    "mobilenet-v1": picture(t.MobileNetV1ForImageClassification, t.MobileNetV1Config, 32, depth_multiplier=0.25),
    "wav2vec2": lambda: (
        t.Wav2Vec2ForSequenceClassification(t.Wav2Vec2Config(**SMALL, **SOUND, layerdrop=0.0, apply_spec_augment=False)),
        {"input_values": torch.randn(5, 400)}),
    "hubert": lambda: (
        t.HubertForSequenceClassification(t.HubertConfig(**SMALL, **SOUND, layerdrop=0.0, apply_spec_augment=False)),
        {"input_values": torch.randn(5, 400)}),
    "whisper": lambda: (
        t.WhisperForAudioClassification(t.WhisperConfig(
            d_model=16, encoder_layers=3, decoder_layers=1, **BOTH, num_mel_bins=8, max_source_positions=20, classifier_proj_size=8,
            decoder_start_token_id=3, **WORDS)),
        {"input_features": torch.randn(5, 8, 40)}),
}  # fmt: skip


def family(name: str) -> Family:
    """A new network, the same every time, and a batch."""
    torch.manual_seed(0)
    return FAMILIES[name]()

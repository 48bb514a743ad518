"""Tiny models made in memory, and tables small enough for a run in two seconds."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import polars as pl

WORDS = {
    "billing": ["invoice", "charge", "refund", "money", "paid", "price", "card", "account", "twice", "bill"],
    "delivery": ["parcel", "late", "courier", "address", "tracking", "shipped", "box", "arrive", "post", "door"],
    "login": ["password", "reset", "email", "locked", "sign", "code", "username", "session", "browser", "forgot"],
}
FILLER = ["the", "a", "my", "is", "was", "to", "on", "not", "why", "when", "please", "how", "did", "it", "again"]


def table(rows: int = 90, seed: int = 0) -> pl.DataFrame:
    """Rows whose label can be told from their words; all texts differ."""
    draw = random.Random(seed)
    labels = sorted(WORDS)
    records = []
    for number in range(rows):
        label = labels[number % len(labels)]
        words = [draw.choice(WORDS[label]) for _ in range(draw.randint(2, 4))] + [draw.choice(FILLER) for _ in range(draw.randint(1, 8))]
        draw.shuffle(words)
        records.append({"text": " ".join(words) + f" {number}", "label": label})
    return pl.DataFrame(records)


def tokenizer() -> Any:
    """A WordPiece tokenizer whose vocabulary is the words above, digits and letters."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = sorted({w for words in WORDS.values() for w in words} | set(FILLER))
    letters = list("abcdefghijklmnopqrstuvwxyz0123456789")
    vocabulary = {t: n for n, t in enumerate(dict.fromkeys([*special, *pieces, *letters, *(f"##{c}" for c in letters)]))}
    core = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    core.normalizer = normalizers.BertNormalizer()
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    core.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
    return PreTrainedTokenizerFast(tokenizer_object=core, model_max_length=64, **names)


def config(kind: str, vocabulary: int) -> Any:
    """The configuration of a two-block encoder of width 16."""
    import transformers

    # Wide initial weights: with the usual 0.02 a network of this width tells no two texts apart.
    shared = {"vocab_size": vocabulary, "pad_token_id": 0, "initializer_range": 0.3}
    bert = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32, "max_position_embeddings": 80}
    if kind == "distilbert":
        return transformers.DistilBertConfig(dim=16, n_layers=2, n_heads=2, hidden_dim=32, max_position_embeddings=80, **shared)
    if kind == "gpt2":
        return transformers.GPT2Config(n_embd=16, n_layer=2, n_head=2, n_positions=80, bos_token_id=2, eos_token_id=3, **shared)
    classes = {"bert": transformers.BertConfig, "roberta": transformers.RobertaConfig, "electra": transformers.ElectraConfig}
    return classes[kind](**bert, **shared, **({"embedding_size": 16} if kind == "electra" else {}))


def save_pretrained(folder: Path, kind: str = "bert") -> Path:
    """A folder with a randomly initialised encoder and its tokenizer, as a pretrained model would be."""
    import torch
    from transformers import AutoModel

    torch.manual_seed(0)
    words = tokenizer()
    AutoModel.from_config(config(kind, len(words))).save_pretrained(folder)
    words.save_pretrained(folder)
    return folder

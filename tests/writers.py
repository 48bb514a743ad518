"""Tiny models that write a text for a text, with a tokenizer trained on the texts at hand."""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import polars as pl

GERMAN = {"invoice": "Rechnung", "refund": "Erstattung", "parcel": "Paket", "late": "spät", "door": "Tür", "password": "Passwort",
          "reset": "zurücksetzen", "email": "Mail", "money": "Geld", "box": "Kiste"}  # fmt: skip


def table(rows: int = 60, seed: int = 0) -> pl.DataFrame:
    """Word-for-word translations of one to six words; all texts differ."""
    draw, seen = random.Random(seed), dict[str, str]()
    while len(seen) < rows:
        words = [draw.choice(sorted(GERMAN)) for _ in range(draw.randint(1, 6))]
        seen.setdefault(" ".join(words), " ".join(GERMAN[word] for word in words))
    return pl.DataFrame({"en": list(seen), "de": list(seen.values())})


def tokenizer(texts: Iterable[str], *, start: bool = False) -> Any:
    """A byte-level tokenizer that ends every text, and with `start` begins it, as T5 and BART do."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<pad>", "<s>", "</s>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    core.train_from_iterator(texts, trainer)
    single = "<s> $A </s>" if start else "$A </s>"
    core.post_processor = processors.TemplateProcessing(single=single, special_tokens=[("<s>", 1), ("</s>", 2)])
    return PreTrainedTokenizerFast(tokenizer_object=core, model_max_length=128, pad_token="<pad>", bos_token="<s>", eos_token="</s>")


def save_pretrained(folder: Path, kind: str = "t5", width: int = 32, rows: pl.DataFrame | None = None) -> Path:
    """A folder with a randomly initialised encoder and decoder, as a pretrained model would be."""
    import torch
    import transformers

    texts = table() if rows is None else rows
    words = tokenizer([*texts.to_series(0), *texts.to_series(1)], start=kind == "bart")
    ids = {"vocab_size": len(words), "pad_token_id": 0, "eos_token_id": 2, "bos_token_id": 1}
    if kind == "t5":
        config: Any = transformers.T5Config(
            d_model=width, d_kv=width // 2, d_ff=2 * width, num_layers=2, num_decoder_layers=2, num_heads=2, decoder_start_token_id=0, **ids
        )
    else:
        sides = {f"{side}_{name}": 2 * factor for side in ("encoder", "decoder")
                 for name, factor in (("layers", 1), ("attention_heads", 1), ("ffn_dim", width))}  # fmt: skip
        shape: dict[str, Any] = {"d_model": width, "max_position_embeddings": 128, "forced_eos_token_id": None, "init_std": 0.1, **sides}
        if kind == "bart":
            config = transformers.BartConfig(decoder_start_token_id=2, **shape, **ids)
        else:
            config = transformers.MarianConfig(decoder_start_token_id=0, decoder_vocab_size=len(words), **shape, **ids)
    torch.manual_seed(0)
    transformers.AutoModelForSeq2SeqLM.from_config(config).save_pretrained(folder)
    words.save_pretrained(folder)
    return folder

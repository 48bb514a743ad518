"""Texts written in a second, greedy: Seq2SeqTrainer.predict with predict_with_generate, its rows sorted by length or not, and ours.

Run as `python bench/tasks_text.py writing DATA`. A random model is trained for --epochs on --limit rows; then all contenders write the
texts of the same test rows, in turn in one process. Texts that differ are counted, with the largest margin among them.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from peers import ours

SIZES = (8, 32, 64)
THREADS = 2


def small_model(kind: str, words: Any, options: argparse.Namespace) -> Any:
    """A random T5 or BART."""
    import transformers

    width, layers, heads = options.width, options.layers, options.width // 64
    ids = {"vocab_size": len(words), "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    if kind == "t5":
        shape = {"d_model": width, "d_kv": 64, "d_ff": 4 * width, "num_layers": layers, "num_decoder_layers": layers, "num_heads": heads}
        return transformers.T5ForConditionalGeneration(transformers.T5Config(decoder_start_token_id=0, **shape, **ids))
    sides = {f"{side}_{name}": value for side in ("encoder", "decoder")
             for name, value in (("layers", layers), ("attention_heads", heads), ("ffn_dim", 4 * width))}  # fmt: skip
    return transformers.BartForConditionalGeneration(
        transformers.BartConfig(d_model=width, decoder_start_token_id=2, forced_eos_token_id=None, **sides, **ids)
    )


def byte_pairs(texts: list[str], size: int) -> Any:
    """A byte-level tokenizer of these texts that ends each."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer, core.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    core.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=size, special_tokens=["<pad>", "<s>", "</s>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False))  # fmt: skip
    core.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 2)])
    return PreTrainedTokenizerFast(tokenizer_object=core, model_max_length=512, pad_token="<pad>", bos_token="<s>", eos_token="</s>")


def by_trainer(model: Any, words: Any, rows: list[dict[str, Any]], size: int) -> tuple[float, list[list[int]]]:
    """Seconds of Seq2SeqTrainer.predict, and the tokens of each row."""
    import transformers

    with tempfile.TemporaryDirectory() as folder:
        arguments = transformers.Seq2SeqTrainingArguments(
            output_dir=folder, predict_with_generate=True, per_device_eval_batch_size=size, use_cpu=True, report_to=[], disable_tqdm=True,
            remove_unused_columns=False)  # fmt: skip
        collate = transformers.DataCollatorWithPadding(words)  # rows without targets: no loss is computed
        peer = transformers.Seq2SeqTrainer(model, arguments, data_collator=collate)
        carried, model.generation_config = model.generation_config, deepcopy(model.generation_config)  # `predict` fills in all defaults
        started = time.perf_counter()
        said = peer.predict(rows).predictions
        seconds, model.generation_config = time.perf_counter() - started, carried
        return seconds, [[token for token in row[1:] if token > 0] for row in said.tolist()]


def asked(arguments: list[str]) -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(prog="tasks_text.py writing", description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--text", default="en")
    parser.add_argument("--label", default="de")
    parser.add_argument("--kind", choices=("t5", "bart"), default="t5")
    parser.add_argument("--rows", type=int, default=600, help="test rows")
    parser.add_argument("--limit", type=int, default=3000, help="training rows")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--vocabulary", type=int, default=8000)
    parser.add_argument("--longest", type=int, default=256, help="most tokens of a text")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(arguments)


def writing(arguments: list[str]) -> None:
    """Print rows a second of each contender, medians, the ratio to the best peer, and how many rows say another text."""
    from tunesmith.models.forward import predict_logits
    from tunesmith.models.generation import set_generation
    from tunesmith.spec.generation import Generation
    from tunesmith.tasks.text_to_text import TextToText

    options = asked(arguments)
    torch.set_num_threads(THREADS)
    torch.manual_seed(options.seed)
    train, test = (pl.read_ndjson(options.data / f"{split}.jsonl.gz").select(text=options.text, label=options.label).head(limit)
                   for split, limit in (("train", options.limit), ("test", options.rows)))  # fmt: skip
    words = byte_pairs([*train["text"], *train["label"]], options.vocabulary)
    model = small_model(options.kind, words, options)
    targets = TextToText().target_tokens(train, words)
    task = TextToText(max_target=min(int(np.quantile([len(t) for t in targets], 0.99)), options.longest))
    set_generation(model, Generation(max_new_tokens=task.max_target), words)
    began = time.perf_counter()
    ours(model, task, task.encode(train, words, options.longest), options)
    trained = time.perf_counter() - began
    model.eval()
    encoding = task.encode(test.select("text"), words, options.longest)
    plain = [{"input_ids": row["input_ids"], "attention_mask": [1] * len(row["input_ids"])} for row in encoding.rows]
    order = sorted(range(len(plain)), key=lambda n: -len(plain[n]["input_ids"]))
    seconds: dict[str, list[float]] = {}
    said: dict[str, list[list[int]]] = {}
    for _ in range(options.repeats):
        began = time.perf_counter()
        answers = predict_logits(model, task, encoding)
        seconds.setdefault("tunesmith", []).append(time.perf_counter() - began)
        said["tunesmith"] = [one.tokens for one, _ in answers]
        for size in SIZES:
            for name, places in (("as they are", range(len(plain))), ("sorted", order)):
                took, tokens = by_trainer(model, words, [plain[n] for n in places], size)
                seconds.setdefault(f"Trainer {size} {name}", []).append(took)
                said[f"Trainer {size} {name}"] = [one for _, one in sorted(zip(places, tokens, strict=True))]
    lengths = [len(tokens) for tokens in said["tunesmith"]]
    print(f"{options.kind}, {sum(p.numel() for p in model.parameters()) / 1e6:.1f} million parameters, trained for {trained:.0f} s; "
          f"{len(plain)} rows of {np.mean(encoding.lengths):.0f} tokens; written {np.mean(lengths):.1f} tokens a row, "
          f"{np.std(lengths):.1f} deviation, at most {max(lengths)} of {task.max_target}")  # fmt: skip
    texts = {name: words.batch_decode(rows, skip_special_tokens=True) for name, rows in said.items()}
    margins = [one.margin for one, _ in answers]
    for name, runs in seconds.items():
        other = [n for n, (a, b) in enumerate(zip(texts[name], texts["tunesmith"], strict=True)) if a != b]
        close = f" (largest margin {max(margins[n] for n in other):.1e})" if other else ""
        print(f"{name:<24} {len(plain) / np.median(runs):>7.1f} rows/s   {len(other)} other texts{close}   {[round(s, 2) for s in runs]}")
    best = min(np.median(runs) for name, runs in seconds.items() if name != "tunesmith")
    print(f"{best / np.median(seconds['tunesmith']):.2f} times Trainer at its best")

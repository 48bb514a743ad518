"""Text tasks against the peers that people use for them, on the same rows, epochs and starting weights: seconds and scores.

    python bench/tasks_text.py similarity DATA [--limit 3000] [--epochs 1] [--repeats 3]     STS-B: full fine-tuning
    python bench/tasks_text.py similarity DATA --top 2 --epochs 5                            the same with frozen lower blocks
    python bench/tasks_text.py spans | questions | vectors | pairs DATA …                    WNUT-17, XQuAD, pairs from STS-B, the same
    python bench/tasks_text.py writing DATA [--text en --label de] [--kind bart]             texts written in a second: see writing.py
    python bench/tasks_text.py search DATA [--limit 20000] [--rows 1000000]                  a search among a million vectors

DATA has train.jsonl.gz and test.jsonl.gz. Peers: transformers.Trainer at its best settings here (length groups, bfloat16 where it is
fast), and sentence-transformers' trainers for vectors and pairs, in bfloat16 where it is fast; these offer no length groups. Every
contender runs in a process of its own, in turn; medians of --repeats are printed. Let nothing else run meanwhile.

`search` embeds up to --limit different texts of DATA (every column of text) with the starter. A quarter of them, 1,000 at the most, are
the queries. The others are the index, filled up to --rows with mixtures: two of their vectors, the second with a weight drawn uniformly
from 0.1 to 0.5 and the first with the rest, brought to length one (seed 0). Told are milliseconds of `Index.search`, texts and all, as a
user calls it with a vector, and of `Index.nearest`, the places alone.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from peers import BATCH, fast_bfloat16, in_turn, ours, table, trainer
from strategies import freeze
from writing import writing

from tunesmith.evaluate.metrics import fast_score
from tunesmith.models.forward import predict_logits
from tunesmith.models.load import model_path
from tunesmith.spec.schema import Model
from tunesmith.tasks.base import Encoding, Task

RATE, LONGEST = 1e-4, 128
Contender = Callable[[argparse.Namespace], dict[str, float]]


def rows_of(folder: Path, split: str, limit: int | None) -> pl.DataFrame:
    """Rows of a split as they are."""
    rows = pl.read_ndjson(folder / f"{split}.jsonl.gz")
    return rows.head(limit or rows.height)


def started(options: argparse.Namespace, task: Task) -> tuple[Any, Any]:
    """The starter with the task's head, drawn at random, and its tokenizer; blocks frozen as asked."""
    from transformers import AutoTokenizer

    torch.manual_seed(options.seed)
    model = task.head.from_pretrained(model_path(Model()), **task.model_options)
    if options.top is not None:
        freeze(model, options.top)
    return model, AutoTokenizer.from_pretrained(model_path(Model()))


def collated(task: Task, rows: list[Any], names: dict[str, Callable[[Any], Any]]) -> dict[str, torch.Tensor]:
    """A batch with the labels under the names that transformers' own heads look for."""
    batch = task.collate(rows)
    labels = batch.pop("labels")
    return {**batch, **{name: change(labels) for name, change in names.items()}}


def against_trainer(options: argparse.Namespace, task: Task, model: Any, rows: Encoding, names: Any) -> dict[str, float]:
    """One contender on rows that both read."""
    if options.only == "tunesmith":
        return ours(model, task, rows, options)
    return trainer(model, rows.rows, lambda some: collated(task, some, names), options)


def similarity(options: argparse.Namespace) -> dict[str, float]:
    """STS-B, both texts read together."""
    from tunesmith.tasks.sentence_similarity import SentenceSimilarity

    task = SentenceSimilarity()
    model, tokenizer = started(options, task)
    train, test = (rows_of(options.data, split, limit).select(text="sentence1", text_pair="sentence2", label="score")
                   for split, limit in (("train", options.limit), ("test", None)))  # fmt: skip
    result = against_trainer(options, task, model, task.encode(train, tokenizer, LONGEST), {"labels": lambda given: given})
    held_out = task.encode(test, tokenizer, LONGEST)
    said = task.scores(predict_logits(model, task, held_out), held_out)
    return {**result, "spearman": fast_score("spearman", "number", task.targets(test), said)}


def spans(options: argparse.Namespace) -> dict[str, float]:
    """WNUT-17, a tag for each word."""
    from tunesmith.data.marked import read_spans
    from tunesmith.tasks.token_classification import TokenClassification

    tables = []
    for split, limit in (("train", options.limit), ("test", None)):
        read, _ = read_spans(rows_of(options.data, split, limit), ("tokens", "tags"), {})
        tables.append(read.rename({"tokens": "text", "tags": "label"}))
    train, test = tables
    task = TokenClassification(sorted({span["label"] for row in train["label"].to_list() for span in row}))
    model, tokenizer = started(options, task)
    result = against_trainer(options, task, model, task.encode(train, tokenizer, LONGEST), {"labels": lambda given: given})
    held_out = task.encode(test, tokenizer, LONGEST)
    said = task.scores(predict_logits(model, task, held_out), held_out)
    return {**result, "span_f1": fast_score("span_f1", "spans", task.targets(test), said)}


def questions(options: argparse.Namespace) -> dict[str, float]:
    """XQuAD in English, windows over the texts."""
    from tunesmith.data.spans import read_answers
    from tunesmith.tasks.question_answering import QuestionAnswering

    tables = []
    for split, limit in (("train", options.limit), ("test", None)):
        read, _ = read_answers(rows_of(options.data, split, limit), ("context", "answers"), None, split)
        tables.append(read.select(text="question", text_pair="context", label="answers"))
    train, test = tables
    task = QuestionAnswering()
    model, tokenizer = started(options, task)
    names = {"start_positions": lambda given: given[:, 0], "end_positions": lambda given: given[:, 1]}
    result = against_trainer(options, task, model, task.encode(train, tokenizer, 384), names)
    held_out = task.encode(test, tokenizer, 384)
    said = task.scores(predict_logits(model, task, held_out), held_out)
    return {**result, "f1": fast_score("f1", "answers", task.targets(test), said)}


def judged(options: argparse.Namespace) -> tuple[pl.DataFrame, pl.DataFrame, list[str]]:
    """Pairs of STS-B with at least four points as queries and the texts that they find, and all texts."""
    from tunesmith.data.clean import clean_relevant
    from tunesmith.data.relevant import RELEVANT, corpus_of

    tables = []
    for split, limit in (("train", options.limit), ("test", None)):
        rows = rows_of(options.data, split, limit).filter(pl.col("score") >= 4)
        label = pl.Series("label", [[{"text": text, "relevance": 1.0}] for text in rows["sentence2"]], RELEVANT)
        plain = rows.select(text="sentence1", source=pl.lit(split)).with_columns(label)
        tables.append(clean_relevant(plain, together=False).kept)
    return tables[0], tables[1], corpus_of([one["label"] for one in tables])["text"].to_list()


def sentence_trainer(model: Any, columns: dict[str, list[Any]], loss: Any, options: argparse.Namespace, kind: str) -> float:
    """Seconds of a trainer of sentence-transformers, at its best settings here."""
    import sentence_transformers as st
    from datasets import Dataset

    with tempfile.TemporaryDirectory() as folder:
        arguments = getattr(st, f"{kind}TrainingArguments")(
            output_dir=folder, num_train_epochs=options.epochs, per_device_train_batch_size=BATCH, learning_rate=options.rate,
            use_cpu=True, bf16=fast_bfloat16(), save_strategy="no", report_to=[], disable_tqdm=True, seed=options.seed)  # fmt: skip
        peer = getattr(st, f"{kind}Trainer")(model=model, args=arguments, train_dataset=Dataset.from_dict(columns), loss=loss)
        begun = time.perf_counter()
        peer.train()
        return time.perf_counter() - begun


def freeze_blocks(network: Any, top: int | None) -> None:
    """Leave the top blocks and the head to learn."""
    if top is not None:
        freeze(network, top)


def vectors(options: argparse.Namespace) -> dict[str, float]:
    """A vector for each text, in-batch negatives, temperature 0.05 in both."""
    from tunesmith.spec.ranking import Embedding
    from tunesmith.tasks.feature_extraction import FeatureExtraction

    train, test, corpus = judged(options)
    task = FeatureExtraction(options=Embedding(), corpus=corpus)
    model, tokenizer = started(options, task)
    if options.only == "tunesmith":
        result = ours(model, task, task.training(train, tokenizer, LONGEST), options)
    else:
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.losses import MultipleNegativesRankingLoss

        peer = SentenceTransformer(model_path(Model()), device="cpu")
        freeze_blocks(peer[0].auto_model, options.top)
        flat = [(query, entry["text"]) for query, row in train.select("text", "label").iter_rows() for entry in row]
        columns = {"anchor": [query for query, _ in flat], "positive": [text for _, text in flat]}
        seconds = sentence_trainer(peer, columns, MultipleNegativesRankingLoss(peer, scale=20.0), options, "SentenceTransformer")
        model, result = peer[0].auto_model, {"seconds": seconds, "epochs": options.epochs}
    held_out = task.encode(test, tokenizer, LONGEST)
    ranks = task.scores(predict_logits(model, task, held_out), held_out)
    return {**result, "ndcg_at_10": fast_score("ndcg_at_10", "relevant", task.targets(test), ranks)}


def pairs(options: argparse.Namespace) -> dict[str, float]:
    """Query and text read together, four wrong texts beside each relevant one, the same in both."""
    from tunesmith.tasks.text_ranking import TextRanking

    train, test, corpus = judged(options)
    task = TextRanking(corpus=corpus, candidates=20, negatives=4)
    model, tokenizer = started(options, task)
    rows = task.training(train, tokenizer, LONGEST)
    if options.only == "tunesmith":
        result = ours(model, task, rows, options)
    else:
        from sentence_transformers import CrossEncoder
        from sentence_transformers.cross_encoder.losses import BinaryCrossEntropyLoss

        peer = CrossEncoder(model_path(Model()), num_labels=1, max_length=LONGEST, device="cpu")
        freeze_blocks(peer.model, options.top)
        texts = [tokenizer.decode(row["input_ids"]).split("[SEP]") for row in rows.rows]
        columns = {"query": [one[0].replace("[CLS]", "").strip() for one in texts], "answer": [one[1].strip() for one in texts],
                   "label": [float(row["labels"]) for row in rows.rows]}  # fmt: skip
        seconds = sentence_trainer(peer, columns, BinaryCrossEntropyLoss(peer), options, "CrossEncoder")
        model, result = peer.model, {"seconds": seconds, "epochs": options.epochs}
    held_out = task.encode(test, tokenizer, LONGEST)
    ranks = task.scores(predict_logits(model, task, held_out), held_out)
    return {**result, "ndcg_at_10": fast_score("ndcg_at_10", "relevant", task.targets(test), ranks)}


def embedded(options: argparse.Namespace) -> tuple[list[str], np.ndarray]:
    """Different texts of all splits in an order drawn by seed 0, up to the limit, and the starter's vectors of them."""
    from tunesmith.tasks.feature_extraction import FeatureExtraction
    from tunesmith.tasks.vectors import encode_alone

    tables = [rows_of(options.data, split, None).select(pl.selectors.string()) for split in ("train", "test")]
    found = sorted({text for rows in tables for column in rows for text in column.drop_nulls() if text.strip()})
    order = np.random.default_rng(0).permutation(len(found))[: options.limit or 20_000]
    texts, task = [found[number] for number in order], FeatureExtraction()
    model, tokenizer = started(options, task)
    return texts, predict_logits(model, task, encode_alone(texts, tokenizer, LONGEST)).float().numpy()


def mixed(real_ME: np.ndarray, rows: int) -> np.ndarray:
    """Real vectors, and mixtures of pairs of them up to so many rows."""
    draw, made = np.random.default_rng(0), [real_ME[:rows]]
    for start in range(len(real_ME), rows, 65536):
        size = min(65536, rows - start)
        (first, second), weight = draw.integers(0, len(real_ME), (2, size)), draw.uniform(0.1, 0.5, (size, 1)).astype(np.float32)
        mixture = (1 - weight) * real_ME[first] + weight * real_ME[second]
        made.append(mixture / np.linalg.norm(mixture, axis=1, keepdims=True))
    return np.concatenate(made)


def timed(ask: Callable[[np.ndarray, int], Any], asked_NE: np.ndarray) -> tuple[list[float], list[Any]]:
    """Seconds and answers of each query, one at a time."""
    times, answers = [], []
    for query_E in asked_NE:
        begun = time.perf_counter()
        answers.append(ask(query_E[None], 10))
        times.append(time.perf_counter() - begun)
    return times, answers


def search(options: argparse.Namespace) -> dict[str, float]:
    """Milliseconds of a search among vectors of real texts and of mixtures, its recall of the true ten nearest, and the time to build."""
    from tunesmith.serve.search import Index, make_index

    texts, real = embedded(options)
    held = min(1000, len(texts) // 4)
    asked, kept = real[:held], mixed(real[held:], options.rows)
    named = [f"{number} {texts[held + number % (len(texts) - held)]}" for number in range(len(kept))]

    def vector_of(some: Any) -> np.ndarray:
        return kept[[int(text.split(" ", 1)[0]) for text in some]]

    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        make_index(iter([pl.Series("text", named)]), vector_of, "bench", Path(folder) / "index", lambda _done: None)
        built = time.perf_counter() - begun
        index = Index(Path(folder) / "index")
        index.search(asked[:8], 10)
        times, found = {}, []
        for name, ask in (("nearest", index.nearest), ("search", index.search)):
            times[name], answers = timed(ask, asked)
            found = [one[0][0] for one in answers] if name == "nearest" else found
    true = (np.argpartition(-(kept @ query), 10)[:10] for query in asked)
    hits = sum(np.isin(best, places).mean() for best, places in zip(true, found, strict=True))
    told = {f"{name}_ms{what}": measure(of) * 1e3 for name, of in times.items()
            for what, measure in (("", lambda of: float(np.median(of))), ("_at_worst", max))}  # fmt: skip
    return {"seconds": built, "rows": len(kept), "real_texts": len(texts) - held, **told, "recall_at_10": hits / len(asked)}


CONTENDERS: dict[str, tuple[Contender, tuple[str, ...]]] = {
    "similarity": (similarity, ("trainer-best", "tunesmith")),
    "spans": (spans, ("trainer-best", "tunesmith")),
    "questions": (questions, ("trainer-best", "tunesmith")),
    "vectors": (vectors, ("sentence-transformers", "tunesmith")),
    "pairs": (pairs, ("sentence-transformers", "tunesmith")),
    "search": (search, ("tunesmith",)),
}


def main() -> None:
    """Print one line per run and medians with ratios."""
    if sys.argv[1:2] == ["writing"]:
        writing(sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=sorted(CONTENDERS))
    parser.add_argument("data", type=Path)
    parser.add_argument("--top", type=int, help="train the top blocks alone; every weight when left out")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--rate", type=float, default=RATE)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--rows", type=int, default=1_000_000, help="vectors to search among")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    contender, names = CONTENDERS[options.what]
    if options.only:
        print(json.dumps(contender(options)))
        return
    table(in_turn(names, options.repeats))


if __name__ == "__main__":
    main()

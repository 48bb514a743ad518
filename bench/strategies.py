"""Frozen work done once, against transformers.Trainer with the same layers frozen and scikit-learn on embeddings: seconds and accuracy.

    python bench/strategies.py all FOLDER --models FOLDER            all of these in turn; FOLDER holds banking77, sst2, fashion_mnist_10k
    python bench/strategies.py layers DATA [--top 1] [--blocks 6]    texts; 12 blocks: a random encoder of the starter's width
    python bench/strategies.py pictures DATA --models FOLDER         MobileNet, its last stage, pictures of 96 × 96
    python bench/strategies.py heads DATA                            5 heads × 5 folds beside one forward pass
    python bench/strategies.py fill DATA                             filling the store beside plain forward passes

DATA is Banking77 (train.jsonl.gz, test.jsonl.gz) or Fashion-MNIST (images/, metadata.csv). Every contender runs in a process
of its own, in turn; medians of --repeats are printed. Trainer's seconds are those of --peer-epochs, scaled to --epochs: its
epochs cost the same. Ours include the filling of an empty store. Let nothing else run meanwhile.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peers import TRAINERS, in_turn, ours, table, trainer
from train import read

RATE = 3e-4
CONTENDERS = {
    "layers": (*TRAINERS, "tunesmith"), "pictures": (*TRAINERS, "tunesmith"), "heads": ("scikit-learn", "tunesmith"),
    "fill": ("tunesmith",),
}  # fmt: skip
SIDE = 96


def text_model(blocks: int, classes: int) -> tuple[Any, str]:
    """A classifier, and the folder of its tokenizer."""
    from transformers import AutoConfig, AutoModelForSequenceClassification

    from tunesmith.models.load import model_path
    from tunesmith.spec.schema import Model

    path = model_path(Model())
    torch.manual_seed(0)
    if blocks == 6:
        return AutoModelForSequenceClassification.from_pretrained(path, num_labels=classes), path
    config = AutoConfig.from_pretrained(path, num_hidden_layers=blocks, num_labels=classes)
    return AutoModelForSequenceClassification.from_config(config), path


def freeze(model: Any, top: int) -> None:
    """Only the head and the `top` blocks learn."""
    from tunesmith.models.strategies import apply_strategy
    from tunesmith.spec.schema import Layers

    apply_strategy(model, Layers(kind="layers", top=top))


def texts(options: argparse.Namespace) -> dict[str, float]:
    """One contender on texts."""
    import polars as pl
    from transformers import AutoTokenizer, DataCollatorWithPadding

    from tunesmith.models.forward import predict_logits
    from tunesmith.tasks.text_classification import TextClassification

    train, test = read(options.data, "train", options.limit), read(options.data, "test", None)
    task = TextClassification(sorted({row["label"] for row in train}))
    model, path = text_model(options.blocks, len(task.labels))
    tokenizer = AutoTokenizer.from_pretrained(path)
    freeze(model, options.top)
    rows = task.encode(pl.DataFrame(train), tokenizer, 128)
    if options.only in TRAINERS:
        plain = [{"input_ids": r["input_ids"], "attention_mask": [1] * len(r["input_ids"]), "labels": int(r["labels"])} for r in rows.rows]
        result = trainer(model, plain, DataCollatorWithPadding(tokenizer), options)
    else:
        result = ours(model, task, rows, options)
    held_out = pl.DataFrame(test)
    logits = predict_logits(model, task, task.encode(held_out, tokenizer, 128))
    return {**result, "accuracy": float((logits.argmax(1).numpy() == task.targets(held_out)).mean())}


class Pictures:
    """What training asks of a task, for pictures in memory."""

    redrawn = ""  # a picture is the same at every step

    def __init__(self, classes: int) -> None:
        self.classes = classes

    def collate(self, rows: Any) -> dict[str, torch.Tensor]:
        """Pixels from -1 to 1, and labels."""
        pixels = torch.from_numpy(np.stack([row["pixel_values"] for row in rows])).permute(0, 3, 1, 2) / 127.5 - 1
        return {"pixel_values": pixels, "labels": torch.tensor([int(row["labels"]) for row in rows])}

    def loss(self, outputs: Any, batch: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Cross-entropy and count."""
        labels = batch["labels"]
        return torch.nn.functional.cross_entropy(outputs.logits, labels, reduction="sum"), torch.tensor(len(labels))

    def inputs(self, _model: Any, batch: Any) -> Any:
        """What the network is given: all but the targets."""
        return {name: value for name, value in batch.items() if name != "labels"}

    def answer(self, model: Any, batch: Any) -> torch.Tensor:
        """Logits."""
        logits: torch.Tensor = model(**batch).logits.float()
        return logits

    def answers(self, model: Any, batches: Any) -> Any:
        """Logits of one batch after the other, with the numbers of its rows."""
        return ((numbers, self.answer(model, batch)) for numbers, batch in batches)


def pictures(options: argparse.Namespace) -> dict[str, float]:
    """One contender on pictures: the last stage of MobileNet and the head learn, batch norms stay as they are."""
    import polars as pl
    from PIL import Image
    from transformers import AutoModelForImageClassification

    from tunesmith.models.forward import predict_logits
    from tunesmith.models.load import placed
    from tunesmith.tasks.base import Encoding

    table, parts = pl.read_csv(options.data / "metadata.csv"), {}
    for split in ("train", "test"):
        part = table.filter(pl.col("split") == split)
        part = part.sample(min(options.limit or part.height, part.height), seed=0)
        images = [np.asarray(Image.open(options.data / name).convert("RGB").resize((SIDE, SIDE))) for name in part["file_name"]]
        rows = [{"pixel_values": image, "labels": np.int64(label)} for image, label in zip(images, part["label"], strict=True)]
        parts[split] = Encoding(rows, [1] * len(rows), 0)
    torch.manual_seed(0)
    model = AutoModelForImageClassification.from_pretrained(
        options.models / "mobilenet-v2-imagenet", num_labels=10, ignore_mismatched_sizes=True
    )
    freeze(model, options.top)
    model = model if options.only in TRAINERS else placed(model)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 0.01  # transformers has 0.997, with which nothing can be learned
    task = Pictures(10)
    rows = parts["train"]
    result = trainer(model, rows.rows, task.collate, options) if options.only in TRAINERS else ours(model, task, rows, options)
    logits = predict_logits(model, task, parts["test"])  # type: ignore[arg-type]
    targets = np.array([row["labels"] for row in parts["test"].rows])
    return {**result, "accuracy": float((logits.argmax(1).numpy() == targets).mean())}


def fill(options: argparse.Namespace) -> dict[str, float]:
    """Seconds to fill an empty store above all blocks but one, and of plain passes through the same blocks."""
    import polars as pl
    from transformers import AutoTokenizer

    from tunesmith.data.batches import length_batches
    from tunesmith.models.forward import batch_rows
    from tunesmith.models.splice import capture
    from tunesmith.spec.schema import Store
    from tunesmith.tasks.text_classification import TextClassification
    from tunesmith.train.prefix import Wish, with_prefix

    train = read(options.data, "train", options.limit)
    task = TextClassification(sorted({row["label"] for row in train}))
    model, path = text_model(options.blocks, len(task.labels))
    freeze(model, options.top)
    rows = task.encode(pl.DataFrame(train), AutoTokenizer.from_pretrained(path), 128)
    started = time.perf_counter()
    for numbers in length_batches(rows.lengths, batch_rows(model), None):
        batch = task.collate([rows.rows[n] for n in numbers])
        capture(model, {name: batch[name] for name in batch if name != "labels"}, [options.blocks - options.top])
    forward = time.perf_counter() - started
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        with with_prefix(model, task, [rows], Wish(Store(), Path(folder), 2.0), lambda *_: None):
            seconds = time.perf_counter() - started
    return {"seconds": seconds, "forward_seconds": forward, "speed": forward / seconds}


def heads(options: argparse.Namespace) -> dict[str, float]:
    """One contender in the comparison of five heads over five folds; seconds without reading and cleaning the table."""
    train, test = read(options.data, "train", options.limit), read(options.data, "test", options.limit)
    counts = Counter(row["label"] for row in train)  # scikit-learn's calibration refuses classes with fewer rows than folds of folds
    train, test = ([row for row in rows if counts[row["label"]] >= 10] for rows in (train, test))
    return scikit_learn(train, test) if options.only == "scikit-learn" else our_search(train, test, options.seed)


def our_search(train: list[dict[str, str]], test: list[dict[str, str]], seed: int) -> dict[str, float]:
    """A whole run: its embed and train stages, beside a plain pass over the same rows and the heads' own seconds."""
    import polars as pl

    import tunesmith
    from tunesmith.core.rundir import RunDir
    from tunesmith.models.build import build_model
    from tunesmith.models.forward import frozen_features
    from tunesmith.models.load import load_processor
    from tunesmith.spec.defaults import read_resolved
    from tunesmith.spec.heads import SEARCHED
    from tunesmith.tasks.base import Encoding
    from tunesmith.tasks.make import make_task

    with tempfile.TemporaryDirectory() as folder:
        for name, rows in (("train", train), ("test", test)):
            pl.DataFrame(rows).select("text", "label").write_csv(Path(folder) / f"{name}.csv")
        data = {name: str(Path(folder) / f"{name}.csv") for name in ("train", "test")}
        spec = {
            "name": "heads",
            "seed": seed,
            "data": data,
            "strategy": {"kind": "features", "head": "search"},
            "evaluate": {"folds": None},
        }
        run = tunesmith.run(tunesmith.load_spec(spec), Path(folder) / "runs")
        resolved, stages = read_resolved(run.path / "resolved.yaml"), RunDir(run.path).manifest["stages"]
        tables = [pl.read_parquet(run.path / f"data/{split}.parquet") for split in ("train", "validation", "test")]
        task = make_task(resolved, json.loads((run.path / "data/labels.json").read_text()), tables[0])
        parts = [task.encode(table, load_processor(resolved.model), resolved.model.max_length or 0) for table in tables]
        model = build_model(resolved, task)
        started = time.perf_counter()
        for part in parts:
            frozen_features(model, task, Encoding(part.rows, part.lengths, 0))
        forward, found = time.perf_counter() - started, run.findings
    fitted = {kind: float(found[f"heads/{kind}/seconds"].value or 0) for kind in SEARCHED}
    seconds = stages["embed"]["seconds"] + stages["train"]["seconds"]
    scores = {f"{kind}_score": float(found[f"heads/{kind}/score"].value or 0) for kind in SEARCHED}
    return {
        "seconds": seconds, "forward": forward, **fitted, **scores, "heads": sum(fitted.values()),
        "to_forward_and_heads": seconds / (forward + sum(fitted.values())), "accuracy": float(found["test/accuracy"].value or 0),
    }  # fmt: skip


def scikit_learn(train: list[dict[str, str]], test: list[dict[str, str]]) -> dict[str, float]:
    """Means of the same encoder's last states, each row encoded once, then GridSearchCV with five folds for each kind of head."""
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.neural_network import MLPClassifier
    from sklearn.svm import LinearSVC
    from transformers import AutoModel, AutoTokenizer

    from tunesmith.models.boosting import rounds_for
    from tunesmith.models.load import model_path
    from tunesmith.spec.schema import Model

    tokenizer, model = AutoTokenizer.from_pretrained(model_path(Model())), AutoModel.from_pretrained(model_path(Model())).eval()
    started, parts = time.perf_counter(), []
    with torch.inference_mode():
        for rows in (train, test):
            means = []
            for at in range(0, len(rows), 64):
                batch = tokenizer(
                    [row["text"] for row in rows[at : at + 64]], padding=True, truncation=True, max_length=128, return_tensors="pt"
                )
                mask = batch["attention_mask"].unsqueeze(-1)
                means.append((model(**batch).last_hidden_state * mask).sum(1) / mask.sum(1))
            parts.append((torch.cat(means).numpy(), np.array([row["label"] for row in rows])))
    seconds = {"forward": time.perf_counter() - started}
    (features, labels), (asked, truth) = parts
    kinds: dict[str, tuple[Any, dict[str, list[Any]]]] = {
        "logistic": (LogisticRegression(max_iter=1000), {"C": [0.1, 1.0, 10.0, 100.0]}),
        "linear_svm": (CalibratedClassifierCV(LinearSVC(), ensemble=False), {"estimator__C": [0.1, 1.0]}),
        "knn": (KNeighborsClassifier(15, metric="cosine", weights="distance"), {}),
        "gradient_boosting": (HistGradientBoostingClassifier(max_iter=rounds_for(len(set(labels))), early_stopping=False), {}),
        "mlp": (MLPClassifier(256, max_iter=100), {}),
    }
    best: dict[str, Any] = {}
    for kind, (estimator, grid) in kinds.items():
        began = time.perf_counter()
        best[kind] = GridSearchCV(estimator, grid, cv=5).fit(features, labels)
        seconds[kind] = time.perf_counter() - began
    scores = {f"{kind}_score": float(found.best_score_) for kind, found in best.items()}
    winner = max(best.values(), key=lambda found: found.best_score_)
    return {"seconds": sum(seconds.values()), **seconds, **scores, "accuracy": float((winner.predict(asked) == truth).mean())}


def everything(options: argparse.Namespace) -> None:
    """Every figure, one after the other; what is measured, then its table."""
    texts_in, pictures_in = str(options.data / "banking77"), str(options.data / "fashion_mnist_10k")
    asked: list[tuple[str, list[str]]] = [
        ("top block of six, Banking77", ["layers", texts_in, "--top", "1"]),
        ("top two of six, Banking77", ["layers", texts_in, "--top", "2"]),
        ("top block of six, SST-2", ["layers", str(options.data / "sst2"), "--top", "1"]),
        ("top block of twelve, Banking77", ["layers", texts_in, "--top", "1", "--blocks", "12"]),
        ("last stage of MobileNet, Fashion-MNIST", ["pictures", pictures_in, "--models", str(options.models)]),
        ("filling the store, Banking77", ["fill", texts_in]),
        ("five heads, five folds, Banking77", ["heads", texts_in, "--contenders", "tunesmith"]),
    ]
    common = ["--repeats", str(options.repeats), *(["--limit", str(options.limit)] if options.limit else [])]
    for title, arguments in asked:
        print(f"\n== {title}", flush=True)
        subprocess.run([sys.executable, __file__, *arguments, *common], check=True)
    print("\n== every weight, Banking77", flush=True)
    subprocess.run([sys.executable, str(Path(__file__).with_name("train.py")), texts_in, *common], check=True)


def main() -> None:
    """Print one line per run and a table of medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("all", *CONTENDERS))
    parser.add_argument("data", type=Path)
    parser.add_argument("--models", type=Path)
    parser.add_argument("--top", type=int, default=1)
    parser.add_argument("--rate", type=float, default=RATE)
    parser.add_argument("--blocks", type=int, default=6)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--peer-epochs", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--contenders", nargs="+", choices=sorted({name for names in CONTENDERS.values() for name in names}))
    parser.add_argument("--only", help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.what == "all":
        everything(options)
    elif options.only:
        print(json.dumps({"layers": texts, "pictures": pictures, "heads": heads, "fill": fill}[options.what](options)))
    else:
        table(in_turn(options.contenders or CONTENDERS[options.what], options.repeats))


if __name__ == "__main__":
    main()

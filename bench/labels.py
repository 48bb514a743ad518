"""Planted and human label noise: which suspects are named, and how much of the lost accuracy dropping or correcting them brings back.

    python bench/labels.py DATA_DIR [--rows 4000] [--cache FOLDER]

DATA_DIR holds banking77, sst2 (10 % of the labels flipped at random, seeded; features of the starter encoder, computed
once and kept in the cache) and cifar10_8k (labels of people, which are wrong for 9 % and 17 % of the pictures; 8 × 8 pixels).
Suspects are compared with cleanlab's default filter on the same out-of-fold probabilities. Accuracy is that of a logistic
regression on the clean test labels. Whatever is missing is left out, and said.
"""

from __future__ import annotations

import argparse
import gzip
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import torch
from cleanlab.filter import find_label_issues
from numpy.typing import NDArray

from tunesmith.data.labels import Fit, OutOfFold, out_of_fold, out_of_fold_loss, suspects_single
from tunesmith.models.linear import Linear, Penalty, fit_logistic

Features = NDArray[np.float32]
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
FOLDS, STRENGTHS = 5, (0.003, 0.03, 0.3, 1.0)


@dataclass(frozen=True)
class Noisy:
    """A training set with wrong labels, the right ones, and a clean test set."""

    name: str
    train: Features
    noisy: Ints
    clean: Ints
    test: Features
    test_labels: Ints


def texts(folder: Path, cache: Path, rows: int) -> Noisy:
    """A text set with a tenth of its training labels flipped to another class."""
    features, labels = {}, {}
    tables = {split: pl.read_ndjson(gzip.decompress((folder / f"{split}.jsonl.gz").read_bytes())) for split in ("train", "test")}
    names = sorted(set(tables["train"]["label"].cast(pl.String)))
    for split, whole in tables.items():
        table = whole.sample(min(rows, whole.height), shuffle=True, seed=0).with_columns(pl.col("label").cast(pl.String))
        path = cache / f"{folder.name}_{split}_{table.height}.npy"
        if not path.is_file():
            cache.mkdir(parents=True, exist_ok=True)
            np.save(path, embedded(table, names))
        features[split], labels[split] = np.load(path), np.array([names.index(label) for label in table["label"]])
    draw, clean = np.random.default_rng(0), labels["train"]
    noisy = np.where(draw.random(len(clean)) < 0.1, (clean + draw.integers(1, len(names), len(clean))) % len(names), clean)
    return Noisy(f"{folder.name}, 10 % flipped", features["train"], noisy, clean, features["test"], labels["test"])


def embedded(table: pl.DataFrame, names: list[str]) -> Features:
    """Mean features of the starter encoder."""
    from tunesmith.models.build import build_model
    from tunesmith.models.forward import frozen_features
    from tunesmith.models.load import load_processor
    from tunesmith.spec.load import load_spec
    from tunesmith.tasks.text_classification import TextClassification

    spec, task = load_spec({"name": "labels", "data": {"train": "none.csv"}}), TextClassification(names)
    encoding = task.encode(table, load_processor(spec.model), 128)
    return frozen_features(build_model(spec, task), task, encoding).mean_NE.numpy()


def pictures(folder: Path, column: str, rows: int) -> Noisy:
    """Small pictures as 8 × 8 pixels, with labels that people gave."""
    from PIL import Image

    table = pl.read_csv(folder / "metadata.csv")
    names = sorted(set(table["label"]))
    parts = {}
    for split in ("train", "test"):
        part = table.filter(pl.col("split") == split)
        part = part.sample(min(rows, part.height), shuffle=True, seed=0)
        pixels = [np.asarray(Image.open(folder / f).convert("RGB").resize((8, 8), Image.Resampling.BOX)) for f in part["file_name"]]
        given = part[column] if split == "train" else part["label"]
        numbers = [np.array([names.index(label) for label in labels]) for labels in (given, part["label"])]
        parts[split] = (np.stack(pixels).reshape(len(pixels), -1).astype(np.float32) / 255, *numbers)
    (train, noisy, clean), (test, _, test_labels) = parts["train"], parts["test"]
    return Noisy(f"{folder.name}, {column}, {(noisy != clean).mean():.1%} wrong", train, noisy, clean, test, test_labels)


def fitted(features: Features, labels: Ints, classes: int, strength: float) -> Linear:
    """A logistic regression on the rows."""
    return fit_logistic(torch.from_numpy(features), labels, classes, Penalty(strength))


def fitter(classes: int, strength: float) -> Fit:
    """How a fold is fitted."""

    def fit(features: Features, labels: Ints) -> Callable[[Features], Floats]:
        linear = fitted(features, labels, classes, strength)
        return lambda rows: torch.softmax(linear(torch.from_numpy(rows)), -1).numpy()

    return fit


def found(mask: NDArray[np.bool_], wrong: NDArray[np.bool_]) -> str:
    """Count, precision, recall and F1 of named rows."""
    hits, named = int((mask & wrong).sum()), int(mask.sum())
    precision, recall, f1 = hits / max(named, 1), hits / wrong.sum(), 2 * hits / (named + wrong.sum())
    return f"{named:5} named  precision {precision:.3f}  recall {recall:.3f}  F1 {f1:.3f}"


def measure(data: Noisy) -> None:
    """Print what suspects find, and what dropping and correcting them brings."""
    classes, wrong, started = int(data.clean.max()) + 1, data.noisy != data.clean, time.perf_counter()
    folds = np.random.default_rng(1).integers(0, FOLDS, len(data.noisy))
    outs = {s: out_of_fold(data.train, data.noisy, folds, fitter(classes, s)) for s in STRENGTHS}
    losses = {s: out_of_fold_loss(out, data.noisy) for s, out in outs.items()}
    best = min(losses, key=lambda s: losses[s])
    print(f"{data.name}: {len(wrong)} rows, {classes} classes, {wrong.mean():.1%} wrong; {time.perf_counter() - started:.0f} s", flush=True)
    for strength in dict.fromkeys((best, 1.0)):
        how = "least out-of-fold loss" if strength == best else "the usual one"
        print(f"  regression of strength {strength}, {how}: loss {losses[strength]:.3f}")
        compare(data, outs[strength], strength)


def compare(data: Noisy, out: OutOfFold, strength: float) -> None:
    """Print suspects beside cleanlab's default on the same probabilities, and test accuracies."""
    wrong, everything = data.noisy != data.clean, np.ones(len(data.noisy), bool)
    suspects = suspects_single(data.noisy, out.probabilities_NC, out.judged_N)
    ours, corrected, noise = ~everything, data.noisy.copy(), suspects.noise
    for suspect in suspects.suspects:
        ours[suspect.row], corrected[suspect.row] = True, int(suspect.suggested or 0)
    default = find_label_issues(data.noisy, out.probabilities_NC, n_jobs=1)
    low, high = noise.interval
    print(
        f"    named {noise.share:.1%} [{low:.1%}, {high:.1%}], inferred {noise.inferred or 0:.1%}, agreement {suspects.agreement or 0:.1%}"
    )
    if suspects.note:
        print(f"    {suspects.note}")
    print(f"    suspects          {found(ours, wrong)}\n    cleanlab default  {found(default, wrong)}")
    clean, noisy = (accuracy(data, labels, everything, strength) for labels in (data.clean, data.noisy))
    print(f"    test accuracy     clean {clean:.4f}  noisy {noisy:.4f}")
    ways = {"dropped": (data.noisy, ~ours), "corrected": (corrected, everything), "cleanlab dropped": (data.noisy, ~default)}
    for name, (labels, keep) in ways.items():
        score = accuracy(data, labels, keep, strength)
        share = (
            f"{(score - noisy) / (clean - noisy):.0%} of the {clean - noisy:.2%} lost recovered" if clean > noisy else "nothing was lost"
        )
        print(f"    {name:17} {score:.4f}  {share}", flush=True)


def accuracy(data: Noisy, labels: Ints, keep: NDArray[np.bool_], strength: float) -> float:
    """Test accuracy of a regression on the kept rows."""
    linear = fitted(data.train[keep], labels[keep], int(data.clean.max()) + 1, strength)
    return float((linear(torch.from_numpy(data.test)).argmax(1).numpy() == data.test_labels).mean())


def sets(options: argparse.Namespace) -> Iterator[Noisy]:
    """The data sets that are there."""
    for name in ("banking77", "sst2", "cifar10_8k"):
        folder = options.data / name
        if not folder.is_dir():
            print(f"{name}: left out, {folder} is missing")
        elif name == "cifar10_8k":
            yield from (pictures(folder, column, options.rows) for column in ("noisy_aggre", "noisy_random1"))
        else:
            yield texts(folder, options.cache, options.rows)


def main() -> int:
    """Exit code 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--rows", type=int, default=4000)
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "tunesmith_bench_labels")
    for data in sets(parser.parse_args()):
        measure(data)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Planted and human label noise: which suspects are named, and how much of the lost accuracy dropping or correcting them brings back.

    python bench/labels.py DATA_DIR [--models FOLDER] [--rows 4000] [--seeds 5] [--cache FOLDER]

DATA_DIR holds banking77, sst2 (10 % of the labels flipped at random, once for each seed; features of the starter encoder)
and cifar10_8k (labels of people, which are wrong for 9 % and 17 % of the pictures; features of FOLDER/mobilenet-v2-imagenet
at 128 × 128). Features are computed once and kept in the cache. Suspects are compared with cleanlab's default filter on the
same out-of-fold probabilities; "as many" are the rows of lowest quality, as many as that filter names. Accuracy is that of
scikit-learn's usual logistic regression (C = 1) on the clean test labels, and that of the strength with the least out-of-fold
loss. In squad_xquad_en answers are exchanged with others of their text. Figures are means over seeds. Whatever is missing is left out,
and said.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from cleanlab.filter import find_label_issues
from numpy.typing import NDArray

from tunesmith.data.label_answers import candidates, odd_answers
from tunesmith.data.labels import Fit, out_of_fold, out_of_fold_loss, suspects_single, trust
from tunesmith.models.linear import Linear, Penalty, fit_logistic
from tunesmith.stages import wrong_answers

Features = NDArray[np.float32]
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
FOLDS, STRENGTHS, USUAL = 5, (0.003, 0.03, 0.3, 1.0), 1.0
ENCODER = "mobilenet-v2-imagenet"


@dataclass(frozen=True)
class Noisy:
    """A training set with wrong labels, the right ones, and a clean test set."""

    name: str
    train: Features
    noisy: Ints
    clean: Ints
    test: Features
    test_labels: Ints


def texts(folder: Path, cache: Path, rows: int, seeds: int) -> Iterator[Noisy]:
    """A text set with a tenth of its training labels flipped to another class, once for each seed."""
    features, labels = {}, {}
    tables = {split: pl.read_ndjson(gzip.decompress((folder / f"{split}.jsonl.gz").read_bytes())) for split in ("train", "test")}
    names = sorted(set(tables["train"]["label"].cast(pl.String)))
    for split, whole in tables.items():
        table = whole.sample(min(rows, whole.height), shuffle=True, seed=0).with_columns(pl.col("label").cast(pl.String))
        features[split] = kept(cache / f"{folder.name}_{split}_{table.height}.npy", partial(embedded, table, names))
        labels[split] = np.array([names.index(label) for label in table["label"]])
    for seed in range(seeds):
        draw, clean = np.random.default_rng(seed), labels["train"]
        noisy = np.where(draw.random(len(clean)) < 0.1, (clean + draw.integers(1, len(names), len(clean))) % len(names), clean)
        yield Noisy(f"{folder.name}, 10 % flipped", features["train"], noisy, clean, features["test"], labels["test"])


def kept(path: Path, compute: Callable[[], Features]) -> Features:
    """Features from the cache, computed when they are not there."""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, compute())
    return np.asarray(np.load(path), np.float32)


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


def pictures(folder: Path, column: str, options: argparse.Namespace) -> Iterator[Noisy]:
    """Pictures with labels that people gave."""
    table = pl.read_csv(folder / "metadata.csv")
    names = sorted(set(table["label"]))
    parts = {}
    for split in ("train", "test"):
        part = table.filter(pl.col("split") == split)
        part = part.sample(min(options.rows, part.height), shuffle=True, seed=0)
        files = [folder / name for name in part["file_name"]]
        features = kept(options.cache / f"{folder.name}_{split}_{part.height}.npy", partial(seen, files, options.models / ENCODER))
        given = part[column] if split == "train" else part["label"]
        parts[split] = (features, *(np.array([names.index(label) for label in labels]) for labels in (given, part["label"])))
    (train, noisy, clean), (test, _, test_labels) = parts["train"], parts["test"]
    yield Noisy(f"{folder.name}, {column}, {(noisy != clean).mean():.1%} wrong", train, noisy, clean, test, test_labels)


def seen(files: list[Path], encoder: Path) -> Features:
    """Pooled features of a picture encoder, a row for each file."""
    from PIL import Image
    from transformers import AutoModel

    model = AutoModel.from_pretrained(encoder).eval()
    parts = []
    for start in range(0, len(files), 50):
        images = [Image.open(file).convert("RGB").resize((128, 128), Image.Resampling.BICUBIC) for file in files[start : start + 50]]
        pixels = torch.from_numpy(np.stack([np.asarray(image) for image in images])).permute(0, 3, 1, 2) / 127.5 - 1
        with torch.inference_mode():
            parts.append(model(pixels).pooler_output.flatten(1).numpy())
    return np.concatenate(parts)


def fitted(features: Features, labels: Ints, classes: int, strength: float, weights: Floats | None = None) -> Linear:
    """A logistic regression on the rows."""
    return fit_logistic(torch.from_numpy(features), labels, classes, Penalty(strength), weights)


def fitter(classes: int, strength: float) -> Fit:
    """How a fold is fitted."""

    def fit(features: Features, labels: Ints, weights: Floats | None) -> Callable[[Features], Floats]:
        linear = fitted(features, labels, classes, strength, weights)
        return lambda rows: torch.softmax(linear(torch.from_numpy(rows)), -1).numpy()

    return fit


def found(name: str, mask: NDArray[np.bool_], wrong: NDArray[np.bool_]) -> dict[str, float]:
    """Precision, recall and F1 of named rows."""
    hits, named = int((mask & wrong).sum()), int(mask.sum())
    figures = {"precision": hits / max(named, 1), "recall": hits / wrong.sum(), "F1": 2 * hits / (named + wrong.sum())}
    return {f"{name} {key}": float(value) for key, value in figures.items()}


def measure(data: Noisy) -> dict[str, float]:
    """What suspects find beside cleanlab's default, in one judging and two, and what dropping and correcting them brings."""
    classes, wrong = int(data.clean.max()) + 1, data.noisy != data.clean
    folds = np.random.default_rng(1).integers(0, FOLDS, len(data.noisy))
    outs = {s: out_of_fold(data.train, data.noisy, folds, fitter(classes, s)) for s in STRENGTHS}
    best = min(outs, key=lambda s: out_of_fold_loss(outs[s], data.noisy))
    once = outs[best]
    twice = out_of_fold(data.train, data.noisy, folds, fitter(classes, best), trust(once, data.noisy))
    default = find_label_issues(data.noisy, twice.probabilities_NC, n_jobs=1)
    out = {"wrong": float(wrong.mean()), "strength": best, **found("cleanlab", default, wrong)}
    for name, judged in (("judged once", once), ("suspects", twice)):
        ours, corrected = np.zeros(len(wrong), bool), data.noisy.copy()
        for suspect in suspects_single(data.noisy, judged.probabilities_NC, judged.judged_N).suspects:
            ours[suspect.row], corrected[suspect.row] = True, int(suspect.suggested or 0)
        out |= found(name, ours, wrong)
    worst = np.argsort(suspects_single(data.noisy, twice.probabilities_NC, twice.judged_N).quality_N, kind="stable")
    as_many = np.isin(np.arange(len(wrong)), worst[: int(default.sum())])
    out |= found("as many", as_many, wrong)
    for strength in (USUAL, best):
        every = np.ones(len(wrong), bool)
        ways = {"clean": (data.clean, every), "noisy": (data.noisy, every), "dropped": (data.noisy, ~ours), "corrected": (corrected, every)}
        ways["cleanlab dropped"] = (data.noisy, ~default)
        scores = {name: accuracy(data, labels, keep, strength) for name, (labels, keep) in ways.items()}
        out |= {f"{name}, {'C = 1' if strength == USUAL else 'chosen'}": score for name, score in scores.items()}
    return out


def accuracy(data: Noisy, labels: Ints, keep: NDArray[np.bool_], strength: float) -> float:
    """Test accuracy of a regression on the kept rows."""
    linear = fitted(data.train[keep], labels[keep], int(data.clean.max()) + 1, strength)
    return float((linear(torch.from_numpy(data.test)).argmax(1).numpy() == data.test_labels).mean())


def told(runs: list[dict[str, float]]) -> None:
    """Print means over seeds, and the share of the lost accuracy that each way brings back."""
    mean = {key: statistics.mean(run[key] for run in runs) for key in runs[0] if all(key in run for run in runs)}
    for name in ("suspects", "judged once", "cleanlab", "as many"):
        print(f"    {name:17}" + "".join(f"  {key} {mean[f'{name} {key}']:.3f}" for key in ("precision", "recall", "F1")))
    for how in ("C = 1", "chosen"):
        if f"noisy, {how}" not in mean:  # the chosen strength is the usual one
            continue
        noisy, lost = mean[f"noisy, {how}"], mean[f"clean, {how}"] - mean[f"noisy, {how}"]
        shares = [f"{name} {(mean[f'{name}, {how}'] - noisy) / lost:.0%}" for name in ("dropped", "corrected", "cleanlab dropped")]
        print(f"    accuracy, {how}: clean {noisy + lost:.4f}, noisy {noisy:.4f}; of {lost:.4f} lost, brought back: {', '.join(shares)}")
    sys.stdout.flush()


def sets(options: argparse.Namespace) -> Iterator[Iterator[Noisy]]:
    """The data sets that are there; each once for every draw of its noise."""
    for name in ("banking77", "sst2", "cifar10_8k"):
        folder = options.data / name
        if not folder.is_dir():
            print(f"{name}: left out, {folder} is missing")
        elif name != "cifar10_8k":
            yield texts(folder, options.cache, options.rows, options.seeds)
        elif options.models and (options.models / ENCODER).is_dir():
            yield from (pictures(folder, column, options) for column in ("noisy_aggre", "noisy_random1"))
        else:
            print(f"{name}: left out, --models FOLDER with {ENCODER} is missing")


def answers(folder: Path, seeds: int, share: float) -> None:
    """Print how many of the answers that were exchanged with another one of their text are named, and how many others."""
    rows = [json.loads(line) for line in gzip.decompress((folder / "train.jsonl.gz").read_bytes()).splitlines()]
    texts = [row["context"] for row in rows]
    number = {text: place for place, text in enumerate(dict.fromkeys(texts))}
    others: dict[str, list[list[dict[str, Any]]]] = {}
    for row in rows:
        others.setdefault(row["context"], []).append(row["answers"])
    counts = []
    for seed in range(seeds):
        draw, given, wrong = random.Random(seed), [row["answers"] for row in rows], set[int]()
        for place, text in enumerate(texts):
            strange = [one for one in others[text] if one[0]["text"] != given[place][0]["text"]]
            if strange and draw.random() < share:
                given[place] = draw.choice(strange)
                wrong.add(place)
        found = candidates([row["question"] for row in rows], texts, given)
        logit_N = wrong_answers.judged(found, np.array([number[texts[row]] % FOLDS for row in found.row_N]))[found.own_N]
        own = found.row_N[found.own_N]
        named = {int(own[place]) for place, _ in odd_answers(logit_N)}
        first = set(own[np.argsort(logit_N)][: len(wrong)].tolist())
        counts.append((len(wrong), len(named), len(named & wrong), len(first & wrong)))
    exchanged, named_N, right, among = np.mean(counts, 0)
    print(f"{folder.name}: {len(rows)} rows, {exchanged:.1f} answers exchanged; {named_N:.1f} named, {right:.1f} of them exchanged; "
          f"{among:.1f} exchanged among the first {exchanged:.1f}")  # fmt: skip


def main() -> int:
    """Exit code 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--models", type=Path)
    parser.add_argument("--rows", type=int, default=4000)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "tunesmith_bench_labels")
    options = parser.parse_args()
    if (options.data / "squad_xquad_en").is_dir():
        for share in (0.1, 0.0):
            answers(options.data / "squad_xquad_en", options.seeds, share)
    for draws in sets(options):
        runs = []
        for data in draws:
            runs.append(measure(data))
        print(f"{data.name}: {len(data.noisy)} rows, {len(set(data.clean.tolist()))} classes, {len(runs)} draws of noise")
        told(runs)
    return 0


if __name__ == "__main__":
    sys.exit(main())

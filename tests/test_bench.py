"""Benchmarks run, for one epoch on a few rows. What they measure is for an idle machine, not for tests."""

from __future__ import annotations

import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest

from tests.test_train import Bench, spec_of
from tunesmith.train.fit import Fitted

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"


def _needs(*names: str) -> list[str]:
    paths = [SHARED / name for name in names]
    for path in paths:
        if not path.exists():
            pytest.skip(f"{path.name} is not there: this bench reads real data")
    return [str(path) for path in paths]


def _table(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, str(ROOT / "bench" / arguments[0]), *arguments[1:], "--repeats", "1", "--epochs", "1"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_pictures() -> None:
    data, models = _needs("data/fashion_mnist_10k", "models")
    assert "accuracy" in _table("strategies.py", "pictures", data, "--models", models, "--limit", "40", "--contenders", "tunesmith")


def test_layers() -> None:
    (data,) = _needs("data/sst2")
    assert "accuracy" in _table("strategies.py", "layers", data, "--limit", "100", "--contenders", "tunesmith")


def test_a_peer_that_writes_leaves_the_model_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    import writing

    words = writing.byte_pairs(["a b c"], 300)
    model = writing.small_model("t5", words, Namespace(width=64, layers=1))
    model.generation_config.max_new_tokens = 3
    before = model.generation_config.to_dict()
    writing.by_trainer(model, words, [{"input_ids": [5, 6, 2], "attention_mask": [1, 1, 1]}], 1)
    assert model.generation_config.to_dict() == before  # or ours would not follow them and leave writing to `generate`


def test_both_contenders_keep_the_weights_of_the_last_epoch(monkeypatch: pytest.MonkeyPatch, tiny_bert: Path, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    import peers

    fits, plain = list[Fitted](), peers.fit
    monkeypatch.setattr(peers, "fit", lambda model, job: fits.append(plain(model, job)))
    bench = Bench(tiny_bert, tmp_path)
    peers.ours(bench.model(spec_of(tiny_bert)), bench.task, bench.encoding, Namespace(epochs=3, rate=1e-3, seed=0, top=1))
    assert fits[0].best_step == fits[0].steps and fits[0].epochs_run == 3


def test_similarity() -> None:
    (data,) = _needs("data/stsb")
    assert "spearman" in _table("tasks_text.py", "similarity", data, "--limit", "40").lower()

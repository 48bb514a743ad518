"""Whole runs of the strategies that work beside frozen weights: documents, verification, loading with and without this project."""

from __future__ import annotations

import re
import shutil
import warnings
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch

import tunesmith
from tests.test_run import assert_pipeline_agrees, run
from tunesmith.core.errors import SpecError
from tunesmith.core.rundir import RunDir
from tunesmith.stages.plan import make_plan
from tunesmith.stages.verify import verify_run

MERGED = [
    {"kind": "gradual", "blocks": 1},
    {"kind": "bitfit"},
    {"kind": "lora", "rank": 2, "top": 1, "use_dora": True},
    {"kind": "ia3"},
    {"kind": "layers", "parts": ["*.1.attention.*"]},
    {"kind": "full", "freeze_embeddings": True},
]


@pytest.mark.parametrize("strategy", MERGED, ids=lambda s: s["kind"])
def test_what_can_be_merged_is_a_plain_folder(tmp_path: Path, tiny_bert: Path, strategy: dict[str, Any]) -> None:
    done = run(tmp_path, tiny_bert, strategy=strategy, evaluate={"baselines": []})
    assert verify_run(RunDir(done.path), 2).ok
    assert_pipeline_agrees(done)
    assert (done.path / "model/adapter/adapter_config.json").exists() == (strategy["kind"] in ("lora", "ia3"))
    assert done.findings["store/used"].value == ("yes" if strategy["kind"] in ("gradual", "layers", "lora") else "no")


@pytest.mark.parametrize("kind", ["prompt_tuning", "prefix_tuning"])
def test_prompts_stand_beside_a_model_that_goes_with_them(
    tmp_path: Path, tiny_bert: Path, kind: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from peft import AutoPeftModelForSequenceClassification

    done = run(tmp_path, tiny_bert, strategy={"kind": kind, "virtual_tokens": 4}, evaluate={"baselines": []})
    stored = pl.read_parquet(done.path / "predictions/test.parquet")
    texts = pl.read_parquet(done.path / "data/test.parquet")["text"].to_list()
    predictor = tunesmith.load(done.path)
    answers = [list(p.probabilities.values()) for p in predictor.predict(texts)]
    assert torch.allclose(torch.tensor(answers), torch.tensor(stored["probabilities"].to_list()), atol=1e-5)
    model = AutoPeftModelForSequenceClassification.from_pretrained(done.model_path).eval()
    with torch.no_grad():
        inputs = predictor.processor(texts, truncation=True, padding=True, return_tensors="pt")
        assert torch.allclose(model(**inputs).logits.softmax(-1), torch.tensor(answers), atol=1e-5)
    moved = tmp_path / "elsewhere" / "runs" / "t"
    shutil.copytree(done.path, moved)
    shutil.rmtree(done.path)
    assert [p.label for p in tunesmith.load(moved).predict(texts)] == stored["predicted"].to_list()
    assert verify_run(RunDir(moved), 2).ok
    code = re.search(r"## How to start\n.*?```python\n(.*?)```", (moved / "MODEL_CARD.md").read_text(), re.S)
    assert code
    monkeypatch.chdir(moved.parents[1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of PEFT and transformers, in lines that are not ours
        exec(code.group(1), {})
    printed = capsys.readouterr().out
    assert any(f"'label': '{label}'" in printed for label in predictor.labels)


def test_four_bits_are_refused_before_anything_is_computed(tmp_path: Path, tiny_bert: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(SpecError, match=r"qlora without .*a GPU"):
        run(tmp_path, tiny_bert, strategy={"kind": "qlora"})
    assert not (tmp_path / "runs/t/data").exists()
    spec = tunesmith.load_spec({"name": "t", "data": {"train": str(tmp_path / "tickets.csv")}, "strategy": {"kind": "qlora"}})
    assert any(issue.where == "strategy.kind" for issue in make_plan(spec, tmp_path).issues)

"""Fixtures: a tiny pretrained model per architecture, made once per session."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny models: threads would only wait for each other


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny BERT."""
    from tests.tiny import save_pretrained

    return save_pretrained(tmp_path_factory.mktemp("tiny") / "bert", "bert")

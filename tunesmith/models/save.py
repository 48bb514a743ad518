"""Finished models on disk: plain Hugging Face layout, safetensors, loadable without this project."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from tunesmith.models.load import quiet
from tunesmith.models.strategies import is_adapted, merged


def save_model(model: Any, processor: Any, folder: Path) -> list[str]:
    """Write the model (adapters merged, and kept under adapter/) and its processor; gives the files' paths inside `folder`."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with quiet():
        if is_adapted(model):
            model.save_pretrained(folder / "adapter")
            (folder / "adapter" / "README.md").unlink(missing_ok=True)  # PEFT's empty template; the card beside the model says more
        merged(model).save_pretrained(folder)
        processor.save_pretrained(folder)
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())

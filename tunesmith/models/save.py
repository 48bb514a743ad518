"""Finished models on disk: plain Hugging Face layout, safetensors, loadable without this project."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from tunesmith.models.adapters import can_merge, is_adapted, merged, plain_weights
from tunesmith.models.load import quiet

BASE = "base"
"""Folder, beside prompts, of the whole model that they stand before."""


def save_model(model: Any, processor: Any, folder: Path) -> list[str]:
    """Write the model and its processor; gives the files' paths inside `folder`.

    Adapters are merged, and kept under adapter/. Prompts cannot be: the folder is then one of PEFT, with the whole model under base/.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with quiet():
        if not can_merge(model):
            _save_prompts(model, folder)
        else:
            if is_adapted(model):
                model.save_pretrained(folder / "adapter")
                (folder / "adapter" / "README.md").unlink(missing_ok=True)  # PEFT's empty template; the card beside the model says more
            merged(model).save_pretrained(folder)
        processor.save_pretrained(folder)
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def _save_prompts(model: Any, folder: Path) -> None:
    """PEFT looks for the whole model at the path that is written here; wherever the folder goes, `load_finished` looks beside it."""
    model.get_base_model().save_pretrained(folder / BASE, state_dict=plain_weights(model))
    model.active_peft_config.base_model_name_or_path = str((folder / BASE).absolute())
    model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)


def save_pooling(folder: Path, pooling: str, width: int, max_length: int) -> list[str]:
    """Write beside a network what sentence-transformers needs to make the same vectors of it; gives the files' paths inside `folder`."""
    parts = (("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize"))
    modules = [
        {"idx": n, "name": str(n), "path": path, "type": f"sentence_transformers.models.{kind}"} for n, (path, kind) in enumerate(parts)
    ]
    modes = {f"pooling_mode_{name}": name.startswith(pooling) for name in ("cls_token", "mean_tokens", "max_tokens")}
    written = {
        "modules.json": modules,
        "1_Pooling/config.json": {"word_embedding_dimension": width, **modes},
        "sentence_bert_config.json": {"max_seq_length": max_length, "do_lower_case": False},
        "config_sentence_transformers.json": {"similarity_fn_name": "cosine"},
    }
    for name, content in written.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(content, indent=1) + "\n", "utf-8")
    return list(written)


def learned_weights(folder: Path) -> tuple[Path, Path]:
    """The file with what was learned, or its first part, and the configuration of the network, in the folder of a saved model."""
    prompts = folder / "adapter_model.safetensors"
    if prompts.exists():
        return prompts, folder / BASE / "config.json"
    whole = folder / "model.safetensors"
    return whole if whole.exists() else sorted(folder.glob("*.safetensors"))[0], folder / "config.json"

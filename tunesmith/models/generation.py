"""How a model writes its answers: settings that it carries into its folder, so that plain `generate` says what was tested."""

from __future__ import annotations

from typing import Any

from transformers import GenerationConfig

from tunesmith.core.errors import ModelError
from tunesmith.core.records import Issue
from tunesmith.spec.generation import BeamSearch, Generation


def set_generation(model: Any, rule: Generation, processor: Any) -> None:
    """Give a model the spec's way of writing, on top of its own first, last and forced tokens: it is saved and used with it.

    Raises:
        ModelError: no token starts or ends its answers.
    """
    own = model.generation_config.to_dict()
    config = GenerationConfig.from_dict({**own, "do_sample": False, "temperature": None, "top_p": None, "top_k": None})
    beams = rule.search if isinstance(rule.search, BeamSearch) else None
    config.update(
        num_beams=beams.num_beams if beams else 1,
        length_penalty=beams.length_penalty if beams else None,
        max_new_tokens=rule.max_new_tokens,
        max_length=None,
        min_length=None,
        early_stopping=bool(beams) and own.get("early_stopping") is True,
        no_repeat_ngram_size=rule.no_repeat_ngram_size,
    )
    for name, usual in (("decoder_start_token_id", model.config.to_dict().get("decoder_start_token_id")),
                        ("eos_token_id", processor.eos_token_id), ("pad_token_id", processor.pad_token_id)):  # fmt: skip
        if own.get(name) is None:
            config.update(**{name: usual})
    lacking = [name for name in ("decoder_start_token_id", "eos_token_id") if config.to_dict().get(name) is None]
    if lacking:
        found = f"none in {type(model).__name__}"
        raise ModelError(Issue("model.name", f"must have a {lacking[0]}", found, "Add it to the model's generation_config.json."))
    model.generation_config = config

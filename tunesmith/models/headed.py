"""A network with a head that transformers cannot hold: called, saved and loaded as one. No pickle: arrays and a few words of JSON.

Beside the network in Hugging Face layout lie `head.safetensors` and `head.json`. The network's own output layer is left out of
its file, so that transformers says that it is new instead of answering with numbers that mean nothing.
Shape suffixes: B = rows of a batch, T = tokens, E = width.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tunesmith.core.errors import RunError
from tunesmith.core.records import Issue
from tunesmith.models.anatomy import output_layer
from tunesmith.models.forward import one_per_row
from tunesmith.models.heads import kind_of, make_head
from tunesmith.models.load import load_finished

FORMAT = 1
HEAD_JSON, HEAD_ARRAYS = "head.json", "head.safetensors"
Reads = Literal["features", "states"]


class Headed(nn.Module):
    """A frozen network and a head; the call of a classifier of transformers.

    Args:
        network: a classifier of transformers.
        head: what answers.
        reads: "features": what the output layer of the network reads. "states": the last hidden states of all tokens.
    """

    def __init__(self, network: Any, head: nn.Module, reads: Reads) -> None:
        super().__init__()
        self.network, self.head, self.reads = network.requires_grad_(False), head.to(network.device), reads
        self.config, self.main_input_name = network.config, network.main_input_name

    def train(self, mode: bool = True) -> Headed:
        """Itself in the given mode; the network stays in evaluation mode: dropout there would only be noise."""
        super().train(mode)
        self.network.eval()
        return self

    def forward(self, **batch: Tensor) -> SimpleNamespace:
        """An object with logits (B, C)."""
        if self.reads == "states":
            return SimpleNamespace(logits=self.head(self.network.base_model(**batch)[0], batch.get("attention_mask")))
        seen: list[Tensor] = []
        output = output_layer(self.network, self.network.config.num_labels)[1]
        hook = output.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
        try:
            self.network(**batch)
        finally:
            hook.remove()
        return SimpleNamespace(logits=self.head(one_per_row(seen.pop(), batch)))

    def save_pretrained(self, folder: Path) -> None:
        """Write the network without its output layer, and the head."""
        output = output_layer(self.network, self.network.config.num_labels)[0]
        kept = {name: value for name, value in self.network.state_dict().items() if not name.startswith(f"{output}.")}
        self.network.save_pretrained(folder, state_dict=kept)
        save_file({name: value.contiguous() for name, value in self.head.state_dict().items()}, folder / HEAD_ARRAYS)
        content = {"format": FORMAT, "kind": kind_of(self.head), "reads": self.reads, "options": self.head.options}
        (folder / HEAD_JSON).write_text(json.dumps(content, indent=1) + "\n", "utf-8")


def load_shipped(auto: Any, folder: Path, trust_remote_code: bool) -> Any:
    """A saved model on the device in use: one of transformers, or a network with the head that lies beside it.

    Args:
        auto: transformers auto class of the network.
        folder: where it was saved.
        trust_remote_code: run code that came with it.

    Raises:
        RunError: the files of the head cannot be read, or do not fit each other.
    """
    network = load_finished(auto, folder, trust_remote_code)
    if not (folder / HEAD_JSON).exists():
        return network
    head, reads = load_head(folder)
    return Headed(network, head, reads).eval()


def load_head(folder: Path) -> tuple[nn.Module, Reads]:
    """The head in a folder, and what it reads."""
    try:
        content = json.loads((folder / HEAD_JSON).read_text("utf-8"))
        if content["format"] != FORMAT or content["reads"] not in ("features", "states"):
            raise ValueError(f"format {content['format']} that reads {content['reads']}")
        arrays = load_file(folder / HEAD_ARRAYS)
        with torch.device("meta"):
            head = make_head(content["kind"], content["options"])
        head.load_state_dict(arrays, assign=True)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        expected = f"must hold a head of format {FORMAT} whose arrays are in {HEAD_ARRAYS}"
        raise RunError(Issue(str(folder / HEAD_JSON), expected, reason, "Make the model again.")) from error
    return head, content["reads"]

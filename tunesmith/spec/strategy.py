"""Which weights are trained: `strategy` in a spec."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tunesmith.spec.heads import AnyHead, Head
from tunesmith.spec.part import Part


class Features(Part):
    """Frozen encoder: its outputs are computed once, and a head is fitted on them. Fast; good for few rows."""

    kind: Literal["features"]
    """Selects this strategy."""
    head: AnyHead = Head()
    """What answers from the outputs; its name alone will do, such as `head: mlp`. Linear ones stay inside the Hugging Face folder."""
    pooling: Literal["mean", "model", "cls", "attention"] = "mean"
    """Mean over tokens; what the model's own head reads; the first token; or a weighted mean learned with a linear or mlp head."""


class Layers(Part):
    """The top blocks, or named weights, and the head are trained; all else stays as it is."""

    kind: Literal["layers"]
    """Selects this strategy."""
    top: int = Field(default=2, ge=0)
    """How many blocks are trained, counted from the top; 0 trains the head only."""
    parts: tuple[str, ...] | None = Field(default=None, min_length=1)
    """Instead of `top`: names of weights, with * for any letters, such as ["*.11.attention.*"]; the head is trained with them."""
    layer_decay: float = Field(default=1.0, gt=0.0, le=1.0)
    """Learning rate of each block relative to the block above it."""


class Full(Part):
    """Every weight is trained. The best score when there are enough rows."""

    kind: Literal["full"]
    """Selects this strategy."""
    layer_decay: float = Field(default=1.0, gt=0.0, le=1.0)
    """Learning rate of each block relative to the block above it; the embeddings count as the lowest block."""
    freeze_embeddings: bool = False
    """Token embeddings stay as they are: less memory, and words that the training rows lack keep their place among the others."""


class Gradual(Part):
    """The head is trained first, then one block more from the top at a time (Howard & Ruder 2018). Gentle with few rows."""

    kind: Literal["gradual"]
    """Selects this strategy."""
    blocks: int = Field(default=2, ge=1)
    """How many blocks are trained in the end, counted from the top."""
    epochs_per_block: int = Field(default=1, ge=1)
    """Epochs with the head alone (without one, the top block) and with each further block, before the next. Early stopping waits."""


class BitFit(Part):
    """Only biases and the head are trained (Ben Zaken et al. 2022): a thousandth of the weights."""

    kind: Literal["bitfit"]
    """Selects this strategy."""


class Lora(Part):
    """Low-rank adapters (Hu et al. 2021) beside frozen weights; merged when saved, and kept beside the model."""

    kind: Literal["lora", "qlora"]
    """"lora", or "qlora" (Dettmers et al. 2023): the frozen weights are held in 4 bits, which needs a GPU and bitsandbytes."""
    rank: int = Field(default=16, ge=1, le=1024)
    """Rank of the update of each weight matrix."""
    alpha: float = Field(default=32.0, gt=0.0)
    """Scale of the update: alpha / rank multiplies it."""
    dropout: float = Field(default=0.05, ge=0.0, lt=1.0)
    """Dropout on the input of the adapters."""
    targets: Literal["all-linear", "attention"] | tuple[str, ...] = "all-linear"
    """Which weights get an adapter: every linear layer, the attention projections, or names of modules."""
    top: int | None = Field(default=None, ge=1)
    """Adapters only in this many blocks, counted from the top, so that what is below is computed once; in all when left out."""
    use_rslora: bool = False
    """alpha / √rank multiplies the update instead (Kalajdzievski 2023): high ranks learn as fast as low ones."""
    use_dora: bool = False
    """Length and direction of the weights are learned apart (DoRA, Liu et al. 2024): meant for low ranks, and slower; not with qlora."""


class IA3(Part):
    """Factors on keys, values and feed-forward activations are trained (Liu et al. 2022); merged when saved, and kept beside the model."""

    kind: Literal["ia3"]
    """Selects this strategy."""
    top: int | None = Field(default=None, ge=1)
    """Factors only in this many blocks, counted from the top, so that what is below is computed once; in all when left out."""


class Prompts(Part):
    """Vectors that no text has are trained, beside a frozen network. They cannot be merged: the model folder is one of PEFT."""

    kind: Literal["prompt_tuning", "prefix_tuning"]
    """"prompt_tuning" (Lester et al. 2021): tokens before the text. "prefix_tuning" (Li & Liang 2021): keys and values in every block."""
    virtual_tokens: int = Field(default=20, ge=1, le=1000)
    """How many such tokens; they take room from `model.max_length`."""


Strategy = Annotated[Features | Layers | Full | Gradual | BitFit | Lora | IA3 | Prompts, Field(discriminator="kind")]

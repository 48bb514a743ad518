"""The part of a spec that makes more training rows from those there are: `train.augment`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tunesmith.spec.part import Part


class Beams(Part):
    """The likeliest wordings; several copies of a row get the likeliest, the next one, and so on."""

    kind: Literal["beams"] = "beams"
    """Selects this way."""
    num_beams: int = Field(default=4, ge=1, le=64)
    """Wordings followed at a time; at least as many as copies of a row."""


class Sampled(Part):
    """Wordings drawn by their probability, each from the seed of its own copy."""

    kind: Literal["sample"]
    """Selects this way."""
    temperature: float = Field(default=1.0, gt=0.0, le=10.0)
    """Below 1 likely words become likelier, above 1 less so."""
    top_p: float = Field(default=1.0, gt=0.0, le=1.0)
    """Words are drawn from the likeliest that have this probability together (Holtzman et al. 2020)."""


Decoding = Annotated[Beams | Sampled, Field(discriminator="kind")]


class Paraphrase(Part):
    """A model that says a text in other words. Whether it is an encoder with a decoder or a decoder alone, its configuration says."""

    model: str = Field(min_length=1)
    """A local folder, or a Hugging Face model id. Only safetensors weights are read, and no code that comes with the model is run."""
    revision: str | None = None
    """Git revision of a Hugging Face model id: branch, tag or commit."""
    prompt: str | None = Field(default=None, pattern=r"\{text\}")
    """What the model is given, with {text} for the text. Left out: the text alone, or for a decoder alone a request in English."""
    decoding: Decoding = Beams()
    """How wordings are chosen."""
    max_new_tokens: int = Field(default=64, ge=1, le=4096)
    """Most tokens of a paraphrase; those that do not end within them are not used, and counted."""


class Augment(Part):
    """Changed copies of training rows. They join the training rows only when they do no harm, unless the gate is open."""

    operations: tuple[
        Literal[
            "keyboard", "swap_letters", "delete_letters", "insert_letters", "drop_words", "swap_words", "repeat_words", "lower_case",
            "upper_case", "title_case", "random_capitals", "expand", "contract", "drop_marks", "add_marks", "spaces",
        ],
        ...,
    ] = ()  # fmt: skip
    """What may be done to a copy; one of them is drawn for each that has no paraphrase. `tunesmith preview` shows examples."""
    paraphrase: Paraphrase | None = None
    """Every copy is said in other words by a model; where that fails, one of `operations` is done. None when left out."""
    copies: int = Field(default=1, ge=1, le=20)
    """Copies of each training row."""
    gate: bool = True
    """Keep the copies only when a regression on frozen features scores no worse on validation with them than without."""

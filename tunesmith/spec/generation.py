"""The part of a spec that says how a model writes its answers: `generation`, for tasks whose labels are texts."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tunesmith.spec.part import Part


class Greedy(Part):
    """At each place the likeliest token."""

    kind: Literal["greedy"] = "greedy"
    """Selects this way."""


class BeamSearch(Part):
    """The likeliest of several answers that are followed at a time."""

    kind: Literal["beams"]
    """Selects this way."""
    num_beams: int = Field(default=4, ge=2, le=64)
    """Answers followed at a time."""
    length_penalty: float = Field(default=1.0, ge=-10.0, le=10.0)
    """Power of the length that an answer's log probability is divided by: above 1 longer answers win more often, below 1 shorter ones."""


Search = Annotated[Greedy | BeamSearch, Field(discriminator="kind")]


class Generation(Part):
    """How answers are written, in validation, in the test and in use: the saved model carries these settings."""

    prefix: str = Field(default="", max_length=1000)
    """Put before every text, such as "translate English to German: " for T5."""
    search: Search = Greedy()
    """How an answer is chosen."""
    max_new_tokens: int | None = Field(default=None, ge=2, le=16384)
    """Most tokens of an answer, its end included; longer targets are cut in training, and counted."""
    no_repeat_ngram_size: int = Field(default=0, ge=0, le=100)
    """No sequence of this many tokens comes twice in an answer; 0 lets it."""
    scored_rows: int = Field(default=200, ge=1)
    """Validation rows that are answered each time the weights are scored in training, the first by content hash: writing is slow."""

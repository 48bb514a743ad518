"""How texts become vectors and are ranked: `embedding` and `ranking` in a spec."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tunesmith.spec.part import Part


class InBatch(Part):
    """The relevant text against all other texts of the batch, as a classification (van den Oord et al. 2018; Henderson et al. 2017)."""

    kind: Literal["in_batch"] = "in_batch"
    """Selects this loss."""
    temperature: float = Field(default=0.05, gt=0.0, le=1.0)
    """Cosines are divided by it: the smaller, the more the nearest wrong texts count."""


class Triplet(Part):
    """The relevant text has to be nearer than the nearest wrong one of the batch, by a margin (Hermans et al. 2017)."""

    kind: Literal["triplet"]
    """Selects this loss."""
    margin: float = Field(default=0.2, gt=0.0, le=2.0)
    """By how much, as a difference of cosines."""


class Cosine(Part):
    """The squared difference of cosine and relevance; uses judged texts alone, also those that are not relevant."""

    kind: Literal["cosine"]
    """Selects this loss."""


class Embedding(Part):
    """How a text becomes a vector. For task: feature-extraction, and for sentence-similarity that reads texts apart."""

    pooling: Literal["mean", "cls"] = "mean"
    """The mean of the last states of all tokens, or the last state of the first token; brought to length one in any case."""
    reading: Literal["apart", "together"] | None = None
    """sentence-similarity: "apart" compares two vectors by cosine; "together" reads both texts at once (a cross-encoder)."""
    loss: Annotated[InBatch | Triplet | Cosine, Field(discriminator="kind")] = InBatch()
    """feature-extraction: what is minimised."""


class Ranking(Part):
    """What a query is ranked against. For task: feature-extraction and text-ranking."""

    candidates: Annotated[int, Field(ge=2, le=1000)] | Literal["judged"] | None = None
    """text-ranking: how many texts of the corpus are ranked for a query, the most alike by BM25; "judged": those of its own row,
    and where none of these is wrong the most alike too."""
    negatives: int = Field(default=4, ge=1, le=100)
    """text-ranking: texts learned as wrong beside each relevant one: judged ones first, then those most alike by BM25."""
    scored_texts: int = Field(default=2000, ge=1)
    """feature-extraction: texts that validation queries are ranked against while training, their own first: embedding all takes time."""

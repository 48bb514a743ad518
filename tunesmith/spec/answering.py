"""How spans of text are found as answers: windows over long texts, and which spans count."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tunesmith.spec.part import Part


class Answering(Part):
    """How answers are found in a text. Only for task: question-answering."""

    max_tokens: int = Field(default=30, ge=1, le=1000)
    """Longest answer in tokens."""
    stride: int = Field(default=128, ge=0, le=100000)
    """Tokens that two windows over a long text share; at most a quarter of model.max_length."""
    candidates: int = Field(default=3, ge=1, le=20)
    """Best spans that predictions tell of a question, the best first."""
    no_answer: Literal["auto", "never"] = "auto"
    """"auto": where training rows have no answer, a threshold chosen on validation rows decides. "never": always a span."""

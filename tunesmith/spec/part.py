"""The base of every part of a spec."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


class Part(BaseModel):
    """Base of every part of a spec: unknown keys are refused, values cannot be changed, fields carry docstrings."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)


def as_tuple(value: object) -> object:
    """A single text as a tuple of one."""
    return (value,) if isinstance(value, str) else value


Paths = Annotated[tuple[str, ...], BeforeValidator(as_tuple), Field(min_length=1)]

"""What a task's labels are: the kind decides how labels are read, checked, spread over splits, scored and shown."""

from __future__ import annotations

from typing import Literal

TaskName = Literal["text-classification", "text-regression", "sentence-similarity"]
Kind = Literal["class", "classes", "number"]
"""One class a row, a set of classes a row, or a number a row."""

KINDS: dict[str, Kind] = {"text-classification": "class", "text-regression": "number", "sentence-similarity": "number"}
PAIRED = ("sentence-similarity",)
"""Tasks whose rows always have two texts."""
OF_CLASSES: tuple[Kind, ...] = ("class", "classes")


def kind_of(task: str, multi_label: bool) -> Kind:
    """The kind of a task's labels."""
    kind = KINDS[task]
    return "classes" if kind == "class" and multi_label else kind

"""What a task's labels are: the kind decides how labels are read, checked, spread over splits, scored and shown."""

from __future__ import annotations

from typing import Literal, get_args

Labelling = Literal["text-classification", "text-regression", "sentence-similarity", "question-answering", "token-classification"]
Ranking = Literal["feature-extraction", "text-ranking"]
"""Tasks that find texts for a text."""
Writing = Literal["summarization", "translation", "text2text-generation"]
"""Tasks that write a text for a text."""
Unlabelled = Literal["fill-mask"]
"""Tasks that learn from texts alone."""
TaskName = Labelling | Writing | Ranking | Unlabelled
Kind = Literal["class", "classes", "number", "answers", "text", "spans", "relevant", "masked"]
"""One class a row, a set of classes a row, a number a row, the spans of a text that answer a question, a text to be written for a row,
spans of a text with types, the texts that are relevant to a query, or the tokens of the text itself, some of which are masked."""

KINDS: dict[str, Kind] = {
    "text-classification": "class",
    "text-regression": "number",
    "sentence-similarity": "number",
    "question-answering": "answers",
    "token-classification": "spans",
}
KINDS |= (
    dict.fromkeys(get_args(Writing), "text") | dict.fromkeys(get_args(Ranking), "relevant") | dict.fromkeys(get_args(Unlabelled), "masked")
)
BASELINES: dict[Kind, tuple[str, ...]] = {
    "class": ("majority", "features"), "classes": ("majority", "features"), "number": ("majority", "features"),
    "answers": ("majority", "lexical"), "spans": ("dictionary", "features"), "text": ("copy", "retrieval"),
    "relevant": ("lexical", "features"), "masked": ("majority", "untrained"),
}  # fmt: skip
"""What a model is compared with, by the kind of its labels."""
NEVER_COPIES = ("summarization", "translation")
"""Tasks whose target is never the text itself: such rows are mistakes, and dropped."""
PAIRED = ("sentence-similarity", "question-answering")
"""Tasks whose rows always have two texts."""
TEXT_LABELS: tuple[Kind, ...] = ("text", "masked")
"""Kinds whose label is a text in the prepared tables: such labels are not counted as classes."""
UNSTRATIFIED: tuple[Kind, ...] = (*TEXT_LABELS, "relevant")
"""Kinds of labels that no classes stand for when rows are spread over splits."""
WITHOUT_ROW_FEATURES = ("question-answering", "text-ranking")
"""Tasks whose encoded rows are windows or pairs: one vector does not stand for a row."""
OF_CLASSES: tuple[Kind, ...] = ("class", "classes")


def kind_of(task: str, multi_label: bool) -> Kind:
    """The kind of a task's labels."""
    kind = KINDS[task]
    return "classes" if kind == "class" and multi_label else kind

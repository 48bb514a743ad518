"""A regression on what a frozen network says of the first token of each word: the start of a tagging head, and a baseline.

Shape suffixes: T = tokens, W = words, E = width, C = tags.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tunesmith.models.forward import Watch, token_features
from tunesmith.models.linear import Linear, Penalty, fit_logistic
from tunesmith.tasks.base import Encoding
from tunesmith.tasks.token_classification import IGNORED, TokenClassification, best_tags
from tunesmith.tasks.windows import WINDOW

MOST_WORDS = 20_000


def sampled(encoding: Encoding, order: list[int], tags: int) -> Encoding:
    """Windows with targets, in the order given, until they hold MOST_WORDS words; and the first windows with each tag they lack."""
    chosen, words, present = list[int](), 0, set[int]()
    for number in order:
        found = set(encoding.rows[number]["labels"]) - {IGNORED}
        if words < MOST_WORDS or found - present:
            chosen.append(number)
            words += len(encoding.rows[number][WINDOW].at_W)
            present |= found
        if words >= MOST_WORDS and len(present) == tags:
            break
    return encoding.part(chosen)


def word_states(model: Any, task: TokenClassification, encoding: Encoding, watch: Watch | None = None) -> list[Tensor]:
    """What the output layer reads of the words that each window answers, (W, E) each."""
    return token_features(model, task, encoding, [row[WINDOW].at_W for row in encoding.rows], watch)


def fit_tags(states: Sequence[Tensor], encoding: Encoding, tags: int, penalty: Penalty) -> Linear:
    """Logistic regression from the states of words to their tags, by windows with targets."""
    wanted = [row["labels"][token] for row in encoding.rows for token in row[WINDOW].at_W]
    return fit_logistic(torch.cat(list(states)), np.array(wanted, np.int64), tags, penalty)


def tags_by(linear: Linear, states: Sequence[Tensor], encoding: Encoding) -> list[np.ndarray]:
    """What `answer` of the task would give for all windows, (T, 3) each, from the regression; nought at tokens that begin no word."""
    answers = []
    for states_WE, row, length in zip(states, encoding.rows, encoding.lengths, strict=True):
        answer_T3 = np.zeros((length, 3), np.float32)
        if at_W := row[WINDOW].at_W:
            answer_T3[at_W] = best_tags(linear(states_WE)[None])[0].numpy()
        answers.append(answer_T3)
    return answers

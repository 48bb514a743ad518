"""What the frequencies of tokens alone say of masked ones: the baseline of fill-mask.

Shape suffixes: V = vocabulary, M = masked tokens, K = candidates.
"""

from __future__ import annotations

import numpy as np

from tunesmith.tasks.base import Encoding
from tunesmith.tasks.fill_mask import CANDIDATES, MASKABLE, Filled
from tunesmith.tasks.masking import IGNORED, vocabulary_of


def unigram(train: Encoding, asked: Encoding) -> list[Filled]:
    """What the task's `answer` would give if every mask got the frequencies of the training tokens; one is added to each count.

    Args:
        train: windows that are trained on.
        asked: windows with masks of ours.
    """
    plain_V = vocabulary_of(asked.processor).plain_V
    counts = np.zeros(int(plain_V.max()) + 1)
    counts[plain_V] = 1.0
    for row in train.rows:
        np.add.at(counts, np.array(row["input_ids"])[row[MASKABLE]], 1.0)
    with np.errstate(divide="ignore"):
        logs = np.log(counts / counts.sum())
    best_K = np.argsort(-logs, kind="stable")[: min(CANDIDATES, len(plain_V))]
    answers = []
    for row in asked.rows:
        right_M = np.array([token for token in row["labels"] if token != IGNORED], np.int64)
        shape = (len(right_M), 1)
        answers.append(Filled(np.tile(best_K, shape), np.tile(logs[best_K], shape), logs[right_M]))
    return answers

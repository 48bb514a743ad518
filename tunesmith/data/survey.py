"""What there is to know about the texts of the splits: personal data, scripts and languages, and how far the splits differ."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import polars as pl

from tunesmith.data.drift import drift
from tunesmith.data.near import whole_text
from tunesmith.data.personal import scan
from tunesmith.data.writing import writing

SURVEY_ROWS = 20_000


def survey(splits: Mapping[str, pl.DataFrame]) -> dict[str, Any]:
    """JSON-ready facts of the first 20,000 rows of each split by content hash: `rows` says how many were looked at."""
    sampled = {name: rows.sort("id").head(SURVEY_ROWS) for name, rows in splits.items()}
    texts = pl.concat([whole_text(rows) for rows in sampled.values()])
    found = {
        "rows": len(texts),
        "personal": scan(texts).as_dict(),
        "writing": writing(texts).as_dict(),
        "drift": {name: _told(sampled["train"], sampled[name]) for name in ("validation", "test") if len(sampled[name])},
    }
    return dict(json.loads(json.dumps(found)))  # tuples as the lists that a reader of the file gets


def _told(train: pl.DataFrame, other: pl.DataFrame) -> dict[str, Any]:
    """What the report tells of a drift."""
    found = drift(train, other)
    return {
        "unseen_share": found.vocabulary.unseen_share,
        "vocabulary_jaccard": found.vocabulary.jaccard,
        "length_statistic": found.lengths.statistic,
        "length_p": found.lengths.p,
        "label_distance": found.labels.total_variation if found.labels else None,
        "label_p": found.labels.p if found.labels else None,
        "words_train": [word.word for word in found.words_a],
        "words_other": [word.word for word in found.words_b],
    }

"""How far annotators agree: on labels of items or texts, on spans by word, on boxes by overlap."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np
import polars as pl

from tunesmith.core.errors import DataError
from tunesmith.core.records import Issue
from tunesmith.data.annotators import (
    Agreement,
    DawidSkene,
    Ratings,
    annotator_quality,
    box_agreement,
    cohen_kappas,
    dawid_skene,
    dawid_skene_consensus,
    fleiss_kappa,
    krippendorff_alpha,
    majority,
    ratings,
)
from tunesmith.data.label_boxes import Boxes
from tunesmith.data.sources.base import Items

NO_SPAN = "no label"
EXAMPLES = 20
MOST_CELLS = 200_000_000
MOST_COMPARED = 12
"""Annotators up to which each is compared with each other: more would be hundreds of numbers that nobody reads."""


def agreement_of(items: Items) -> tuple[dict[str, Any], pl.DataFrame | None] | None:
    """What the annotators' labels say, as plain values, and the consensus of each item as a table; None for one annotator.

    `by` says what an item is here. The consensus table has item, majority, share, dawid_skene, probability.
    """
    table = items.table
    if "annotations" in table.columns and table["annotations"].dtype == pl.List:
        if table.schema["label"] == pl.List:
            return None  # several choices a person are sets, for which these measures are not made
        votes = table.select("source", "annotations").explode("annotations").drop_nulls().unnest("annotations")
        return rated(votes.rename({"source": "item"}), "item")
    if "annotator" not in table.columns or table["annotator"].n_unique() < 2:
        return None
    if items.kind == "object-detection":
        return _boxed(table)
    return rated(pl.DataFrame(list(_words(table)), schema=["item", "annotator", "label"], orient="row"), "word")


def rated(votes: pl.DataFrame, by: str, where: str = "annotations") -> tuple[dict[str, Any], pl.DataFrame] | None:
    """What votes (item, annotator, label) say, as plain values, and the consensus of each item; None for fewer than two annotators.

    Raises:
        DataError: items times annotators are more than can be held.
    """
    people, items = votes["annotator"].n_unique(), votes["item"].n_unique()
    if people < 2:
        return None
    if people * items > MOST_CELLS or people * votes["label"].n_unique() ** 2 > MOST_CELLS:
        found = f"{people:,} annotators, {items:,} {by}s, {votes['label'].n_unique():,} labels"
        remedy = "Check that the column says who gave a label; without it, data.on_conflict: majority takes the most frequent label."
        raise DataError(Issue(f"the annotators {where!r}", "must be few enough to be compared", found, remedy))
    given = ratings(votes)
    fitted = dawid_skene(given)
    consensus = _consensus(given, votes, fitted)
    pairs = cohen_kappas(given) if people <= MOST_COMPARED else {}
    apart = consensus.filter(pl.col("majority").is_null() | (pl.col("majority") != pl.col("dawid_skene")))
    content = {
        "by": by,
        "items": len(given.items),
        "several": int(((given.codes_IA >= 0).sum(1) > 1).sum()),
        "annotators": [asdict(entry) for entry in annotator_quality(given, fitted)],
        "measures": [
            {"name": "Krippendorff's alpha", "id": "alpha", **_plain(krippendorff_alpha(given, "nominal"))},
            {"name": "Fleiss' kappa", "id": "fleiss", **_plain(fleiss_kappa(given))},
        ],
        "pairs": [{"first": a, "second": b, **_plain(found)} for (a, b), found in pairs.items()],
        "pairs_left_out": 0 if people <= MOST_COMPARED else people * (people - 1) // 2,
        "ties": int(consensus["majority"].null_count()),
        "contradictory": given.contradictory,
        "repeated": given.repeated,
        "undecided": apart.height,
        "examples": apart.head(EXAMPLES).to_dicts(),
    }
    return content, consensus


def _consensus(given: Ratings, votes: pl.DataFrame, fitted: DawidSkene) -> pl.DataFrame:
    """The label of each item by majority and by Dawid and Skene, with all that was said."""
    most, model = majority(given), dawid_skene_consensus(fitted)
    names = np.array([*map(str, given.labels), None], object)
    said = votes.drop_nulls().group_by("item", maintain_order=True).agg(
        pl.concat_str("annotator", "label", separator=": ").str.join("; ").alias("votes")
    )  # fmt: skip
    table = pl.DataFrame(
        {
            "item": list(given.items),
            "majority": names[most.codes_I].tolist(),
            "share": most.shares_I,
            "dawid_skene": names[model.codes_I].tolist(),
            "probability": model.shares_I,
        },
        schema={"item": pl.String, "majority": pl.String, "share": pl.Float64, "dawid_skene": pl.String, "probability": pl.Float64},
    )
    return table.join(said, on="item", how="left", maintain_order="left")


def _words(table: pl.DataFrame) -> Iterator[tuple[str, str, str]]:
    """(word of a text, annotator, label of the span on it); the labels of a word that lies in several are joined."""
    for source, text, spans, annotator in table.select("source", "text", "spans", "annotator").iter_rows():
        task = source.rpartition(" annotation ")[0]
        for word in re.finditer(r"\w+", text):
            labels = sorted({span["label"] for span in spans if span["start"] < word.end() and word.start() < span["end"]})
            yield f"{task} {word.start()}: {word.group()}", annotator, " + ".join(labels) or NO_SPAN


def _boxed(table: pl.DataFrame) -> tuple[dict[str, Any], None]:
    codes = {label: code for code, label in enumerate(sorted({box["label"] for row in table["boxes"].to_list() for box in row}))}
    images: dict[str, dict[str, Boxes]] = {}
    for image, boxes, annotator in table.select("image", "boxes", "annotator").iter_rows():
        corners = [[box["x"], box["y"], box["x"] + box["width"], box["y"] + box["height"]] for box in boxes]
        labels = np.array([codes[box["label"]] for box in boxes], np.int64)
        images.setdefault(image, {})[annotator] = Boxes(np.array(corners, np.float64).reshape(-1, 4), labels)
    found = box_agreement(list(images.values()))
    titles = {"iou": "mean overlap of matched boxes", "f1": "share of boxes that the other annotator has too"}
    content = {
        "by": "picture",
        "items": len(images),
        "several": sum(len(by) > 1 for by in images.values()),
        "annotators": [],
        "measures": [{"name": titles[name], "id": name, **_plain(value)} for name, value in found.items()],
        "pairs": [],
        "pairs_left_out": 0,
        "ties": 0,
        "contradictory": 0,
        "repeated": 0,
        "undecided": 0,
        "examples": [],
    }
    return content, None


def _plain(found: Agreement) -> dict[str, Any]:
    interval = None if found.interval is None else [round(bound, 6) for bound in found.interval]
    return {"value": None if found.value is None else round(found.value, 6), "interval": interval, "n": found.items, "note": found.note}

"""Rules of the spec that make texts and labels uniform, and masks; applied before cleaning, the same to every table and prediction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import polars as pl

from tunesmith.data.columns import Columns
from tunesmith.data.personal import Kind, masked
from tunesmith.data.standardise import LABEL_RULES, Name, Proposal, Rule, apply, proposals
from tunesmith.spec.kinds import TEXT_LABELS
from tunesmith.spec.kinds import Kind as LabelKind
from tunesmith.spec.schema import Data

PROPOSAL_ROWS = 100_000
TEXTS = ("text", "text_pair")


@dataclass(frozen=True)
class Uniform:
    """The tables after rules and masks, what the rules would change (with examples), and what was changed: JSON-ready."""

    tables: dict[str, pl.DataFrame]
    proposals: list[dict[str, Any]]
    looked_at: int
    applied: list[dict[str, Any]]
    masked: dict[str, int]


def uniform(tables: Mapping[str, pl.DataFrame], data: Data, kind: LabelKind = "class") -> Uniform:
    """Plain tables (`text`, `label`, …) made uniform as the spec says; proposals come from the first rows of the training table.

    Targets that are texts are masked as the texts are, and not made uniform.
    """
    train = tables["train"]
    columns = Columns(tuple(name for name in TEXTS if name in train.columns), None, "class", {})
    sample = train.head(PROPOSAL_ROWS)
    labels = pl.concat([table.select("label") for table in tables.values()])
    words = kind not in TEXT_LABELS and train.schema["label"] in (pl.String, pl.List(pl.String))  # numbers and answers have no spelling
    shown = proposals(sample, columns) + (proposals(labels, replace(columns, text=(), label="label")) if words else [])
    rules = [p.rule for p in shown if p.rule.column == "label" and p.rule.name in data.standardise]
    changed: Counter[tuple[str, Name]] = Counter()
    hidden: Counter[Kind] = Counter()
    out = {}
    for name, table in tables.items():
        done, counts, found = _texts(table, data, ("label",) if kind == "text" else ())
        done, of_labels = apply(done, rules)
        out[name] = done
        changed.update(counts)
        changed.update(of_labels)
        hidden.update(found)
    applied = [{"column": column, "name": str(rule), "rows": rows} for (column, rule), rows in changed.items()]
    masks = {str(kind): count for kind, count in hidden.items()}
    return Uniform(out, [_shown(p, data) for p in shown], len(sample), applied, masks)


def uniform_texts(rows: pl.DataFrame, data: Data) -> pl.DataFrame:
    """Rows to predict on, their texts changed as those of training were."""
    return _texts(rows, data)[0]


def _texts(
    rows: pl.DataFrame, data: Data, targets: tuple[str, ...] = ()
) -> tuple[pl.DataFrame, dict[tuple[str, Name], int], Counter[Kind]]:
    columns = [name for name in TEXTS if name in rows.columns]
    names = [Name(name) for name in data.standardise if Name(name) not in LABEL_RULES]
    if "annotator" in rows.columns:  # one row of a file can be several judgements: its texts are changed and counted once
        once, changes, hidden = _texts(rows.unique("source", keep="first", maintain_order=True).drop("annotator"), data)
        made = rows.drop(columns).join(once.select("source", *columns), on="source", how="left", maintain_order="left")
        return made.select(rows.columns), changes, hidden
    rows, counts = apply(rows, [Rule(column, name) for column in columns for name in names])
    found: Counter[Kind] = Counter()
    for column in (*columns, *targets) if data.mask else ():
        texts, masks = masked(rows[column], [Kind(kind) for kind in data.mask])
        rows = rows.with_columns(texts.alias(column))
        found.update(masks)
    return rows, counts, found


def _shown(proposal: Proposal, data: Data) -> dict[str, Any]:
    """A proposal for the report: without its mapping, which can be long, and masked where the spec masks."""
    cells = pl.Series([cell for pair in proposal.examples for cell in pair], dtype=pl.String)
    hidden = masked(cells, [Kind(kind) for kind in data.mask])[0].to_list()
    return {
        "column": proposal.rule.column,
        "name": str(proposal.rule.name),
        "rows": proposal.rows,
        "examples": [hidden[n : n + 2] for n in range(0, len(hidden), 2)],
        "note": proposal.note,
        "applies": proposal.applies,
    }

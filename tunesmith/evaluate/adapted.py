"""What adaptation did to the masked loss, from what was said of the same masked tokens before and after."""

from __future__ import annotations

import polars as pl

from tunesmith.core.records import Artefact, Finding, Source
from tunesmith.evaluate.intervals import Estimate, Resampling, estimates, paired_differences
from tunesmith.evaluate.masked import masked_from_table
from tunesmith.evaluate.metrics import metrics_for

METRIC = "masked_loss"


def loss_findings(before: pl.DataFrame, after: pl.DataFrame, resampling: Resampling, artefacts: dict[str, Artefact]) -> list[Finding]:
    """The masked loss before and after, and the paired difference, over the same texts.

    Args:
        before: loss, tokens and hits of each text.
        after: the same of the adapted network.
        resampling: how intervals are made.
        artefacts: the files of both tables, by "before" and "after"; without them the findings point to none.
    """
    metric = {METRIC: metrics_for("masked")[METRIC]}
    tables = {"before": masked_from_table(before), "after": masked_from_table(after)}
    found = []
    for when, told in tables.items():
        claim = f"Masked loss {when} adaptation, on unlabelled texts that were held out"
        found.append(_finding(when, claim, len(told), estimates(told, metric, resampling), artefacts.get(when)))
    claim = "Masked loss after adaptation minus before, on the same texts"
    difference = paired_differences(tables["after"], tables["before"], metric, resampling)
    return [*found, _finding("difference", claim, len(before), difference, artefacts.get("after"))]


def _finding(name: str, claim: str, n: int, estimated: dict[str, Estimate], artefact: Artefact | None) -> Finding:
    estimate = estimated[METRIC]
    source: Source = "computed" if estimate.value is not None else "unknown"
    return Finding(f"adapt/{METRIC}/{name}", claim, estimate.value, "", n, estimate.interval, source, artefact, estimate.note)

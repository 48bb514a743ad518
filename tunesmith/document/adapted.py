"""Level 1 of verification for a model that was adapted: no held-out text was learned from, and its losses are made again."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from tunesmith.core.rundir import RunDir
from tunesmith.data.clean import cleaned_text, content_ids
from tunesmith.document.checks import Check, difference
from tunesmith.evaluate.adapted import loss_findings
from tunesmith.evaluate.intervals import Resampling
from tunesmith.spec.defaults import read_resolved

ADAPTED = "data/adaptation.parquet"
HELD_OUT = ("validation", "test")


def check_adaptation(run: RunDir) -> Iterator[Check]:
    """Equal texts are looked for again, and the masked losses are computed again from what was stored."""
    used = pl.read_parquet(run.path / ADAPTED)
    rows = [pl.read_parquet(run.path / f"data/{split}.parquet") for split in HELD_OUT]
    texts = pl.concat(
        [part.select(text=cleaned_text(pl.col(name))) for part in rows for name in ("text", "text_pair") if name in part.columns]
    )
    known = used.filter(pl.col("id").is_in(content_ids(texts).implode()))
    if len(known):
        found = f"{len(known)} of {len(used)} texts are those of validation or test rows, first {known['id'][0]}"
        yield Check(1, ADAPTED, "mismatch", found)
    else:
        yield Check(1, ADAPTED, "verified", f"{len(used)} texts, none of them that of a validation or test row")
    spec, findings, what = read_resolved(run.path / "resolved.yaml"), run.findings, "masked losses of the adaptation"
    before, after = (pl.read_parquet(run.path / f"data/adaptation_{when}.parquet") for when in ("before", "after"))
    options = spec.evaluate
    again = loss_findings(before, after, Resampling(spec.seed, options.resamples, options.confidence), {})
    wrong = [f"{finding.id} {told}" for finding in again if (told := difference(findings.get(finding.id), finding))]
    if wrong:
        yield Check(1, what, "mismatch", "; ".join(wrong))
    else:
        yield Check(1, what, "verified", f"{len(again)} findings computed again")

"""prepare: read, clean and split the table."""

from __future__ import annotations

from tunesmith.core.records import Progress
from tunesmith.core.rundir import StageWriter
from tunesmith.data.prepare import prepare as prepare_data
from tunesmith.data.prepare import write
from tunesmith.stages.context import Context


def prepare(context: Context, stage: StageWriter) -> None:
    """Write data/."""
    prepared = prepare_data(context.given)
    write(prepared, stage)
    rows = len(prepared.train) + len(prepared.validation) + len(prepared.test)
    for issue in prepared.issues:
        context.watch(Progress("prepare", rows, rows, "row", note=f"warning: {issue}"))
    context.watch(Progress("prepare", rows, rows, "row", note=f"{len(prepared.dropped)} dropped"))

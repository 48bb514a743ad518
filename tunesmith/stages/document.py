"""document: report and card, rendered from the run directory alone."""

from __future__ import annotations

from tunesmith.core.records import Progress
from tunesmith.core.rundir import StageWriter
from tunesmith.document.document import document as write_documents
from tunesmith.stages.context import Context


def document(context: Context, stage: StageWriter) -> None:
    """Write report.html, MODEL_CARD.md and the model folder's README.md."""
    context.watch(Progress("document", 0, 1, note="report and card"))
    write_documents(context.rundir, stage)
    context.watch(Progress("document", 1, 1, note="report and card"))

"""The documents of a run, rendered from its files, and the stage that writes them."""

from __future__ import annotations

from tunesmith.core.rundir import RunDir, StageWriter
from tunesmith.document.card import render_card
from tunesmith.document.report import render_report


def render(run: RunDir) -> dict[str, str]:
    """Text of every document by its path in the run directory. The same files of earlier stages give the same bytes.

    Raises:
        UnsourcedNumber: a document holds a digit that comes from no finding, stored file or text of the user.
    """
    card = render_card(run)
    return {"report.html": render_report(run), "MODEL_CARD.md": card, "model/README.md": card}


def document(run: RunDir, stage: StageWriter) -> None:
    """Write the documents."""
    for path, text in render(run).items():
        stage.write_text(path, text)

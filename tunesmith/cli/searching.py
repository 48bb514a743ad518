"""The commands that search: `index` and `search`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tunesmith.cli.commands import _plain, _say, _table, console
from tunesmith.core.errors import DataError, RunError
from tunesmith.core.records import Issue


def index(path: Path, data: str, output: Path, column: str | None) -> None:
    """Embed the texts of a table and write an index of them."""
    from tunesmith.serve.predictor import load
    from tunesmith.serve.search import make_index, refuse_foreign

    refuse_foreign(output)
    predictor = load(path)
    predictor.must_embed("index")
    started = time.perf_counter()
    with console.status("Embedding") as status:
        texts = _texts(data, column or str(predictor.found), predictor)
        about = make_index(texts, predictor.vectors, predictor.weights, output, lambda done: status.update(f"Embedding: {done:,} texts"))
    how = "compared one by one" if about.exact else f"a search finds {about.recall:.1%} of the true ten nearest (measured)"
    _say(f"Wrote [bold]{output}[/]: {about.texts:,} texts, {about.width} numbers each, {how}; {time.perf_counter() - started:.0f} s.")
    length = predictor.spec.model.max_length
    counts = {"empty, left out": about.empty, "equal to an earlier one, left out": about.equal, f"cut to {length} tokens": predictor.cut}
    told = "; ".join(f"{count:,} {what}" for what, count in counts.items() if count)
    if told:
        _say(f"[yellow]Of {about.rows:,} rows: {told}.[/]")


def _texts(data: str, column: str, predictor: Any) -> Iterator[Any]:
    """The texts of a table, cleaned as those of training, in pieces."""
    import polars as pl

    from tunesmith.data.clean import cleaned_text
    from tunesmith.data.open import open_batches
    from tunesmith.serve.predictor import CHUNK_ROWS

    for rows in open_batches(data, predictor.spec.data, CHUNK_ROWS, (predictor.spec.task,)):
        if column not in rows.columns:
            found, remedy = ", ".join(rows.columns[:20]), "Name the column with --column."
            raise DataError(Issue(f"column {column!r}", "must be in the table", found, remedy))
        yield rows.select(cleaned_text(pl.col(column).cast(pl.String))).to_series().rename("text")


def search(folder: Path, path: Path, queries: list[str], count: int) -> None:
    """Print the nearest texts of each query."""
    from tunesmith.serve.predictor import load
    from tunesmith.serve.search import Index

    opened, predictor = Index(folder), load(path)
    if predictor.weights != opened.about.weights:
        remedy = "Name the run that made the index, or make it again."
        raise RunError(Issue(str(folder), "must have been made with these weights", predictor.weights[:16], remedy))
    vectors = predictor.vectors(queries)
    started = time.perf_counter()
    answers = opened.search(vectors, count)
    taken = (time.perf_counter() - started) * 1000 / len(queries)
    for query, found in zip(queries, answers, strict=True):
        table = _table("cosine", "text", "row")
        for one in found:
            table.add_row(f"{one.score:.4f}", _plain(one.text[:300]), str(one.row))
        _say(f"[bold]{_plain(query)}[/]")
        console.print(table)
    missed = "" if opened.about.exact else f"; a search finds {opened.about.recall:.1%} of the true ten nearest"
    _say(f"{opened.about.texts:,} texts searched in {taken:.1f} ms a query{missed}")

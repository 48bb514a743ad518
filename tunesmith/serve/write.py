"""Files of predictions: what each kind can hold, told before anything is predicted; and the parts of a table joined into one."""

from __future__ import annotations

import json
import os
from pathlib import Path

import polars as pl

from tunesmith.core.errors import DataError, RunError
from tunesmith.core.records import Issue
from tunesmith.serve.marked import refuse_no_conll, write_conll
from tunesmith.spec.kinds import Kind

TABLES = (".parquet", ".csv", ".jsonl")
OF_KIND: dict[str, tuple[Kind, str]] = {".json": ("answers", "answers in texts"), ".conll": ("spans", "tokens with tags")}
"""The kind of labels that a form of file is for, in words too."""


def refuse_target(target: Path, kind: Kind | None = None) -> None:
    """Nothing, where predictions of this kind (None: not known yet) can be written.

    Raises:
        RunError: the ending is of no known form, or of one for other labels.
    """
    if target.suffix in TABLES:
        return
    if target.suffix not in OF_KIND:
        expected = "must end in .parquet, .csv, .jsonl, .json for answers in texts, or .conll for tokens"
        raise RunError(Issue("--output", expected, target.name))
    wanted, words = OF_KIND[target.suffix]
    if kind not in (None, wanted):
        raise RunError(Issue("--output", "must end in .parquet, .csv or .jsonl", target.name, f"{target.suffix} is for {words}."))


def refuse_rows(target: Path, rows: pl.DataFrame, text: str) -> None:
    """Nothing, where a file of this form can hold these rows.

    Raises:
        DataError: bytes would be written as text, or the column of texts holds no tokens for CoNLL.
    """
    if target.suffix == ".conll":
        refuse_no_conll(rows, text)
    bytes_in = [name for name, kind in rows.schema.items() if _holds_bytes(kind)]
    if bytes_in and target.suffix in (".csv", ".jsonl"):
        found = f"bytes in the column {bytes_in[0]!r}"
        raise DataError(Issue(f"--output {target.name}", "must hold text alone", found, "Write .parquet, or drop the column."))


def _holds_bytes(kind: pl.DataType) -> bool:
    if isinstance(kind, pl.Struct):
        return any(_holds_bytes(field.dtype) for field in kind.fields)  # type: ignore[arg-type]
    return _holds_bytes(kind.inner) if isinstance(kind, pl.List | pl.Array) else kind == pl.Binary  # type: ignore[arg-type]


def join(parts: Path, target: Path, text: str) -> None:
    """Write the parts of a table into one file, which appears only when it is complete; `text` is the column of texts."""
    # Types are those of a chunk: a column may be empty in one and whole numbers, then fractions, in the next.
    whole = pl.concat([pl.scan_parquet(part) for part in sorted(parts.glob("*.parquet"))], how="diagonal_relaxed")
    temporary = target.with_name(f".{target.name}.writing")
    if target.suffix == ".csv":
        whole.with_columns(_flat(name, kind) for name, kind in whole.collect_schema().items() if kind.is_nested()).sink_csv(temporary)
    elif target.suffix == ".json":
        _write_squad(whole.collect(), temporary)
    elif target.suffix == ".conll":
        with temporary.open("w", encoding="utf-8") as lines:
            write_conll(whole.collect(), text, lines)
    elif target.suffix == ".jsonl":
        whole.sink_ndjson(temporary)
    else:
        whole.sink_parquet(temporary)
    os.replace(temporary, target)


def _flat(name: str, kind: pl.DataType) -> pl.Expr:
    """A nested column as text: lists of texts with "|" between them, all else as JSON, which is read again where spans are."""
    if kind == pl.List(pl.String):
        return pl.col(name).list.join("|")
    if isinstance(kind, pl.Struct):
        written = pl.col(name).struct.json_encode()
    else:  # polars writes JSON of structs alone: {"v":…}
        written = pl.struct(pl.col(name).alias("v")).struct.json_encode().str.slice(5).str.head(-1)
    return pl.when(pl.col(name).is_not_null()).then(written).alias(name)


def _write_squad(rows: pl.DataFrame, target: Path) -> None:
    """Write the answers as SQuAD's script reads them: the id of each question, or its number from 0, and its answer.

    Raises:
        DataError: one id stands twice.
    """
    ids = rows["id"].cast(pl.String) if "id" in rows.columns else pl.int_range(len(rows), eager=True).cast(pl.String)
    if ids.is_duplicated().any():
        found = str(ids.filter(ids.is_duplicated())[0])
        raise DataError(Issue("column 'id'", "must name each question once for .json", found, "Write .jsonl instead."))
    content = dict(zip(ids, rows["predicted"].fill_null(""), strict=True))
    target.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", "utf-8")

"""A run from a table in memory, for notebooks and scripts."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
from pydantic import BaseModel

from tunesmith.core.errors import DataError, SpecError
from tunesmith.core.records import Issue
from tunesmith.core.rundir import disk_errors, sha256_file
from tunesmith.pipeline import Run, Watch, run
from tunesmith.spec.load import load_spec
from tunesmith.spec.schema import Card, Data, Evaluate, Model, Train

PARTS: dict[str, type[BaseModel]] = {"data": Data, "model": Model, "train": Train, "evaluate": Evaluate, "card": Card}
OWN = ("name", "seed", "task", *PARTS)


def fit(table: Any, target: str | None = None, runs: Path | str = "runs", watch: Watch | None = None, **dials: Any) -> Run:
    """Train on a table in memory and give the finished run.

    Args:
        table: polars or pandas DataFrame, or a list of dicts.
        target: column with the label; none for task="fill-mask", which needs no labels.
        runs: folder of all runs.
        watch: hears of progress.
        dials: any value of the spec by its own name (`learning_rate=1e-4`, `text="body"`, `epochs=3`), whole parts
            (`train={"epochs": 3}`), `strategy="lora"` or `strategy={"kind": "lora", "rank": 8}`, `name="tickets"`.

    Raises:
        SpecError: a dial is unknown or its value impossible.
        DataError: the table is not one.
    """
    frame = as_frame(table)
    raw = _raw_spec(dials)
    folder = Path(runs) / "tables"
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f".{os.getpid()}.writing"
        frame.write_parquet(temporary)
        content = sha256_file(temporary)[:16]
        path = folder / f"{content}.parquet"
        os.replace(temporary, path)
    raw.setdefault("name", f"table-{content[:8]}")
    raw["data"] = {**raw.get("data", {}), "train": str(path), **({"label": target} if target is not None else {})}
    return run(load_spec(raw), runs, watch)


def as_frame(table: Any) -> pl.DataFrame:
    """A polars DataFrame with the table's rows.

    Raises:
        DataError: the table is none of the kinds that can be read, or has no rows.
    """
    if isinstance(table, pl.LazyFrame):
        frame = table.collect()
    elif isinstance(table, pl.DataFrame):
        frame = table
    elif type(table).__module__.split(".")[0] == "pandas":
        frame = pl.DataFrame({str(n): table[n].astype(object).where(table[n].notna(), None).tolist() for n in table.columns}, strict=False)
    elif isinstance(table, Sequence) and not isinstance(table, str) and all(isinstance(row, Mapping) for row in table):
        frame = pl.DataFrame(list(table), infer_schema_length=None)
    else:
        raise DataError(Issue("table", "must be a polars or pandas DataFrame or a list of dicts", type(table).__name__))
    if frame.is_empty():
        raise DataError(Issue("table", "must have rows", "none"))
    return frame


def _raw_spec(dials: dict[str, Any]) -> dict[str, Any]:
    """Dials by their own names put where the spec has them; a whole part wins nothing over a dial of the same name."""
    raw: dict[str, Any] = {}
    homes = {name: part for part, model in PARTS.items() for name in model.model_fields}
    for name, value in dials.items():
        if name == "strategy":
            raw["strategy"] = {"kind": value} if isinstance(value, str) else value
        elif name in OWN and isinstance(value, Mapping):
            raw[name] = {**raw.get(name, {}), **value}
        elif name == "model":
            raw.setdefault("model", {})["name"] = value
        elif name in OWN:
            raw[name] = value
        elif name in homes:
            raw.setdefault(homes[name], {})[name] = value
        else:
            known = ", ".join(sorted([*homes, *OWN, "strategy"]))
            raise SpecError(Issue(f"fit: {name}", "is not a dial of the spec", "", f"Known: {known}."))
    return raw

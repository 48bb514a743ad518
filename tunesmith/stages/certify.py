"""certify: what the splits have in common, by text, by group and by frozen features."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
from torch import Tensor

from tunesmith.core.records import Progress
from tunesmith.core.rundir import StageWriter
from tunesmith.data.certificate import DIRECTIONS, certificate, findings, nearest_part, pointers
from tunesmith.data.cosine import Nearest, nearest, unit_rows
from tunesmith.data.leaks import PAIRS, cosine_leaks, leaking
from tunesmith.stages.context import SPLITS, Context
from tunesmith.stages.embed import load_features


def certify(context: Context, stage: StageWriter) -> None:
    """Write data/certificate.json, and data/leaks.parquet with every row that an earlier split knows."""
    parts = json.loads((context.rundir.path / "data/profile.json").read_text("utf-8"))["alike"]
    leaks, pairs = [pl.read_parquet(context.rundir.path / "data/alike.parquet")], [pl.DataFrame(parts["pairs"], PAIRS)]
    features = _features(context, leaks, pairs)
    splits = {split: context.table(split) for split in SPLITS}
    every = pl.concat(leaks)
    content = certificate(parts, splits, every, pl.concat(pairs), features)
    stage.write("data/leaks.parquet", every.write_parquet)
    artefact = stage.write_text("data/certificate.json", json.dumps(content, ensure_ascii=False, indent=1) + "\n")
    where = pointers(content)
    stage.find(*(replace(f, artefact=replace(artefact, pointer=where[f.id])) if f.id in where else f for f in findings(content)))
    context.watch(Progress("certify", 1, 1, note=f"{content['leaking']['test']} test rows known from before"))


def leaking_test_rows(folder: Path) -> pl.Series:
    """Ids of the test rows that train or validation know."""
    return leaking(pl.read_parquet(folder / "data/leaks.parquet"), "test")


def _features(context: Context, leaks: list[pl.DataFrame], pairs: list[pl.DataFrame]) -> dict[str, Any] | None:
    """The cosine entry of the certificate; what is found is put into `leaks` and `pairs`. None when the spec looks for nothing."""
    near = context.spec.data.near_duplicates
    if near is None or not context.given.has_row_features:
        return None
    units: dict[str, Tensor] = {}
    ids: dict[str, pl.Series] = {}
    for split in SPLITS:
        loaded = load_features(context.rundir.path, split)
        units[split], ids[split] = unit_rows(loaded["mean"]), context.table(split)["id"].gather(loaded["row"].numpy())
    found: dict[str, Nearest] = {}
    compared: dict[str, tuple[int, int]] = {}
    for split, other in (*DIRECTIONS, ("train", "train")):
        name = f"{split}/{other}"
        found[name] = nearest(units[split], units[other], near.cosine, same=split == other)
        if split != other:
            compared[name] = (len(units[split]), len(units[other]))
            table, counted = cosine_leaks(found[name], split, ids[split], other, ids[other])
            leaks.append(table)
            pairs.append(counted)
    return nearest_part(near.cosine, compared, found)

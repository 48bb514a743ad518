"""A certificate for hand-made runs, by the functions that make the real one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import polars as pl
import torch

from tunesmith.core.rundir import StageWriter
from tunesmith.data.certificate import Searched, certificate, findings, nearest_part, pointers, text_part
from tunesmith.data.cosine import nearest, unit_rows
from tunesmith.data.leaks import leaking, text_leaks
from tunesmith.data.near import near_duplicates, whole_text
from tunesmith.spec.schema import Data


def certify(stage: StageWriter, splits: Mapping[str, pl.DataFrame]) -> pl.Series:
    """Write what the certify stage writes; gives the ids of leaking test rows. Features are random, with one near pair of rows."""
    rows = pl.concat(list(splits.values()))
    near = near_duplicates(whole_text(rows), 0.8)
    leaks, pairs = text_leaks(near, rows["id"], np.repeat([0, 1, 2], [len(part) for part in splits.values()]))
    generator = torch.Generator().manual_seed(0)
    units = unit_rows(torch.randn(30, 8, generator=generator))
    features = nearest_part(0.98, {"test/train": (30, 30)}, {"test/train": nearest(units, units.flip(0), 0.98)})
    content = certificate(text_part(Searched(near, None, leaks, pairs), Data(train=("t.csv",))), splits, leaks, pairs, features)
    stage.write("data/leaks.parquet", leaks.write_parquet)
    artefact = stage.write_text("data/certificate.json", json.dumps(content, ensure_ascii=False))
    where = pointers(content)
    stage.find(*(replace(f, artefact=replace(artefact, pointer=where[f.id])) if f.id in where else f for f in findings(content)))
    return leaking(leaks, "test")

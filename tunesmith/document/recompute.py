"""Levels 1 and 2 of verification: scores made again from stored predictions, predictions made again from the weights."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import numpy as np
import polars as pl

from tunesmith.core.records import Finding
from tunesmith.core.rundir import RunDir
from tunesmith.data.clean import SPLITS, content_ids
from tunesmith.data.folding import folding
from tunesmith.data.leaks import leaking, text_leaks
from tunesmith.data.marked import SPANS
from tunesmith.data.near import near_duplicates, whole_text
from tunesmith.document.checks import Check, attempt
from tunesmith.evaluate.evaluate import FOLDS, Judging, clean_findings, differences, findings_of
from tunesmith.evaluate.folds import fold_findings
from tunesmith.spec.defaults import read_resolved

Predict = Callable[[RunDir, str], pl.DataFrame]

PROBABILITY_TOLERANCE = 1e-4
SCORE_TOLERANCE = 1e-9
SPAN_TOLERANCE = 1e-3
MARGIN_TOLERANCE = 1e-3
SCORE_OF_A_TEXT = 1e-3
STORED_TOLERANCE = 1e-6
FOLDED = f"predictions/{FOLDS}.parquet"
PREDICTED = ("validation", "test")
SHOWN = 3


def check_scores(run: RunDir) -> list[Check]:
    """Level 1: texts against their ids, labels against the data, and every score made again from its predictions."""
    checks = attempt(1, "data/certificate.json", lambda: _certificate(run))
    for split in SPLITS:
        checks += attempt(1, f"texts of data/{split}.parquet", lambda split=split: _texts(run, split))  # type: ignore[misc]
    files = [name for entry in run.manifest["stages"].values() for name in entry["outputs"] if name.startswith("predictions/")]
    for name in sorted({*files, "predictions/test.parquet"}):
        checks += attempt(1, f"labels of {name}", lambda name=name: _labels(run, name))  # type: ignore[misc]
        checks += attempt(1, f"scores of {name}", lambda name=name: _recomputed(run, name))  # type: ignore[misc]
    if FOLDED in files:
        checks += attempt(1, f"folds of {FOLDED}", lambda: _folds(run))
    return checks


def _texts(run: RunDir, split: str) -> Iterator[Check]:
    rows = pl.read_parquet(run.path / f"data/{split}.parquet")
    changed = rows.filter(content_ids(rows) != rows["id"])
    what = f"texts of data/{split}.parquet"
    if len(changed):
        yield Check(1, what, "mismatch", f"{len(changed)} of {len(rows)} texts are not those of their ids, first {changed['id'][0]}")
    else:
        yield Check(1, what, "verified", f"{len(rows)} rows")


def _certificate(run: RunDir) -> Iterator[Check]:
    """The pairs of alike texts across the splits, searched for again."""
    content = json.loads((run.path / "data/certificate.json").read_text("utf-8"))
    if content["jaccard"] is None:
        yield Check(1, "data/certificate.json", "skipped", "near-duplicates were not looked for")
        return
    parts = [pl.read_parquet(run.path / f"data/{name}.parquet") for name in SPLITS]
    leaks = pl.read_parquet(run.path / "data/leaks.parquet")
    counted = {name: len(leaking(leaks, name)) for name in ("test", "validation")}
    counted |= {
        "clean": len(parts[2]) - counted["test"],
        "exact": len(parts[2].join(pl.concat(parts[:2], how="diagonal"), on="id", how="semi")),
    }
    stated = {**content["leaking"], "clean": content["clean_test_rows"], "exact": content["exact"]["pairs"]}
    if counted != stated:
        yield Check(1, "data/certificate.json", "mismatch", f"{stated} recorded, {counted} counted again from data/leaks.parquet")
        return
    if content["jaccard"]["crowded_rows"]:
        detail = "rows in crowds were compared with a part of their crowd; a search of the splits alone compares other parts"
        yield Check(1, "data/certificate.json", "skipped", detail)
        return
    rows = pl.concat(parts, how="diagonal")
    near = near_duplicates(whole_text(rows), content["jaccard"]["threshold"])
    places_N = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    found = {f"{split}/{other}": n for split, other, _, n in text_leaks(near, rows["id"], places_N)[1].iter_rows()}
    recorded = {name: n for name, n in content["jaccard"]["pairs"].items() if n}
    if found != recorded:
        yield Check(1, "data/certificate.json", "mismatch", f"pairs of near-duplicate texts: {recorded} recorded, {found} found again")
    else:
        yield Check(1, "data/certificate.json", "verified", f"{len(rows)} rows searched again: {sum(found.values())} pairs across splits")


def _labels(run: RunDir, name: str) -> Iterator[Check]:
    """True labels as in the data; predicted labels and confidence as the probabilities say."""
    split = _parts(name)[0]
    stored, what = pl.read_parquet(run.path / name), f"labels of {name}"
    if split == FOLDS:
        every = pl.concat([pl.read_parquet(run.path / f"data/{part}.parquet") for part in SPLITS], how="diagonal")
        rows, place = every.filter(pl.col("id").is_in(stored["id"].implode())), "the data"
    else:
        rows, place = pl.read_parquet(run.path / f"data/{split}.parquet"), f"data/{split}.parquet"
    if not stored["id"].equals(rows["id"]):
        yield Check(1, what, "mismatch", f"its rows are not those of {place}, in this order")
        return
    other = [i for i, (a, b) in enumerate(zip(stored["label"].to_list(), rows["label"].to_list(), strict=True)) if a != b]
    if other:
        yield Check(
            1,
            what,
            "mismatch",
            f"{len(other)} of {len(rows)} rows have another label in {place}, first {rows['id'][other[0]]}",
        )
        return
    if "candidates" in stored.columns:
        texts = zip(rows["text_pair"], stored.select("predicted", "start", "end").iter_rows(), strict=True)
        moved = [n for n, (text, (said, start, end)) in enumerate(texts) if said != ("" if start is None else text[start:end])]
        if moved:
            found = f"{len(moved)} of {len(rows)} answers are not at their place, first row {stored['id'][moved[0]]}"
            yield Check(1, what, "mismatch", found)
            return
    if "probabilities" not in stored.columns:
        yield Check(1, what, "verified", f"{len(rows)} rows")
        return
    wrong = [i for i, right in enumerate(_follow(stored, _label_names(run))) if not right]
    if wrong:
        yield Check(1, what, "mismatch", f"{len(wrong)} answers do not follow from their probabilities, first row {stored['id'][wrong[0]]}")
    else:
        yield Check(1, what, "verified", f"{len(rows)} rows")


def _folds(run: RunDir) -> Iterator[Check]:
    """The fold of each row, dealt again: clusters and groups are searched again, so none of them is cut."""
    spec, what = read_resolved(run.path / "resolved.yaml"), f"folds of {FOLDED}"
    stored = pl.read_parquet(run.path / FOLDED)
    whole = folding({split: pl.read_parquet(run.path / f"data/{split}.parquet") for split in SPLITS}, spec)
    dealt = stored.select("id", "fold").join(whole.rows.select("id", again=whole.fold_N), on="id", how="left")
    used = whole.rows.filter(np.isin(whole.fold_N, stored["fold"].unique().to_numpy()))
    other = dealt.filter(pl.col("fold").ne_missing(pl.col("again")))
    if len(other):
        yield Check(1, what, "mismatch", f"{len(other)} of {len(stored)} rows belong to another fold, first {other['id'][0]}")
    elif not used["id"].equals(stored["id"]):
        yield Check(1, what, "mismatch", f"{len(used)} rows are in these folds, {len(stored)} have predictions")
    else:
        yield Check(1, what, "verified", f"{len(stored)} rows dealt again into {stored['fold'].n_unique()} folds")


def _follow(stored: pl.DataFrame, labels: list[str]) -> Iterator[bool]:
    """Whether each row's predicted label and confidence follow from its probabilities, but for rounding."""
    ids = {label: number for number, label in enumerate(labels)}
    for predicted, confidence, probabilities in stored.select("predicted", "confidence", "probabilities").iter_rows():
        p = np.array(probabilities)
        if isinstance(predicted, list):
            chosen = np.isin(np.arange(len(p)), [ids[label] for label in predicted])
            settled = np.abs(p - 0.5) > STORED_TOLERANCE
            follows, expected = bool((chosen == (p >= 0.5))[settled].all()), float(np.maximum(p, 1 - p).mean())
        else:
            follows, expected = bool(p[ids[predicted]] >= p.max() - STORED_TOLERANCE), float(p.max())
        yield follows and abs(confidence - expected) <= STORED_TOLERANCE


def _recomputed(run: RunDir, name: str) -> Iterator[Check]:
    """Every finding made from a predictions file, made again and compared."""
    split, *baseline = _parts(name)
    spec, what = read_resolved(run.path / "resolved.yaml"), f"scores of {name}"
    if split not in (*PREDICTED, FOLDS) or len(baseline) > 1 or (baseline and baseline[0] not in spec.evaluate.baselines):
        yield Check(1, what, "skipped", "not the predictions of a split or of a baseline")
        return
    prefix = f"{split}/baseline/{baseline[0]}" if baseline else split
    judging = Judging(spec.kind, _label_names(run), spec.evaluate, spec.seed, prefix)
    predictions = pl.read_parquet(run.path / name)
    again = fold_findings(predictions, judging) if prefix == FOLDS else findings_of(predictions, judging)
    if prefix == "test":
        again += clean_findings(predictions, leaking(pl.read_parquet(run.path / "data/leaks.parquet"), "test"), judging)
    if baseline:
        again += differences(pl.read_parquet(run.path / f"predictions/{split}.parquet"), predictions, judging)
    ledger = {f.id: f for f in run.findings.values() if f.id.startswith(f"{prefix}/")}
    if not baseline:
        ledger = {id_: f for id_, f in ledger.items() if not id_.startswith(f"{prefix}/baseline/")}
    wrong = [f"{f.id} {_difference(ledger.get(f.id), f)}" for f in again if _difference(ledger.get(f.id), f)]
    made = {f.id for f in again}
    wrong += [f"{id_} comes from no prediction" for id_, f in ledger.items() if id_ not in made and f.source != "measured"]
    if wrong:
        yield Check(1, what, "mismatch", f"{len(wrong)} findings: {'; '.join(wrong[:SHOWN])}{'; …' if len(wrong) > SHOWN else ''}")
    else:
        yield Check(1, what, "verified", f"{len(again)} findings computed again")
    timed = [id_ for id_ in ledger if id_ not in made and ledger[id_].source == "measured"]
    if timed:
        yield Check(1, ", ".join(timed), "skipped", "measured while the run was made; nothing to compute it from")


def _difference(recorded: Finding | None, again: Finding) -> str:
    """What is wrong with a recorded finding; empty when nothing is."""
    if recorded is None:
        return "is not in the ledger"
    if not _close(recorded.value, again.value):
        return f"is {recorded.value} in the ledger, {again.value} computed again"
    if recorded.n != again.n:
        return f"has n {recorded.n} in the ledger, {again.n} computed again"
    bounds = zip(recorded.interval or (None, None), again.interval or (None, None), strict=True)
    return (
        "" if all(_close(a, b) for a, b in bounds) else f"has interval {recorded.interval} in the ledger, {again.interval} computed again"
    )


def _close(a: object, b: object) -> bool:
    numbers = (int, float)
    if isinstance(a, numbers) and isinstance(b, numbers):
        return abs(a - b) <= SCORE_TOLERANCE * max(1.0, abs(b))
    return a == b


def check_weights(run: RunDir, predict: Predict | None) -> list[Check]:
    """Level 2: the stored predictions of the model against what its weights predict now."""
    if predict is None:
        return [Check(2, "predictions of the saved weights", "skipped", "nothing to predict with")]
    checks = []
    for split in PREDICTED:
        what = f"predictions/{split}.parquet from the weights"
        checks += attempt(2, what, lambda split=split, what=what: _predicted(run, split, what, predict))  # type: ignore[misc]
    if (run.path / FOLDED).exists():
        detail = "the models of the folds are not kept, so nothing can predict these rows again; their scores are checked at level 1"
        checks.append(Check(2, f"{FOLDED} from the weights", "skipped", detail))
    return checks


def _predicted(run: RunDir, split: str, what: str, predict: Predict) -> Iterator[Check]:
    stored, again = pl.read_parquet(run.path / f"predictions/{split}.parquet"), predict(run, split)
    if not stored["id"].equals(again["id"]):
        yield Check(2, what, "mismatch", "the weights were asked about other rows")
        return
    if not len(stored):
        yield Check(2, what, "verified", "no rows")
        return
    if "candidates" in stored.columns:
        yield _same_answers(stored, again, what)
        return
    if "ranks" in stored.columns:
        yield _same_ranks(stored, again, what)
        return
    if "finished" in stored.columns:
        yield _same_texts(stored, again, what)
        return
    if stored.schema["label"] == SPANS:
        yield _same_spans(stored, again, what)
        return
    if "probabilities" not in stored.columns:
        yield _same_numbers(stored, again, what)
        return
    before, now = (np.array(table["probabilities"].to_list(), dtype=np.float64) for table in (stored, again))
    if before.shape != now.shape or not np.isfinite(now).all():
        yield Check(2, what, "mismatch", "the weights give other classes, or no finite probabilities")
        return
    largest = float(np.abs(before - now).max())
    if largest > PROBABILITY_TOLERANCE:
        rows = int((np.abs(before - now).max(1) > PROBABILITY_TOLERANCE).sum())
        yield Check(2, what, "mismatch", f"{rows} of {len(stored)} rows have other probabilities, by up to {largest:.3g}")
        return
    flipped = (stored["predicted"] != again["predicted"]).to_numpy() & ~_undecided(before, stored)
    if flipped.any():
        yield Check(
            2,
            what,
            "mismatch",
            f"{int(flipped.sum())} of {len(stored)} rows have another label, first {stored['id'][int(flipped.argmax())]}",
        )
    else:
        yield Check(
            2,
            what,
            "verified",
            f"{len(stored)} rows, probabilities agree within {PROBABILITY_TOLERANCE:g} (largest difference {largest:.2g})",
        )


def _same_texts(stored: pl.DataFrame, again: pl.DataFrame, what: str) -> Check:
    """Written texts against those of the weights; a text may be another where two tokens of it were as likely as each other."""
    other = stored.filter(stored["predicted"] != again["predicted"])
    wrong = other.filter(pl.col("margin").fill_null(np.inf) > MARGIN_TOLERANCE)
    if len(wrong):
        return Check(2, what, "mismatch", f"{len(wrong)} of {len(stored)} rows have another text, first {wrong['id'][0]}")
    ties = f"; {len(other)} others hang on less than {MARGIN_TOLERANCE:g} between two tokens" if len(other) else ""
    return Check(2, what, "verified", f"{len(stored) - len(other)} of {len(stored)} rows, the same texts{ties}")


def _same_ranks(stored: pl.DataFrame, again: pl.DataFrame, what: str) -> Check:
    """Scores of relevant texts against those of the weights; ranks may differ in a query in a hundred, by rounding."""
    before, now = (table["scores"].explode(empty_as_null=True).fill_null(float("nan")).to_numpy() for table in (stored, again))
    if before.shape != now.shape or not np.array_equal(np.isnan(before), np.isnan(now)):
        return Check(2, what, "mismatch", "the weights find other relevant texts")
    largest = float(np.nanmax(np.abs(before - now), initial=0.0))
    if largest > SCORE_OF_A_TEXT:
        return Check(2, what, "mismatch", f"scores of relevant texts differ by up to {largest:.3g}")
    other = int((stored["ranks"] != again["ranks"]).sum())
    if other > max(len(stored) // 100, 1):
        return Check(2, what, "mismatch", f"{other} of {len(stored)} queries find their texts at other ranks")
    ties = f"; {other} queries with other ranks" if other else ""
    return Check(2, what, "verified", f"{len(stored)} queries, scores agree within {SCORE_OF_A_TEXT:g} (largest {largest:.2g}){ties}")


def _same_numbers(stored: pl.DataFrame, again: pl.DataFrame, what: str) -> Check:
    """Predicted numbers against those of the weights, within a share of their spread."""
    before, now = (table["predicted"].to_numpy() for table in (stored, again))
    tolerance = PROBABILITY_TOLERANCE * max(float(np.std(before)), 1e-12)
    off = ~(np.abs(before - now) <= tolerance)
    if off.any():
        first = stored["id"][int(off.argmax())]
        return Check(2, what, "mismatch", f"{int(off.sum())} of {len(stored)} rows have another number, first {first}")
    return Check(2, what, "verified", f"{len(stored)} rows, numbers agree within {tolerance:.2g}")


def _same_answers(stored: pl.DataFrame, again: pl.DataFrame, what: str) -> Check:
    """Predicted answers and their scores against those of the weights; an answer may be another where two spans are as good."""
    other_N = (stored["predicted"] != again["predicted"]).to_numpy()
    before, now = (table["score"].to_numpy() for table in (stored, again))
    off_N = ~(np.abs(before - now) <= SPAN_TOLERANCE)
    margin_N, again_N = (table["margin"].to_numpy() for table in (stored, again))
    close_N = np.array([len(c) > 1 and c[0]["score"] - c[1]["score"] <= SPAN_TOLERANCE for c in stored["candidates"].to_list()], np.bool_)
    moved_N = ~(np.abs(margin_N - again_N) <= SPAN_TOLERANCE * np.maximum(1.0, np.abs(margin_N)))
    wrong_N = off_N | moved_N | (other_N & ~close_N)
    if wrong_N.any():
        first = stored["id"][int(wrong_N.argmax())]
        return Check(2, what, "mismatch", f"{int(wrong_N.sum())} of {len(stored)} answers differ, first {first}")
    largest = float(np.abs(before - now).max(initial=0.0))
    return Check(2, what, "verified", f"{len(stored)} answers, scores agree within {SPAN_TOLERANCE:g} (largest difference {largest:.2g})")


def _same_spans(stored: pl.DataFrame, again: pl.DataFrame, what: str) -> Check:
    """Predicted spans and their probabilities against those of the weights; a row may differ where a tag hardly led."""
    close_N = stored["margin"].to_numpy() <= SPAN_TOLERANCE
    off, largest = list[int](), 0.0
    for row, (before, now) in enumerate(zip(stored["predicted"].to_list(), again["predicted"].to_list(), strict=True)):
        same = [(s["start"], s["end"], s["label"]) for s in before] == [(s["start"], s["end"], s["label"]) for s in now]
        apart = max((abs(a["probability"] - b["probability"]) for a, b in zip(before, now, strict=False)), default=0.0) if same else 1.0
        if apart > SPAN_TOLERANCE and not close_N[row]:
            off.append(row)
        largest = max(largest, apart if same else 0.0)
    if off:
        return Check(2, what, "mismatch", f"{len(off)} of {len(stored)} rows have other spans, first {stored['id'][off[0]]}")
    return Check(
        2,
        what,
        "verified",
        f"{len(stored)} rows, the same spans; probabilities agree within {SPAN_TOLERANCE:g} (largest difference {largest:.2g})",
    )


def _undecided(probabilities_NC: np.ndarray, stored: pl.DataFrame) -> np.ndarray:
    """True where the answer hangs on less than the tolerance: the top two, or a label at even odds."""
    if isinstance(stored.schema["predicted"], pl.List):
        return np.asarray((np.abs(probabilities_NC - 0.5) <= PROBABILITY_TOLERANCE).any(1))
    top = np.sort(probabilities_NC, 1)[:, -2:]
    return np.asarray(top[:, -1] - top[:, 0] <= PROBABILITY_TOLERANCE) if top.shape[1] > 1 else np.zeros(len(top), dtype=bool)


def _label_names(run: RunDir) -> list[str]:
    return list(json.loads((run.path / "data/labels.json").read_text("utf-8")))


def _parts(name: str) -> list[str]:
    """ "predictions/test.features.parquet" → ["test", "features"]."""
    return name.removeprefix("predictions/").removesuffix(".parquet").split(".")

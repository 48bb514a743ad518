"""The summary of a run for `tunesmith show`: plain rows, from the run directory alone."""

from __future__ import annotations

from dataclasses import dataclass

from tunesmith.core.records import Finding
from tunesmith.core.rundir import RunDir
from tunesmith.document import story, tables, vocabulary
from tunesmith.document.contents import Contents
from tunesmith.document.formats import Form, between, formatted, setting
from tunesmith.spec.kinds import OF_CLASSES


@dataclass(frozen=True)
class Row:
    """One line of the summary: the group it belongs to, its name, its value, and what qualifies the value."""

    group: str
    name: str
    value: str
    note: str = ""


ADAPTED: tuple[tuple[str, Form], ...] = (("texts", "count"), ("masked_loss/before", "score"), ("masked_loss/after", "score"))


def summary(run: RunDir) -> list[Row]:
    """Headline, baselines, data, model, time and files of a run. What is not known is said to be unknown."""
    contents = Contents.of(run)
    return [*_score(contents), *_data(contents), *_model(contents), *_paths(contents)]


def data_summary(run: RunDir) -> list[Row]:
    """What a check of the data found."""
    contents = Contents.of(run)
    return [*_data(contents), *(Row("data", "warning", "", warning) for warning in contents.profile.get("warnings", []))]


def _score(contents: Contents) -> list[Row]:
    headline = story.headline(contents)
    rows = [Row("score", f"test {headline.metric.title}", *_shown(contents, headline.id, "score"))]
    for comparison in headline.comparisons:
        value, _ = _shown(contents, comparison.id, "score")
        difference, note = _shown(contents, comparison.difference, "difference")
        about = f"difference {difference}{f', {note}' if note else ''}"
        rows.append(Row("score", f"  {vocabulary.baseline_name(comparison.name, contents.kind)}", value, about))
    if folded := story.folded(contents):
        spread = " to ".join(_shown(contents, f"folds/{end}", "score")[0] for end in ("lowest", "highest"))
        value, about = _shown(contents, folded.id, "score")
        rows.append(Row("score", f"cross-validated {headline.metric.title}", value, f"{about}; folds from {spread}"))
    rows.append(Row("score", f"validation {headline.metric.title}", *_shown(contents, f"validation/{headline.name}", "score")))
    return rows


def _data(contents: Contents) -> list[Row]:
    rows = [Row("data", f"{title} rows", *_shown(contents, f"data/rows/{split}", "count")) for split, title in vocabulary.SPLITS.items()]
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in tables.dropped_counts(contents.dropped).items())
    rows.append(Row("data", "dropped rows", _shown(contents, "data/rows/dropped", "count")[0], reasons))
    clean = f"test/clean/{(headline := story.headline(contents)).name}"
    without = f"{headline.metric.title} without them {' '.join(_shown(contents, clean, 'score'))}" if clean in contents.findings else ""
    rows.append(Row("data", "test rows known before", _shown(contents, "certificate/leaking/test", "count")[0], without))
    if told := contents.profile.get("annotators"):
        alpha, within = _shown(contents, "data/agreement/alpha", "score")
        about = f"Krippendorff's alpha {alpha}{f' ({within})' if within else ''}; {told['ties']:,} of {told['items']:,} texts a tie"
        rows.append(Row("data", "annotators", f"{len(told['annotators']):,}", about))
    if contents.quality:
        action, changed = contents.quality["action"], _shown(contents, "labels/changed", "count")[0]
        listed = "review/suspects.csv" if contents.kind in OF_CLASSES else "data/suspects.parquet"
        treated = "" if action == "report" else f"{changed} {vocabulary.SUSPECT_RULES[action]}; "
        rows.append(Row("data", "suspect labels", _shown(contents, "labels/suspects", "count")[0], f"{treated}see {listed}"))
    if contents.kind == "answers":
        without, _ = _shown(contents, "data/without_answer/train", "count")
        texts, _ = _shown(contents, "data/contexts", "count")
        rows.append(Row("data", "texts asked about", texts, f"{without} questions without an answer"))
    elif contents.kind == "text":
        half, most = (_shown(contents, f"data/targets/train/{end}", "count")[0] for end in ("p50", "max"))
        rows.append(Row("data", "targets", f"{half} characters", f"half of them at most; the longest {most}"))
    elif contents.kind == "relevant":
        texts, pairs = (_shown(contents, f"data/{name}", "count")[0] for name in ("corpus", "relevant/train"))
        rows.append(Row("data", "texts to find", texts, f"{pairs} training pairs of a query and a relevant text"))
    elif contents.kind == "masked":
        windows, _ = _shown(contents, "data/windows/train", "count")
        share = setting(contents.setting("train.mlm_probability", "unknown"))
        rows.append(Row("data", "windows over texts", windows, f"a share of {share} of the tokens is masked, anew at every step"))
    elif contents.kind == "spans":
        rows.append(Row("data", "types of spans", _shown(contents, "data/classes", "count")[0], _untested(contents)))
    elif contents.kind in OF_CLASSES:
        rows.append(Row("data", "classes", _shown(contents, "data/classes", "count")[0], _untested(contents)))
    else:
        ends = " to ".join(_shown(contents, f"data/numbers/train/{end}", "plain")[0] for end in ("min", "max"))
        rows.append(Row("data", "numbers", ends, f"mean {_shown(contents, 'data/numbers/train/mean', 'plain')[0]}"))
    lost = {
        "truncated": ("texts cut", f"at {setting(contents.setting('model.max_length'))} tokens"),
        "widened_spans": ("spans of parts of words", "learned wider, or not at all"),
    }
    for name, (what, note) in lost.items():
        found = [contents.findings.get(f"data/{name}/{split}") for split in vocabulary.SPLITS]
        if any(finding is not None and finding.value for finding in found):
            shown = ", ".join(f"{_value(f, 'count')} {title}" for f, title in zip(found, vocabulary.SPLITS.values(), strict=True))
            rows.append(Row("data", what, shown, note))
    return rows


def _untested(contents: Contents) -> str:
    untested = story.limits(contents).untested
    return f"{len(untested):,} without a test row" if untested else ""


def _model(contents: Contents) -> list[Row]:
    trained, _ = _shown(contents, "model/parameters/trainable", "count")
    total, _ = _shown(contents, "model/parameters/total", "count")
    rows = [
        Row("model", "starts from", _shown(contents, "model/name", "plain")[0]),
        *_adapted(contents),
        Row("model", "strategy", setting(contents.setting("strategy.kind", "unknown"))),
        Row("model", "parameters", total, f"{trained} trained"),
    ]
    if contents.history:
        rows.append(Row("model", "training", _shown(contents, "train/seconds", "seconds")[0], _course(contents)))
    rows.append(Row("model", "all stages", formatted(story.seconds_total(contents), "seconds")))
    return rows


def _adapted(contents: Contents) -> list[Row]:
    if "adapt/texts" not in contents.findings:
        return []
    texts, before, after = (_shown(contents, f"adapt/{name}", form)[0] for name, form in ADAPTED)
    left = _shown(contents, "adapt/left_out", "count")[0]
    about = f"masked loss on texts held out: {before} before, {after} after; {left} texts left out"
    return [Row("model", "adapted to", f"{texts} texts", about)]


def _course(contents: Contents) -> str:
    steps, _ = _shown(contents, "train/steps", "count")
    best, _ = _shown(contents, "train/best_epoch", "plain")
    return f"{steps} steps, best at epoch {best}, ended by: {_shown(contents, 'train/stopped_by', 'plain')[0]}"


def _paths(contents: Contents) -> list[Row]:
    found = [("report", "report.html"), ("card", "MODEL_CARD.md"), ("model", "model")]
    return [
        Row("files", name, str(contents.path / path), "" if (contents.path / path).exists() else "not there yet") for name, path in found
    ]


def _shown(contents: Contents, name: str, form: Form) -> tuple[str, str]:
    """(value, interval and n) of a finding as text."""
    finding = contents.findings.get(name)
    value = _value(finding, form)
    if finding is None or finding.value is None:
        return value, finding.note if finding else ""
    parts = []
    if finding.interval:
        parts.append(between(finding.interval, form))
    if finding.interval and finding.n is not None:
        parts.append(f"n {formatted(finding.n, 'count')}")
    return value, ", ".join(parts)


def _value(finding: Finding | None, form: Form) -> str:
    return "unknown" if finding is None or finding.value is None else formatted(finding.value, form)

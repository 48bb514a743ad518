"""The report: one HTML file that opens from disk, asks nothing of the network, and shows where every number comes from."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tunesmith.core.rundir import RunDir
from tunesmith.document import charts, story, tables, vocabulary
from tunesmith.document.answers import told_answers
from tunesmith.document.claims import Claims, html_document
from tunesmith.document.contents import PREDICTIONS, Contents
from tunesmith.document.marks import told_spans
from tunesmith.document.ranked import told_rankings
from tunesmith.document.templating import rendered
from tunesmith.document.written import told_texts
from tunesmith.spec.kinds import OF_CLASSES, Kind

WORST_CLASSES = 15
MATRIX_CLASSES = 12
CONFUSIONS = 15
DROPPED_EXAMPLES = 3
TEXT_CHARACTERS = 600


def render_report(run: RunDir) -> str:
    """report.html of a run, from its files alone; the same files give the same bytes.

    Raises:
        UnsourcedNumber: a template holds a digit of its own.
    """
    contents = Contents.of(run)
    claims = Claims(contents)
    return html_document("report.html", rendered("report.html", c=claims, v=vocabulary, **_view(contents)), claims)


def render_data_report(run: RunDir) -> str:
    """data_report.html of a run whose data were prepared and checked, whether or not it was trained.

    Raises:
        UnsourcedNumber: a template holds a digit of its own.
    """
    contents = Contents.of(run)
    claims = Claims(contents)
    return html_document("data_report.html", rendered("data_report.html", c=claims, v=vocabulary, **_data_view(contents)), claims)


def _data_view(contents: Contents) -> dict[str, Any]:
    """What the sections about data walk over."""
    return {
        "run": contents,
        "of_classes": contents.kind in OF_CLASSES,
        "is_pair": story.is_pair(contents),
        "files": story.files(contents),
        "file_names": story.file_names(contents),
        "text_characters": TEXT_CHARACTERS,
        "learning_plot": _learning_plot(contents),
        **_data(contents),
    }


def _view(contents: Contents) -> dict[str, Any]:
    """Everything that the template walks over; numbers in it reach the page only through claims."""
    return {
        **_data_view(contents),
        "predictions": PREDICTIONS,
        "section": SECTIONS[contents.kind],
        "headline": story.headline(contents),
        "folded": story.folded(contents),
        "spans": _spans(contents),
        "metrics": [(name, vocabulary.metric(name), story.comparisons(contents, name)) for name in story.metric_names(contents)],
        "limits": story.limits(contents),
        "few_test_rows": story.FEW_TEST_ROWS,
        "under": lambda prefix: story.findings_under(contents, prefix),
        "seconds_total": story.seconds_total(contents),
        "command": shlex.quote(f"runs/{contents.name}"),
        **_classes(contents),
        **_outcome(contents),
        **_curves(contents),
        **_settings(contents),
    }


def _outcome(contents: Contents) -> dict[str, Any]:
    """What the sections about right and wrong predictions walk over, by the kind of labels."""
    return SECTIONS[contents.kind].told(contents)


@dataclass(frozen=True)
class Section:
    """The section about what is right and wrong: its anchor, its title in the contents, what it walks over, its templates."""

    anchor: str
    title: str
    told: Callable[[Contents], dict[str, Any]]
    template: str
    mistakes: str


SECTIONS: dict[Kind, Section] = {
    "class": (classes := Section("calibration", "Calibration", lambda contents: _confusion(contents), "confusion.html", "mistakes.html")),
    "classes": classes,
    "number": Section("numbers", "Numbers", lambda contents: _numbers(contents), "numbers.html", "mistakes.html"),
    "answers": Section("answers", "Questions", told_answers, "answers.html", "answer_mistakes.html"),
    "text": Section("written", "Texts written", told_texts, "written.html", "written_mistakes.html"),
    "spans": Section("classes", "Types", told_spans, "spans.html", "span_mistakes.html"),
    "relevant": Section("ranked", "Places", told_rankings, "ranked.html", "ranked_mistakes.html"),
}


def _spans(contents: Contents) -> dict[str, Any] | None:
    """The picture of the answer: model and baselines on one axis. None when a score is unknown."""
    headline = story.headline(contents)
    ids = [headline.id, *(comparison.id for comparison in headline.comparisons)]
    found = [contents.findings.get(name) for name in ids]
    shown = [(name, f) for name, f in zip(ids, found, strict=True) if f is not None and isinstance(f.value, (int, float))]
    if not shown or shown[0][0] != headline.id:
        return None
    places, ends = charts.spans([(float(f.value or 0), f.interval) for _, f in shown])
    titles = {headline.id: "this model", **{c.id: vocabulary.baseline_name(c.name, contents.kind) for c in headline.comparisons}}
    return {"rows": [(name, titles[name], place) for (name, _), place in zip(shown, places, strict=True)], "ends": ends}


def _classes(contents: Contents) -> dict[str, Any]:
    rows = [row for row in tables.class_rows(contents) if row.n > 0]
    worst = rows if len(rows) <= WORST_CLASSES + 5 else rows[:WORST_CLASSES]
    return {"worst_classes": worst, "other_classes": rows[len(worst) :]}


def _confusion(contents: Contents) -> dict[str, Any]:
    pairs = tables.confusions(contents.test)
    wrong = [pair for pair in pairs if pair.true != pair.predicted]
    small = len(contents.labels) <= MATRIX_CLASSES
    return {
        "confusions": wrong[:CONFUSIONS],
        "confusion_kinds": len(wrong),
        "matrix": {(pair.true, pair.predicted): pair for pair in pairs} if small else {},
        "confusion_map": charts.confusion_map(pairs, contents.labels) if pairs and not small else None,
        "bins": (bins := tables.calibration(contents)),
        "calibration_plot": charts.calibration_plot(bins) if bins else None,
        "mistakes": tables.mistakes(contents),
        "errors": [],
    }


def _numbers(contents: Contents) -> dict[str, Any]:
    points = tables.scatter(contents.test)
    return {
        "scatter": charts.scatter_plot(points) if points else None,
        "bands": tables.bands(contents.test),
        "errors": tables.largest_errors(contents),
        "mistakes": [],
    }


def _curves(contents: Contents) -> dict[str, Any]:
    loss, scores = tables.loss_curve(contents), tables.evaluations(contents)
    points = [(float(e.step), e.score) for e in scores]
    best = [number for number, e in enumerate(scores) if e.is_best]
    return {
        "loss": loss,
        "loss_plot": charts.line_plot(loss, zero=True) if loss else None,
        "scores": scores,
        "score_points": points,
        "rate_plot": charts.rate_plot(tested) if len(tested := tables.range_curve(contents)) > 1 else None,
        "score_plot": charts.line_plot(points, marked=best) if points else None,
    }


def _learning_plot(contents: Contents) -> charts.Plot | None:
    points = (contents.quality.get("curve") or {}).get("points", [])
    return charts.line_plot([(float(rows), score) for rows, score in points]) if len(points) > 1 else None


def _data(contents: Contents) -> dict[str, Any]:
    classes = contents.profile.get("classes", [])
    counts = tables.dropped_counts(contents.dropped)
    looked_for = contents.profile.get("dropped", {})
    ordered = sorted(classes, key=lambda entry: (-entry.get("train", 0), entry["label"]))
    return {
        "classes_by_size": ordered,
        "rare_classes": contents.profile.get("rare_classes", []),
        "balance_plot": charts.silhouette([entry.get("train", 0) for entry in classes]) if len(classes) > 1 else None,
        "dropped_counts": counts,
        "dropped_reasons": {reason: entry.get("explanation", "") for reason, entry in looked_for.items()},
        "dropped_examples": tables.dropped_examples(contents.dropped, DROPPED_EXAMPLES),
        "not_dropped": [entry.get("explanation", reason) for reason, entry in looked_for.items() if reason not in counts],
    }


def _settings(contents: Contents) -> dict[str, Any]:
    paths = {path: entry["rule"] for path, entry in contents.resolved.items()}
    artefacts = [(path, stage) for stage, entry in contents.stages.items() for path in sorted(entry["outputs"])]
    return {
        "set_paths": [path for path, rule in paths.items() if rule != "default"],
        "default_paths": [path for path, rule in paths.items() if rule == "default"],
        "artefacts": artefacts,
    }

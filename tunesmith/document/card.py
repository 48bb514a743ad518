"""The model card: MODEL_CARD.md with Hugging Face front matter. What only a person can say is marked as not stated."""

from __future__ import annotations

import re
import shlex
from typing import Any

import yaml

from tunesmith.core.records import Finding
from tunesmith.core.rundir import RunDir
from tunesmith.document import story, tables, vocabulary
from tunesmith.document.claims import Claims, markdown_document
from tunesmith.document.contents import PREDICTIONS, Contents
from tunesmith.document.templating import markdown_text, rendered
from tunesmith.spec.kinds import OF_CLASSES

WORST_CLASSES = 20
MISTAKES = 5
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
DECLARED = {
    "intended_use": "Meant for",
    "out_of_scope": "Not meant for",
    "data_origin": "Origin of the data",
    "contact": "Contact",
}

PIPELINE_TAGS = {"text-regression": "text-classification"}
"""Tasks that the hub knows by another name: what loads the model and runs it."""


class _Words(str):
    """Text that YAML must quote: without quotes it could read as a number, a boolean or markup once the marks are gone."""

    __slots__ = ()


class _FrontMatter(yaml.SafeDumper):
    """Writes words in quotes, everything else plain."""


_FrontMatter.add_representer(_Words, lambda dumper, words: dumper.represent_scalar("tag:yaml.org,2002:str", str(words), style='"'))


def render_card(run: RunDir) -> str:
    """MODEL_CARD.md of a run, from its files alone; the same files give the same bytes.

    Raises:
        UnsourcedNumber: the template holds a digit of its own.
    """
    contents = Contents.of(run)
    claims = Claims(contents, markdown_text)
    plain = Claims(contents)
    view = _view(contents, plain)
    text = rendered("MODEL_CARD.md", c=claims, plain=plain, v=vocabulary, front_matter=front_matter(contents, plain), **view)
    return markdown_document("MODEL_CARD.md", text)


def front_matter(contents: Contents, claims: Claims) -> str:
    """The YAML between the dashes. Values come from findings and from what the spec declares; unknown ones are left out."""
    metrics = [name for name in story.metric_names(contents) if claims.known(f"test/{name}")]
    language = contents.setting("card.language")
    fields: dict[str, Any] = {
        "license": _words(claims, contents.setting("card.license")),
        "language": [_words(claims, code) for code in language] if language else None,
        "library_name": _library(contents, claims),
        "pipeline_tag": PIPELINE_TAGS.get(_task(contents), _task(contents)),
        "base_model": _base_model(contents, claims),
        "tags": ["tunesmith", _task(contents), *(["multi-label"] if contents.multi_label else [])],
        "metrics": [_words(claims, name) for name in metrics] or None,
        "model-index": [_results(contents, claims, metrics)] if metrics else None,
    }
    known = {name: value for name, value in fields.items() if value is not None}
    return yaml.dump(known, Dumper=_FrontMatter, sort_keys=False, allow_unicode=True, width=10**6)


def _results(contents: Contents, claims: Claims, metrics: list[str]) -> dict[str, Any]:
    files = ", ".join(story.file_names(contents)) or contents.name
    return {
        "name": _words(claims, contents.name),
        "results": [
            {
                "task": {"type": _task(contents), "name": _task(contents).replace("-", " ").capitalize()},
                "dataset": {"type": "custom", "name": _words(claims, files), "split": "test"},
                "metrics": [
                    {"type": _words(claims, name), "name": _words(claims, vocabulary.metric(name).title), "value": _Number(claims, name)}
                    for name in metrics
                ],
            }
        ],
    }


def _task(contents: Contents) -> str:
    return str(contents.setting("task", "text-classification"))


class _Number:
    """The value of a test metric, written without quotes and marked as a claim."""

    def __init__(self, claims: Claims, metric: str) -> None:
        self.text = claims.exact(f"test/{metric}")


_FrontMatter.add_representer(_Number, lambda dumper, number: dumper.represent_scalar("tag:yaml.org,2002:str", number.text))


def _words(claims: Claims, text: object) -> _Words | None:
    return None if text is None else _Words(claims.quote(text))


def _library(contents: Contents, claims: Claims) -> str:
    """What loads the model folder."""
    if claims.known("model/head"):
        return "tunesmith"
    return "peft" if contents.setting("strategy.kind") in vocabulary.BESIDE_A_MODEL else "transformers"


def _base_model(contents: Contents, claims: Claims) -> _Words | None:
    """A name that the hub could know; a local folder is none."""
    finding = contents.findings.get("model/name")
    name = finding.value if finding else None
    return _words(claims, name) if isinstance(name, str) and HUB_ID.fullmatch(name) else None


def _view(contents: Contents, plain: Claims) -> dict[str, Any]:
    rows = [row for row in tables.class_rows(contents) if row.n > 0]
    return {
        "run": contents,
        "of_classes": contents.kind in OF_CLASSES,
        "predictions": PREDICTIONS,
        "headline": story.headline(contents),
        "folded": story.folded(contents),
        "metrics": [(name, vocabulary.metric(name), story.comparisons(contents, name)) for name in story.metric_names(contents)],
        "limits": story.limits(contents),
        "few_test_rows": story.FEW_TEST_ROWS,
        "low_recall": story.LOW_RECALL,
        "classes": rows[:WORST_CLASSES],
        "class_count": len(rows),
        "confusions": _confusions(contents)[:MISTAKES],
        "is_pair": story.is_pair(contents),
        "files": story.files(contents),
        "dropped": tables.dropped_counts(contents.dropped),
        "explanations": {reason: entry.get("explanation", "") for reason, entry in contents.profile.get("dropped", {}).items()},
        "under": lambda prefix: story.findings_under(contents, prefix),
        "declared": {field: title for field, title in DECLARED.items() if contents.setting(f"card.{field}")},
        "undeclared": {field: title for field, title in DECLARED.items() if not contents.setting(f"card.{field}")},
        "examples": _examples(contents, plain),
        "seconds_total": story.seconds_total(contents),
        "source": _source,
        "command": shlex.quote(f"runs/{contents.name}"),
    }


def _confusions(contents: Contents) -> list[tables.Confusion]:
    """Classes that were taken for others, the most frequent confusions first."""
    return [pair for pair in tables.confusions(contents.test) if pair.true != pair.predicted] if contents.kind in OF_CLASSES else []


def _examples(contents: Contents, plain: Claims) -> list[str]:
    """The first training row's texts as Python literals, so that the snippet runs as it stands."""
    row = (contents.profile.get("examples") or [{"text": "…"}])[0]
    texts = [row.get("text") or "…", *([row["text_pair"]] if row.get("text_pair") else [])]
    return [plain.literal(str(text)[:120]) for text in texts]


def _source(finding: Finding) -> tuple[str, str]:
    """(path with pointer, SHA-256) of the file behind a finding; the ledger itself when there is no other."""
    artefact = finding.artefact
    pointer = f"#{artefact.pointer}" if artefact and artefact.pointer else ""
    return (artefact.path + pointer, artefact.sha256[:12]) if artefact else ("ledger.jsonl", "")

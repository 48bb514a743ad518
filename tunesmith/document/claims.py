"""The only way a number enters a document. Each is wrapped in invisible marks with its source; a digit outside them is an error.

A wrapped piece is OPEN index SEPARATOR visible text CLOSE, where the index leads to its Source. After rendering,
`html_document` and `markdown_document` look for digits outside the marks, and then turn the marks into
`<data value title>` elements, or remove them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from html.parser import HTMLParser

from markupsafe import escape

from tunesmith.core.errors import TunesmithError
from tunesmith.core.records import Finding, Issue, Value
from tunesmith.document.contents import Contents
from tunesmith.document.formats import Form, between, formatted, setting

OPEN, CLOSE, SEPARATOR = "\ue000", "\ue001", "\ue002"
MARKS = re.compile("[\ue000-\ue00f]")
PIECE = re.compile(f"{OPEN}([0-9]+){SEPARATOR}([^{CLOSE}]*){CLOSE}")
CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufffe\uffff]")
TERMS = re.compile(r"\b(F1|nDCG@10|MRR@10|recall@(?:10|1|5)|BM25|SHA-256|ROUGE-[12]|rouge[12]|AutoModelForSeq2SeqLM|[Tt]ext2text)\b")
"""Names that hold a digit and are no numbers."""
SPOKEN = ("title", "aria-label", "alt")
"""Attributes that readers see or hear."""
NOT_RECORDED = "not recorded by this run"


class UnsourcedNumber(TunesmithError):
    """A document holds a digit that came neither from a finding nor from a stored file nor from the user's own words."""


@dataclass(frozen=True)
class Source:
    """Where a piece of visible text comes from. Text of the user has no title."""

    value: str = ""
    title: str = ""


@dataclass
class Claims:
    """Values of one run, ready for a template. `quoting` escapes the user's text where the template engine does not.

    `used` and `files` remember what has been asked for: findings by id, files by path with their SHA-256.
    """

    contents: Contents
    quoting: Callable[[str], str] = str
    used: dict[str, Finding | None] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    sources: list[Source] = field(default_factory=list)

    def known(self, name: str) -> bool:
        """True when the finding is there and has a value."""
        finding = self.contents.findings.get(name)
        return finding is not None and finding.value is not None

    def positive(self, name: str) -> bool:
        """True when the finding is there and is a number above 0."""
        finding = self.contents.findings.get(name)
        return finding is not None and isinstance(finding.value, (int, float)) and finding.value > 0

    def says(self, name: str, value: Value) -> bool:
        """True when the finding is there and has this value."""
        finding = self.contents.findings.get(name)
        return finding is not None and finding.value == value

    def note(self, name: str) -> str:
        """The note of a finding, as words that are not ours: it may hold numbers of its own."""
        finding = self._use(name)
        return self.quote(finding.note if finding else "")

    def number(self, name: str, form: Form = "auto") -> str:
        """The value of a finding; "unknown" with the reason when it could not be determined."""
        finding = self._use(name)
        if finding is None or finding.value is None:
            return self._unknown(name, finding)
        shown = formatted(finding.value, form, finding.unit)
        shown = self.quoting(shown) if isinstance(finding.value, str) else shown
        return self._wrap(shown, finding.value, self._source_of(finding))

    def exact(self, name: str) -> str:
        """The value of a finding with all its digits, as the ledger has it."""
        finding = self._use(name)
        if finding is None or finding.value is None:
            return self._unknown(name, finding)
        shown = self.quoting(finding.value) if isinstance(finding.value, str) else json.dumps(finding.value)
        return self._wrap(shown, finding.value, self._source_of(finding))

    def interval(self, name: str, form: Form = "auto") -> str:
        """The bounds of a finding's interval, "no interval" when it has none."""
        finding = self._use(name)
        if finding is None or finding.interval is None:
            return "no interval"
        shown = between(finding.interval, form, finding.unit)
        return self._wrap(shown, f"{finding.interval[0]!r}/{finding.interval[1]!r}", self._source_of(finding) + " · interval")

    def has_interval(self, name: str) -> bool:
        """True when the finding has an interval."""
        finding = self.contents.findings.get(name)
        return finding is not None and finding.interval is not None

    def rows(self, name: str) -> str:
        """The n of a finding."""
        finding = self._use(name)
        if finding is None or finding.n is None:
            return self._unknown(name, finding)
        return self._wrap(formatted(finding.n, "count"), finding.n, self._source_of(finding) + " · n")

    def value(self, path: str) -> str:
        """A resolved value of the spec."""
        if path not in self.contents.resolved:
            return self._wrap(f"unknown: {NOT_RECORDED}", None, path)
        value = self.contents.resolved[path]["value"]
        shown = formatted(value, "percent") if path == "evaluate.confidence" else setting(value)
        return self._wrap(self.quoting(shown), shown, self._source("resolved.yaml", path))

    def rule(self, path: str) -> str:
        """The rule that set a resolved value."""
        return self.quote(self.contents.resolved[path]["rule"])

    def quote(self, text: object, limit: int | None = None) -> str:
        """Words that are not ours: texts, labels, file names. Cut to `limit` characters."""
        plain = str(text)
        plain = plain if limit is None or len(plain) <= limit else plain[: limit - 1].rstrip() + "…"
        return self._wrap(self.quoting(plain), None, "")

    def literal(self, text: str) -> str:
        """A Python literal of words that are not ours, on one line, in which nothing invisible stays invisible."""
        return self._wrap(repr(text), None, "")

    def cell(self, artefact: str, value: Value, form: Form = "count") -> str:
        """A value computed from a stored file."""
        return self._wrap(formatted(value, form), value, self._source(artefact, "computed"))

    def chosen(self, value: Value, why: str, form: Form = "plain") -> str:
        """A number that is a choice of the document itself, such as a tick of an axis, and says so."""
        return self._wrap(formatted(value, form), value, f"choice of this document · {why}")

    def unknown(self) -> list[tuple[str, str]]:
        """(id, reason) of every finding asked for so far whose value is not known."""
        missing = [(name, finding) for name, finding in self.used.items() if finding is None or finding.value is None]
        return [(name, (finding.note if finding else "") or NOT_RECORDED) for name, finding in missing]

    def _use(self, name: str) -> Finding | None:
        return self.used.setdefault(name, self.contents.findings.get(name))

    def _unknown(self, name: str, finding: Finding | None) -> str:
        reason = (finding.note if finding else "") or NOT_RECORDED
        return self._wrap(self.quoting(f"unknown: {reason}"), None, name)

    def _source_of(self, finding: Finding) -> str:
        if finding.artefact is None:
            return f"{finding.id} · ledger.jsonl"
        pointer = f"#{finding.artefact.pointer}" if finding.artefact.pointer else ""
        return f"{finding.id} · {finding.artefact.path}{pointer} · {finding.artefact.sha256[:12]}"

    def _source(self, path: str, what: str) -> str:
        record = self.contents.artefact(path)
        self.files[path] = record.sha256 if record else ""
        return f"{what} · {path} · {record.sha256[:12]}" if record else f"{what} · {path}"

    def _wrap(self, visible: str, value: object, title: str) -> str:
        self.sources.append(Source("" if value is None else str(value), title))
        clean = CONTROLS.sub("\ufffd", MARKS.sub("", visible))
        return f"{OPEN}{len(self.sources) - 1}{SEPARATOR}{clean}{CLOSE}"


def html_document(name: str, rendered: str, claims: Claims) -> str:
    """The rendered page with marks turned into elements that show their source.

    Raises:
        UnsourcedNumber: visible text, or text that is read aloud, holds a digit outside the marks.
    """
    reader = _Visible(name)
    reader.feed(rendered)
    reader.close()
    if reader.issues:
        raise UnsourcedNumber(reader.issues)
    return "".join(_with_elements(rendered, claims.sources))


def markdown_document(name: str, rendered: str) -> str:
    """The rendered text with its marks removed.

    Raises:
        UnsourcedNumber: the text holds a digit outside the marks.
    """
    issues = [issue for number, line in enumerate(rendered.split("\n"), start=1) for issue in unsourced(f"{name} line {number}", line)]
    if issues:
        raise UnsourcedNumber(issues)
    return PIECE.sub(r"\2", rendered)


def unsourced(where: str, text: str) -> list[Issue]:
    """An issue when the text holds a digit outside the marks; any character with a numeric value counts."""
    bare = TERMS.sub("", PIECE.sub("", text))
    if not any(character.isnumeric() for character in bare):
        return []
    remedy = "Insert it with claims.number, value, cell or quote."
    return [Issue(where, "numbers must come from a finding", " ".join(PIECE.sub("…", text).split())[:120], remedy)]


class _Visible(HTMLParser):
    """Collects unsourced digits in what readers see or hear; style sheets are neither."""

    def __init__(self, name: str) -> None:
        super().__init__(convert_charrefs=True)
        self.name = name
        self.issues: list[Issue] = []
        self._inside = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._inside = tag
        for attribute, text in attrs:
            if attribute in SPOKEN:
                self.issues += unsourced(f"{self.name} line {self.getpos()[0]} {tag}[{attribute}]", text or "")

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside != "style":
            self.issues += unsourced(f"{self.name} line {self.getpos()[0]}", data)


def _with_elements(rendered: str, sources: list[Source]) -> list[str]:
    """Pieces of the page; inside tags, drawings and the page's title marks only disappear, since no element fits there."""
    pieces, plain_until = [], ""
    for piece in re.split("(<[^>]*>)", rendered):
        if piece.startswith("<"):
            opened = re.match(r"<(svg|title|style)\b", piece)
            if opened and not plain_until:
                plain_until = f"</{opened[1]}>"
            elif piece == plain_until:
                plain_until = ""
        if piece.startswith("<") or plain_until:
            pieces.append(PIECE.sub(r"\2", piece))
        else:
            pieces.append(PIECE.sub(lambda match: _element(sources[int(match[1])], match[2]), piece))
    return pieces


def _element(source: Source, visible: str) -> str:
    if not source.title:
        return f"<bdi>{visible}</bdi>"
    return f'<data value="{escape(source.value)}" title="{escape(source.title)}">{visible}</data>'

"""The report: escaped, self-contained, the same bytes every time, and honest about what is not known."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.document_fixture import FOUR, HARM, HOSTILE, SEVENTY_SEVEN, SEVERAL, Shape, make_run
from tunesmith.core.records import Finding
from tunesmith.document.document import document, render
from tunesmith.document.report import render_report

SHAPES = {"four": FOUR, "many": SEVENTY_SEVEN, "several": SEVERAL, "hostile": HARM}
LOADING = ("src", "srcset", "action", "background", "xlink:href")
BLOCKS = ("p", "li", "td", "th", "tr", "ul", "h2", "h3", "section", "div")
VOID = ("meta", "link", "img", "br", "input", "hr")


class Page(HTMLParser):
    """What a page is made of."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag in BLOCKS:
            self.words.append(" ")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, self.getpos()

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style" and "nav" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).split())


@pytest.fixture(scope="module", params=SHAPES)
def page(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Page:
    return Page(render_report(make_run(tmp_path_factory.mktemp("report") / "run", SHAPES[request.param])))


def test_nothing_runs_and_nothing_is_loaded(page: Page) -> None:
    names = {tag for tag, _ in page.tags}
    assert not names & {"script", "iframe", "object", "embed", "link", "base", "form", "img", "image", "use", "foreignobject"}
    for tag, attributes in page.tags:
        assert not [
            name for name in attributes if name.startswith("on") or name in ("src", "srcset", "action", "background", "xlink:href")
        ], tag
        assert (attributes.get("href") or "#").startswith("#")
        assert "url(" not in (attributes.get("style") or "")
    policy = next(a["content"] for _, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'; img-src data:;")


def test_the_page_is_well_formed(page: Page) -> None:
    assert page.open == []
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    targets = {(a.get("href") or "#").removeprefix("#") for tag, a in page.tags if tag == "a"}
    assert targets <= set(ids)
    for tag, attributes in page.tags:
        if tag == "svg":
            assert attributes.get("aria-labelledby") in ids
    assert not re.search("[\ue000-\ue00f]", page.text)


def test_words_of_the_user_arrive_as_they_are(tmp_path: Path) -> None:
    page = Page(render_report(make_run(tmp_path / "run", HARM)))
    for words in HOSTILE:
        plain = " ".join(re.sub("[\ue000-\ue00f]", "", words).split())
        assert plain[:100] in page.text


@pytest.mark.parametrize("shape", SHAPES)
def test_rendering_again_gives_the_same_bytes(shape: str, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", SHAPES[shape])
    before = render(run)
    with run.stage("document", "2" * 64, {"tunesmith": "9.9"}) as stage:
        document(run, stage)
        stage.find(Finding("test/late", "a finding of the document stage itself", 0.5))
    assert set(before) == {"report.html", "MODEL_CARD.md", "model/README.md"}
    assert render(run) == before
    for path, text in before.items():
        assert (run.path / path).read_bytes() == text.encode()
    assert set(run.manifest["stages"]["document"]["outputs"]) == set(before)


def test_the_same_run_elsewhere_gives_the_same_bytes(tmp_path: Path) -> None:
    assert render(make_run(tmp_path / "a", FOUR)) == render(make_run(tmp_path / "elsewhere/b", FOUR))


def test_the_answer_comes_first(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", FOUR)
    text = Page(render_report(run)).text
    value = run.findings["test/accuracy"].value
    assert isinstance(value, float)
    assert f"On 200 test rows that played no part in training or selection, the model reaches accuracy {value:.3f}, better than" in text
    assert text.index("The answer") < text.index("All metrics") < text.index("The data")


def test_a_difference_within_chance_is_not_called_better(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", FOUR)
    level = Finding("test/baseline/features/accuracy/difference", "difference", 0.004, n=200, interval=(-0.01, 0.02), stage="evaluate")
    worse = replace(level, id="test/baseline/majority/accuracy/difference", value=-0.1, interval=(-0.12, -0.08))
    with run.stage("evaluate", "3" * 64, {}) as stage:
        stage.find(level, worse)
    text = Page(render_report(run)).text
    assert "not distinguishable from logistic regression on frozen features: difference +0.004 (−0.010 to +0.020)" in text
    assert "worse than always answering the most frequent class: difference −0.100" in text
    assert "It is not shown to be better than logistic regression on frozen features." in text


def test_many_classes_are_folded(tmp_path: Path) -> None:
    text = Page(render_report(make_run(tmp_path / "run", SEVENTY_SEVEN))).text
    assert "The other 62 classes" in text
    assert "Confusion map of 77 classes" in text
    assert "The most frequent confusions" in text


def test_a_thousand_classes_are_bearable(tmp_path: Path) -> None:
    shape = Shape(tuple(f"class {number:04d}" for number in range(1000)), rows=2000)
    report = render_report(make_run(tmp_path / "run", shape))
    assert len(report) < 2_500_000
    assert "classes of the most frequent confusions are drawn" in Page(report).text


def test_several_labels_have_no_confusion_matrix(tmp_path: Path) -> None:
    page = Page(render_report(make_run(tmp_path / "run", SEVERAL)))
    assert "What is taken for what" not in page.text
    assert "Which of 5 labels apply to a text?" in page.text
    assert "Every decision about a label counts as a prediction." in page.text


def test_a_class_without_test_rows_is_named(tmp_path: Path) -> None:
    text = Page(render_report(make_run(tmp_path / "run", replace(FOUR, untested=("other",))))).text
    assert "1 class has no test row, so nothing is known about it: other" in text
    assert "Never tested, for want of test rows: other" in text


def test_a_run_without_a_loop_has_no_curve(tmp_path: Path) -> None:
    shape = replace(FOUR, history=False, spec=(("strategy", {"kind": "features"}),))
    text = Page(render_report(make_run(tmp_path / "run", shape))).text
    assert "This run recorded no optimiser steps, so there is no learning curve: its head was fitted by a solver" in text


@pytest.mark.parametrize("prefix", ["test/", "test/baseline/", "data/", "model/", "train/", "validation/"])
def test_what_is_missing_is_unknown(prefix: str, tmp_path: Path) -> None:
    text = Page(render_report(make_run(tmp_path / "run", replace(FOUR, without=(prefix,))))).text
    if prefix != "test/baseline/":
        assert "unknown: not recorded by this run" in text
        assert "What is unknown, and why" in text
    else:
        assert "frozen features" not in text.split("All metrics")[1].split("Class by class")[0]


def test_missing_files_are_said_to_be_missing(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", FOUR)
    for path in ("predictions/test.parquet", "data/test.parquet", "data/dropped.parquet", "history.jsonl"):
        (run.path / path).unlink()
    text = Page(render_report(run)).text
    assert "unknown: no test predictions were recorded" in text


def test_dropped_rows_are_explained(tmp_path: Path) -> None:
    text = Page(render_report(make_run(tmp_path / "run", FOUR))).text
    assert "2 · duplicate The same text with the same label appears before, in the same table." in text
    assert "same as tickets.csv:2" in text
    assert "Also looked for, and not found The same text appears with different labels." in text


def test_mistakes_are_the_most_confident_first(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", SEVENTY_SEVEN)
    part = Page(render_report(run)).text.split("The most confident mistakes")[1].split("Every setting")[0]
    shown = [float(number) for number in re.findall(r"\b0\.\d{3}\b", part)]
    assert shown == sorted(shown, reverse=True)
    assert len(shown) == 20


def test_every_setting_is_listed(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", FOUR)
    text = Page(render_report(run)).text
    for line in (run.path / "resolved.yaml").read_text("utf-8").splitlines():
        if not line.startswith(" "):
            assert line.removesuffix(":") in text

"""Numbers enter documents only through claims: planted digits are caught, the user's own are not, and sources are shown."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.document_fixture import FOUR, HARM, make_run
from tunesmith.document import templating
from tunesmith.document.card import render_card
from tunesmith.document.claims import CLOSE, OPEN, Claims, UnsourcedNumber, html_document, markdown_document
from tunesmith.document.contents import Contents
from tunesmith.document.formats import between, formatted
from tunesmith.document.report import render_report

PLANTED = [
    "<p>0.93</p>",
    "<p>about ½ of it</p>",
    "<p>٣</p>",
    "<p>&#48;</p>",
    "<p>H2</p>",
    "<p>F12</p>",
    "<pre>5</pre>",
    "<title>7</title>",
    '<p title="9 of them">x</p>',
    '<svg aria-label="8"></svg>',
    "<svg><text>6</text></svg>",
]
FORMS = [
    (0.0213, "difference", "+0.021"),
    (-0.0213, "difference", "−0.021"),
    (0.0, "difference", "0.000"),
    (1234567, "count", "1,234,567"),
    (61.2, "seconds", "1 min 1 s"),
    (7260.0, "seconds", "2 h 1 min"),
    (0.25, "seconds", "0.2 s"),
    (90868376, "bytes", "90.9 MB"),
    (0.00004, "probability", "below 0.001"),
    (0.05, "percent", "5 %"),
    (True, "auto", "yes"),
    ("text", "score", "text"),
    ("ab12" * 16, "short_hash", "ab12ab12ab12"),
    (3.0, "plain", "3"),
    (2e-5, "plain", "2e-05"),
]


@pytest.fixture(scope="module")
def contents(tmp_path_factory: pytest.TempPathFactory) -> Contents:
    return Contents.of(make_run(tmp_path_factory.mktemp("claims") / "run"))


@pytest.fixture
def claims(contents: Contents) -> Claims:
    return Claims(contents)


@pytest.mark.parametrize("planted", PLANTED)
def test_a_planted_digit_fails_a_page(claims: Claims, planted: str) -> None:
    with pytest.raises(UnsourcedNumber, match="page line 2"):
        html_document("page", f"<p>{claims.number('test/accuracy')}</p>\n{planted}", claims)


@pytest.mark.parametrize("planted", ["It reaches 0.93.", "1. first", "| 5 |", "![x](y9.png)", "half: ½"])
def test_a_planted_digit_fails_a_card(claims: Claims, planted: str) -> None:
    with pytest.raises(UnsourcedNumber, match="card line 3"):
        markdown_document("card", f"{claims.number('test/accuracy')}\n\n{planted}\n")


@pytest.mark.parametrize("template", ["report.html", "MODEL_CARD.md"])
def test_a_digit_planted_in_a_template_fails_the_document(template: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, copies = make_run(tmp_path / "run"), tmp_path / "templates"
    copies.mkdir()
    for file in templating.TEMPLATES.iterdir():
        (copies / file.name).write_bytes(file.read_bytes())
    text = (copies / template).read_text("utf-8")
    heading = "<h2>All metrics</h2>" if template.endswith("html") else "## Results"
    assert heading in text
    (copies / template).write_text(text.replace(heading, heading + "\n\nThe accuracy is 0.99.\n"), "utf-8")
    monkeypatch.setattr(templating, "TEMPLATES", copies)
    templating._environment.cache_clear()
    try:
        with pytest.raises(UnsourcedNumber, match=r"0\.99"):
            render_report(run) if template.endswith("html") else render_card(run)
    finally:
        templating._environment.cache_clear()


@pytest.mark.parametrize("shape", [FOUR, HARM], ids=["plain", "hostile"])
def test_digits_of_the_user_pass(tmp_path: Path, shape: object) -> None:
    run = make_run(tmp_path / "run", HARM if shape is HARM else FOUR)
    assert "0.9" in render_report(run)
    assert "0.9" in render_card(run)


def test_styles_and_places_are_not_text(claims: Claims) -> None:
    page = '<style>p { margin: 3px }</style><p style="width:40%" id="a1">text</p><svg viewBox="0 0 9 9"></svg>'
    assert html_document("page", page, claims) == page


def test_names_with_a_digit_pass(claims: Claims) -> None:
    assert markdown_document("card", "macro F1, SHA-256") == "macro F1, SHA-256"


def test_a_number_shows_its_source(claims: Claims, contents: Contents) -> None:
    page = html_document("page", f"<p>{claims.number('test/accuracy', 'score')}</p>", claims)
    sha256 = contents.stages["evaluate"]["outputs"]["predictions/test.parquet"]
    value = contents.findings["test/accuracy"].value
    assert page == f'<p><data value="{value}" title="test/accuracy · predictions/test.parquet · {sha256[:12]}">{value:.3f}</data></p>'


def test_interval_and_n(claims: Claims) -> None:
    text = markdown_document("card", f"{claims.interval('test/accuracy', 'score')} on {claims.rows('test/accuracy')}")
    assert re.fullmatch(r"0\.\d{3}–0\.\d{3} on 200", text)


def test_a_missing_finding_is_unknown_with_its_reason(claims: Claims) -> None:
    shown = [claims.number(name) for name in ("test/nonsense", "train/peak_memory_bytes")]
    assert markdown_document("card", "|".join(shown)) == "unknown: not recorded by this run|unknown: this system does not tell (code 7)"
    assert [name for name, _ in claims.unknown()] == ["test/nonsense", "train/peak_memory_bytes"]


def test_marks_in_words_of_the_user_are_taken_out(claims: Claims) -> None:
    forged = f"{OPEN}0{CLOSE}12{CLOSE}"
    assert markdown_document("card", claims.quote(forged)) == "012"


def test_quotes_are_isolated_and_cut(claims: Claims) -> None:
    assert html_document("page", f"<td>{claims.quote('x' * 50, 10)}</td>", claims) == f"<td><bdi>{'x' * 9}…</bdi></td>"


def test_settings_carry_their_rule(claims: Claims) -> None:
    text = markdown_document(
        "card", f"{claims.value('train.batch_size')}: {claims.rule('train.batch_size')}; {claims.value('evaluate.confidence')}"
    )
    assert text == "32: at least 2000 training rows; 95 %"


@given(st.floats(-10, 10, allow_nan=False))
def test_rounding_never_claims_a_limit(value: float) -> None:
    text = formatted(value, "score").replace("−", "-")
    assert abs(float(text) - value) <= 0.0005
    if abs(value) > 1e-6 and abs(abs(value) - 1) > 1e-6:
        assert float(text) not in (0, 1, -1)


@pytest.mark.parametrize(("value", "form", "text"), FORMS)
def test_forms(value: float, form: str, text: str) -> None:
    assert formatted(value, form) == text  # type: ignore[arg-type]


def test_bounds_with_a_sign_are_not_joined_by_a_dash() -> None:
    assert between((-0.1, 0.2), "score") == "−0.100 to 0.200"
    assert between((0.1, 0.2), "score") == "0.100–0.200"

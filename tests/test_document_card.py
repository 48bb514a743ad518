"""The card: front matter that the hub understands, words that stay words, and what only a person can say left open."""

from __future__ import annotations

import ast
import re
from dataclasses import replace
from html import unescape
from pathlib import Path

import pytest
import yaml
from huggingface_hub import EvalResult, ModelCard
from markdown_it import MarkdownIt

from tests.document_fixture import FOUR, HARM, SEVENTY_SEVEN, SEVERAL, Shape, make_run
from tunesmith.core.records import Finding
from tunesmith.document.card import render_card
from tunesmith.document.summary import summary
from tunesmith.document.templating import markdown_text

MARKUP = [
    "a|b",
    "`x`",
    "*x*",
    "_x_",
    "snake_case",
    "[a](b)",
    "<b>",
    "a\nb",
    "# x",
    "https://x.example",
    "- x",
    "&lt;",
    "~~x~~",
    "$x$",
    "\\",
]
DECLARED = {"license": "apache-2.0", "language": ["en", "no"], "intended_use": "sorting tickets | mail", "contact": "desk@example.org"}


@pytest.mark.parametrize("shape", [FOUR, SEVENTY_SEVEN, SEVERAL, HARM], ids=["four", "many", "several", "hostile"])
def test_the_front_matter_is_what_the_hub_reads(shape: Shape, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", shape)
    data = ModelCard(render_card(run), ignore_metadata_errors=False).data
    assert data.pipeline_tag == "text-classification"
    assert data.library_name == "transformers"
    assert data.base_model == "sentence-transformers/all-MiniLM-L6-v2"
    assert data.get("license") is None
    assert data.model_name == "tickets"
    results = {result.metric_type: result for result in data.eval_results or []}
    assert set(results) == set(data.metrics or ())
    for name, result in results.items():
        assert isinstance(result, EvalResult)
        assert result.metric_value == run.findings[f"test/{name}"].value
        assert (result.task_type, result.dataset_split) == ("text-classification", "test")


def test_declared_values_enter_and_the_rest_needs_a_person(tmp_path: Path) -> None:
    card = render_card(make_run(tmp_path / "run", replace(FOUR, spec=(("card", DECLARED),))))
    data = ModelCard(card, ignore_metadata_errors=False).data
    assert data.license == "apache-2.0"
    assert data.language == ["en", "no"]
    assert r"- Meant for: sorting tickets \| mail" in card
    assert "- Not meant for: not stated: needs a person" in card


def test_names_that_look_like_other_things_stay_names(tmp_path: Path) -> None:
    for name in ("100", "true", "1e3", "no"):
        card = render_card(make_run(tmp_path / name, replace(FOUR, spec=(("name", name),))))
        front = yaml.safe_load(card.split("---")[1])
        assert front["model-index"][0]["name"] == name


def test_local_folders_are_no_base_model(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", FOUR)
    with run.stage("train", "3" * 64, {}) as stage:
        stage.find(Finding("model/name", "Pretrained model", "../models/mine", source="declared"))
    assert "base_model" not in render_card(run)


def test_hostile_words_stay_words(tmp_path: Path) -> None:
    card = render_card(make_run(tmp_path / "run", HARM))
    html = MarkdownIt("gfm-like", {"linkify": False, "html": True}).render(card.split("---\n", 2)[2])
    assert "<script" not in html
    assert "<img" not in html
    assert "<a " not in html
    rows = [line.count(" | ") for line in card.split("### By class")[1].split("### Calibration")[0].splitlines() if line.startswith("| ")]
    assert len(rows) == 1 + len(HARM.labels)
    table = html.split("<h3>By class</h3>")[1].split("</table>")[0]
    cells = [row.count("<td") + row.count("<th") for row in table.split("<tr>")[1:]]
    assert set(cells) == {5}
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in table
    assert "\u202e" not in card


@pytest.mark.parametrize(
    "text",
    ["a|b", "`x`", "*x*", "_x_", "snake_case", "[a](b)", "<b>", "a\nb", "# x", "https://x.example", "- x", "&lt;", "~~x~~", "$x$"],
)
def test_escaped_text_renders_as_it_was(text: str) -> None:
    html = MarkdownIt("gfm-like", {"linkify": False}).render("start " + markdown_text(text))
    plain = re.sub("<[^>]*>", "", html).strip()
    assert unescape(plain) == "start " + " ".join(text.split())


def test_the_snippet_is_python(tmp_path: Path) -> None:
    for shape in (FOUR, HARM, SEVERAL):
        card = render_card(make_run(tmp_path / str(len(list(tmp_path.iterdir()))), shape))
        code = card.split("```python\n")[1].split("\n```")[0]
        assert "runs/tickets/model" in code
        ast.parse(code)


def test_every_finding_that_is_used_is_in_the_evidence(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", FOUR)
    body, evidence = render_card(run).split("## Evidence")
    assert "0.350" in body
    for name in ("test/accuracy", "test/class/returns/recall", "data/rows/train", "model/weights_sha256"):
        assert f"| {name} | " in evidence
    sha256 = run.manifest["stages"]["evaluate"]["outputs"]["predictions/test.parquet"]
    assert (
        f"| test/accuracy | {run.findings['test/accuracy'].value} | 200 | predictions/test.parquet | {sha256[:12]} | evaluate |" in evidence
    )


def test_limitations_follow_from_the_findings(tmp_path: Path) -> None:
    limits = render_card(make_run(tmp_path / "run", replace(FOUR, untested=("other",)))).split("## Limitations")[1].split("## How")[0]
    assert "Never tested, for want of test rows: other." in limits
    assert "Finds fewer than 50 % of the rows of: returns (recall 0.330)." in limits
    assert "Reads only the first 48 tokens" in limits


@pytest.mark.parametrize("prefix", ["test/", "data/", "model/", "train/"])
def test_what_is_missing_is_unknown(prefix: str, tmp_path: Path) -> None:
    card = render_card(make_run(tmp_path / "run", replace(FOUR, without=(prefix,))))
    assert "unknown: not recorded by this run" in card
    data = ModelCard(card, ignore_metadata_errors=False).data
    if prefix == "test/":
        assert data.eval_results is None
    if prefix == "model/":
        assert data.base_model is None


def test_the_summary_tells_the_score_first(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", FOUR)
    rows = summary(run)
    value = run.findings["test/accuracy"].value
    assert isinstance(value, float)
    assert (rows[0].group, rows[0].name, rows[0].value) == ("score", "test accuracy", f"{value:.3f}")
    assert rows[0].note.endswith("n 200")
    named = {row.name.strip(): row for row in rows}
    assert named["dropped rows"].note == "2 duplicate, 1 empty_text"
    assert named["report"].value == str(run.path / "report.html")
    assert named["report"].note == "not there yet"


def test_the_summary_of_an_unfinished_run_says_unknown(tmp_path: Path) -> None:
    rows = summary(make_run(tmp_path / "run", replace(FOUR, without=("test/", "model/"))))
    assert rows[0].value == "unknown"

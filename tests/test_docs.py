"""Documentation that is generated or executed: nothing in it may silently become false."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from tests import tiny, writers
from tunesmith.spec.load import load_spec
from tunesmith.tasks.make import TASKS

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted((ROOT / "tunesmith/spec/examples").glob("*.yaml"))


def test_generated_pages_are_up_to_date() -> None:
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        import reference  # type: ignore[import-not-found]
    finally:
        sys.path.pop(0)
    for page, text in reference.pages().items():
        assert (ROOT / "docs" / page).read_text("utf-8") == text, f"docs/{page}: run scripts/docs"


WRITTEN = {
    "translation": ("sentences.csv", "en", "de"), "summaries": ("articles.csv", "article", "summary"),
    "rewriting": ("functions.csv", "code", "docstring"),
}  # fmt: skip
"""Examples whose model writes: their table, and the names of source and target."""


def table_for(example: str, folder: Path) -> None:
    table = tiny.table(90)
    if example == "pairs":
        table = table.rename({"text": "premise"}).with_columns(pl.col("premise").reverse().alias("hypothesis"))
        table.write_csv(folder / "pairs.csv")
    elif example in ("similarity", "regression"):
        table = table.select(sentence1="text", sentence2=pl.col("text").reverse(), score=pl.int_range(pl.len()) % 7 / 2)
        table.write_csv(folder / "scores.csv")
    elif example in ("retrieval", "ranking"):
        table.select(query="text", passage=pl.format("about {}", pl.col("text").str.slice(0, 12))).write_csv(folder / "pairs.csv")
    elif example == "questions":
        answers = [[{"text": word, "start": text.index(word)}] for text in table["text"] for word in [text.split()[0]]]
        asked = table.select(question=pl.format("what is {}", "label"), context="text", answers=pl.Series(answers))
        asked.write_ndjson(folder / "questions.jsonl")
    elif example == "tags":
        words = pl.DataFrame({"tokens": table["text"].str.split(" ")}).with_columns(
            tags=pl.col("tokens").list.eval(pl.when(pl.element().str.len_chars() > 5).then(pl.lit("B-long")).otherwise(pl.lit("O")))
        )
        words.write_ndjson(folder / "tagged.jsonl")
    elif example in WRITTEN:
        file, *columns = WRITTEN[example]
        writers.table(90).rename(dict(zip(("en", "de"), columns, strict=True))).write_csv(folder / file)
    elif example == "multi_label":
        tags = [f"{a}|{b}" if n % 2 else a for n, (a, b) in enumerate(zip(table["label"], table["label"].reverse(), strict=True))]
        table.with_columns(pl.Series("tags", tags)).drop("label").write_csv(folder / "tagged.csv")
    else:
        table.write_csv(folder / "tickets.csv")
        (folder / "texts.txt").write_text("\n".join(tiny.table(60, seed=1)["text"]))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_every_example_spec_runs(path: Path, tmp_path: Path, tiny_bert: Path) -> None:
    import tunesmith

    table_for(path.stem, tmp_path)
    (tmp_path / path.name).write_text(path.read_text())
    epochs = 3 if path.stem == "gradual" else 1
    loop = [] if path.stem in ("quick", "few_rows", "adapted") else [f"train.epochs={epochs}"]
    folds = [] if path.stem == "few_rows" else ["evaluate.folds=null"]
    model = writers.save_pretrained(tmp_path / "writer") if path.stem in WRITTEN else tiny_bert
    spec = load_spec(tmp_path / path.name, [f"model.name={model}", "evaluate.resamples=100", *loop, *folds])
    assert tunesmith.run(spec, tmp_path / "runs").report_path.exists()


def test_every_task_has_an_example() -> None:
    assert {load_spec(path).task for path in EXAMPLES} == set(TASKS)


def test_the_readme_names_commands_that_exist() -> None:
    from tunesmith.cli.main import app

    known = {command.callback.__name__ for command in app.registered_commands if command.callback}
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("tunesmith ")]
    assert len(lines) >= 5
    assert {shlex.split(line, comments=True)[1] for line in lines} <= known


def test_the_readme_s_tree_is_the_tree() -> None:
    readme = (ROOT / "README.md").read_text()
    tree = re.search(r"```text\ntunesmith/\n(.*?)```", readme, re.S)
    assert tree
    named = set(re.findall(r"^  (\w+(?:\.py)?)/?", tree.group(1), re.M))
    actual = {p.name for p in (ROOT / "tunesmith").iterdir() if not p.name.startswith("__") and p.name != "py.typed"}
    assert named == actual


def test_the_readme_s_python_runs(tmp_path: Path, tiny_bert: Path) -> None:
    readme = (ROOT / "README.md").read_text()
    code = "\n".join(re.findall(r"```python\n(.*?)```", readme, re.S))
    tiny.table(90).write_csv(tmp_path / "tickets.csv")
    spec = {"train": "tickets.csv"}
    (tmp_path / "tickets.yaml").write_text(f"data: {spec}\nmodel: {{name: {tiny_bert}}}\nstrategy: {{kind: features}}\n")
    code = code.replace('strategy="features"', f'strategy="features", model={str(tiny_bert)!r}')
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_the_picture_in_the_readme_exists() -> None:
    pictures = re.findall(r"!\[.*?\]\((.*?)\)", (ROOT / "README.md").read_text())
    assert pictures
    assert all((ROOT / picture).stat().st_size > 10_000 for picture in pictures)


def test_nothing_names_this_machine() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if tracked.returncode:
        pytest.skip("not a git checkout: nothing tells which files belong to the project")
    paths = [ROOT / name for name in tracked.stdout.splitlines() if not name.endswith((".png", ".parquet"))]
    here = re.compile(rf"/(root|home|work)/\w|{re.escape(str(ROOT))}/")
    found = [p.name for p in paths if p.exists() and here.search(p.read_text("utf-8", "replace")) and p != Path(__file__)]
    assert not found


def test_the_documents_words_cover_the_program() -> None:
    from typing import get_args

    from tunesmith.document import contents, tables, vocabulary
    from tunesmith.evaluate import answers
    from tunesmith.evaluate.metrics import METRICS
    from tunesmith.pipeline import STAGES
    from tunesmith.spec import schema
    from tunesmith.stages.context import STAGE_NAMES

    metrics = {name: metric for known in METRICS.values() for name, metric in known.items()}
    assert set(vocabulary.METRICS) == set(metrics)
    assert all(vocabulary.METRICS[name].lower_is_better != metric.higher_is_better for name, metric in metrics.items())
    assert tables.BINS == answers.BINS
    strategies = get_args(get_args(schema.Strategy)[0])
    kinds = {kind for part in strategies for kind in get_args(part.model_fields["kind"].annotation)}
    assert set(vocabulary.STRATEGIES) == kinds
    assert [name for name, _ in STAGES] == list(STAGE_NAMES)
    before_documents = [name for name, _ in STAGES if name != "document"]
    assert set(before_documents) <= set(vocabulary.STAGES)
    assert set(before_documents) <= set(contents.STAGES)

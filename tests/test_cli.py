"""The command line as a user meets it: the whole path, every bad input with its exit code, frozen names and options."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import typer
from typer.testing import CliRunner

import tunesmith
from tests import tiny
from tunesmith.cli.main import app
from tunesmith.core.errors import TunesmithError

COMMANDS = {
    "init": {"data", "output", "force"},
    "plan": {"spec", "overrides", "name", "runs"},
    "check": {"data", "checks", "open_report"},
    "preview": {"data", "rows", "overrides", "seed", "only", "output"},
    "run": {"spec", "overrides", "name", "runs"},
    "show": {"run", "open_report"},
    "compare": {"runs"},
    "predict": {"run", "data", "output", "top"},
    "verify": {"run", "level"},
    "relabel": {"run", "reviews", "name"},
    "index": {"run", "data", "column", "output"},
    "search": {"index", "queries", "run", "count"},
    "store": {"folder", "check_rows", "max_gb"},
    "schema": set(),
}
PUBLIC = {
    "DataError", "Interrupted", "ModelError", "Prediction", "Predictor", "Run", "RunError", "Spec", "SpecError",
    "TunesmithError", "fit", "load", "load_spec", "run",
}  # fmt: skip


def call(*arguments: object) -> tuple[int, str]:
    """Exit code and output of a command, errors as the entry point prints them."""
    result = CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "200"})
    if isinstance(result.exception, TunesmithError):
        return result.exception.exit_code, result.output + str(result.exception)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def write_spec(folder: Path, tiny_bert: Path, **changes: Any) -> Path:
    if not (folder / "tickets.csv").exists():
        tiny.table(90).write_csv(folder / "tickets.csv")
    raw = {
        "data": {"train": "tickets.csv", "text": "text", "label": "label"},
        "model": {"name": str(tiny_bert)},
        "strategy": {"kind": "features"},
        "evaluate": {"resamples": 100, "folds": None},
        **changes,
    }
    path = folder / "tickets.yaml"
    path.write_text(json.dumps(raw))
    return path


def test_commands_and_options_are_frozen() -> None:
    group = typer.main.get_command(app)
    assert {name: {p.name for p in command.params} for name, command in group.commands.items()} == COMMANDS  # type: ignore[attr-defined]


def test_public_names_are_frozen() -> None:
    assert set(tunesmith.__all__) == PUBLIC
    assert all(getattr(tunesmith, name) is not None for name in PUBLIC)
    assert set(dir(tunesmith)) == PUBLIC
    with pytest.raises(AttributeError, match="nonsense"):
        tunesmith.nonsense  # noqa: B018


def test_every_command_has_help_with_an_example() -> None:
    for name in COMMANDS:
        code, text = call(name, "--help")
        assert code == 0
        assert f"tunesmith {name}" in text


def test_the_whole_path(tmp_path: Path, tiny_bert: Path) -> None:
    tiny.table(90).write_csv(tmp_path / "tickets.csv")
    code, text = call("init", tmp_path / "tickets.csv")
    assert code == 0, text
    spec = tmp_path / "tickets.yaml"
    sets = ["--set", f"model.name={tiny_bert}", "--set", "evaluate.resamples=100", "--runs", tmp_path / "runs"]
    quick = ["--set", "strategy.kind=full", "--set", "train.epochs=1"]
    code, text = call("plan", spec, *sets, *quick)
    assert code == 0, text
    for word in ("rows", "parameters", "steps", "time", "memory", "disk", "can run"):
        assert word in text
    for name, extra in (("a", quick), ("b", [])):
        code, text = call("run", spec, *sets, *extra, "--name", name)
        assert code == 0, text
        assert "accuracy" in text.lower()
    code, text = call("show", tmp_path / "runs/a")
    assert code == 0
    assert "report.html" in "".join(text.split())
    code, text = call("compare", tmp_path / "runs/a", tmp_path / "runs/b")
    assert code == 0
    assert "McNemar" in text
    code, text = call("predict", tmp_path / "runs/a", tmp_path / "tickets.csv", "-o", tmp_path / "out.parquet", "--top", 2)
    assert code == 0, text
    assert pl.read_parquet(tmp_path / "out.parquet").height == 90
    code, text = call("verify", tmp_path / "runs/a")
    assert code == 0, text
    report = tmp_path / "runs/a/MODEL_CARD.md"
    report.write_text(report.read_text().replace("accuracy", "akkuracy"))
    code, text = call("verify", tmp_path / "runs/a", "--level", 0)
    assert code == 1
    code, text = call("run", spec, *sets, *quick, "--name", "a")
    assert code == 0


def test_schema_is_json_and_knows_every_part() -> None:
    code, text = call("schema")
    assert code == 0
    assert {"Lora", "Full", "Train"} <= set(json.loads(text)["$defs"])


BAD_TABLES: dict[str, bytes] = {
    "empty.csv": b"",
    "binary.csv": bytes(range(256)) * 20,
    "headerless.csv": b"the parcel is late again,delivery\nmy card was charged twice,billing\n" * 9,
    "one_class.csv": b"text,label\n" + b"".join(b"row number %d,a\n" % n for n in range(30)),
    "few.csv": b"text,label\none text,a\nanother text,b\n",
    "null_labels.csv": b"text,label\nfirst text,\nsecond text,\n",
    "ids.csv": b"text,label\n" + b"".join(b"text %d,label%d\n" % (n, n) for n in range(200)),
    "regression.csv": b"text,label\n" + b"".join(b"text %d,%d.%d37\n" % (n, n, n) for n in range(200)),
    "truncated.csv.gz": __import__("gzip").compress(b"text,label\n" + b"hello world,a\n" * 5000)[:60],
    "renamed.parquet": b"text,label\nx,y\n",
    "ragged.csv": b"text,label\na b c,x\nd e f,y,z\n",
    "broken.jsonl": b'{"text": "a", "label": "b"}\n{"text": \n',
}


@pytest.mark.parametrize("name", sorted(BAD_TABLES))
def test_bad_tables_give_one_clear_error(tmp_path: Path, tiny_bert: Path, name: str) -> None:
    (tmp_path / name).write_bytes(BAD_TABLES[name])
    spec = write_spec(tmp_path, tiny_bert, data={"train": name, "text": "text", "label": "label"})
    for command in ("plan", "run"):
        code, text = call(command, spec, "--runs", tmp_path / "runs")
        assert code in (2, 3), text
        assert "Traceback" not in text
        assert len(text) > 20


@pytest.mark.parametrize(
    ("changes", "code", "says"),
    [
        ({"data": {"train": "tickets.csv", "text": "txet", "label": "label"}}, 3, "text"),
        ({"data": {"train": "tickest.csv"}}, 2, "tickets.csv"),
        ({"strategi": {}}, 2, "strategy"),
        ({"model": {"name": "nobody/nothing"}}, 4, "starter"),
        ({"strategy": {"kind": "layers", "top": 9}, "train": {"epochs": 1}}, 4, "at most 2"),
        ({"train": {"learning_rate": -1}}, 2, "must be > 0"),
    ],
)
def test_bad_specs_name_the_remedy(tmp_path: Path, tiny_bert: Path, changes: dict[str, Any], code: int, says: str) -> None:
    got, text = call("run", write_spec(tmp_path, tiny_bert, **changes), "--runs", tmp_path / "runs")
    assert got == code, text
    assert says in text


def test_plan_tells_problems_of_data_and_model_together(tmp_path: Path, tiny_bert: Path) -> None:
    spec = write_spec(tmp_path, tiny_bert, data={"train": "tickets.csv", "text": "txet"}, model={"name": "nobody/nothing"})
    code, text = call("plan", spec, "--runs", tmp_path / "runs")
    assert code == 2
    assert "txet" in text
    assert "nobody/nothing" in text
    assert not (tmp_path / "runs").exists()


def test_a_run_that_is_none_lists_those_beside_it(tmp_path: Path, tiny_bert: Path) -> None:
    call("run", write_spec(tmp_path, tiny_bert), "--runs", tmp_path / "runs")
    for command in (("show",), ("verify",), ("compare", tmp_path / "runs/tickets")):
        code, text = call(*command, tmp_path / "runs/ticket")
        assert code == 5
        assert "tickets" in text
    code, text = call("predict", tmp_path / "runs/tickets", tmp_path / "none.csv", "-o", tmp_path / "o.parquet")
    assert code in (2, 3)
    code, text = call("predict", tmp_path / "runs/tickets", tmp_path / "tickets.csv", "-o", tmp_path / "o.xlsx")
    assert code == 5


def test_init_does_not_overwrite(tmp_path: Path) -> None:
    tiny.table(30).write_csv(tmp_path / "tickets.csv")
    assert call("init", tmp_path / "tickets.csv")[0] == 0
    assert call("init", tmp_path / "tickets.csv")[0] == 2
    assert call("init", tmp_path / "tickets.csv", "--force")[0] == 0


def test_a_megabyte_of_text_and_every_script_survive(tmp_path: Path, tiny_bert: Path) -> None:
    table = tiny.table(90)
    odd = ["x" * 1_000_000, "مرحبا parcel", "包裹 late", "🙂" * 50, "<script>alert(1)</script>", "{{ 7*7 }} refund", "a\u0000b parcel"]
    texts = [*odd, *table["text"].to_list()[len(odd) :]]
    table.with_columns(pl.Series("text", texts)).write_parquet(tmp_path / "odd.parquet")
    spec = write_spec(tmp_path, tiny_bert, data={"train": "odd.parquet", "text": "text", "label": "label"})
    code, text = call("run", spec, "--runs", tmp_path / "runs")
    assert code == 0, text
    assert "<script>alert" not in (tmp_path / "runs/tickets/report.html").read_text()


def test_the_entry_point_prints_errors_and_exit_codes(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tunesmith.cli.main", "plan", str(tmp_path / "none.yaml")]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stderr.startswith("SpecError: ")
    assert "Traceback" not in result.stderr


def test_click_usage_errors_exit_with_2() -> None:
    assert call("run")[0] == 2
    assert call("verify", "x", "--level", 9)[0] == 2

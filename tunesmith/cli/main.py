"""The command line. Only light modules are imported here: each command imports what it needs when it runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from tunesmith.core.errors import TunesmithError

app = typer.Typer(
    name="tunesmith",
    help="Supervised fine-tuning: from a labelled table to a checked, documented model.\n\n"
    "First time: [bold]tunesmith init tickets.csv[/], look at tickets.yaml, then [bold]tunesmith run tickets.yaml[/].",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

SpecPath = Annotated[Path, typer.Argument(metavar="SPEC", help="Spec file, YAML or JSON.")]
RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="Run directory, such as runs/tickets.")]
Overrides = Annotated[list[str] | None, typer.Option("--set", metavar="A.B=C", help="Change a value of the spec; may be repeated.")]
Runs = Annotated[Path, typer.Option("--runs", metavar="DIR", help="Folder of all runs.")]
Name = Annotated[str | None, typer.Option("--name", metavar="NAME", help="Name of the run, instead of the spec's.")]
RUNS = Path("runs")
STORE = RUNS / ".store"


def _overrides(values: list[str] | None, name: str | None) -> list[str]:
    return [*(values or []), *([f"name={name!r}"] if name else [])]


@app.command(epilog="Example: tunesmith init tickets.csv")
def init(
    data: Annotated[list[str], typer.Argument(metavar="DATA...", help="Table, or several, a folder or archive of tables, or an address.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help="Where to write the spec.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing spec.")] = False,
) -> None:
    """Look at a table, guess task and columns, say why, and write a commented spec."""
    from tunesmith.cli import commands

    commands.init(data, output, force)


@app.command(epilog="Example: tunesmith plan tickets.yaml --set train.epochs=3")
def plan(spec: SpecPath, overrides: Overrides = None, name: Name = None, runs: Runs = RUNS) -> None:
    """Check everything without training: rows, problems, model, steps, time, memory, disk."""
    from tunesmith.cli import commands

    commands.plan(spec, _overrides(overrides, name), runs)


@app.command(epilog="Example: tunesmith check tickets.csv")
def check(
    data: Annotated[str, typer.Argument(metavar="DATA", help="Table, folder, archive, address such as sqlite:///f.db?table=t, or spec.")],
    checks: Annotated[Path, typer.Option("--checks", metavar="DIR", help="Folder of all checks.")] = Path("checks"),
    open_report: Annotated[bool, typer.Option("--open", help="Open the report in the browser.")] = False,
) -> None:
    """Examine data without training: cleaning, near-duplicates, leaks, suspect labels, outliers, and a report."""
    from tunesmith.cli import commands

    commands.check(data, checks, open_report)


@app.command(epilog="Examples: tunesmith preview tickets.yaml --rows 10; tunesmith preview photos/ --only flip,rotate --seed 3")
def preview(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="Spec, or a folder or file of pictures, boxes or recordings.")],
    rows: Annotated[int, typer.Option("--rows", min=1, max=1000, metavar="N", help="How many rows, pictures or recordings to show.")] = 5,
    overrides: Overrides = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, metavar="N", help="Draws pictures or recordings and changes.")] = None,
    only: Annotated[str | None, typer.Option("--only", metavar="A,B", help="Changes of pictures or recordings; all when left out.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help="Page; preview-NAME.html when left out.")] = None,
) -> None:
    """Show on a page training rows of a spec as the model will read them, with their labels and what augmentation does;
    or pictures, boxes and recordings before and after changes."""
    from tunesmith.cli import commands

    if commands.is_spec(data):
        commands.refuse({"--seed": seed, "--only": only}, "with a spec: set seed and train.augment in it")
        commands.preview(data, rows, _overrides(overrides, None), output)
    else:
        commands.refuse({"--set": overrides}, "without a spec")
        commands.preview_items(data, rows, seed or 0, only, output)


@app.command(epilog="Example: tunesmith run tickets.yaml --set strategy.kind=lora --name tickets-lora")
def run(spec: SpecPath, overrides: Overrides = None, name: Name = None, runs: Runs = RUNS) -> None:
    """Do the whole job. Run it again after an interruption: it goes on where it was."""
    from tunesmith.cli import commands

    commands.run(spec, _overrides(overrides, name), runs)


@app.command(epilog="Example: tunesmith show runs/tickets --open")
def show(
    run: RunPath,
    open_report: Annotated[bool, typer.Option("--open", help="Open the report in the browser.")] = False,
) -> None:
    """Print the summary of a run."""
    from tunesmith.cli import commands

    commands.show(run, open_report)


@app.command(epilog="Example: tunesmith compare runs/full runs/lora")
def compare(runs: Annotated[list[Path], typer.Argument(metavar="RUN RUN...", help="Two or more run directories.")]) -> None:
    """Compare runs on the same test rows: paired differences from the first run, with intervals."""
    from tunesmith.cli import commands

    commands.compare(runs)


@app.command(epilog="Example: tunesmith predict runs/tickets new.csv -o out.parquet")
def predict(
    run: RunPath,
    data: Annotated[str, typer.Argument(metavar="DATA", help="Table with the same text column; a glob, or an address.")],
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="FILE", help="Parquet, CSV or JSONL; .json for answers in texts, .conll for tags of tokens."
        ),
    ],
    top: Annotated[int, typer.Option("--top", min=0, metavar="K", help="How many of the likeliest labels to add.")] = 3,
) -> None:
    """Add label, probability and likeliest labels to a table of any size."""
    from tunesmith.cli import commands

    commands.predict(run, data, output, top)


@app.command(epilog="Example: tunesmith index runs/retrieval passages.csv -o passages.index")
def index(
    run: RunPath,
    data: Annotated[str, typer.Argument(metavar="TEXTS", help="Table with the texts to find; a glob, or an address.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="INDEX", help="Folder to write; an index there is replaced.")],
    column: Annotated[
        str | None, typer.Option("--column", metavar="NAME", help="Column with the texts; that of the run if left out.")
    ] = None,
) -> None:
    """Embed texts with a run of feature-extraction, and write an index of them to search."""
    from tunesmith.cli import searching

    searching.index(run, data, output, column)


@app.command(epilog='Example: tunesmith search passages.index runs/retrieval "where is my parcel" -k 5')
def search(
    index: Annotated[Path, typer.Argument(metavar="INDEX", help="An index that tunesmith index wrote.")],
    run: RunPath,
    queries: Annotated[list[str], typer.Argument(metavar="QUERY...", help="What to look for.")],
    count: Annotated[int, typer.Option("-k", min=1, max=1000, metavar="K", help="How many texts to find for each.")] = 10,
) -> None:
    """Find texts of an index by query, with the run that made its vectors."""
    from tunesmith.cli import searching

    searching.search(index, run, queries, count)


@app.command(epilog="Example: tunesmith verify runs/tickets --level 1")
def verify(
    run: RunPath,
    level: Annotated[int, typer.Option("--level", min=0, max=2, help="0 files and documents, 1 also metrics, 2 also predictions.")] = 2,
) -> None:
    """Check a run against its own evidence. Exit code 1 when anything does not hold."""
    from tunesmith.cli import commands

    commands.verify(run, level)


@app.command(epilog="Example: tunesmith relabel runs/tickets review.csv, then tunesmith run tickets-relabelled.yaml")
def relabel(
    run: RunPath,
    reviews: Annotated[list[Path], typer.Argument(metavar="REVIEW...", help="Filled-in review files: CSV, or Label Studio exports.")],
    name: Name = None,
) -> None:
    """Take a reviewer's decisions back in: check them, and write a spec that applies them."""
    from tunesmith.cli import commands

    commands.relabel(run, reviews, name)


@app.command(epilog="Examples: tunesmith store; tunesmith store --check; tunesmith store --max-gb 5")
def store(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The store: beside the runs unless the spec names one.")] = STORE,
    check_rows: Annotated[bool, typer.Option("--check", help="Read every row, compare checksums, remove damaged files.")] = False,
    max_gb: Annotated[float | None, typer.Option("--max-gb", min=0, metavar="GB", help="Remove what was used longest ago.")] = None,
) -> None:
    """List what is kept of frozen networks; check it; make room."""
    from tunesmith.cli import commands

    commands.store(folder, check_rows, max_gb)


@app.command(epilog="Example: tunesmith schema > spec.schema.json")
def schema() -> None:
    """Print the JSON schema of a spec, for editors."""
    import json

    from tunesmith.spec.schema import Spec

    typer.echo(json.dumps(Spec.model_json_schema(), indent=2))


def _version(value: bool) -> None:
    if value:
        from importlib.metadata import version

        typer.echo(f"tunesmith {version('tunesmith')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")] = False,
) -> None:
    """Options of the program itself."""


def main() -> None:
    """Entry point: one clear message and an exit code for every error that a user can mend."""
    try:
        app()
    except TunesmithError as error:
        kind = type(error).__name__
        for issue in error.issues:
            typer.echo(typer.style(f"{kind}: ", fg="red", bold=True) + str(issue), err=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        typer.echo("Stopped.", err=True)
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(141)


if __name__ == "__main__":
    main()

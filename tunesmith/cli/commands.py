"""What the commands do: call the library, print with rich. One function per command."""

from __future__ import annotations

import sys
import webbrowser
from collections.abc import Iterator, Mapping
from pathlib import Path

import typer
from rich.console import Console
from rich.table import Table

from tunesmith.cli.progress import Display
from tunesmith.core.errors import DataError, ModelError, RunError, SpecError
from tunesmith.core.records import Issue
from tunesmith.core.rundir import RunDir, disk_errors, existing_run
from tunesmith.spec.addresses import archive_of, is_address
from tunesmith.spec.load import load_spec
from tunesmith.spec.schema import Spec

# Where nobody looks at a terminal (a log, a pipe), lines are wide enough for paths to stay whole.
console = Console() if sys.stdout.isatty() else Console(width=160)


def _say(text: str) -> None:
    """Print a line of text with markup, never broken by us: paths stay whole."""
    console.print(text, highlight=False, soft_wrap=True)


def _table(*columns: str) -> Table:
    """A plain table that folds long cells instead of cutting them."""
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=any(columns))
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def init(data: list[str], output: Path | None, force: bool) -> None:
    """Write a commented spec for a table."""
    from tunesmith.data.draft import draft_spec

    archive = archive_of(data[0])
    first = Path(archive[0] if archive else data[0].partition("?")[0])
    folder = Path() if is_address(data[0]) else first.parent
    target = output or folder / f"{first.name.split('.')[0] or 'spec'}.yaml"
    if target.exists() and not force:
        raise SpecError(Issue(str(target), "must not exist yet", "a file", "Use --force to overwrite it, or -o FILE."))
    text = draft_spec(data, target.parent)
    with disk_errors(target):
        target.write_text(text, "utf-8")
    console.print(text, highlight=False, markup=False, soft_wrap=True)
    _say(f"Wrote [bold]{target}[/]. Next: [bold]tunesmith plan {target}[/], then [bold]tunesmith run {target}[/].")


def plan(path: Path, overrides: list[str], runs: Path) -> None:
    """Print what a run would do and cost; exit code 2 when it cannot run."""
    spec = load_spec(path, overrides)
    with console.status("Reading data, loading the model, measuring a few steps"):
        from tunesmith.stages.plan import make_plan

        answer = make_plan(spec, runs)
    table = _table("", "")
    for row in _plan_rows(answer):
        table.add_row(*map(_plain, row))
    console.print(table)
    for issue in answer.issues:
        colour, kind = ("red", "problem") if issue.fatal else ("yellow", "warning")
        _say(f"[{colour}]{kind}[/]  {_plain(str(issue))}")
    if not answer.can_run:
        console.print(f"This spec cannot run: {sum(i.fatal for i in answer.issues)} problem(s).", style="red")
        raise typer.Exit(2)
    _say(f"This spec can run: [bold]tunesmith run {_plain(str(path))}[/]" + (" with the same options" if overrides else ""))


def _plan_rows(answer: object) -> Iterator[tuple[str, str]]:
    from tunesmith.spec.defaults import flatten
    from tunesmith.stages.plan import Plan

    assert isinstance(answer, Plan)
    if answer.rows:
        classes = f"; {answer.classes} classes" if answer.classes else ""
        yield "rows", ", ".join(f"{n} {split}" for split, n in answer.rows.items()) + classes
        reasons = ", ".join(f"{n} {reason}" for reason, n in answer.dropped.items())
        yield "dropped", f"{sum(answer.dropped.values())}" + (f" ({reasons})" if reasons else "")
    if answer.resolved is not None:
        values, rules = flatten(answer.resolved.spec), answer.resolved.rules
        yield "cut", f"{answer.cut} rows longer than {values['model.max_length']} tokens ({rules['model.max_length']})"
        yield "model", answer.model
        yield "strategy", ", ".join(f"{k.removeprefix('strategy.')} {v}" for k, v in values.items() if k.startswith("strategy."))
        for key in ("train.epochs", "train.batch_size", "train.learning_rate", "train.precision", "evaluate.metric", "evaluate.folds"):
            yield key, f"{values[key]}  ({rules[key]})"
    if answer.range_test is not None:
        for rate, loss in list(zip(answer.range_test.rates, answer.range_test.losses, strict=True))[::6]:
            yield "range test", f"rate {rate:.2g}: smoothed loss {loss:.3f}"
    if answer.size is not None:
        yield "parameters", f"{answer.size.total:,} in all, {answer.size.trainable:,} trained"
    if answer.store is not None:
        held = f"{answer.store.depth} frozen blocks computed once and read from the store, {answer.store.bytes / 1e6:,.0f} MB"
        yield "frozen work", held if answer.store.used else f"computed every time: {answer.store.reason}"
    if answer.seconds is not None and answer.peak_memory_bytes is not None:
        yield "steps", str(answer.steps) if answer.steps else "none: a head on frozen features"
        folds = answer.resolved.spec.evaluate.folds if answer.resolved else None
        folded = f", of that {_duration(answer.fold_seconds)} for {folds} models of cross-validation" if folds else ""
        if answer.adapted_texts:
            adaptation = (
                f"to {answer.adapted_texts:,} unlabelled texts, about {_duration(answer.adapt_seconds)}, which is part of the time below"
            )
            yield "adaptation", adaptation
        yield "time", f"about {_duration(answer.seconds)}, from a probe of a few real steps{folded}"
        trains = answer.steps or answer.adapted_texts
        how = "from passes of the longest rows" if trains else "so far: of this program, which has embedded a few rows"
        yield "memory", f"about {answer.peak_memory_bytes / 2**20:,.0f} MiB at the peak, {how}"
        if answer.recompute is not None:
            yield (
                "checkpointing",
                f"{'blocks are computed again in the backward pass' if answer.recompute.used else 'off'}: {answer.recompute.reason}",
            )
    if answer.averaging_bytes and answer.resolved and (averaging := answer.resolved.spec.train.averaging):
        where = {"soup": "on disk", "wise_ft": "of memory"}.get(averaging.kind, "of memory, and again in checkpoints")
        yield "averaging", f"{averaging.kind}: about {answer.averaging_bytes / 2**20:,.0f} MiB {where}"
    if answer.disk_bytes is not None and answer.disk_free_bytes is not None:
        yield "disk", f"about {answer.disk_bytes / 2**20:,.0f} MiB at the most, {answer.disk_free_bytes / 2**30:,.1f} GiB free"


def check(data: str, checks: Path, open_report: bool) -> None:
    """Examine data without training; print what was found and where the report is."""
    import yaml

    from tunesmith.data.draft import draft_spec
    from tunesmith.document.items_report import items_summary
    from tunesmith.document.summary import data_summary
    from tunesmith.pipeline import check as check_spec
    from tunesmith.stages.items import check_items, forget_items, items_of, name_of

    is_spec = data.endswith((".yaml", ".yml")) and not is_address(data)
    items = None if is_spec else items_of(data)
    with Display(console) as display:
        if items is not None:
            folder = check_items(items, name_of(data), checks, display)
        else:
            spec = load_spec(Path(data)) if is_spec else load_spec(yaml.safe_load(draft_spec([data], Path())))
            if not is_spec:
                _refuse_absent_writer(data, spec)
            forget_items(checks / spec.name)
            folder = check_spec(spec, checks, display)
    report = folder / "data_report.html"
    table = _table("", "", "")
    for row in items_summary(RunDir(folder)) if items is not None else data_summary(RunDir(folder)):
        table.add_row(*map(_plain, (row.name, row.value, row.note)))
    table.add_row("report", _plain(str(report)), "")
    console.print(table)
    if open_report:
        webbrowser.open(report.resolve().as_uri())


def _refuse_absent_writer(data: str, spec: Spec) -> None:
    """Nothing, unless a table holds texts to be written and the model that a draft names for them is not to be had.

    Raises:
        ModelError: it is not; only the user can name another.
    """
    from tunesmith.models.load import load_config

    if spec.kind != "text":
        return
    try:
        load_config(spec.model)
    except ModelError as error:
        expected = "holds texts to be written, whose check needs the tokenizer of a model that writes"
        remedy = f"Write a spec with tunesmith init {data}, set model.name in it to a folder on this machine, and check the spec."
        raise ModelError(Issue(data, expected, f"{spec.model.name} cannot be loaded", remedy)) from error


def preview(path: Path, rows: int, overrides: list[str], output: Path | None) -> None:
    """Write a page of training rows as the model will read them; print them in short, and what augmentation does."""
    from tunesmith.cli.drawn import drawn

    spec = load_spec(path, overrides)
    with console.status("Reading data, encoding it as a run would"):
        from tunesmith.document.seen.see import render
        from tunesmith.stages.preview_texts import preview_texts

        seen = preview_texts(spec, rows)
    page = output or Path(f"preview-{spec.name}.html")
    with disk_errors(page):
        page.write_text(render(seen), "utf-8")
    table = _table("", "", "")
    for fact in seen.facts:
        table.add_row(*map(_plain, (fact.name, fact.value, fact.note)))
    console.print(table)
    for line in drawn(seen):
        console.print(line, highlight=False, soft_wrap=True)
    if seen.about.changes:
        changes = _table("operation", "before", "after")
        for change in seen.about.changes:
            changes.add_row(*map(_plain, (change.operation or "none changed it", change.before, change.after)))
        console.print(changes)
    for issue in seen.about.issues:
        _say(f"[yellow]warning[/]  {_plain(issue)}")
    _say(f"Wrote [bold]{_plain(str(page))}[/].")


def preview_items(path: Path, rows: int, seed: int, only: str | None, output: Path | None) -> None:
    """Write a page of changed pictures or recordings, and print where it is."""
    from tunesmith.stages.items import items_of, name_of
    from tunesmith.stages.preview import Choice
    from tunesmith.stages.preview import preview_items as write_page

    items = items_of(str(path))
    if items is None:
        remedy = "Name a folder or file of them, or for texts a spec."
        raise DataError(Issue(str(path), "must be pictures, boxes or recordings", "a table", remedy))
    names = tuple(name for name in (only or "").replace(",", " ").split())
    page = write_page(items, name_of(str(path)), Choice(rows, seed, names), output or Path(f"preview-{name_of(str(path))}.html"))
    _say(f"Wrote [bold]{_plain(str(page))}[/].")


def is_spec(path: Path) -> bool:
    """True for YAML, for what is not there, and for a JSON file in which no annotations are recognised."""
    from tunesmith.stages.items import items_of

    return path.suffix in (".yaml", ".yml") or not path.exists() or (path.suffix == ".json" and items_of(str(path)) is None)


def refuse(options: Mapping[str, object], why: str) -> None:
    """Stop where an option that was given has no effect."""
    issues = [Issue(name, f"has no effect {why}", str(value), "Remove it.") for name, value in options.items() if value is not None]
    if issues:
        raise SpecError(issues)


def run(path: Path, overrides: list[str], runs: Path) -> None:
    """Do the whole job with live progress, then print the summary."""
    spec = load_spec(path, overrides)
    from tunesmith.pipeline import run as run_spec

    with Display(console) as display:
        finished = run_spec(spec, runs, display)
    _print_summary(RunDir(finished.path))


def show(path: Path, open_report: bool) -> None:
    """Print the summary of a run; perhaps open its report."""
    rundir = existing_run(path)
    _print_summary(rundir)
    if open_report:
        report = rundir.path / "report.html"
        if not report.exists():
            raise RunError(Issue(str(report), "must exist", "no report", "The run is not finished: run the same command again."))
        webbrowser.open(report.resolve().as_uri())


def compare(paths: list[Path]) -> None:
    """Print paired differences of runs from the first one."""
    from tunesmith.evaluate.compare import COLUMNS, as_table, compare_runs

    comparisons = compare_runs([existing_run(p).path for p in paths])
    table = _table(*COLUMNS)
    for row in as_table(comparisons):
        table.add_row(*map(_plain, row))
    console.print(table)
    for c in comparisons:
        if c.mcnemar_p is not None:
            _say(f"{_plain(c.run)}: exact McNemar p {c.mcnemar_p:.3g}, {c.corrected_p:.3g} after Holm's correction")
        if c.note:
            _say(f"[yellow]{_plain(c.note)}[/]")


def relabel(path: Path, reviews: list[Path], name: str | None) -> None:
    """Check review files against a run, and write the spec of a run that applies them."""
    from tunesmith.stages.relabel import relabelled_spec

    answer = relabelled_spec(existing_run(path), reviews, name)
    table = _table("", "")
    for row in answer.rows:
        table.add_row(*map(_plain, row))
    console.print(table)
    for issue in answer.issues:
        _say(f"[yellow]warning[/]  {_plain(str(issue))}")
    target = Path(f"{answer.name}.yaml")
    if target.exists():
        raise SpecError(Issue(str(target), "must not exist yet", "a file", "Give the new run another name with --name NAME."))
    with disk_errors(target):
        target.write_text(answer.text, "utf-8")
    _say(f"Wrote [bold]{target}[/]. Next: [bold]tunesmith run {target}[/], then compare the two runs with [bold]tunesmith compare[/].")


def predict(path: Path, data: str, output: Path, top: int) -> None:
    """Predict a table into a file."""
    from tunesmith.serve.write import refuse_target

    refuse_target(output)
    from tunesmith.data.load import reads_whole
    from tunesmith.serve.predictor import load

    predictor = load(path)
    if whole := reads_whole([data]):
        _say(f"[yellow]{', '.join(map(_plain, whole))}: JSON has no rows to read one by one; it is held in memory whole.[/]")
    with console.status("Predicting") as status:
        rows = predictor.predict_file(data, output, top, lambda done: status.update(f"Predicting: {done:,} rows"))
    _say(f"Wrote {rows:,} rows to [bold]{output}[/].")
    if predictor.unfilled:
        mask = _plain(str(predictor.processor.mask_token))
        _say(f"[yellow]{predictor.unfilled:,} of them hold no {mask} and were left as they are: predicted is null there.[/]")


def verify(path: Path, level: int) -> None:
    """Print each check; exit code 1 when one does not hold."""
    from tunesmith.stages.verify import verify_run

    rundir = existing_run(path)
    verification = verify_run(rundir, level)
    for check in verification.checks:
        colour = {"verified": "green", "skipped": "yellow"}.get(check.status, "red")
        _say(f"[{colour}]{check.status:<9}[/] level {check.level}  {_plain(check.what)}  {_plain(check.detail)}".rstrip())
    if not verification.ok:
        console.print("The run does not hold against its evidence.", style="red")
        sys.exit(1)
    console.print(f"Everything holds up to level {level}.", style="green")


def _print_summary(rundir: RunDir) -> None:
    from tunesmith.document.summary import summary

    table = _table("", "", "")
    for row in summary(rundir):
        table.add_row(_plain(row.name), f"[bold]{_plain(row.value)}[/]", _plain(row.note))
    console.print(table)


def _plain(text: str) -> str:
    """Text that rich prints as it is."""
    from rich.markup import escape

    return escape(text)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


def store(folder: Path, check_rows: bool, max_gb: float | None) -> None:
    """Print the shelves of the frozen-prefix store, after checking or making room."""
    from tunesmith.data.store import check as check_store
    from tunesmith.data.store import prune, shelves

    if not folder.is_dir():
        raise RunError(Issue(str(folder), "must be a store", "no such folder", "Name it; a run says where its store is."))
    damaged = check_store(folder) if check_rows else {}
    removed, freed = prune(folder, int(max_gb * 1e9)) if max_gb is not None else (0, 0)
    table = _table("shelf", "model", "blocks", "numbers", "rows", "MB", "last used", *(["damaged"] if check_rows else []))
    found = shelves(folder)
    for shelf in found:
        kind = (str(shelf.kind[name]) for name in ("model", "depth", "dtype"))
        cells = [shelf.name, *kind, f"{shelf.rows}", f"{shelf.bytes / 1e6:.1f}", f"{shelf.age / 3600:.1f} hours ago"]
        table.add_row(*cells, *([str(damaged[shelf.name][1])] if check_rows else []))
    console.print(table)
    rows = sum(bad for _, bad in damaged.values())
    if check_rows:
        _say(f"{rows} damaged rows; files with such rows were removed, and runs compute them again." if rows else "Every row is whole.")
    if max_gb is not None:
        _say(f"{removed} shelves removed, {freed / 1e6:.1f} MB freed.")
    _say(f"{sum(s.bytes for s in found) / 1e9:.2f} GB in {_plain(str(folder))}")

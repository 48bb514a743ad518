"""Live progress: a bar per stage on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from tunesmith.core.records import Progress as Report

LINE_SECONDS = 10.0


class Display:
    """A watch for `tunesmith.run`, to be used in a `with`."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.live = console.is_terminal
        self.bars = Progress(
            TextColumn("{task.description:<9}"),
            BarColumn(bar_width=24),
            TextColumn("{task.completed:>6.0f}/{task.total:.0f} {task.fields[unit]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
            disable=not self.live,
        )
        self.tasks: dict[str, TaskID] = {}
        self.printed: dict[str, float] = {}
        self.started: dict[str, tuple[float, int]] = {}
        self.score: float | None = None

    def __enter__(self) -> Display:
        self.bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.bars.stop()

    def __call__(self, report: Report) -> None:
        self.score = report.score if report.score is not None else self.score
        if report.note.startswith("warning"):
            self.console.print(f"[yellow]{escape(report.note.removeprefix('warning: '))}[/]", highlight=False)
        elif self.live:
            self._bar(report)
        else:
            self._line(report)

    def _bar(self, report: Report) -> None:
        if report.stage not in self.tasks:
            self.tasks[report.stage] = self.bars.add_task(report.stage, total=report.total, unit="", note="")
        unit = f"{report.unit}s" if report.unit else ""
        self.bars.update(self.tasks[report.stage], completed=report.done, total=report.total, unit=unit, note=self._note(report))

    def _line(self, report: Report) -> None:
        now, last = time.monotonic(), self.printed.get(report.stage)
        began, first = self.started.setdefault(report.stage, (now, report.done))
        if report.done < report.total and report.score is None and last is not None and now - last < LINE_SECONDS:
            return
        self.printed[report.stage] = now
        rate = (report.done - first) / (now - began) if now > began else 0.0
        left = f"  {_clock((report.total - report.done) / rate)} left" if rate and report.done < report.total else ""
        count = f"{report.done}/{report.total} {report.unit}s" if report.unit else ""
        self.console.print(f"{report.stage:<9} {count}{left}  {self._note(report)}".rstrip(), highlight=False, markup=False)

    def _note(self, report: Report) -> str:
        parts = [report.note] if report.note else []
        if report.epoch is not None:
            parts.append(f"epoch {report.epoch:.2f}")
        if report.loss is not None:
            parts.append(f"loss {report.loss:.3f}")
        if report.stage == "train" and self.score is not None:
            parts.append(f"score {self.score:.4f}")
        return "  ".join(parts)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"

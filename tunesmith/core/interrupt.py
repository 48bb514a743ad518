"""Stopping on request. Ctrl-C and SIGTERM end a stage at once, except where the stage asks to finish its step first."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from tunesmith.core.errors import Interrupted
from tunesmith.core.records import Issue

EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}


class StopRequest:
    """Whether somebody asked to stop. `deferred()` turns an immediate stop into one that the stage looks for."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._deferring = False

    def __call__(self, number: int, _frame: FrameType | None) -> None:
        again = self.signal is not None
        self.signal = number
        if not self._deferring or again:
            raise self.error()

    def error(self) -> Interrupted:
        """The error to raise, with the exit code that the signal stands for (130 or 143)."""
        name = signal.Signals(self.signal or signal.SIGINT).name
        error = Interrupted(Issue("run", f"stopped by {name}", "", "Everything finished is kept; the same command continues."))
        error.exit_code = EXIT_CODES.get(signal.Signals(self.signal or signal.SIGINT), 130)
        return error

    @contextmanager
    def deferred(self) -> Iterator[StopRequest]:
        """While inside, the first signal only sets `signal`; a second one raises at once."""
        self._deferring = True
        try:
            yield self
        finally:
            self._deferring = False


@contextmanager
def stoppable() -> Iterator[StopRequest]:
    """A StopRequest that hears SIGINT and SIGTERM; outside the main thread it hears nothing and changes nothing."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.signal(number, request) for number in EXIT_CODES}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

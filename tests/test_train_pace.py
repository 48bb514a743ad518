"""What training was expected to take."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.core.records import StepInfo
from tunesmith.tasks.base import Encoding
from tunesmith.train import pace as pace_of
from tunesmith.train import probe
from tunesmith.train.batches import Order
from tunesmith.train.pace import SHORTEST, Pace, line


@given(st.floats(0, 1), st.floats(1e-6, 1e-2), st.lists(st.integers(1, 500), min_size=10, max_size=40, unique=True))
def test_a_line_is_found(base: float, slope: float, tokens: list[int]) -> None:
    found = line(tokens, [base + slope * n for n in tokens])
    assert found == pytest.approx((slope, base), rel=1e-3, abs=1e-6)


def test_seconds_that_do_not_grow_with_tokens_are_seconds_per_step() -> None:
    assert line([5] * 10, [0.2] * 10) == (0.0, pytest.approx(0.2))
    assert line([1, 2, 3, 4], [0.4, 0.3, 0.2, 0.1]) == (0.0, pytest.approx(0.25))


def test_steps_that_stall_now_and_then_count_in_full() -> None:
    seconds = [0.1 if number % 5 else 0.6 for number in range(50)]
    slope, base = line([10 + number % 7 for number in range(50)], seconds)
    assert sum(slope * (10 + number % 7) + base for number in range(50)) == pytest.approx(sum(seconds))


def test_the_rest_of_a_run_is_expected_from_its_beginning() -> None:
    pace = Pace(0.3)
    for number in range(100):
        pace.tokens.append(10 + number % 7)
        pace.seconds.append(0.01 + 0.001 * pace.tokens[-1])
    pace.evaluations = 2
    assert pace.expected() == pytest.approx(sum(pace.seconds) + 2 * 0.3)
    short = Pace(0.3, pace.tokens[:SHORTEST], pace.seconds[:SHORTEST])
    assert short.expected() is None


@given(st.floats(0, 1), st.floats(1e-6, 1e-2), st.lists(st.integers(1, 500), min_size=3, max_size=6, unique=True))
def test_a_line_through_the_probe_is_found(base: float, slope: float, tokens: list[int]) -> None:
    assert probe.line([(n, base + slope * n) for n in tokens]) == pytest.approx((slope, base), rel=1e-3, abs=1e-6)


def test_a_probe_of_equal_lengths_says_what_was_measured() -> None:
    for points in ([(100, 1.0), (101, 1.2), (102, 1.1)], [(100, 1.0), (101, 1.4), (102, 1.5)], [(100, 1.0)] * 3, [(100, 1.5), (102, 1.0)]):
        slope, base = probe.line(points)
        assert slope >= 0 and base >= 0
        assert sum(slope * n + base for n, _ in points) == pytest.approx(sum(seconds for _, seconds in points), rel=1e-2)


@pytest.mark.parametrize(("seconds", "epochs", "rounds"), [(0.011, 1, 2), (1.01, 10, 4), (30.0, 1, 1)])
def test_a_probe_goes_on_until_it_has_seen_enough(seconds: float, epochs: int, rounds: int) -> None:
    def steps() -> Iterator[probe.Point]:  # a machine that is quicker and slower by turns
        for number in count():
            taken.append(seconds * (1.25 if number // 5 % 2 else 0.75))
            yield 40, taken[-1]

    taken: list[float] = []
    found = probe._epoch_seconds(steps(), Order([10] * 392, 4, epochs, 1, 0))
    assert len(taken) == 5 * rounds
    assert found == pytest.approx(98 * sum(taken) / len(taken))


@pytest.mark.parametrize("rows", [1, 40, 1000])
def test_an_evaluation_is_expected_from_two_batches(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def answers(_model: Any, _task: Any, part: Encoding) -> None:
        seen.append(len(part.rows))
        now[0] += 0.01 * sum(part.lengths)

    now, seen = [0.0], list[int]()
    monkeypatch.setattr(pace_of, "predict_logits", answers)
    monkeypatch.setattr(pace_of.time, "perf_counter", lambda: now[0])
    lengths = [5 + number % 50 for number in range(rows)]
    model = SimpleNamespace(main_input_name="input_ids")
    encoding = Encoding([{}] * rows, lengths, 0)
    assert pace_of.evaluation_seconds(model, None, encoding) == pytest.approx(0.01 * sum(lengths))
    assert seen == [min(rows, 64)] * 2


def test_slow_first_steps_are_not_taken_for_the_pace() -> None:
    for steps in (90, 170, 400):
        slow = min(30, steps // 6)
        seconds = [1.0] * slow + [0.2] * (steps - slow)
        assert Pace(0, [10] * steps, seconds).expected() == pytest.approx(sum(seconds))


def test_steps_are_passed_on_unchanged() -> None:
    infos = [StepInfo(n, 0, 1.0, 0.1, 1, n, 1.0) for n in range(1, 4)]
    pace = Pace(1)
    assert list(pace.steps(infos)) == infos
    assert pace.tokens == [1, 2, 3] and min(pace.seconds) >= 0

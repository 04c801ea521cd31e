"""Peers that take turns, and how their figures are shown."""

from __future__ import annotations

import pytest

from benchmarks.common import show
from benchmarks.rates import looped, rate


def test_a_loop_goes_on_from_the_state_that_it_left() -> None:
    steps = looped(lambda state: (state + 1, 10 * state), 1)
    assert [steps(), steps(), steps()] == [10, 20, 30]


def test_the_first_call_is_not_in_the_rate() -> None:
    calls = iter([10**30, *[1] * 10**6])  # the first would show, however long it took
    found = rate(lambda: next(calls), seconds=1e-3)
    assert 0 < found.clock < 10**9
    assert found.work > 0


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [
        (93e-6, "s", "93 µs"),
        (12_400, "/s", "12.4 k/s"),
        (3.1e6, "steps/s", "3.1 M steps/s"),
        (80, "frames/s", "80 frames/s"),
    ],
)
def test_a_value_is_shown_with_its_unit(value: float, unit: str, shown: str) -> None:
    assert show(value, unit) == shown

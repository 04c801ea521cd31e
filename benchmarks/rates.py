"""Steps a second of peers that take turns: by the clock, and by the work of the cores."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from benchmarks.common import Measure

SECONDS = 1.0  # of one turn
Steps = Callable[[], int]
"""Makes some steps; how many."""
Call = Callable[[Any], tuple[Any, Any]]
"""`state -> (state, steps)`."""


class Rate(NamedTuple):
    """Steps a second."""

    clock: float
    work: float
    """Of the time that all threads of this process were at work."""


def looped(call: Call, state: Any) -> Steps:
    """A function of a state, called again and again with what it returned."""
    held = [state]

    def steps() -> int:
        held[0], made = call(held[0])
        return int(made)

    return steps


def rate(steps: Steps, seconds: float = SECONDS) -> Rate:
    """Of calls for so long, after one that does not count."""
    steps()
    began, worked, made = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - began < seconds:
        made += steps()
    clock, work = time.perf_counter() - began, time.process_time() - worked
    return Rate(made / clock, made / max(work, 1e-9))


def compared(
    name: str,
    peers: Mapping[str, Steps],
    repeats: int,
    *,
    against: str,
    target: float | None = None,
    by_work: bool = True,
) -> list[Measure]:
    """Peers in turn, the order reversed each time: a line by the clock, and one by work.

    Work is that of this process, so leave `by_work` where a peer has others work for it.
    """
    clock = Measure(name, "steps/s", lower_is_better=False, target=target, against=against)
    work = Measure(f"{name}, by CPU time", "steps/s", lower_is_better=False, against=against)
    order = list(peers.items())
    for steps in peers.values():
        steps()  # compiles; so may the next, of a state whose types the first one settled
    for _ in range(repeats):
        for peer, steps in order:
            found = rate(steps)
            clock.add(peer, found.clock)
            work.add(peer, found.work)
        order.reverse()
    return [clock, work] if by_work else [clock]

"""Supervisors whose nodes are up, and what may happen to them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from lpml.launchers.decisions import Decision, Failure
from lpml.launchers.supervisor import Supervisor


def do(what: str, *nodes: str) -> list[Decision]:
    return [Decision(what, node) for node in nodes]  # type: ignore[arg-type]


def running(*nodes: str, without_run: tuple[str, ...] = ()) -> Supervisor:
    """A supervisor whose nodes are all up at time 0; stops take 10 s."""
    supervisor = Supervisor((*nodes, *without_run), start_timeout=100.0, stop_timeout=10.0)
    supervisor.start(0.0)
    for node in nodes:
        supervisor.ready(node, 0.0, has_run=True)
    for node in without_run:
        supervisor.ready(node, 0.0, has_run=False)
    return supervisor


def anything(
    supervisor: Supervisor, draw: Callable[[st.SearchStrategy[Any]], Any], node: str, now: float
) -> list[Decision]:
    """One event that may happen to a node that is not gone, or to the program."""
    what = draw(st.sampled_from(["tick", "stop", "ready", "returned", "failed"]))
    if what == "stop":
        return supervisor.stop(now, "r", timeout=draw(st.none() | st.floats(0, 20)))
    if what == "ready":
        drawn = {name: draw(st.booleans()) for name in ("has_run", "journaled")}
        return supervisor.ready(node, now, **drawn)
    if what == "returned":
        return supervisor.returned(node, now)
    if what == "failed":
        return supervisor.failed(Failure(node, "f", at=now), now)
    return supervisor.tick(now)

"""Counts that the nodes of a program share, such as the steps of all actors."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any, ClassVar, final

import lpml

Number = int | float


@final
class Counter:
    """Sums what nodes count, by role: `actor_steps`, `learner_steps`, `evaluator_episodes`.

    `walltime` is there too: seconds since the counter began, those before a restore included.
    Nodes count for themselves and hand in at most once a second; `CountOf` does that.

    Example:
      >>> counter = Counter()
      >>> counter.increment("actor", steps=64, episodes=2)["actor_steps"]
      64
    """

    lpml_role: ClassVar[str] = "counter"

    def __init__(self) -> None:
        self._clock = lpml.context().clock
        self._lock = self._clock.condition()
        self._began = self._clock.time()
        self._parts: dict[str, dict[str, Number]] = {}  # {source: {"actor_steps": 64}}

    @lpml.concurrent
    def increment(self, prefix: str, **counts: Number) -> dict[str, Number]:
        """Adds `counts` to those of `prefix`, and returns all.

        A call that is made twice counts twice; `report` is for those who might have to.
        """
        with self._lock:
            part = self._parts.setdefault("", {})
            for name, count in counts.items():
                key = f"{prefix}_{name}"
                part[key] = part.get(key, 0) + count
            return self._all()

    @lpml.concurrent
    @lpml.idempotent
    def report(self, source: str, prefix: str, totals: Mapping[str, Number]) -> dict[str, Number]:
        """What `source` has counted since it began, and returns the counts of all.

        May be repeated and may come late: a total that is smaller than a known one is ignored.

        Args:
          source: a name that no other life of any node has; see `CountOf`.
          prefix: of the names, such as `actor`.
          totals: such as `{"steps": 640}`.
        """
        with self._lock:
            part = self._parts.setdefault(source, {})
            for name, total in totals.items():
                key = f"{prefix}_{name}"
                part[key] = max(total, part.get(key, total))
            return self._all()

    @lpml.concurrent
    @lpml.idempotent
    def get(self) -> dict[str, Number]:
        """All counts, and `walltime`."""
        with self._lock:
            return self._all()

    @lpml.concurrent
    def save(self) -> dict[str, object]:
        """The counts of each source, and the walltime."""
        with self._lock:
            parts = {source: dict(part) for source, part in self._parts.items()}
            return {"parts": parts, "walltime": self._walltime()}

    @lpml.concurrent
    def restore(self, state: Mapping[str, object]) -> None:
        """Puts back what `save` returned. Sources that live on go on counting where they are."""
        parts, walltime = state["parts"], state["walltime"]
        assert isinstance(parts, Mapping)
        with self._lock:
            self._parts = {source: dict(part) for source, part in parts.items()}
            self._began = self._clock.time() - float(walltime)  # type: ignore[arg-type]

    def _walltime(self) -> float:
        return self._clock.time() - self._began

    def _all(self) -> dict[str, Number]:
        counts: dict[str, Number] = {}
        for part in self._parts.values():
            for key, count in part.items():
                counts[key] = counts.get(key, 0) + count
        counts["walltime"] = self._walltime()
        return counts


@final
class CountOf:
    """What one node counts. It never waits for the counter, except to `flush`.

    Args:
      counter: of the program; `None` = counts for itself only.
      prefix: of the names: the node's role.
      period: seconds between two reports.
    """

    def __init__(self, counter: Counter | None, prefix: str, *, period: float = 1.0) -> None:
        self._counter = counter
        self._prefix = prefix
        self._period = period
        context = lpml.context()
        self._clock = context.clock
        self._source = f"{context.name}:{secrets.token_hex(8)}"
        self._own: dict[str, Number] = {}
        self._all: dict[str, Number] = {}
        self._next = self._clock.time()
        self._under_way: lpml.Future[dict[str, Number]] | None = None

    @property
    def own(self) -> Mapping[str, Number]:
        """What this node counted, such as `{"steps": 640}`."""
        return self._own

    @property
    def all(self) -> Mapping[str, Number]:
        """The counts of all nodes as last heard, such as `{"actor_steps": 1280}`."""
        return self._all

    def increment(self, **counts: Number) -> None:
        """Counts; hands in what has come together when the time for it has come."""
        for name, count in counts.items():
            self._own[name] = self._own.get(name, 0) + count
        if self._counter is not None and self._clock.time() >= self._next:
            self._hand_in(self._counter)

    def flush(self) -> Mapping[str, Number]:
        """Hands in what has come together, and waits for the counts of all."""
        if self._counter is None:
            self._all = {f"{self._prefix}_{name}": count for name, count in self._own.items()}
        else:
            self._all = self._counter.report(self._source, self._prefix, dict(self._own))
        return self._all

    def save(self) -> dict[str, object]:
        """What a node with state saves of it, so that nothing is lost that was not handed in."""
        return {"source": self._source, "own": dict(self._own)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on counting where `save` was called, in the name of who called it."""
        self._source, self._own = str(state["source"]), dict(state["own"])

    def _hand_in(self, counter: Counter) -> None:
        if self._under_way is not None:
            if not self._under_way.done():
                return
            self._all = self._under_way.result()
        self._next = self._clock.time() + self._period
        self._under_way = lpml.future(counter.report, self._source, self._prefix, dict(self._own))

"""Ends the program when it has done enough: steps, seconds, or a good enough return."""

from __future__ import annotations

from typing import ClassVar, final

import lpml
from lpml.errors import UsageError
from lpml.nodes.counter import Counter


@final
class Stopper:
    """Stops the program at the first of several limits.

    Args:
      counter: whose counts are watched; needed for `max_steps`.
      max_steps: of the count that `count` names.
      count: such as `actor_steps`.
      max_seconds: since the counter, or this node, began.
      target_return: an evaluator's mean return that is good enough.
      min_episodes: over so many episodes at least.
      period: seconds between two looks at the counter.

    Raises:
      UsageError: `max_steps` without a counter.
    """

    lpml_role: ClassVar[str] = "stopper"

    def __init__(
        self,
        counter: Counter | None = None,
        *,
        max_steps: int | None = None,
        count: str = "actor_steps",
        max_seconds: float | None = None,
        target_return: float | None = None,
        min_episodes: int = 1,
        period: float = 0.5,
    ) -> None:
        if max_steps is not None and counter is None:
            raise UsageError(f"Stopper(max_steps={max_steps}): give a counter that counts them")
        self._context = lpml.context()
        self._counter = counter
        self._max_steps = max_steps
        self._count = count
        self._max_seconds = max_seconds
        self._target_return = target_return
        self._min_episodes = min_episodes
        self._period = period
        self._began = self._context.clock.time()
        self._reason = ""

    def run(self) -> None:
        """Looks at the counts now and then until the program stops."""
        while not self._context.wait(self._period):
            self.check()

    @lpml.concurrent
    @lpml.idempotent
    def report(self, mean_return: float, episodes: int) -> str:
        """What an evaluator measured; stops the program if that is good enough.

        Args:
          mean_return: undiscounted, over `episodes` episodes.
          episodes: how many.

        Returns:
          Why the program stops, or "".
        """
        target = self._target_return
        if target is not None and episodes >= self._min_episodes and mean_return >= target:
            self._stop(f"mean return {mean_return:.4g} over {episodes} episodes reached {target:g}")
        return self._reason

    @lpml.concurrent
    def check(self) -> str:
        """Looks at counts and time now; why the program stops, or ""."""
        counts = {} if self._counter is None else self._counter.get()
        seconds = counts.get("walltime", self._context.clock.time() - self._began)
        steps = counts.get(self._count, 0)
        if self._max_steps is not None:
            self._context.progress(min(steps, self._max_steps), self._max_steps)
            if steps >= self._max_steps:
                self._stop(f"{steps} {self._count} reached {self._max_steps}")
        if self._max_seconds is not None and seconds >= self._max_seconds:
            self._stop(f"{seconds:.1f} s passed, {self._max_seconds:g} s were allowed")
        return self._reason

    def _stop(self, reason: str) -> None:
        if not self._reason:  # the first one counts
            self._reason = reason
            self._context.stop_program(reason)

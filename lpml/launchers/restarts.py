"""Whether a node that died is started again, and after which pause: a state machine without I/O."""

from __future__ import annotations

from typing import final

from lpml.resources import Restart

CALM = 10.0  # times the last pause that a node must serve before its pauses begin anew


@final
class Budget:
    """The restarts of one node."""

    def __init__(self, policy: Restart = Restart.never()) -> None:  # noqa: B008  # frozen
        self.policy = policy
        self.used = 0
        self._pause: float | None = None  # the last one

    def covers(self, *, failed: bool) -> bool:
        """Whether the node may be started once more after it failed, or after it returned."""
        policy = self.policy
        if policy.when == "never" or (policy.when == "on_failure" and not failed):
            return False
        return policy.max_restarts is None or self.used < policy.max_restarts

    def spend(self, served: float) -> float:
        """Uses one restart up.

        Args:
          served: seconds for which the node has served before it died.

        Returns:
          Seconds to wait before it is started.
        """
        policy, last = self.policy, self._pause
        again = last is None or served > CALM * last
        pause = policy.backoff if again or last is None else 2 * last
        self._pause = min(pause, policy.max_backoff)
        self.used += 1
        return self._pause

    @property
    def words(self) -> str:
        """`restart 1 of 3`."""
        most = self.policy.max_restarts
        return f"restart {self.used}" + ("" if most is None else f" of {most}")

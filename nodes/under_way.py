"""Steps that wait for the device, and where the priorities go of those that it has done."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import final

import numpy as np

from lpml.nodes.priorities import PriorityWriter
from lpml.nodes.training import Step

_AHEAD = 4  # steps that wait for the device


@final
class StepsUnderWay:
    """The steps of a learner, in their order.

    Args:
      priorities: to whom those of each step go when it is done.
      check: called with `Step.bad` of a step that is done.
      synchronous: none is under way when `add` returns.
    """

    def __init__(
        self, priorities: PriorityWriter, check: Callable[[int], None], *, synchronous: bool
    ) -> None:
        self._priorities = priorities
        self._check = check
        self._synchronous = synchronous
        self._ahead = 0 if synchronous else _AHEAD
        self._steps: deque[Step] = deque()
        self.last: Step | None = None
        """The last that the device has done, as far as is known."""

    def add(self, step: Step) -> None:
        """Waits while too many are under way."""
        self._steps.append(step)
        self.settle(self._ahead)

    def settle(self, ahead: int = 0) -> None:
        """Passes on what the device has done; waits until at most `ahead` steps are under way."""
        steps = self._steps
        while steps and (len(steps) > ahead or steps[0].bad.is_ready()):
            self.last = step = steps.popleft()
            priorities = step.update.priorities
            if self._priorities.wanted and priorities is not None:
                values = np.asarray(priorities)
                self._check(int(step.bad))
                self._priorities.send(step.keys, values)
            elif self._synchronous:
                self._check(int(step.bad))
            else:
                step.bad.block_until_ready()

    def flush(self) -> None:
        """Waits until all are done, and their priorities have arrived."""
        self.settle()
        self._priorities.flush()

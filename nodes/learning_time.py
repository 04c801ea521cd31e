"""Where the time of a learner goes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, TypeAlias, final

from lpml.clock import Clock

Activity: TypeAlias = Literal["waiting", "updating", "averaging", "publishing"]


@dataclass(frozen=True)
class LearnerStatistics:
    """What a learner did so far."""

    updates: int
    """Of the parameters."""
    steps: int
    """Calls of the device, of `updates_per_step` updates each."""
    snapshots: int
    """Versions that were published; a version that nobody pulls is never copied."""
    seconds: float
    """Since `run` or the first `step` began, compilation excluded."""
    waiting_seconds: float
    """Of these, without a batch to learn from."""
    updating_seconds: float
    """Handing batches to the device and waiting until it has done them."""
    averaging_seconds: float
    """Waiting for other learners."""
    publishing_seconds: float
    """Copying parameters for those who pull, in their calls; the training goes on meanwhile."""

    @property
    def updates_per_second(self) -> float:
        """Mean over `seconds`."""
        return self.updates / self.seconds if self.seconds > 0 else 0.0


@final
class LearningTime:
    """Adds up what a learner does, from its first step on.

    Args:
      clock: of the learner.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.steps = 0
        """Calls of the device."""
        self._seconds: dict[Activity, float] = {
            "waiting": 0.0,
            "updating": 0.0,
            "averaging": 0.0,
            "publishing": 0.0,
        }
        self._began: float | None = None
        self._logged = clock.time()
        self._logged_updates = 0

    def begin(self) -> None:
        """The first step begins, unless it did before."""
        if self._began is None:
            self._began = self._logged = self._clock.time()

    @contextmanager
    def of(self, activity: Activity) -> Iterator[None]:
        """What is done within is this activity."""
        begin = self._clock.time()
        try:
            yield
        finally:
            self._seconds[activity] += self._clock.time() - begin

    def since_log(self) -> float:
        """Seconds since the last `log`."""
        return self._clock.time() - self._logged

    def log(self, updates: int) -> dict[str, float]:
        """Metrics of the time since the last `log`, with how many updates were made so far."""
        now = self._clock.time()
        rate = (updates - self._logged_updates) / max(now - self._logged, 1e-9)
        self._logged, self._logged_updates = now, updates
        share = self._seconds["waiting"] / max(self._since_begin(), 1e-9)
        return {"updates_per_second": rate, "waiting_share": share}

    def restore(self, updates: int) -> None:
        """So many updates were made before."""
        self._logged_updates = updates

    def statistics(self, updates: int, snapshots: int) -> LearnerStatistics:
        """What was done so far, with what the training counts."""
        return LearnerStatistics(
            updates=updates,
            steps=self.steps,
            snapshots=snapshots,
            seconds=self._since_begin(),
            waiting_seconds=self._seconds["waiting"],
            updating_seconds=self._seconds["updating"],
            averaging_seconds=self._seconds["averaging"],
            publishing_seconds=self._seconds["publishing"],
        )

    def _since_begin(self) -> float:
        return 0.0 if self._began is None else self._clock.time() - self._began

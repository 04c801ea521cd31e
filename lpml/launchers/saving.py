"""A stop that somebody, or a node, asked for: where the run is to be saved, a cut comes first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from lpml.launchers.checkpointing import Checkpointing, CutRequest
from lpml.launchers.decisions import Decision
from lpml.launchers.names import OutcomeState
from lpml.launchers.supervisor import Supervisor

PATIENCE = 0.4  # of the stop deadline: how long a stop waits for its cut


@final
@dataclass(frozen=True)
class StopRequest:
    """Somebody wants the end."""

    reason: str
    timeout: float | None
    state: OutcomeState = "stopped"
    save: bool = False
    """Take a last checkpoint, whether or not there is a schedule."""


@final
@dataclass(frozen=True)
class _Waiting:
    request: StopRequest
    cut: CutRequest
    began: float
    timeout: float

    @property
    def until(self) -> float:
        return self.began + PATIENCE * self.timeout


@final
class SavingStop:
    """Stops a run once its state is saved, while it still goes on.

    For once nodes stop, a loop gives up its call, and the call may be carried out all the same:
    then the state of the callee has it, and the state of the caller has not.

    Args:
      supervisor: is told to stop.
      checkpointing: takes the cut. Should it fail, the supervisor has one taken when loops have
        ended, which is better than none.
    """

    def __init__(self, supervisor: Supervisor, checkpointing: Checkpointing) -> None:
        self._supervisor = supervisor
        self._checkpointing = checkpointing
        self._waiting: _Waiting | None = None

    def stop(self, request: StopRequest, now: float) -> list[Decision]:
        """Stops now, or after a cut. A second request does not wait."""
        supervisor, checkpointing = self._supervisor, self._checkpointing
        if request.save and checkpointing.possible:
            supervisor.saves_at_the_end = True
        going = supervisor.phase == "running" and supervisor.all_ready
        if supervisor.saves_at_the_end and going and self._waiting is None:
            timeout = supervisor.stop_timeout if request.timeout is None else request.timeout
            supervisor.verdict.end(request.state, request.reason)
            self._waiting = _Waiting(request, CutRequest(), now, timeout)
            checkpointing.request(self._waiting.cut)
            return []
        self._waiting = None
        return supervisor.stop(now, request.reason, state=request.state, timeout=request.timeout)

    def finish(self, reason: str, now: float) -> list[Decision]:
        """A node ends the program. Where that, or a stop, is on its way, it changes nothing."""
        if self._waiting is not None:
            return []
        return self.stop(StopRequest(reason, None, "finished"), now)

    def advance(self, now: float) -> list[Decision]:
        """Stops when the cut is done, has failed or takes too long."""
        waiting = self._waiting
        if waiting is None or not (waiting.cut.ended.is_set() or now >= waiting.until):
            return []
        self._waiting = None
        self._supervisor.saves_at_the_end = waiting.cut.path is None
        request, left = waiting.request, waiting.began + waiting.timeout - now
        return self._supervisor.stop(now, request.reason, state=request.state, timeout=left)

    def next_deadline(self) -> float | None:
        """When `advance` must be called at the latest."""
        return None if self._waiting is None else self._waiting.until

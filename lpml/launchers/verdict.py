"""How a run has gone so far: what failed, what that cost, and why it ends."""

from __future__ import annotations

from typing import final

from lpml.launchers.decisions import Accident, Failure
from lpml.launchers.names import OutcomeState


@final
class Verdict:
    """Kept by the supervisor; read by everybody."""

    def __init__(self) -> None:
        self.failures: list[Failure] = []
        """Every failure that no restart answered, in the order in which they were heard of."""
        self.notes: list[str] = []
        """Who had to be killed, and the like."""
        self._asked: OutcomeState = "finished"
        self._why = ""
        self._accidents: list[Accident] = []

    @property
    def state(self) -> OutcomeState:
        """How the program ended, or is about to."""
        return "failed" if self.failures else self._asked

    @property
    def reason(self) -> str:
        """Why it ended, and who had to be killed for it."""
        failure = self.failure
        first = f"{failure.node}: {failure.reason}" if failure else self._why
        return "; ".join([first, *self.notes] if first else self.notes)

    @property
    def failure(self) -> Failure | None:
        """The failure to show: the first that is not the mere consequence of another."""
        return min(self.failures, key=lambda f: (f.consequence, f.at), default=None)

    @property
    def only_consequences(self) -> bool:
        """Whether nodes failed because another was gone, and none is known to have gone."""
        return bool(self.failures) and all(failure.consequence for failure in self.failures)

    def end(self, state: OutcomeState, why: str) -> None:
        """The program ends, and not because of a failure. What was said first holds."""
        if not self._why:
            self._asked, self._why = state, why

    def survive(self, accident: Accident) -> None:
        """A failure was answered by a restart."""
        self._accidents.append(accident)

    def take_accidents(self) -> list[Accident]:
        """The failures that were answered by a restart since this was last asked."""
        taken, self._accidents = self._accidents, []
        return taken

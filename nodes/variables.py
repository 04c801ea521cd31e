"""Brings parameters to where they are used, without making who uses them wait."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import lpml
from lpml.errors import CallTimeout, NodeUnavailable, UsageError
from lpml.nodes.roles import Params, Snapshot, VariableSource

_RETRY_SECONDS = 0.1  # from one question to the next, while a source is gone


@final
class VariableClient:
    """The newest parameters of a source, fetched in the background.

    Versions never go back, except to those of a source that was restored after a restart. A source
    that is being restarted is asked again later; parameters go on to be used meanwhile, for as
    long as `max_age` allows. Parameters come in memory that all readers of a machine share.

    Args:
      source: a learner or a parameter server.
      period: uses (calls of `poll`) from one request to the next, at least.
      interval: seconds from one request to the next, at least.
      max_age: seconds that parameters may be old; where they are older, `poll` waits for the
        answer to a request that is younger. `None` = as they come; 0 = each `poll` asks and waits,
        which is reproducible where the source is in the same process. If the answer is the version
        that is known, there is no newer one.
      max_uses: as `max_age`, in calls of `poll`: 1 = every other waits.

    Raises:
      UsageError: a number is out of range.
    """

    def __init__(
        self,
        source: VariableSource,
        *,
        period: int = 8,
        interval: float = 0.05,
        max_age: float | None = None,
        max_uses: int | None = None,
    ) -> None:
        if period < 1 or interval < 0 or (max_age or 0) < 0 or (max_uses or 0) < 0:
            raise UsageError(
                f"VariableClient(period={period}, interval={interval}, max_age={max_age}, "
                f"max_uses={max_uses}): give a period of at least 1, and the others of at least 0"
            )
        self._source = source
        self._period = period
        self._interval = interval
        self._max_age = max_age
        self._max_uses = max_uses
        self._always = max_age == 0 or max_uses == 0
        self._clock = lpml.context().clock
        self._under_way: lpml.Future[Snapshot] | None = None
        with lpml.deadline(None):  # the source may still compile
            self._snapshot = source.pull()
        self._known_at = self._asked_at = self._clock.time()  # when these were the newest
        self._uses = 0  # since then
        self._asked_uses = 0  # since the last request

    @property
    def params(self) -> Params:
        """Read-only arrays, shared with the other readers of this machine."""
        return self._snapshot.params

    @property
    def version(self) -> int:
        """Of the parameters: how many updates they have seen."""
        return self._snapshot.version

    @property
    def final(self) -> bool:
        """Whether no more updates will be made."""
        return self._snapshot.final

    def poll(self) -> bool:
        """Takes what has come and asks for more when it is time; whether there is a new version.

        Waits only where parameters are older than allowed.

        Raises:
          ProgramStopped: the program stopped while it waited for newer parameters.
        """
        before = self._snapshot.version
        if self._always:
            while not self._take(self._source.pull):
                self._pause()
            return self._snapshot.version != before
        self._uses += 1
        self._asked_uses += 1
        if self._under_way is not None and self._under_way.done():
            self._take(self._under_way.result)
        now = self._clock.time()
        if self._asked_uses >= self._period and now - self._asked_at >= self._interval:
            self._ask(now)
        if self._is_old(now):
            self._wait(now)
        return self._snapshot.version != before

    def _is_old(self, now: float) -> bool:
        if self._max_uses is not None and self._uses > self._max_uses:
            return True
        return self._max_age is not None and now - self._known_at > self._max_age

    def _ask(self, now: float) -> None:
        """Starts a request, unless one is under way."""
        if self._under_way is None:
            self._asked_at, self._asked_uses = now, 0
            self._under_way = lpml.future(self._source.pull)

    def _wait(self, now: float) -> None:
        """Waits for the answer to a request that was made now, or not too long ago."""
        while True:
            self._ask(self._clock.time())
            assert self._under_way is not None
            if not self._take(self._under_way.result):
                self._pause()
            elif self._known_at >= now or not self._is_old(self._clock.time()):
                return

    def _pause(self) -> None:
        """The source is gone and may come back."""
        if self._clock.wait(_RETRY_SECONDS):
            self._clock.check()

    def _take(self, get: Callable[[], Snapshot]) -> bool:
        """Takes an answer; whether there is one."""
        self._under_way = None
        try:
            snapshot = get()
        except (NodeUnavailable, CallTimeout):
            self._clock.check()
            return False
        self._known_at, self._uses = self._asked_at, self._asked_uses
        self._snapshot = snapshot
        return True

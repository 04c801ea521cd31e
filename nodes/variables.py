"""Brings parameters to where they are used, without making who uses them wait."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import lpml
from lpml.errors import CallTimeout, NodeUnavailable
from lpml.nodes.roles import Params, Snapshot, VariableSource


@final
class VariableClient:
    """The newest parameters of a source, fetched in the background.

    Versions never go back. A source that is being restarted is asked again later.

    Args:
      source: a learner or a parameter server.
      period: uses (calls of `poll`) from one request to the next.
      max_age: seconds that parameters may be old; where they are older, `poll` waits for newer
        ones. `None` = as they come; 0 = each `poll` asks and waits, which is reproducible where
        the source is in the same process. A source that makes no new version in that time is
        believed that there is none.
    """

    def __init__(
        self, source: VariableSource, *, period: int = 8, max_age: float | None = None
    ) -> None:
        self._source = source
        self._period = max(1, period)
        self._max_age = max_age
        self._clock = lpml.context().clock
        self._under_way: lpml.Future[Snapshot] | None = None
        self._asked_at = self._clock.time()
        self._uses = 0
        with lpml.deadline(None):  # the source may still compile
            self._snapshot = source.pull()
        self._known_at = self._clock.time()  # when these parameters were the newest

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

        Raises:
          ProgramStopped: the program stopped while it waited for newer parameters.
        """
        self._uses += 1
        before = self._snapshot.version
        if self._max_age == 0:
            self._take(self._source.pull, self._clock.time())
            return self._snapshot.version > before
        if self._under_way is not None and self._under_way.done():
            self._take(self._under_way.result, self._asked_at)
        old = self._max_age is not None and self._clock.time() - self._known_at > self._max_age
        if self._under_way is None and (old or self._uses >= self._period):
            self._uses = 0
            self._asked_at = self._clock.time()
            self._under_way = lpml.future(self._source.pull)
        if old and self._under_way is not None:
            self._take(self._under_way.result, self._asked_at)
        return self._snapshot.version > before

    def _take(self, get: Callable[[], Snapshot], asked_at: float) -> None:
        self._under_way = None
        try:
            snapshot = get()
        except (NodeUnavailable, CallTimeout):
            self._clock.check()
            return
        self._known_at = asked_at
        if snapshot.version >= self._snapshot.version:
            self._snapshot = snapshot

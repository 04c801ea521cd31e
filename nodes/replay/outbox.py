"""Inserts on their way: one at a time, each done exactly once, waited for when the next is due."""

from __future__ import annotations

import secrets
from typing import final

import lpml
from lpml.nodes.replay.protocol import AbstractReplay, ReplayTimeout
from lpml.nodes.replay.shards import ReplayShards
from lpml.nodes.replay.streams import Insert
from lpml.wire.calls import is_remote

_ATTEMPT_SECONDS = 20.0  # an insert waits so long in the replay, then is sent again


@final
class Outbox:
    """The inserts of one writer.

    Args:
      replay: where to.
      caller: who sends, for messages.
    """

    def __init__(self, replay: AbstractReplay, caller: str) -> None:
        self._replay = replay
        self._caller = caller
        self.writer = secrets.randbits(62)
        self.number = 0
        """Of the insert that comes next, or is under way."""
        self._target = _target(replay, self.writer)
        self._pending: Insert | None = None
        self._future: lpml.Future[None] | None = None

    @property
    def remote(self) -> bool:
        """Whether an insert travels while the caller goes on."""
        return is_remote(self._target.insert)

    def end(self, timeout: float | None) -> float | None:
        """The time at which `timeout` seconds will have passed."""
        return None if timeout is None else lpml.context().clock.time() + timeout

    def put(self, insert: Insert) -> None:
        """Sends an insert, the only one; `settle` says what became of it."""
        self._pending = insert
        if self.remote:
            self._start(insert)

    def settle(self, end: float | None) -> None:
        """Waits until nothing is under way.

        Raises:
          ReplayTimeout: not until `end`. The insert stays under way.
          UnknownWriter: the replay knows nothing of this writer; see `renew`.
        """
        clock = lpml.context().clock
        while (insert := self._pending) is not None:
            left = None if end is None else max(0.0, end - clock.time())
            try:
                if self.remote:
                    self._wait(insert, left)
                else:
                    attempt = _ATTEMPT_SECONDS if left is None else min(left, _ATTEMPT_SECONDS)
                    self._target.insert(insert, attempt, self._caller)
            except ReplayTimeout:
                clock.check()
                if end is not None and clock.time() >= end:
                    raise
                continue
            self._pending = None
            self.number += 1

    def renew(self) -> Insert | None:
        """A new writer, in the place of one that the replay does not know; what was under way."""
        self._target.close_writer(self.writer)
        self.writer = secrets.randbits(62)
        self.number = 0
        self._target = _target(self._replay, self.writer)
        insert, self._pending = self._pending, None
        return None if insert is None else insert._replace(writer=self.writer, number=0)

    def close(self) -> None:
        """The writer will write no more."""
        if self._future is not None:
            self._future.cancel()
        self._target.close_writer(self.writer)

    def _start(self, insert: Insert) -> lpml.Future[None]:
        started = lpml.future(self._target.insert, insert, _ATTEMPT_SECONDS, self._caller)
        self._future = started
        return started

    def _wait(self, insert: Insert, left: float | None) -> None:
        future = self._future or self._start(insert)
        try:
            future.result(left)
        except TimeoutError as error:
            if future.done():
                self._future = None
                raise
            raise ReplayTimeout(
                f"an insert of {self._caller} was not let in within {left:.3g} s; "
                "Replay.statistics() says what it waits for"
            ) from error
        except BaseException:
            self._future = None
            raise
        self._future = None


def _target(replay: AbstractReplay, writer: int) -> AbstractReplay:
    """Whose method is called: that of the shard, which may be a client."""
    return replay.of_writer(writer) if isinstance(replay, ReplayShards) else replay

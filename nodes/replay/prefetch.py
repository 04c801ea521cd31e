"""Batches that are drawn and sent while the learner computes."""

from __future__ import annotations

from collections import deque
from typing import final

import lpml
from lpml.errors import UsageError
from lpml.nodes.replay.protocol import AbstractReplay, ReplayTimeout
from lpml.nodes.replay.sample import Sample

_ATTEMPT_SECONDS = 20.0  # a sample waits so long in the replay, then is asked for again


@final
class Prefetcher:
    """An iterator over batches of a table, with the next ones already on their way.

    A batch is drawn up to `depth` steps before it is used, so its priorities are that old. With a
    depth above 1 batches drawn at the same time may change places.

    Args:
      replay: from where.
      table: which.
      batch_size: items of a batch.
      depth: batches asked for ahead; 1 or 2 is enough to hide the time of a call.
      timeout: seconds to wait for a batch; `None` = until the program stops.

    Use it as a context manager, or call `close`.
    """

    def __init__(
        self,
        replay: AbstractReplay,
        table: str,
        batch_size: int,
        *,
        depth: int = 2,
        timeout: float | None = None,
    ) -> None:
        if depth < 1:
            raise UsageError(f"Prefetcher(depth={depth}): give at least 1")
        self._replay = replay
        self._table = table
        self._batch_size = batch_size
        self._depth = depth
        self._timeout = timeout
        self._caller = lpml.context().name
        self._pending: deque[lpml.Future[Sample]] = deque()
        self._closed = False

    def __iter__(self) -> Prefetcher:
        return self

    def __next__(self) -> Sample:
        """The next batch.

        Raises:
          ReplayTimeout: there was none in time; the call may be repeated.
          ProgramStopped: the program is stopping.
        """
        if self._closed:
            raise StopIteration
        clock = lpml.context().clock
        end = None if self._timeout is None else clock.time() + self._timeout
        while True:
            self._ask()
            left = None if end is None else max(0.0, end - clock.time())
            try:
                sample = self._pending[0].result(left)
                break
            except ReplayTimeout:  # the replay's own; ask again
                self._pending.popleft()
                clock.check()
                if left is not None and left <= 0:
                    raise
            except TimeoutError as error:
                if self._pending[0].done():
                    self._pending.popleft()
                    raise
                raise ReplayTimeout(
                    f"no batch of {self._batch_size} from table {self._table!r} in "
                    f"{self._timeout} s; Replay.statistics() says what it waits for"
                ) from error
            except BaseException:
                self._pending.popleft()
                raise
        self._pending.popleft()
        self._ask()
        return sample

    def __enter__(self) -> Prefetcher:
        return self

    def __exit__(self, *args: object) -> None:
        self.close()

    def close(self) -> None:
        """Gives up the batches on their way. The iteration ends."""
        self._closed = True
        while self._pending:
            self._pending.popleft().cancel()

    def _ask(self) -> None:
        while len(self._pending) < self._depth:
            attempt = _ATTEMPT_SECONDS if self._timeout is None else self._timeout
            self._pending.append(
                lpml.future(
                    self._replay.sample,
                    self._table,
                    self._batch_size,
                    min(attempt, _ATTEMPT_SECONDS),
                    self._caller,
                )
            )

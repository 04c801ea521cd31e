"""Batches that are drawn and sent while the learner computes."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any, final

import numpy as np

import lpml
from lpml.errors import UsageError
from lpml.nodes.replay.protocol import AbstractReplay, ReplayTimeout
from lpml.nodes.replay.sample import Sample

_ATTEMPT_SECONDS = 20.0  # a sample waits so long in the replay, then is asked for again


@final
class Prefetcher:
    """An iterator over batches of a table, with the next ones already on their way.

    A batch is drawn up to `depth * batches_per_call` steps before it is used, so its priorities are
    that old. With a depth above 1 batches drawn at the same time may change places.

    Args:
      replay: from where.
      table: which.
      batch_size: items of a batch.
      depth: calls made ahead; 1 or 2 is enough to hide the time of a call.
      batches_per_call: drawn together, at one moment, and handed out one by one. More than 1 pays
        where a batch is small and a step is short; priorities are that much older, and the limiter
        must let so many items through at once.
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
        batches_per_call: int = 1,
        timeout: float | None = None,
    ) -> None:
        if depth < 1 or batches_per_call < 1:
            raise UsageError(
                f"Prefetcher(depth={depth}, batches_per_call={batches_per_call}): give at least 1"
            )
        self._replay = replay
        self._table = table
        self._batch_size = batch_size
        self._depth = depth
        self._batches_per_call = batches_per_call
        self._ready: deque[Sample] = deque()
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
        if self._ready:
            return self._ready.popleft()
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
        if self._batches_per_call == 1:
            return sample
        self._ready.extend(_split(sample, self._batch_size))
        return self._ready.popleft()

    def __enter__(self) -> Prefetcher:
        return self

    def __exit__(self, *args: object) -> None:
        self.close()

    def close(self) -> None:
        """Gives up the batches on their way. The iteration ends."""
        self._closed = True
        self._ready.clear()
        while self._pending:
            self._pending.popleft().cancel()

    def _ask(self) -> None:
        while len(self._pending) < self._depth:
            attempt = _ATTEMPT_SECONDS if self._timeout is None else self._timeout
            self._pending.append(
                lpml.future(
                    self._replay.sample,
                    self._table,
                    self._batch_size * self._batches_per_call,
                    min(attempt, _ATTEMPT_SECONDS),
                    self._caller,
                )
            )


def _split(sample: Sample, size: int) -> Iterator[Sample]:
    """The batches of `size` items that a larger one consists of."""
    for begin in range(0, len(sample.info.keys), size):
        part = slice(begin, begin + size)
        yield Sample(_cut_out(sample.data, part), _cut_out(sample.info, part))


def _cut_out(tree: Any, part: slice) -> Any:
    if isinstance(tree, np.ndarray):
        return tree[part]
    if isinstance(tree, dict):
        return {name: _cut_out(child, part) for name, child in tree.items()}
    if isinstance(tree, (tuple, list)):
        make: Any = getattr(type(tree), "_make", type(tree))
        return make([_cut_out(child, part) for child in tree])
    return tree

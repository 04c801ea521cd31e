"""`Shared` values that a host is told of rather than sent, so that it fetches each of them once.

Where a result goes to another host, and whoever asked says in its hello that it can fetch, the
message has the id and the size of each `Shared`, and its owner keeps the value until the reader
says `FETCHED`, or is gone. The reader fetches when the result is looked at, in the thread that
looks, by what its process was told with `fetch_by`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias, final

from lpml.wire.carried import Carried
from lpml.wire.shared import Shared

Fetch: TypeAlias = "Callable[[str, bytes], Shared[Any]]"
"""Of the owner's address and the id of a value."""

_fetch: list[Fetch] = []  # at most one


def fetch_by(fetch: Fetch | None) -> None:
    """How values are fetched in this process from now on; `None` = they are not."""
    _fetch[:] = [] if fetch is None else [fetch]


def can_fetch() -> bool:
    """Whether this process can be told of values rather than sent them."""
    return bool(_fetch)


@final
class Reference:
    """A value that this process was told of.

    Args:
      owner: the address of the node that has it.
      identity: of the value.
      fetched: told, when nobody here wants to fetch it any more; may be by a garbage collection.
    """

    def __init__(self, owner: str, identity: bytes, fetched: Callable[[bytes], None]) -> None:
        self._owner = owner
        self._identity = identity
        self._fetched = fetched

    def fetch(self) -> Shared[Any]:
        """The value.

        Raises:
          NodeUnavailable: its owner is gone.
          CallTimeout, CallCancelled: as of a call.
        """
        return _fetch[0](self._owner, self._identity)

    def __del__(self) -> None:
        self._fetched(self._identity)


@final
class Announced:
    """The values that one reader was told of and has not fetched yet. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[bytes, list[Carried]] = {}  # as often as the reader was told

    def keep(self, values: Iterable[Carried]) -> None:
        """The reader is told of these."""
        with self._lock:
            for value in values:
                self._kept.setdefault(value.id, []).append(value)

    def drop(self, identity: bytes) -> None:
        """The reader has fetched a value, or will not."""
        with self._lock:
            kept = self._kept.get(identity, [])
            if len(kept) > 1:
                kept.pop()
            else:
                self._kept.pop(identity, None)

    def clear(self) -> None:
        """The reader is gone."""
        with self._lock:
            self._kept.clear()

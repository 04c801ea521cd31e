"""The parameters of a learner, in versions, for whoever pulls them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar, final

import lpml
from lpml.nodes.roles import Readable, Snapshot

T = TypeVar("T")


@final
class Publication(Generic[T]):
    """A version is copied when it is first asked for, and the training goes on meanwhile.

    Args:
      take: a copy of the newest parameters, on the device; called with `changed` held.
      share: what readers get of it; may wait for the device.
    """

    def __init__(self, take: Callable[[], T], share: Callable[[T], Readable]) -> None:
        clock = lpml.context().clock
        self._take = take
        self._share = share
        self.changed = clock.condition()
        """Guards the learner's state and what follows; never held for long."""
        self.version = 0
        """How many updates the newest parameters have seen."""
        self.final = False
        self._waiting = 0
        self._publishing = clock.condition()  # held while a version is copied
        self._published: Snapshot | None = None
        self.snapshots = 0
        """Versions that were copied."""

    def advance(self, updates: int) -> None:
        """There are newer parameters; with `changed` held."""
        self.version += updates
        if self._waiting:
            self.changed.notify_all()

    def restore(self, version: int) -> None:
        """There are others, of this version; with `changed` held."""
        self.version, self._published = version, None
        self.changed.notify_all()

    def finish(self) -> None:
        """There will be no newer ones."""
        with self.changed:
            self.final = True
            self.changed.notify_all()

    def pull(self, worker: str | None, at_least: int, timeout: float | None) -> Snapshot:
        """The newest; waits for version `at_least`, or until there will be no newer.

        Raises:
          CallTimeout: there was no such version in time.
        """
        with self.changed:
            self._waiting += 1
            try:
                ready = self.changed.wait_for(
                    lambda: self.version >= at_least or self.final, timeout
                )
            finally:
                self._waiting -= 1
            if not ready:
                raise lpml.CallTimeout(
                    f"pull by {worker or 'a reader'} waited {timeout} s for version {at_least}: "
                    f"the learner is at {self.version}; allow more time"
                )
        with self._publishing:  # who asks meanwhile gets the same, or a newer one
            with self.changed:
                version, final, known = self.version, self.final, self._published
                if known is not None and (known.version, known.final) == (version, final):
                    return known
                taken = self._take()
            self._published = published = Snapshot(version, self._share(taken), final)
            self.snapshots += 1
            return published

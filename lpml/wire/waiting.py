"""How threads wait at a connection that they share: one reads for all, the others follow it."""

from __future__ import annotations

import select
from time import monotonic
from typing import Any, Protocol

from lpml.errors import CallCancelled
from lpml.wire.futures import Future, Source
from lpml.wire.lead import Lead, closed_latch
from lpml.wire.patience import PATIENCE, check_caller

_GLANCE = 0.02  # seconds without the lead: it may become free, and then we must read


class Reading(Source, Protocol):
    """What those who wait need of a channel, besides what futures do."""

    lead: Lead

    def read(self, end: float | None) -> object:
        """Reads once; false if nothing came until `end`. Called with the lead."""
        ...

    def expire(self, future: Future[Any]) -> None:
        """The deadline of a call passed."""
        ...


def wait(channel: Reading, future: Future[Any], timeout: float | None) -> bool:
    """Waits until the future is done, or for `timeout` seconds; says whether it is done.

    Raises:
      CallCancelled: the call that this thread serves was cancelled; the future is, too.
    """
    end = None if timeout is None else monotonic() + timeout
    last = future.deadline
    if last is not None and (end is None or last <= end):
        end = last
    else:
        last = None  # not the deadline of the call is what ends this wait
    try:
        if channel.lead.take(False):
            _lead(channel, future, end)
        while future.pending and (end is None or monotonic() < end):
            source = future.source
            if source is not channel:  # it was sent again, over another connection
                left = None if timeout is None or end is None else end - monotonic()
                return source.wait(future, left)
            _follow(channel, future, end)
    except CallCancelled:
        future.cancel()
        raise
    if future.pending and last is not None:
        channel.expire(future)
    return not future.pending


def wait_for_room(channel: Reading, fd: int, end: float | None) -> None:
    """The socket is full: waits a little, and reads, or the peer could wait for us as we for it."""
    poll = select.poll()
    lead = channel.lead.take(False)
    try:
        poll.register(fd, select.POLLOUT | (select.POLLIN if lead else 0))
        left = PATIENCE if end is None else min(PATIENCE, end - monotonic())
        if not lead:
            left = min(left, _GLANCE)
        ready = poll.poll(max(0.0, left) * 1000)
        if lead and ready and ready[0][1] & select.POLLIN:
            channel.read(None)
    finally:
        if lead:
            channel.lead.give()


def _lead(channel: Reading, future: Future[Any], end: float | None) -> None:
    """Reads for everybody until `future` is done. Called with the lead."""
    try:
        while future.pending and channel.read(end):
            pass
    finally:
        channel.lead.give()


def _follow(channel: Reading, future: Future[Any], end: float | None) -> None:
    """Waits until the future is done or the lead is free, and then leads."""
    latch = closed_latch()
    if not future.add_latch(latch):
        return
    if channel.lead.take_or_join(latch):
        _lead(channel, future, end)
        return
    try:
        left = PATIENCE if end is None else min(PATIENCE, end - monotonic())
        if not latch.acquire(timeout=max(0.0, left)):
            check_caller()
    finally:
        channel.lead.leave(latch)
